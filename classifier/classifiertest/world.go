package classifiertest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/oracle"
)

// World is what surrounds a classifier: sets with members of one family, and
// the classes that a label table would give to addresses.
type World struct {
	V6       bool
	Sets     oracle.Sets
	Literals *classifier.Literals
	Combos   [][]classifier.SetID // by class

	classes map[string]uint32
}

// NewWorld makes seven sets of random members, of one family.
func NewWorld(rng *rand.Rand, v6 bool) *World {
	w := &World{V6: v6, Sets: oracle.Sets{}, Literals: classifier.NewLiterals(), classes: map[string]uint32{"[]": 0}, Combos: [][]classifier.SetID{nil}}
	for id := range classifier.SetID(7) {
		for range rng.IntN(6) {
			w.Sets[id+1] = append(w.Sets[id+1], w.net(rng))
		}
	}
	return w
}

// Address is one of 64 addresses, in both families.
func (w *World) Address(n uint32) netip.Addr {
	if w.V6 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[7], a[15] = byte(n>>3&7), byte(n&7)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(n >> 3 & 7), byte(n & 7)})
}

func (w *World) net(rng *rand.Rand) netip.Prefix {
	bits := [2][]int{{0, 8, 21, 22, 23, 24, 29, 30, 31, 32}, {0, 32, 61, 62, 63, 64, 125, 126, 127, 128}}[btoi(w.V6)]
	return netip.PrefixFrom(w.Address(rng.Uint32()), bits[rng.IntN(len(bits))])
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Rules makes a list over sets and prefixes.
func (w *World) Rules(rng *rand.Rand, n int) []classifier.Rule {
	list := Rules(rng, n)
	for i := range list {
		list[i].Source, list[i].Destination = w.side(rng, list[i].Source.Ports), w.side(rng, list[i].Destination.Ports)
	}
	return list
}

func (w *World) side(rng *rand.Rand, ports []classifier.Range) classifier.Side {
	s := classifier.Side{Ports: ports}
	pick := func(n int) (ids []classifier.SetID) {
		for range n {
			ids = append(ids, classifier.SetID(1+rng.IntN(7)))
		}
		return ids
	}
	switch rng.IntN(6) {
	case 0:
		s.Sets = pick(1)
	case 1:
		s.Sets, s.NotSets = pick(rng.IntN(3)), pick(rng.IntN(2))
	case 2:
		for range 1 + rng.IntN(3) {
			s.Nets = append(s.Nets, w.net(rng))
		}
	case 3:
		s.NotNets = append(s.NotNets, w.net(rng))
		s.Sets = pick(rng.IntN(2))
	}
	return s
}

// Class is the class of an address: which of the sets that programs asked for hold it.
func (w *World) Class(a netip.Addr) uint32 {
	ids := make([]classifier.SetID, 0)
	for id, nets := range w.Sets {
		if slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	k := fmt.Sprint(ids)
	c, ok := w.classes[k]
	if !ok {
		c = uint32(len(w.Combos))
		w.classes[k] = c
		w.Combos = append(w.Combos, ids)
	}
	return c
}

// Compile compiles, loads, and tells the program of every class there is. Of the
// combinations that exist, the compile is told of some.
func (w *World) Compile(t testing.TB, rng *rand.Rand, list []classifier.Rule, o classifier.Options) *classifier.Program {
	t.Helper()
	o.Literals = w.Literals
	for _, combo := range w.Combos {
		if rng.IntN(2) == 0 {
			o.Combinations = append(o.Combinations, combo)
		}
	}
	c, err := classifier.Compile(list, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Sets {
		if s.ID&classifier.AnonymousSet != 0 {
			w.Sets[s.ID] = s.Prefixes
		}
	}
	p, err := classifier.Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	w.Tell(p)
	return p
}

// Learn takes up the literal lists of rules, as a label table would.
func (w *World) Learn(list []classifier.Rule) {
	for i := range list {
		for _, s := range []*classifier.Side{&list[i].Source, &list[i].Destination} {
			for _, nets := range [][]netip.Prefix{s.Nets, s.NotNets} {
				if len(nets) > 0 {
					id := w.Literals.ID(nets)
					w.Sets[id] = w.Literals.Prefixes(id)
				}
			}
		}
	}
}

// Tell makes the classes of all addresses anew and tells the program.
func (w *World) Tell(p *classifier.Program) {
	for n := range uint32(64) {
		w.Class(w.Address(n))
	}
	for class, combo := range w.Combos {
		p.AddClass(uint32(class), combo)
	}
}

// Packet is a random packet.
func (w *World) Packet(rng *rand.Rand, list []classifier.Rule) oracle.Packet {
	p := oracle.Packet{Source: w.Address(rng.Uint32()), Destination: w.Address(rng.Uint32()), Protocol: uint8(rng.UintN(256)), SourcePort: uint16(rng.UintN(2500)), DestinationPort: uint16(rng.UintN(2500))}
	if len(list) > 0 && rng.IntN(4) > 0 {
		r := &list[rng.IntN(len(list))]
		p.Protocol = uint8(edge(rng, r.Protocols, uint16(p.Protocol)))
		p.SourcePort, p.DestinationPort = edge(rng, r.Source.Ports, p.SourcePort), edge(rng, r.Destination.Ports, p.DestinationPort)
	}
	return p
}

// Key is what the packet's addresses are to the program.
func (w *World) Key(p *classifier.Program, k oracle.Packet) classifier.Key {
	if p.Mode() == classifier.Classes {
		return classifier.NewKey(p.Source(w.Class(k.Source)), p.Destination(w.Class(k.Destination)), k.Protocol, k.SourcePort, k.DestinationPort)
	}
	if w.V6 {
		return classifier.NewKey(0, 0, k.Protocol, k.SourcePort, k.DestinationPort)
	}
	word := func(a netip.Addr) uint32 { return binary.BigEndian.Uint32(a.AsSlice()) }
	return classifier.NewKey(word(k.Source), word(k.Destination), k.Protocol, k.SourcePort, k.DestinationPort)
}

// Agree asks program and oracle about n packets, in bursts and one at a time.
func (w *World) Agree(t testing.TB, rng *rand.Rand, list []classifier.Rule, p *classifier.Program, n int) (hits int) {
	t.Helper()
	packets := make([]oracle.Packet, n)
	keys, got := make([]classifier.Key, n), make([]classifier.Verdict, n)
	for i := range packets {
		packets[i] = w.Packet(rng, list)
		keys[i] = w.Key(p, packets[i])
	}
	p.Match(keys, got)
	for i, packet := range packets {
		rank, logged := oracle.Match(list, w.Sets, packet)
		want := classifier.Verdict(0)
		if rank < len(list) {
			want = classifier.NewVerdict(list[rank].Action, list[rank].ID, 0)
			hits++
		}
		if one := p.MatchOne(&keys[i]); got[i] != want || one != want {
			t.Fatalf("%+v: %v in a burst, %v alone, want %v (position %d)", packet, got[i], one, want, rank)
		}
		if ids := p.Logged(&keys[i], nil); fmt.Sprint(ids) != fmt.Sprint(IDs(list, logged)) {
			t.Fatalf("%+v: logged by %v, want %v", packet, ids, IDs(list, logged))
		}
	}
	return hits
}

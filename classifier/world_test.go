package classifier_test

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

// world is what surrounds a classifier: sets with members of one family, and
// the classes that a label table would give to addresses.
type world struct {
	v6       bool
	sets     oracle.Sets
	literals *classifier.Literals
	classes  map[string]uint32
	combos   [][]classifier.SetID // by class
}

func newWorld(rng *rand.Rand, v6 bool) *world {
	w := &world{v6: v6, sets: oracle.Sets{}, literals: classifier.NewLiterals(), classes: map[string]uint32{"[]": 0}, combos: [][]classifier.SetID{nil}}
	for id := range classifier.SetID(7) {
		for range rng.IntN(6) {
			w.sets[id+1] = append(w.sets[id+1], w.net(rng))
		}
	}
	return w
}

// address is one of 64 addresses, in both families.
func (w *world) address(n uint32) netip.Addr {
	if w.v6 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[7], a[15] = byte(n>>3&7), byte(n&7)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(n >> 3 & 7), byte(n & 7)})
}

func (w *world) net(rng *rand.Rand) netip.Prefix {
	bits := [2][]int{{0, 8, 21, 22, 23, 24, 29, 30, 31, 32}, {0, 32, 61, 62, 63, 64, 125, 126, 127, 128}}[btoi(w.v6)]
	return netip.PrefixFrom(w.address(rng.Uint32()), bits[rng.IntN(len(bits))])
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rules makes a list over sets and prefixes.
func (w *world) rules(rng *rand.Rand, n int) []classifier.Rule {
	list := someRules(rng, n)
	for i := range list {
		list[i].Source, list[i].Destination = w.side(rng, list[i].Source.Ports), w.side(rng, list[i].Destination.Ports)
	}
	return list
}

func (w *world) side(rng *rand.Rand, ports []classifier.Range) classifier.Side {
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

// class is the class of an address: which of the sets that programs asked for hold it.
func (w *world) class(a netip.Addr) uint32 {
	ids := make([]classifier.SetID, 0)
	for id, nets := range w.sets {
		if slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	k := fmt.Sprint(ids)
	c, ok := w.classes[k]
	if !ok {
		c = uint32(len(w.combos))
		w.classes[k] = c
		w.combos = append(w.combos, ids)
	}
	return c
}

// compile compiles, loads, and tells the program of every class there is. Of the
// combinations that exist, the compile is told of some.
func (w *world) compile(t testing.TB, rng *rand.Rand, list []classifier.Rule, o classifier.Options) *classifier.Program {
	t.Helper()
	o.Literals = w.literals
	for _, combo := range w.combos {
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
			w.sets[s.ID] = s.Prefixes
		}
	}
	p, err := classifier.Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	w.tell(p)
	return p
}

// tell makes the classes of all addresses anew and tells the program.
func (w *world) tell(p *classifier.Program) {
	for n := range uint32(64) {
		w.class(w.address(n))
	}
	for class, combo := range w.combos {
		p.AddClass(uint32(class), combo)
	}
}

// packet is a random packet.
func (w *world) packet(rng *rand.Rand, list []classifier.Rule) oracle.Packet {
	p := oracle.Packet{Source: w.address(rng.Uint32()), Destination: w.address(rng.Uint32()), Protocol: uint8(rng.UintN(256)), SourcePort: uint16(rng.UintN(2500)), DestinationPort: uint16(rng.UintN(2500))}
	if len(list) > 0 && rng.IntN(4) > 0 {
		r := &list[rng.IntN(len(list))]
		p.Protocol = uint8(edge(rng, r.Protocols, uint16(p.Protocol)))
		p.SourcePort, p.DestinationPort = edge(rng, r.Source.Ports, p.SourcePort), edge(rng, r.Destination.Ports, p.DestinationPort)
	}
	return p
}

// key is what the packet's addresses are to the program.
func (w *world) key(p *classifier.Program, k oracle.Packet) classifier.Key {
	if p.Mode() == classifier.Classes {
		return classifier.NewKey(p.Source(w.class(k.Source)), p.Destination(w.class(k.Destination)), k.Protocol, k.SourcePort, k.DestinationPort)
	}
	if w.v6 {
		return classifier.NewKey(0, 0, k.Protocol, k.SourcePort, k.DestinationPort)
	}
	word := func(a netip.Addr) uint32 { return binary.BigEndian.Uint32(a.AsSlice()) }
	return classifier.NewKey(word(k.Source), word(k.Destination), k.Protocol, k.SourcePort, k.DestinationPort)
}

// agree asks program and oracle about n packets, in bursts and one at a time.
func (w *world) agree(t testing.TB, rng *rand.Rand, list []classifier.Rule, p *classifier.Program, n int) (hits int) {
	t.Helper()
	packets := make([]oracle.Packet, n)
	keys, got := make([]classifier.Key, n), make([]classifier.Verdict, n)
	for i := range packets {
		packets[i] = w.packet(rng, list)
		keys[i] = w.key(p, packets[i])
	}
	p.Match(keys, got)
	for i, packet := range packets {
		rank, logged := oracle.Match(list, w.sets, packet)
		want := classifier.Verdict(0)
		if rank < len(list) {
			want = classifier.NewVerdict(list[rank].Action, list[rank].ID, 0)
			hits++
		}
		if one := p.MatchOne(&keys[i]); got[i] != want || one != want {
			t.Fatalf("%+v: %v in a burst, %v alone, want %v (position %d)", packet, got[i], one, want, rank)
		}
		if ids := p.Logged(&keys[i], nil); fmt.Sprint(ids) != fmt.Sprint(idsOf(list, logged)) {
			t.Fatalf("%+v: logged by %v, want %v", packet, ids, idsOf(list, logged))
		}
	}
	return hits
}

func TestProgramsOverClassesAgreeWithTheOracle(t *testing.T) {
	hits, asked, strange := 0, 0, 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(rng, seed%2 == 0)
		list := w.rules(rng, rng.IntN(1<<rng.IntN(8)))
		p := w.compile(t, rng, list, classifier.Options{})
		hits += w.agree(t, rng, list, p, 200)
		p = w.compile(t, rng, list, classifier.Options{}) // now that the literal sets are known
		hits += w.agree(t, rng, list, p, 200)
		strange += p.Strange()
		asked += 400
	}
	if hits < asked/4 || hits > asked*99/100 || strange == 0 {
		t.Errorf("%d of %d packets met a rule, %d strange classes: this shows little", hits, asked, strange)
	}
}

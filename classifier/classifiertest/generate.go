// Package classifiertest makes lists of rules, packets and the sets around them,
// and holds programs against the oracle.
package classifiertest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/oracle"
)

// Rules makes a list of n literal rules, IPv4 or without addresses: narrow and wide ones, that overlap.
func Rules(rng *rand.Rand, n int) []classifier.Rule {
	list := make([]classifier.Rule, n)
	for i := range list {
		r := classifier.Rule{ID: uint32(i), Action: classifier.Action(1 + rng.IntN(4))}
		if rng.IntN(3) > 0 {
			r.Source.Nets = Net(rng)
		}
		if rng.IntN(3) > 0 {
			r.Destination.Nets = Net(rng)
		}
		r.Source.Ports = somePorts(rng, 5)
		r.Destination.Ports = somePorts(rng, 2)
		for range rng.IntN(3) {
			first := uint16(rng.IntN(256))
			r.Protocols = append(r.Protocols, classifier.Range{First: first, Last: min(255, first+uint16(rng.IntN(3)*rng.IntN(100)))})
		}
		list[i] = r
	}
	return list
}

// Net is one prefix, IPv4, near those that other calls give.
func Net(rng *rand.Rand) []netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a000000|rng.Uint32()&0x00030307)
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(a), []int{0, 8, 15, 16, 23, 24, 29, 30, 31, 32}[rng.IntN(10)])}
}

func somePorts(rng *rand.Rand, rare int) (out []classifier.Range) {
	if rng.IntN(rare) > 0 {
		return nil
	}
	for range 1 + rng.IntN(3) {
		first := uint16(rng.IntN(2000))
		out = append(out, classifier.Range{First: first, Last: first + uint16(rng.IntN(2)*rng.IntN(3000))})
	}
	return out
}

// Probes makes n packets at the edges of rules, where a compiler errs first: low-1,
// low, high and high+1 of each field, of two rules crossed.
func Probes(rng *rand.Rand, list []classifier.Rule, n int) []oracle.Packet {
	out := make([]oracle.Packet, n)
	for i := range out {
		p := oracle.Packet{Source: edgeOfNet(rng, nil), Destination: edgeOfNet(rng, nil), Protocol: uint8(rng.UintN(256)),
			SourcePort: uint16(rng.UintN(1 << 16)), DestinationPort: uint16(rng.UintN(1 << 16))}
		for range 2 {
			if len(list) == 0 {
				break
			}
			r := &list[rng.IntN(len(list))]
			if rng.IntN(4) > 0 {
				p.Source, p.SourcePort = edgeOfNet(rng, r.Source.Nets), edge(rng, r.Source.Ports, p.SourcePort)
			}
			if rng.IntN(4) > 0 {
				p.Destination, p.DestinationPort = edgeOfNet(rng, r.Destination.Nets), edge(rng, r.Destination.Ports, p.DestinationPort)
			}
			if rng.IntN(4) > 0 {
				p.Protocol = uint8(edge(rng, r.Protocols, uint16(p.Protocol)))
			}
		}
		out[i] = p
	}
	return out
}

func edge(rng *rand.Rand, ranges []classifier.Range, otherwise uint16) uint16 {
	if len(ranges) == 0 {
		return otherwise
	}
	r := ranges[rng.IntN(len(ranges))]
	return []uint16{r.First - 1, r.First, r.Last, r.Last + 1, r.First + uint16(rng.UintN(uint(r.Last-r.First)+1))}[rng.IntN(5)]
}

func edgeOfNet(rng *rand.Rand, nets []netip.Prefix) netip.Addr {
	a := 0x0a000000 | rng.Uint32()&0x00030307
	if len(nets) > 0 {
		n := nets[rng.IntN(len(nets))]
		first := binary.BigEndian.Uint32(n.Masked().Addr().AsSlice())
		size := uint32(uint64(1)<<(32-n.Bits()) - 1)
		a = []uint32{first - 1, first, first + size, first + size + 1, first + rng.Uint32()&size}[rng.IntN(5)]
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}

// KeyOf is the packet's key in a program of raw addresses.
func KeyOf(p oracle.Packet) classifier.Key {
	word := func(a netip.Addr) uint32 {
		if !a.Is4() {
			return 0 // the list asks for no address
		}
		b := a.As4()
		return binary.BigEndian.Uint32(b[:])
	}
	return classifier.NewKey(word(p.Source), word(p.Destination), p.Protocol, p.SourcePort, p.DestinationPort)
}

// IDs are the rule ids at positions of a list.
func IDs(list []classifier.Rule, positions []int) []uint32 {
	var ids []uint32
	for _, i := range positions {
		ids = append(ids, list[i].ID)
	}
	return ids
}

// Edits makes up to n edits and the list that they leave.
func Edits(rng *rand.Rand, list, donors []classifier.Rule, n int) (edits []classifier.Edit, after []classifier.Rule) {
	after = slices.Clone(list)
	for range n {
		switch at := rng.IntN(len(after) + 1); {
		case at < len(after) && rng.IntN(5) < 2:
			edits = append(edits, classifier.Edit{Position: at, Remove: true})
			after = slices.Delete(after, at, at+1)
		default:
			r := donors[rng.IntN(len(donors))]
			r.ID = uint32(1000 + rng.IntN(1000))
			edits = append(edits, classifier.Edit{Position: at, Rule: r})
			after = slices.Insert(after, at, r)
		}
	}
	return edits, after
}

// Load compiles and loads a list that must do both.
func Load(t testing.TB, list []classifier.Rule, o classifier.Options) *classifier.Program {
	t.Helper()
	c, err := classifier.Compile(list, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

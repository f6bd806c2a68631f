package fib

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// oracle is the table as anyone would write it first: a map, and a loop over
// all of it for each lookup.
type oracle map[netip.Prefix]NextHopID

func (o oracle) lookup(a netip.Addr) NextHopID {
	best, bits := NoRoute, -1
	for p, nh := range o {
		if p.Contains(a) && p.Bits() > bits {
			best, bits = nh, p.Bits()
		}
	}
	return best
}

// ask looks a up in the way that its family needs.
func ask(v View, a netip.Addr) NextHopID {
	k := keyOf(a)
	if a.Is4() {
		return v.Lookup4(uint32(k.hi >> 32))
	}
	return v.Lookup6(k.hi, k.lo)
}

// askVector looks all addresses, of one family, up in one call, in each way there is,
// and yields what came out for each by its index.
func askVector(v View, addrs []netip.Addr) iter.Seq2[int, NextHopID] {
	out := make([]NextHopID, len(addrs))
	var d4 []uint32
	var d6 [][2]uint64
	for _, a := range addrs {
		k := keyOf(a)
		d4, d6 = append(d4, uint32(k.hi>>32)), append(d6, [2]uint64{k.hi, k.lo})
	}
	var batch Batch
	ways := []func(){func() { batch.Lookup6(v, d6, out) }}
	if len(addrs) > 0 && addrs[0].Is4() {
		ways = []func(){func() { batch.Lookup4(v, d4, out) }, func() { Lookup4(v, d4, out) }}
	}
	return func(yield func(int, NextHopID) bool) {
		for _, look := range ways {
			look()
			for i, nh := range out {
				if !yield(i, nh) {
					return
				}
			}
		}
	}
}

// edges are the addresses where a mistake about p would show: its first and
// last, and those just outside.
func edges(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	last := lastOf(p)
	out := []netip.Addr{first, last}
	for _, a := range []netip.Addr{first.Prev(), last.Next()} {
		if a.IsValid() && !a.Is4In6() {
			out = append(out, a)
		}
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func addr4(a uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}

func addr6(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// crowded draws prefixes that lie on, in and beside each other, so that every
// shape of the trie comes up: few distinct octets, all lengths.
func crowded(r *rand.Rand, is4 bool) netip.Prefix {
	octets := []byte{0, 1, 2, 127, 128, 255}
	n := 16
	if is4 {
		n = 4
	}
	b := make([]byte, n)
	run := r.IntN(n) // the octets before it are all alike: long common keys
	for i := range b {
		if i < run {
			b[i] = 0x20
		} else {
			b[i] = octets[r.IntN(len(octets))]
		}
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4In6() {
		a = netip.IPv6Unspecified()
	}
	p := netip.PrefixFrom(a, r.IntN(8*n+1)).Masked()
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return p
}

// sound checks what the trie promises about its own shape: every block and
// jump is reachable once, free or waiting; owners fit; nothing that could be
// a jump or a value is a block.
func sound(t *testing.T, tb *Table) {
	t.Helper()
	for _, f := range []*family{&tb.v4, &tb.v6} {
		s := shape{t: t, f: &f.trie}
		s.walk(level{}, key{})
		if s.routes > f.routes.count {
			t.Errorf("trie shows %d jumps to routes, the table has %d routes", s.routes, f.routes.count)
		}
		blocks := s.blocks + len(f.trie.blocks.free) + len(f.trie.blocks.waiting)
		jumps := s.jumps + len(f.trie.jumps.free) + len(f.trie.jumps.waiting)
		if got, want := int(f.trie.next-rootSlabs), blocks+jumps/slabUnits; got != want || jumps%slabUnits != 0 {
			t.Errorf("%d slabs handed out, %d blocks and %d jumps accounted for", got, blocks, jumps)
		}
	}
}

type shape struct {
	t                     *testing.T
	f                     *trie
	blocks, jumps, routes int
}

func (s *shape) walk(l level, k key) {
	cells := uint32(blockCells)
	if l.depth == 0 {
		cells = 1 << rootBits
	}
	var above uint32
	seen := false
	for i := range cells {
		c := s.f.words[l.base+i]
		if ownerOf(c) == 0 {
			v, known := s.value(c)
			if !known {
				s.cell(l, keyAt(l, k, i), c)
				continue
			}
			if seen && v != above {
				s.t.Errorf("block at depth %d: two values from above, %d and %d", l.depth, v, above)
			}
			above, seen = v, true
		}
		s.cell(l, keyAt(l, k, i), c)
	}
	if l.depth > 0 {
		if _, ok := s.f.shorter(l, k); ok {
			s.t.Errorf("block at depth %d could be shorter", l.depth)
		}
	}
}

// keyAt is the way to cell i of level l, itself reached by k.
func keyAt(l level, k key, i uint32) key {
	if l.depth == 0 {
		return key{uint64(i) << 48, 0}
	}
	return k.withOctet(l.depth, i)
}

// value is what holds in a cell where nothing longer matches; unknown where
// longer routes cover all of it.
func (s *shape) value(c uint32) (hop uint32, known bool) {
	switch kindOf(c) {
	case cellJump:
		return s.f.words[wordOf(c)+jumpMiss], true
	case cellBlock:
		for _, b := range s.f.words[wordOf(c):][:blockCells] {
			if ownerOf(b) == 0 {
				if hop, known = s.value(b); known {
					return hop, true
				}
			}
		}
		return 0, false
	}
	return c & indexMask, true
}

func (s *shape) cell(l level, k key, c uint32) {
	switch kindOf(c) {
	case cellBlock:
		s.blocks++
		s.walk(level{wordOf(c), l.end()}, k)
	case cellJump:
		s.jumps++
		j := wordOf(c)
		jk, n := s.f.jumpAt(j)
		if n <= l.end() || k.common(jk) < l.end() || jk != jk.masked(n) {
			s.t.Errorf("jump of %d bits to %x under a cell of %d bits at %x", n, jk, l.end(), k)
		}
		if !s.f.skips(j) {
			s.routes++
			return
		}
		s.blocks++
		s.walk(level{wordOf(s.f.words[j+jumpHit]), n}, jk)
	}
}

package fib

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// script turns fuzz bytes into changes: every input is some script.
type script struct{ data []byte }

func (s *script) next() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

// prefix reads a prefix of either family. Most octets are not read but taken
// from a short repertoire, so that prefixes come to lie in and beside each other.
func (s *script) prefix() netip.Prefix {
	n := 16
	if s.next()&1 == 0 {
		n = 4
	}
	b := make([]byte, n)
	fill, own := s.next(), s.next()
	for i := range b {
		if b[i] = fill & 0x2f; (i+int(own))%5 == 0 {
			b[i] = s.next()
		}
	}
	a, _ := netip.AddrFromSlice(b)
	p := netip.PrefixFrom(a, int(s.next())%(8*n+1)).Masked()
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), p.Bits())
	}
	return p
}

// FuzzTable runs any sequence of changes over both families against the oracle.
func FuzzTable(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 10, 0, 1, 2, 3, 4, 24, 1, 0, 10, 0, 1, 2, 3, 4, 32, 9})
	f.Add([]byte("\x01\x01\x20\x00\x01\x02\x03\x80\x02\x01\x20\x00\x01\x02\x04\x7f\x00\x01\x20\x00\x01\x02\x03\x80"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tb, want := New(), oracle{}
		s := script{data}
		for len(s.data) > 0 {
			op, p := s.next(), s.prefix()
			switch {
			case op%8 == 7:
				tb.Reclaim()
			case op%8 > 4:
				_, had := want[p]
				if tb.DeleteRoute(p) != had {
					t.Fatalf("delete %s: table says %v, oracle %v", p, !had, had)
				}
				delete(want, p)
			default:
				want[p] = NextHopID(op)/8 + 1
				setPrefix(t, tb, p, want[p])
			}
			for _, a := range edges(p) {
				if got, w := ask(tb.View(), a), want.lookup(a); got != w {
					t.Fatalf("after %s: %s goes to %d, want %d", p, a, got, w)
				}
			}
		}
		compare(t, tb, want)
		if len(data)%16 == 0 { // the walk over the roots takes longer than most scripts
			sound(t, tb)
		}
	})
}

// walker is a reader that can be held up before each of its loads.
type walker struct {
	addr  netip.Addr
	words []uint32
	cell  uint32
	depth uint32
	gen   uint64             // of the table when its view was taken
	right map[NextHopID]bool // what the oracle has said since then
}

func newWalker(tb *Table, want oracle, a netip.Addr) *walker {
	v := tb.View()
	w := &walker{addr: a, words: v.t.trie4, depth: rootBits, gen: tb.Generation(), right: map[NextHopID]bool{}}
	if a.Is6() {
		w.words = v.t.trie6
	}
	w.cell = w.words[keyOf(a).hi>>48]
	w.right[want.lookup(a)] = true
	return w
}

// step makes one load and reports whether the walker has arrived.
func (w *walker) step() bool {
	if w.cell >= cellBlock {
		w.cell, w.depth = step6(w.words, w.cell, keyOf(w.addr), w.depth)
	}
	return w.cell < cellBlock
}

// heldUp runs a script with readers that are held up between any two of their
// loads while the table changes, and frees what they have left as soon as they
// have: each must end with what the oracle said at some time on its way.
func heldUp(t *testing.T, data []byte) {
	tb, want := New(), oracle{}
	var walkers []*walker
	walk := func(some byte) {
		kept := walkers[:0]
		for i, w := range walkers {
			if some>>(i%8)&1 == 0 || !w.step() {
				kept = append(kept, w)
			} else if nh := NextHopID(w.cell & indexMask); !w.right[nh] {
				t.Fatalf("%s went to %d, want one of %v", w.addr, nh, w.right)
			}
		}
		walkers = kept
	}
	for s := (&script{data}); len(s.data) > 0; {
		op, p := s.next(), s.prefix()
		for _, a := range edges(p) {
			walkers = append(walkers, newWalker(tb, want, a))
		}
		walk(s.next())
		if op%8 > 4 {
			tb.DeleteRoute(p)
			delete(want, p)
		} else {
			want[p] = NextHopID(op)/8 + 1
			setPrefix(t, tb, p, want[p])
		}
		quiet := tb.Generation()
		for _, w := range walkers {
			w.right[want.lookup(w.addr)] = true
			quiet = min(quiet, w.gen)
		}
		tb.Quiesced(quiet)
	}
	for len(walkers) > 0 {
		walk(255)
	}
}

func TestHeldUpReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	scripts := 100
	if testing.Short() {
		scripts = 5
	}
	for range scripts {
		data := make([]byte, 4000)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		heldUp(t, data)
	}
}

// FuzzReaders is TestHeldUpReaders for any script. (Run it with
// -fuzzminimizetime=1x: maps make its coverage differ from run to run.)
func FuzzReaders(f *testing.F) {
	f.Add([]byte("\x01\x01\x20\x00\x01\x02\x03\x80\x02\x01\x20\x00\x01\x02\x04\x7f\x00\x01\x20\x00\x01\x02\x03\x80"))
	f.Fuzz(func(t *testing.T, data []byte) { heldUp(t, data) })
}

package fib

import (
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
				set(t, tb, p.String(), want[p])
			}
			for _, a := range edges(p) {
				if got, w := ask(tb.View(), a), want.lookup(a); got != w {
					t.Fatalf("after %s: %s goes to %d, want %d", p, a, got, w)
				}
			}
		}
		compare(t, tb, want)
		if len(data) < 64 { // the walk over the roots takes longer than the script
			sound(t, tb)
		}
	})
}

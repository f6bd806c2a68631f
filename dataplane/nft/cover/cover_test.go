package cover

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
)

func nets(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestOutermost(t *testing.T) {
	for want, in := range map[string][]netip.Prefix{
		"[]":                           nil,
		"[10.0.0.0/8 fd00::/8]":        nets("fd12::/16", "10.1.0.0/16", "10.9.9.9/8", "fd00::/8", "10.0.0.0/8"),
		"[10.0.0.0/9 10.128.0.0/9]":    nets("10.128.0.0/9", "10.0.0.0/9"),
		"[0.0.0.0/0 ::/0]":             nets("::/0", "::1/128", "0.0.0.0/0", "255.255.255.255/32"),
		"[192.0.2.1/32 2001:db8::/32]": nets("2001:db8::/32", "192.0.2.1/32", "192.0.2.1/32"),
	} {
		if got := fmt.Sprint(Outermost(in)); got != want {
			t.Errorf("%v has %s, want %s", in, got, want)
		}
	}
}

// FuzzSet holds what joins and leaves the outermost against what they are.
func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 200, 201, 202, 17, 30, 40})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s, outer := New(), map[netip.Prefix]bool{}
		for ; len(ops) >= 2; ops = ops[2:] {
			addr := netip.AddrFrom4([4]byte{ops[1] & 0xc0, ops[1] << 4 & 0xc0})
			if ops[0]&2 != 0 {
				addr = netip.AddrFrom16([16]byte{ops[1] & 0xc0, ops[1] << 4 & 0xc0})
			}
			p, net, change := netip.PrefixFrom(addr, int(ops[0]>>2)%13).Masked(), map[netip.Prefix]int{}, s.Join
			if ops[0]&1 != 0 {
				change = s.Leave
			}
			before := s.Clone()
			if changed := change(p, net); changed == maps.Equal(before.members, s.members) {
				t.Fatalf("%v changes %v: %v", p, before, changed)
			}
			for q, n := range net {
				switch {
				case n == 1 && !outer[q]:
					outer[q] = true
				case n == -1 && outer[q]:
					delete(outer, q)
				case n != 0:
					t.Fatalf("%v joins %d times, and is there: %v", q, n, outer[q])
				}
			}
			want := Outermost(slices.Collect(s.All()))
			if len(want) != len(outer) || slices.ContainsFunc(want, func(q netip.Prefix) bool { return !outer[q] }) {
				t.Fatalf("the outermost are %v, want %v", outer, want)
			}
		}
	})
}

// FuzzRanges holds ranges against their numbers, one by one.
func FuzzRanges(f *testing.F) {
	f.Add([]byte{0, 255, 7, 9, 10, 12}, []byte{5, 8})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ranges := func(ends []byte) (out []classifier.Range, has [256]bool) {
			for ; len(ends) >= 2; ends = ends[2:] {
				low, high := uint16(min(ends[0], ends[1])), uint16(max(ends[0], ends[1]))
				out = append(out, classifier.Range{First: low, Last: high})
				for n := low; n <= high; n++ {
					has[n] = true
				}
			}
			return out, has
		}
		check := func(what string, got []classifier.Range, has func(int) bool) {
			last, all := -2, true
			for _, r := range got {
				if int(r.First) <= last+1 || r.Last < r.First {
					t.Fatalf("%s of %v and %v is %v: not apart", what, a, b, got)
				}
				last = int(r.Last)
			}
			for n := range 256 {
				in := slices.ContainsFunc(got, func(r classifier.Range) bool { return int(r.First) <= n && n <= int(r.Last) })
				if all = all && in; in != has(n) {
					t.Fatalf("%s of %v and %v is %v: %d is there: %v", what, a, b, got, n, in)
				}
			}
			if Everything(got, 255) != all {
				t.Fatalf("%v is everything: %v", got, !all)
			}
		}
		x, inX := ranges(a)
		y, inY := ranges(b)
		check("what is joined", Joined(x), func(n int) bool { return inX[n] })
		for _, r := range Common(Joined(x), Joined(y)) {
			if r.Last < r.First {
				t.Fatalf("%v has no number", r)
			}
		}
		check("what is common", Joined(Common(Joined(x), Joined(y))), func(n int) bool { return inX[n] && inY[n] })
	})
}

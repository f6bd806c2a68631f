package cover

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
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

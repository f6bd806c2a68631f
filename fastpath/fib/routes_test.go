package fib

import (
	"net/netip"
	"testing"
)

// longestRun is the most slots in a row that are taken: what a search may walk.
func (r *routes) longestRun() (longest int) {
	run := 0
	for range 2 { // a run may go on at the start
		for _, m := range r.meta {
			if run++; m == 0 {
				run = 0
			}
			longest = max(longest, min(run, len(r.meta)))
		}
	}
	return longest
}

// Routes that are withdrawn in the order in which they are listed leave a table
// as good as any other.
func TestRoutesRemovedAsListedLeaveNoCrowd(t *testing.T) {
	tests := map[string]func(i int) netip.Prefix{
		"IPv4": func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i)}), 24)
		},
		"IPv6": func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1, byte(i >> 16), byte(i >> 8), byte(i)}), 64)
		},
	}
	for name, prefix := range tests {
		t.Run(name, func(t *testing.T) {
			const n = 60_000
			table := New()
			for i := range n {
				if err := table.SetRoute(prefix(i), 1); err != nil {
					t.Fatal(err)
				}
			}
			list := &table.family(name == "IPv4").routes
			full := list.longestRun()
			var listed []netip.Prefix
			for p := range table.Routes() {
				listed = append(listed, p)
			}
			for i, p := range listed {
				if !table.DeleteRoute(p) {
					t.Fatalf("%v was listed and is not there", p)
				}
				if i%1000 != 0 {
					continue
				}
				if run := list.longestRun(); run > 2*full {
					t.Fatalf("with %d routes left %d slots in a row are taken; with all of %d it was %d", n-1-i, run, n, full)
				}
			}
			if table.Len() != 0 {
				t.Errorf("%d routes are left", table.Len())
			}
		})
	}
}

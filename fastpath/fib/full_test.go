package fib

import (
	"net/netip"
	"testing"
)

// A full trie refuses what is new and goes on with what it has: routes take
// other next hops, and go.
func TestFullTrie(t *testing.T) {
	for name, tt := range map[string]struct {
		routes []string // of which one covers the others
		other  string
	}{
		"IPv4": {[]string{"10.0.0.0/8", "10.1.0.0/20", "10.1.0.0/21", "10.1.8.0/21", "10.1.2.3/32", "192.0.2.0/24"}, "198.51.100.0/24"},
		"IPv6": {[]string{"2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/49", "2001:db8:1:8000::/49", "2001:db8::1/128"}, "fd00::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			tb, want := New(), oracle{}
			put := func(p string, nh NextHopID) {
				t.Helper()
				set(t, tb, p, nh)
				want[netip.MustParsePrefix(p)] = nh
			}
			for i, p := range tt.routes {
				put(p, NextHopID(i+1))
			}
			for _, a := range []*arena{&tb.v4.trie.arena, &tb.v6.trie.arena} {
				words := make([]uint32, slabsMax*blockCells) // 1 GiB, of which the kernel gives what is touched
				copy(words, a.words)
				a.words, a.next, a.jumps.free, a.blocks.free = words, slabsMax, nil, nil
			}
			tb.publish()
			if err := tb.SetRoute(netip.MustParsePrefix(tt.other), 1); err == nil {
				t.Error("a full trie took another route")
			}
			for i, p := range tt.routes {
				put(p, NextHopID(100+i))
				compare(t, tb, want)
			}
			for _, p := range tt.routes {
				tb.DeleteRoute(netip.MustParsePrefix(p))
				delete(want, netip.MustParsePrefix(p))
				compare(t, tb, want)
			}
		})
	}
}

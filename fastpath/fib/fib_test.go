package fib

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gaissmai/bart"

	"margay.dev/margay/fastpath/fib/fibtest"
)

func set(t *testing.T, tb *Table, prefix string, nh NextHopID) {
	t.Helper()
	setPrefix(t, tb, netip.MustParsePrefix(prefix), nh)
}

func setPrefix(t *testing.T, tb *Table, p netip.Prefix, nh NextHopID) {
	t.Helper()
	if err := tb.SetRoute(p, nh); err != nil {
		t.Fatal(err)
	}
}

func TestLongestPrefixWins(t *testing.T) {
	type route struct {
		prefix string
		nh     NextHopID
	}
	tests := map[string]struct {
		routes []route
		want   map[string]NextHopID
	}{
		"empty table": {nil, map[string]NextHopID{"10.0.0.1": 0, "2001:db8::1": 0, "255.255.255.255": 0}},
		"default routes are apart by family": {
			[]route{{"0.0.0.0/0", 4}, {"::/0", 6}},
			map[string]NextHopID{"10.0.0.1": 4, "0.0.0.0": 4, "255.255.255.255": 4, "::": 6, "ffff::ffff": 6},
		},
		"only one family has a default": {
			[]route{{"::/0", 6}},
			map[string]NextHopID{"10.0.0.1": 0, "2001:db8::1": 6},
		},
		"host routes": {
			[]route{{"10.1.2.3/32", 1}, {"2001:db8::3/128", 2}},
			map[string]NextHopID{"10.1.2.3": 1, "10.1.2.2": 0, "10.1.2.4": 0, "2001:db8::3": 2, "2001:db8::2": 0, "2001:db8::4": 0},
		},
		"point to point links": {
			[]route{{"10.1.2.2/31", 1}, {"10.1.2.0/24", 2}, {"2001:db8::2/127", 3}, {"2001:db8::/64", 4}},
			map[string]NextHopID{
				"10.1.2.1": 2, "10.1.2.2": 1, "10.1.2.3": 1, "10.1.2.4": 2,
				"2001:db8::1": 4, "2001:db8::2": 3, "2001:db8::3": 3, "2001:db8::4": 4, "2001:db8:0:1::": 0,
			},
		},
		"nested from the default to the host": {
			[]route{
				{"0.0.0.0/0", 1}, {"10.0.0.0/8", 2}, {"10.1.0.0/16", 3}, {"10.1.2.0/24", 4}, {"10.1.2.3/32", 5},
				{"::/0", 11}, {"2000::/3", 12}, {"2001:db8::/32", 13}, {"2001:db8:1::/48", 14}, {"2001:db8:1:1::/64", 15}, {"2001:db8:1:1::1/128", 16},
			},
			map[string]NextHopID{
				"11.0.0.0": 1, "10.2.0.0": 2, "10.1.3.0": 3, "10.1.2.4": 4, "10.1.2.3": 5,
				"fe80::1": 11, "3000::": 12, "2001:db8:2::": 13, "2001:db8:1:2::": 14, "2001:db8:1:1::2": 15, "2001:db8:1:1::1": 16,
			},
		},
		"shorter route added after the longer": {
			[]route{{"10.1.2.3/32", 5}, {"10.1.2.0/25", 4}, {"10.0.0.0/7", 3}, {"2001:db8::1/128", 8}, {"2001:db8::/29", 7}},
			map[string]NextHopID{"10.1.2.3": 5, "10.1.2.4": 4, "10.1.2.128": 3, "11.255.255.255": 3, "12.0.0.0": 0,
				"2001:db8::1": 8, "2001:db8::2": 7, "2001:dbf:ffff::": 7, "2001:dc0::": 0},
		},
		"pods far down one prefix, on both sides of an octet": {
			[]route{{"fd00:1:2:3::aaaa:0/124", 1}, {"fd00:1:2:3::aaaa:10/124", 2}, {"fd00:1:2:3:8000::/65", 3}, {"fd00:1:2::/48", 4}},
			map[string]NextHopID{"fd00:1:2:3::aaaa:f": 1, "fd00:1:2:3::aaaa:1f": 2, "fd00:1:2:3::aaaa:20": 4,
				"fd00:1:2:3:8000::1": 3, "fd00:1:2:4::": 4, "fd00:1:3::": 0},
		},
		"a route in the middle of a skipped stretch": {
			[]route{{"fd00::1:0:0/112", 1}, {"fd00::1:1:0/112", 2}, {"fd00::/40", 3}, {"fd00::/72", 4}, {"fd00::/96", 5}},
			map[string]NextHopID{"fd00::1:0:9": 1, "fd00::1:1:9": 2, "fd00::2:0:0": 4, "fd00::2:0": 5, "fd00::1:0:0:0": 4, "fd00:0:0:1::": 3, "fd00:0:0100::": 0},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tb := New()
			for _, r := range tt.routes {
				set(t, tb, r.prefix, r.nh)
			}
			for a, want := range tt.want {
				if got := ask(tb.View(), netip.MustParseAddr(a)); got != want {
					t.Errorf("%s goes to %d, want %d", a, got, want)
				}
			}
			sound(t, tb)
		})
	}
}

func TestRefusedRoutes(t *testing.T) {
	tests := map[string]struct {
		prefix netip.Prefix
		nh     NextHopID
		want   error
	}{
		"zero prefix":             {netip.Prefix{}, 1, ErrPrefix},
		"IPv4 with host bits":     {netip.MustParsePrefix("10.0.0.1/24"), 1, ErrPrefix},
		"IPv6 with host bits":     {netip.MustParsePrefix("2001:db8::1/64"), 1, ErrPrefix},
		"IPv4 mapped":             {netip.MustParsePrefix("::ffff:10.0.0.0/120"), 1, ErrPrefix},
		"IPv4 mapped, whole":      {netip.MustParsePrefix("::ffff:0:0/96"), 1, ErrPrefix},
		"zoned, so not a prefix":  {netip.PrefixFrom(netip.MustParseAddr("fe80::1%eth0"), 64), 1, ErrPrefix},
		"next hop 0, IPv4":        {netip.MustParsePrefix("10.0.0.0/8"), NoRoute, ErrNextHop},
		"next hop 0, IPv6":        {netip.MustParsePrefix("2001:db8::/32"), NoRoute, ErrNextHop},
		"next hop above the last": {netip.MustParsePrefix("10.0.0.0/8"), MaxNextHop + 1, ErrNextHop},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tb := New()
			if err := tb.SetRoute(tt.prefix, tt.nh); !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			if tb.DeleteRoute(tt.prefix) || tb.Len() != 0 {
				t.Errorf("refused route left something behind: %d routes", tb.Len())
			}
			if _, ok := tb.Route(tt.prefix); ok {
				t.Error("refused route is found")
			}
		})
	}
}

func TestLargestNextHop(t *testing.T) {
	tb := New()
	for _, p := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::1/128"} {
		set(t, tb, p, MaxNextHop)
		if nh, ok := tb.Route(netip.MustParsePrefix(p)); !ok || nh != MaxNextHop {
			t.Errorf("%s is routed to %d, want %d", p, nh, MaxNextHop)
		}
	}
	for _, a := range []string{"1.1.1.1", "10.1.2.3", "10.1.2.4", "::1", "2001:db8::1"} {
		if nh := ask(tb.View(), netip.MustParseAddr(a)); nh != MaxNextHop {
			t.Errorf("%s goes to %d, want %d", a, nh, MaxNextHop)
		}
	}
}

// TestChurnAgreesWithOracle grows and shrinks a crowded table and compares it,
// after every change around the change and at times as a whole.
func TestChurnAgreesWithOracle(t *testing.T) {
	for _, is4 := range []bool{true, false} {
		t.Run(fmt.Sprintf("is4=%v", is4), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			tb, want := New(), oracle{}
			var known []netip.Prefix
			phase := 2000 // of growing, then shrinking
			if testing.Short() {
				phase = 400
			}
			changes := 3 * phase
			for i := range changes {
				p := crowded(r, is4)
				if grow := i%phase < phase*6/10; !grow && len(known) > 0 && r.IntN(4) > 0 {
					p = known[r.IntN(len(known))]
				}
				if _, had := want[p]; had && i%phase >= phase*6/10 {
					delete(want, p)
					if !tb.DeleteRoute(p) {
						t.Fatalf("change %d: %s is not there to delete", i, p)
					}
				} else {
					nh := NextHopID(1 + r.IntN(9))
					want[p] = nh
					setPrefix(t, tb, p, nh)
					known = append(known, p)
				}
				for _, a := range edges(p) {
					if got, w := ask(tb.View(), a), want.lookup(a); got != w {
						t.Fatalf("change %d, %s: %s goes to %d, want %d", i, p, a, got, w)
					}
				}
				if i%(phase/4) == 0 {
					compare(t, tb, want)
					sound(t, tb)
					tb.Reclaim()
				}
			}
		})
	}
}

// compare checks the whole table: routes and lookups, single and in vectors.
func compare(t *testing.T, tb *Table, want oracle) {
	t.Helper()
	if got := maps.Collect(tb.Routes()); !maps.Equal(got, map[netip.Prefix]NextHopID(want)) || tb.Len() != len(want) {
		t.Fatalf("table lists %d routes (Len %d), want %d", len(got), tb.Len(), len(want))
	}
	var addrs [2][]netip.Addr
	for p := range want {
		for _, a := range edges(p) {
			f := 0
			if a.Is6() {
				f = 1
			}
			addrs[f] = append(addrs[f], a)
		}
	}
	for _, as := range addrs {
		for i, got := range askVector(tb.View(), as) {
			w := want.lookup(as[i])
			if one := ask(tb.View(), as[i]); got != w || one != w {
				t.Fatalf("%s goes to %d (%d in a vector), want %d", as[i], one, got, w)
			}
		}
	}
}

// TestEmptyAgain: what was added and deleted, in any order, leaves no block.
func TestEmptyAgain(t *testing.T) {
	for _, is4 := range []bool{true, false} {
		r := rand.New(rand.NewPCG(3, 4))
		tb := New()
		all := oracle{}
		for range 3000 {
			p := crowded(r, is4)
			all[p] = 1
			setPrefix(t, tb, p, 1)
		}
		for p := range all {
			if !tb.DeleteRoute(p) {
				t.Fatalf("%s is not there to delete", p)
			}
		}
		sound(t, tb)
		tb.Reclaim()
		f := tb.family(is4)
		inUse := int(f.trie.next-rootSlabs)*slabUnits - len(f.trie.blocks.free)*slabUnits - len(f.trie.jumps.free)
		if inUse != 0 || tb.Memory().Waiting != 0 {
			t.Errorf("is4=%v: %d units in use, %d waiting after all routes went", is4, inUse, tb.Memory().Waiting)
		}
	}
}

// TestReuseWaitsForQuiesced: a view from before a change keeps its answers,
// and memory is reused only after Quiesced.
func TestReuseWaitsForQuiesced(t *testing.T) {
	tb := New()
	flap := func() {
		for _, p := range []string{"10.0.0.0/24", "10.0.3.0/24", "2001:db8::/64", "2001:db8:0:3::/64"} {
			set(t, tb, p, 7)
		}
		for _, p := range []string{"10.0.0.0/24", "10.0.3.0/24", "2001:db8::/64", "2001:db8:0:3::/64"} {
			tb.DeleteRoute(netip.MustParsePrefix(p))
		}
	}
	flap()
	one := tb.Memory().Waiting
	flap()
	if got := tb.Memory().Waiting; one == 0 || got != 2*one {
		t.Fatalf("%d indexes wait after one flap and %d after two, want some and twice that", one, got)
	}
	gen := tb.Generation()
	flap()
	tb.Quiesced(gen)
	if got := tb.Memory().Waiting; got != one {
		t.Errorf("%d indexes wait after the first two flaps were quiesced, want %d", got, one)
	}
	tb.Reclaim()
	for range 20000 {
		flap()
		tb.Reclaim()
	}
	if got := tb.v4.trie.next; got > rootSlabs+8 {
		t.Errorf("20,000 flaps used %d slabs, want memory to be reused", got-rootSlabs)
	}
	sound(t, tb)
}

// TestReaderHeldUpAtAJump: a reader has loaded a cell when the writer splits
// the jump there and routes a part of the cell elsewhere. The reader's address
// is not in that part.
func TestReaderHeldUpAtAJump(t *testing.T) {
	tb := New()
	set(t, tb, "10.1.0.0/16", 1)
	set(t, tb, "10.1.2.3/32", 2)
	set(t, tb, "2001::/16", 1)
	set(t, tb, "2001:db8::3/128", 2)
	v := tb.View()
	c4, c6 := v.t.root4[0x0a01], v.t.root6[0x2001]
	set(t, tb, "10.1.0.0/22", 3)
	set(t, tb, "2001:db8::/32", 3)
	if got := descend4(v.t.trie4, c4, 0x0a01ff01, 8) & indexMask; got != 1 {
		t.Errorf("10.1.255.1 goes to %d, want 1 as before and after", got)
	}
	if got := descend6(v.t.trie6, c6, key{0x2001_ffff << 32, 0}, rootBits) & indexMask; got != 1 {
		t.Errorf("2001:ffff:: goes to %d, want 1 as before and after", got)
	}
}

// TestAgreesWithBart compares a table of a realistic size with another
// implementation of longest match.
func TestAgreesWithBart(t *testing.T) {
	n := 60_000
	if testing.Short() {
		n = 10_000
	}
	tb, want := New(), new(bart.Table[NextHopID])
	for is4, routes := range map[bool][]netip.Prefix{true: fibtest.Internet4(n, 5), false: fibtest.Internet6(n, 6)} {
		for i, p := range routes {
			nh := NextHopID(i%1000 + 1)
			setPrefix(t, tb, p, nh)
			want.Insert(p, nh)
			if i%3 == 2 {
				gone := routes[i/2]
				tb.DeleteRoute(gone)
				want.Delete(gone)
			}
		}
		var addrs []netip.Addr
		for _, p := range routes {
			addrs = append(addrs, edges(p)...)
		}
		for i, got := range askVector(tb.View(), addrs) {
			w, _ := want.Lookup(addrs[i])
			if one := ask(tb.View(), addrs[i]); got != w || one != w {
				t.Fatalf("is4=%v: %s goes to %d (%d in a vector), want %d", is4, addrs[i], one, got, w)
			}
		}
	}
	if tb.Len() != want.Size() {
		t.Errorf("%d routes, want %d", tb.Len(), want.Size())
	}
	sound(t, tb)
}

// TestSmallTablesStaySmall: what pods look like must not cost a block each.
func TestSmallTablesStaySmall(t *testing.T) {
	tb := New()
	base := tb.Memory()
	for i := range uint32(10_000) { // one host route in each of 10,000 /24s, one /64 in each of 10,000 /48s
		p4 := netip.PrefixFrom(addr4(10<<24|i<<8|i&255), 32)
		p6 := netip.PrefixFrom(addr6(0x2001_0db8_0000_0000|uint64(i)<<16|1, 0), 64)
		setPrefix(t, tb, p4, 1)
		setPrefix(t, tb, p6, 1)
	}
	tb.Reclaim()
	m := tb.Memory()
	if grown := m.Trie4 - base.Trie4 + m.Trie6 - base.Trie6; grown > 20_000*64 {
		t.Errorf("20,000 lone routes cost %d bytes of trie, want at most 64 each", grown)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	tb := New()
	for i := range uint32(1000) {
		setPrefix(t, tb, netip.PrefixFrom(addr4(i<<20|i), 32), 1)
		setPrefix(t, tb, netip.PrefixFrom(addr6(uint64(i)<<50, uint64(i)), 128), 1)
	}
	d4, d6, out := make([]uint32, 256), make([][2]uint64, 256), make([]NextHopID, 256)
	for i := range d4 {
		d4[i], d6[i] = uint32(i)<<20|uint32(i), [2]uint64{uint64(i) << 50, uint64(i)}
	}
	var batch Batch
	var kinds int
	allocs := testing.AllocsPerRun(100, func() {
		v := tb.View()
		batch.Lookup4(v, d4, out)
		Lookup4(v, d4, out)
		batch.Lookup6(v, d6, out)
		for i := range d4 {
			nh := v.Lookup4(d4[i]) + v.Lookup6(d6[i][0], d6[i][1])
			kinds += int(v.Adjacency(v.Resolve(nh, uint32(i))).Kind)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocs per vector, want 0", allocs)
	}
}

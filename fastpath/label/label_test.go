package label

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib/fibtest"
)

var deep = flag.Int("deep", 1, "how many times as long the random tests run")

func parse(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func join(t testing.TB, tb *Table, set classifier.SetID, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if err := tb.Join(set, parse(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func leave(t testing.TB, tb *Table, set classifier.SetID, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if err := tb.Leave(set, parse(p)); err != nil {
			t.Fatal(err)
		}
	}
}

// in checks which sets an address is in.
func in(t testing.TB, tb *Table, addr string, want ...classifier.SetID) {
	t.Helper()
	v := tb.View()
	if got := v.Members(v.Lookup(netip.MustParseAddr(addr))); !slices.Equal(got, want) {
		t.Errorf("%s is in %v, want %v", addr, got, want)
	}
}

func TestCoversCount(t *testing.T) {
	tests := map[string]struct{ all, wide, narrow, host, inHost, inNarrow, inWide, outside string }{
		"IPv4": {"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/20", "10.1.2.3/32", "10.1.2.3", "10.1.2.4", "10.2.0.0", "192.0.2.1"},
		"IPv6": {"::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::5/128", "2001:db8:1::5", "2001:db8:1::6", "2001:db8:2::", "fd00::1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tb, _ := watched(t)
			join(t, tb, 3, tt.host)
			join(t, tb, 1, tt.wide)
			join(t, tb, 2, tt.narrow)
			in(t, tb, tt.inHost, 1, 2, 3)
			in(t, tb, tt.inNarrow, 1, 2)
			in(t, tb, tt.inWide, 1)
			in(t, tb, tt.outside)
			join(t, tb, 9, tt.all)
			in(t, tb, tt.inHost, 1, 2, 3, 9)
			in(t, tb, tt.outside, 9)
			join(t, tb, 3, tt.all) // the host is in it twice now
			leave(t, tb, 3, tt.host)
			in(t, tb, tt.inHost, 1, 2, 3, 9)
			leave(t, tb, 2, tt.narrow)
			leave(t, tb, 3, tt.all)
			in(t, tb, tt.inHost, 1, 9)
			leave(t, tb, 9, tt.all)
			leave(t, tb, 1, tt.wide)
			in(t, tb, tt.inHost)
			if tb.Len() != 0 || tb.Classes() != 0 {
				t.Errorf("%d members and %d classes are left", tb.Len(), tb.Classes())
			}
		})
	}
}

// A default route of one family is none of the other.
func TestFamiliesAreApart(t *testing.T) {
	tb, _ := watched(t)
	join(t, tb, 4, "0.0.0.0/0")
	join(t, tb, 6, "::/0")
	in(t, tb, "10.0.0.1", 4)
	in(t, tb, "::ffff:10.0.0.1", 4) // as a reader that explains may be asked
	in(t, tb, "::10.0.0.1", 6)
	v := tb.View()
	if c := v.Lookup(netip.Addr{}); c != 0 {
		t.Errorf("no address has class %d", c)
	}

	// 32.32.0.0 and 2020:: are the same bits.
	join(t, tb, 1, "32.32.0.0/18", "2020::/16")
	if err := tb.Apply([]Change{{Set: 2, Prefix: parse("32.0.0.0/9")}, {Set: 3, Prefix: parse("2020::/18")}, {Set: 5, Prefix: parse("2020:2000::/24")}}); err != nil {
		t.Fatal(err)
	}
	in(t, tb, "32.32.0.1", 1, 2, 4)
	in(t, tb, "2020::1", 1, 3, 6)
	in(t, tb, "2020:2000::1", 1, 3, 5, 6)
}

func TestEqualSetsAreOneClass(t *testing.T) {
	tb, r := watched(t)
	join(t, tb, 1, "10.0.0.0/8", "2001:db8::/32")
	join(t, tb, 2, "10.1.0.0/16", "2001:db8:1::/48", "192.0.2.0/24")
	join(t, tb, 1, "192.0.2.0/24")
	v := tb.View()
	want := v.Lookup(netip.MustParseAddr("10.1.0.1"))
	for _, a := range []string{"2001:db8:1::1", "192.0.2.77"} {
		if got := v.Lookup(netip.MustParseAddr(a)); got != want || got == 0 {
			t.Errorf("%s has class %d, want %d", a, got, want)
		}
	}
	if len(r.live) != 2 || tb.Classes() != 2 { // {1}, {1 2}: nothing is in 2 alone
		t.Errorf("classes are %v, want two", r.live)
	}
	for _, dead := range []int{1, 0} { // {2}, until readers have moved on
		met := map[Class][]classifier.SetID{}
		for c, sets := range tb.All() {
			met[c] = sets
		}
		for c, sets := range r.live {
			if !slices.Equal(sets, met[c]) {
				t.Errorf("class %d has %v, was born with %v", c, met[c], sets)
			}
		}
		if len(met) != len(r.live)+dead || len(r.dead) != dead {
			t.Errorf("classes are %v, want %v and %d that died", met, r.live, dead)
		}
		r.quiesced(tb.Generation())
	}
}

func TestJoinsAreCounted(t *testing.T) {
	for _, p := range []string{"10.0.0.0/24", "2001:db8::/64"} {
		tb, _ := watched(t)
		addr := parse(p).Addr().Next().String()
		join(t, tb, 1, p, p, p)
		leave(t, tb, 1, p, p)
		in(t, tb, addr, 1)
		for q, n := range tb.Prefixes(1) {
			if q != parse(p) || n != 1 {
				t.Errorf("set 1 has %s %d times", q, n)
			}
		}
		leave(t, tb, 1, p)
		in(t, tb, addr)
	}
}

func TestReplace(t *testing.T) {
	tb, r := watched(t)
	o := oracle{}
	put := func(set classifier.SetID, prefixes ...string) {
		var ps []netip.Prefix
		for _, p := range prefixes {
			ps = append(ps, parse(p))
		}
		if err := tb.Replace(set, ps); err != nil {
			t.Fatal(err)
		}
		o.replace(set, ps)
		for _, p := range o.prefixes() {
			agree(t, tb, r, o, edges(p))
		}
		sound(t, tb, r, o)
	}
	put(1, "10.0.0.0/8", "10.0.0.0/8", "2001:db8::/32")
	put(2, "10.1.0.0/16", "2001:db8:1::/48")
	put(1, "10.0.0.0/9", "2001:db8::/32", "10.0.0.0/8")
	put(1)
	put(2, "0.0.0.0/0", "::/0")
	put(2)
	if tb.Len() != 0 || tb.Classes() != 0 {
		t.Errorf("%d members and %d classes are left", tb.Len(), tb.Classes())
	}
}

func TestRefused(t *testing.T) {
	mapped := netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)
	tests := map[string]struct {
		change Change
		why    error
	}{
		"no prefix":           {Change{Set: 1}, ErrPrefix},
		"host bits IPv4":      {Change{Set: 1, Prefix: parse("10.0.0.1/24")}, ErrPrefix},
		"host bits IPv6":      {Change{Set: 1, Prefix: parse("2001:db8::1/64")}, ErrPrefix},
		"IPv4 in IPv6":        {Change{Set: 1, Prefix: mapped}, ErrPrefix},
		"too long":            {Change{Set: 1, Prefix: netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 33)}, ErrPrefix},
		"negative":            {Change{Set: 1, Prefix: netip.PrefixFrom(netip.MustParseAddr("::1"), -1)}, ErrPrefix},
		"no set":              {Change{Prefix: parse("10.0.0.0/24")}, ErrSet},
		"never joined, IPv4":  {Change{Set: 1, Prefix: parse("10.0.1.0/24"), Leave: true}, ErrAbsent},
		"never joined, IPv6":  {Change{Set: 1, Prefix: parse("2001:db8::/65"), Leave: true}, ErrAbsent},
		"joined another set":  {Change{Set: 2, Prefix: parse("10.0.0.0/24"), Leave: true}, ErrAbsent},
		"covered, not joined": {Change{Set: 1, Prefix: parse("10.0.0.7/32"), Leave: true}, ErrAbsent},
	}
	tb, r := watched(t)
	join(t, tb, 1, "10.0.0.0/24", "2001:db8::/64")
	o := oracle{{1, parse("10.0.0.0/24")}: 1, {1, parse("2001:db8::/64")}: 1}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// Good changes around the bad one: none of them may be made.
			good := Change{Set: 7, Prefix: parse("10.0.0.0/8")}
			for _, changes := range [][]Change{{tt.change}, {good, tt.change, good}} {
				if err := tb.Apply(changes); !errors.Is(err, tt.why) {
					t.Errorf("error is %v, want %v", err, tt.why)
				}
			}
			if !tt.change.Leave {
				if err := tb.Replace(tt.change.Set, []netip.Prefix{parse("10.0.9.0/24"), tt.change.Prefix}); !errors.Is(err, tt.why) {
					t.Errorf("replace: error is %v, want %v", err, tt.why)
				}
			}
			in(t, tb, "10.0.0.1", 1)
			in(t, tb, "2001:db8::1", 1)
			sound(t, tb, r, o)
		})
	}
	// netip takes a zone off when it makes a prefix.
	if err := tb.Join(1, netip.PrefixFrom(netip.MustParseAddr("fe80::1%eth0"), 128)); err != nil {
		t.Error(err)
	}
	if err := tb.Replace(0, nil); !errors.Is(err, ErrSet) {
		t.Errorf("error is %v, want %v", err, ErrSet)
	}
}

// TestNest has every prefix of one address join a set of its own, and leave in
// another order.
func TestNest(t *testing.T) {
	for _, a := range []string{"10.85.170.255", "2001:db8:5555:aaaa:ff00:ff:f0f0:1"} {
		addr := netip.MustParseAddr(a)
		tb, r := watched(t)
		o := oracle{}
		var all []membership
		for n := range addr.BitLen() + 1 {
			all = append(all, membership{classifier.SetID(n + 1), netip.PrefixFrom(addr, n).Masked()})
		}
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, leaves := range []bool{false, true} {
			for i := range all {
				m := all[i*7%len(all)]
				c := []Change{{m.set, m.prefix, leaves}}
				if err := tb.Apply(c); err != nil || !o.apply(c) {
					t.Fatal(err)
				}
				agree(t, tb, r, o, edges(m.prefix))
				if i%8 == 0 {
					sound(t, tb, r, o)
				}
			}
		}
	}
}

// A change may touch what it must, and no more: each generation is one write of
// a prefix into the trie.
func TestWorkIsThatOfWhatChanges(t *testing.T) {
	tb, _ := watched(t)
	for i := range 2000 {
		join(t, tb, classifier.SetID(i%50+1), fmt.Sprintf("10.%d.%d.1/32", i/250, i%250), fmt.Sprintf("2001:db8:%x::/64", i))
	}
	tests := []struct {
		name   string
		change func()
		writes uint64
	}{
		{"a host joins", func() { join(t, tb, 7, "10.200.0.1/32") }, 1},
		{"a host joins another set", func() { join(t, tb, 8, "10.200.0.1/32") }, 1},
		{"a host joins again", func() { join(t, tb, 8, "10.200.0.1/32") }, 0},
		{"a host leaves once", func() { leave(t, tb, 8, "10.200.0.1/32") }, 0},
		{"a host leaves", func() { leave(t, tb, 7, "10.200.0.1/32") }, 1},
		{"a net joins over 250 hosts, 5 of them members", func() { join(t, tb, 1, "10.3.0.0/16") }, 1 + 245},
		{"the net leaves", func() { leave(t, tb, 1, "10.3.0.0/16") }, 1 + 245},
		{"all of IPv4 joins", func() { join(t, tb, 1000, "0.0.0.0/0") }, 1 + 2001},
		{"a net joins what its cover is in", func() { join(t, tb, 1000, "10.0.0.0/8") }, 1},
		{"all of IPv4 leaves: what the net covers stays", func() { leave(t, tb, 1000, "0.0.0.0/0") }, 1},
		{"a /64 joins", func() { join(t, tb, 9, "2001:db8:ffff::/64") }, 1},
		{"all of IPv6 joins", func() { join(t, tb, 1000, "::/0") }, 1 + 2001},
	}
	for _, tt := range tests {
		before := tb.Generation()
		if tt.change(); tb.Generation()-before != tt.writes {
			t.Errorf("%s: %d writes, want %d", tt.name, tb.Generation()-before, tt.writes)
		}
	}
}

// TestMemory holds a table to what doc.go says of its size, for one set of many
// prefixes and for many sets of few.
func TestMemory(t *testing.T) {
	n := 10_000 * *deep
	for name, tt := range map[string]struct {
		prefixes []netip.Prefix
		sets     int
	}{
		"IPv4": {fibtest.Internet4(n, 1), 1}, "IPv6": {fibtest.Internet6(n, 1), 1},
		"IPv4 in many sets": {fibtest.Internet4(n, 2), 400}, "IPv6 in many sets": {fibtest.Internet6(n, 2), 400},
	} {
		t.Run(name, func(t *testing.T) {
			tb := New(nil)
			empty := tb.Memory()
			r := rand.New(rand.NewPCG(1, 1))
			for _, i := range r.Perm(n) {
				if err := tb.Join(classifier.SetID(i%tt.sets+1), tt.prefixes[i]); err != nil {
					t.Fatal(err)
				}
				tb.Reclaim()
			}
			m := tb.Memory()
			t.Logf("%d bytes a member, %d classes: %+v", (m.Trie+m.Classes+m.Members)/n, tb.Classes(), m)
			if books := m.Members - empty.Members; books > 1<<19+75*n {
				t.Errorf("%d bytes in the writer's lists, want at most 512 KiB and 75 a member", books)
			}
			if trie := m.Trie - empty.Trie; trie > 1100*n {
				t.Errorf("%d bytes a member in the trie, want at most 1100", trie/n)
			}
			for i, p := range tt.prefixes {
				if err := tb.Leave(classifier.SetID(i%tt.sets+1), p); err != nil {
					t.Fatal(err)
				}
				tb.Reclaim()
			}
			if m := tb.Memory(); m.Members > empty.Members+1<<20 || tb.Classes() != 0 {
				t.Errorf("an empty table's lists hold %d bytes", m.Members)
			}
		})
	}
}

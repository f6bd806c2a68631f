package judge

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/label"
)

// What changes for a prefix is looked at by the flows of all its addresses, whichever
// side they are, and, where it is a narrow one, by few others.
func TestFlowsStandWhereNothingChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, ipv6 := range []bool{false, true} {
		width := 32
		if ipv6 {
			width = 128
		}
		random := func() netip.Addr {
			b := [16]byte{0: 0xfd, 1: byte(r.Uint32()), 7: byte(r.Uint32()), 8: byte(r.Uint32()), 13: byte(r.Uint32()), 14: byte(r.Uint32()), 15: byte(r.Uint32())}
			if ipv6 {
				return netip.AddrFrom16(b)
			}
			return netip.AddrFrom4([4]byte(b[12:]))
		}
		for bits := range width + 1 {
			c := NewCourt(fib.New(), label.New(nil))
			was := c.Generation()
			stands := func(a, b netip.Addr) bool {
				k := flow.NewKey(a, b, 17, 1, 2, 0)
				return c.Stands(was, &k)
			}
			p := netip.PrefixFrom(random(), bits).Masked()
			if err := c.FIB.SetRoute(p, 7); err != nil {
				t.Fatal(err)
			}
			if c.Moved(); c.Generation() != was+1 {
				t.Fatalf("%v: generation %d follows %d", p, c.Generation(), was)
			}
			others := 0
			for range 200 {
				inside, outside := within(p, random()), random()
				if stands(inside, outside) || stands(outside, inside) {
					t.Fatalf("a flow between %v and %v stands, and %v has changed", inside, outside, p)
				}
				if k := flow.NewKey(inside, outside, 17, 1, 2, 0); !c.Stands(was+1, &k) {
					t.Fatalf("a flow of %v does not stand that was decided after the change", inside)
				}
				if !stands(outside, random()) {
					others++
				}
			}
			if narrow := width-bits <= rowBits; narrow && others > 10 || !narrow && others != 200 {
				t.Errorf("%v has changed: %d of 200 flows of others are looked at", p, others)
			}
		}
	}
}

// within is an address of p with the last bits of a.
func within(p netip.Prefix, a netip.Addr) netip.Addr {
	b, base := a.AsSlice(), p.Addr().AsSlice()
	for i := range b {
		for bit := range 8 {
			if i*8+bit < p.Bits() {
				mask := byte(128 >> bit)
				b[i] = b[i]&^mask | base[i]&mask
			}
		}
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// Changes of labels, next hops and of who is judged by what are looked at, too.
func TestEveryChangeIsLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Court) error
		all    bool // it concerns every flow
	}{
		"a member joins":   {func(c *Court) error { return c.Labels.Join(1, netip.MustParsePrefix("10.0.0.1/32")) }, false},
		"a network joins":  {func(c *Court) error { return c.Labels.Join(1, netip.MustParsePrefix("10.0.0.0/8")) }, true},
		"a next hop":       {func(c *Court) error { return c.FIB.SetNextHop(7, []fib.Member{{Adjacency: 1, Weight: 1}}) }, true},
		"another policy":   {func(c *Court) error { c.Begin(); return nil }, true},
		"nothing":          {func(*Court) error { return nil }, false},
		"the same members": {func(c *Court) error { return c.Labels.Apply(nil) }, false},
	} {
		court := NewCourt(fib.New(), label.New(nil))
		was := court.Generation()
		if err := c.change(court); err != nil {
			t.Fatal(err)
		}
		court.Moved()
		one, other := flow.NewKey(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1"), 17, 1, 2, 0), flow.NewKey(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 17, 1, 2, 0)
		if court.Stands(was, &other) == c.all {
			t.Errorf("%s: a flow of others stands: %v", name, !c.all)
		}
		if moved := court.Generation() != was; court.Stands(was, &one) == moved {
			t.Errorf("%s: a generation began: %v, and the flow that it concerns stands: %v", name, moved, moved)
		}
	}
}

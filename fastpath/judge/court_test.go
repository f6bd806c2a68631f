package judge

import (
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/internal/pkt"
)

// newCourt is one with a table of flows, two addresses of a family and routes to
// them: to one by itself, to the other with all around it.
func newCourt(t *testing.T, ipv6 bool) (c *Court, from, to netip.Addr) {
	t.Helper()
	c = NewCourt(fib.New(), label.New(nil))
	flows, err := flow.New(make([]byte, flow.MinBytes), flow.Config{Workers: 2, Endpoints: 8, Timeouts: flow.DefaultTimeouts()})
	if err != nil {
		t.Fatal(err)
	}
	c.Keep(flows, 0)
	from, to = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("11.0.0.1")
	if ipv6 {
		from, to = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2002:db8::1")
	}
	for i, p := range []netip.Prefix{host(from), net(to)} {
		if err := c.FIB.SetRoute(p, fib.NextHopID(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	c.Moved()
	return c, from, to
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func net(a netip.Addr) netip.Prefix { p, _ := a.Prefix(16); return p }

func families(t *testing.T, f func(t *testing.T, ipv6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

// A generation begins with a change of routes or labels, and with no other call.
func TestAGenerationBeginsWhereSomethingChanged(t *testing.T) {
	families(t, func(t *testing.T, ipv6 bool) {
		c, from, to := newCourt(t, ipv6)
		steps := []struct {
			name   string
			do     func() error
			begins bool
		}{
			{"nothing", func() error { return nil }, false},
			{"a member joins", func() error { return c.Labels.Join(1, host(from)) }, true},
			{"it joins again, which is no other class", func() error { return c.Labels.Join(1, host(from)) }, false},
			{"no members", func() error { return c.Labels.Apply(nil) }, false},
			{"the same route", func() error { return c.FIB.SetRoute(net(to), 2) }, false},
			{"another next hop", func() error { return c.FIB.SetRoute(net(to), 3) }, true},
			{"a neighbour", func() error { return c.FIB.SetAdjacency(3, fib.Adjacency{Kind: fib.Incomplete, Port: 4}) }, true},
			{"its address", func() error { return c.FIB.SetAdjacency(3, fib.Adjacency{Kind: fib.Rewrite, Port: 4}) }, false},
			{"another policy", func() error { c.Begin(); return nil }, true},
		}
		for _, s := range steps {
			was := c.Generation()
			if err := s.do(); err != nil {
				t.Fatal(err)
			}
			c.Moved()
			if is := c.Generation(); (is != was) != s.begins {
				t.Errorf("%s: generation %d after %d, want another: %v", s.name, is, was, s.begins)
			}
		}
		v := c.Labels.View()
		if born := v.Born(v.Lookup(from)); born == 0 || born > c.Generation() {
			t.Errorf("in generation %d the class is of %d", c.Generation(), born)
		}
		if err := c.Labels.Join(2, host(from)); err != nil {
			t.Fatal(err)
		}
		if born := v.Born(v.Lookup(from)); born != c.Coming() {
			t.Errorf("in generation %d a class is born in %d, want the coming one", c.Generation(), born)
		}
	})
}

// Who goes on with another's flows takes none of them for decided by its own tables.
func TestGenerationsGoOnBeyondThoseOfWhoHadTheFlows(t *testing.T) {
	memory := make([]byte, flow.MinBytes)
	flows, err := flow.New(memory, flow.Config{Workers: 1, Endpoints: 1, Timeouts: flow.DefaultTimeouts()})
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for range 3 {
		c := NewCourt(fib.New(), label.New(nil))
		c.Keep(flows, 0)
		if c.Generation() <= last {
			t.Errorf("generation %d follows another process's %d", c.Generation(), last)
		}
		for range 1000 {
			c.Begin()
		}
		last = c.Generation()
		if flows, err = flow.Attach(memory); err != nil {
			t.Fatal(err)
		}
	}
}

// known makes a flow as policy would that was asked for the sides of asked.
func known(t *testing.T, c *Court, from, to netip.Addr, asked [2]uint32) flow.Ref {
	t.Helper()
	v := c.Labels.View()
	d := flow.Decision{Class: [2]uint32{uint32(v.Lookup(from)), uint32(v.Lookup(to))}, Asked: asked, Generation: c.Generation()}
	d.Verdict = [2]uint32{uint32(classifier.NewVerdict(classifier.Allow, 0, 7)), uint32(classifier.NewVerdict(classifier.Allow, 0, 8))}
	k := flow.NewKey(from, to, pkt.ProtoUDP, 1, 2, 0)
	d.NextHop = hops(c, k)
	p := flow.Packet{Key: k, Segments: 1, Kind: flow.Plain}
	got := c.Desk(0).Flows.Insert(0, &p, &flow.Start{Reverse: k.Reverse(), Decision: d})
	if got.Outcome != flow.Inserted {
		t.Fatalf("insert: %v, %v", got.Outcome, got.Reason)
	}
	return got.Ref
}

// hops are the next hops of both directions.
func hops(c *Court, k flow.Key) [2]uint32 {
	r := c.FIB.View()
	if k.IPv6() {
		return [2]uint32{uint32(r.Lookup6(k.DstHi, k.DstLo)), uint32(r.Lookup6(k.SrcHi, k.SrcLo))}
	}
	return [2]uint32{uint32(r.Lookup4(uint32(k.DstLo))), uint32(r.Lookup4(uint32(k.SrcLo)))}
}

func TestRenewal(t *testing.T) {
	must := func(t *testing.T, errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		change func(t *testing.T, c *Court, from, to netip.Addr)
		asked  [2]uint32
		since  int // generations after the flow was decided
		stands bool
	}{
		"nothing of it":                      {func(*testing.T, *Court, netip.Addr, netip.Addr) {}, [2]uint32{3, 4}, 0, true},
		"another is asked":                   {func(*testing.T, *Court, netip.Addr, netip.Addr) {}, [2]uint32{3, 5}, 0, false},
		"nobody is asked":                    {func(*testing.T, *Court, netip.Addr, netip.Addr) {}, [2]uint32{3, 0}, 0, false},
		"the same by number, who is younger": {func(*testing.T, *Court, netip.Addr, netip.Addr) {}, [2]uint32{3, 4}, 1, false},
		"others join": {func(t *testing.T, c *Court, from, to netip.Addr) {
			must(t, c.Labels.Join(1, host(from.Next())), c.Labels.Join(2, host(to.Next())))
		}, [2]uint32{3, 4}, 0, true},
		"the originator joins": {func(t *testing.T, c *Court, from, _ netip.Addr) { must(t, c.Labels.Join(2, host(from))) }, [2]uint32{3, 4}, 0, false},
		"the other leaves":     {func(t *testing.T, c *Court, _, to netip.Addr) { must(t, c.Labels.Leave(1, host(to))) }, [2]uint32{3, 4}, 0, false},
		"routes": {func(t *testing.T, c *Court, from, to netip.Addr) {
			must(t, c.FIB.SetRoute(host(from), 11), c.FIB.SetRoute(net(to), 12))
		}, [2]uint32{3, 4}, 0, true},
		"the number of its class is another's": {func(t *testing.T, c *Court, _, to netip.Addr) {
			v := c.Labels.View()
			was := v.Lookup(to)
			for set := classifier.SetID(2); ; set++ {
				must(t, c.Labels.Join(set, host(to)))
				c.Moved()
				c.Labels.Reclaim()
				if v = c.Labels.View(); v.Lookup(to) == was {
					return
				}
			}
		}, [2]uint32{3, 4}, 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, ipv6 bool) {
				c, from, to := newCourt(t, ipv6)
				must(t, c.Labels.Join(1, host(to)))
				c.Moved()
				ref := known(t, c, from, to, [2]uint32{3, 4})
				decided := c.Generation()
				tt.change(t, c, from, to)
				c.Begin()
				n, now := c.NewRenewal(1), c.Generation()
				n.Look(c.FIB.View(), []flow.Ref{ref, ref ^ 1})
				if _, ok := n.Settled(0, now); ok {
					t.Fatal("a former decision is taken for one in force")
				}
				d, stands := n.Renew(0, ref, now, tt.asked, decided+uint64(tt.since))
				if stands != tt.stands || c.Renewed() != map[bool]uint64{true: 1}[stands] {
					t.Fatalf("the flow stands: %v, want %v; %d counted", stands, tt.stands, c.Renewed())
				}
				kept, _ := c.Flows.Decision(ref)
				if !stands {
					if kept.Generation != decided {
						t.Errorf("it is of generation %d, want %d as before", kept.Generation, decided)
					}
					return
				}
				want := hops(c, c.Flows.Original(ref))
				if kept != *d || kept.Generation != now || kept.NextHop != want {
					t.Errorf("it is decided %+v, want generation %d and next hops %v", kept, now, want)
				}
				for i := range uint8(2) {
					if got := [2]uint32{uint32(n.Hop(i, false)), uint32(n.Hop(i, true))}; got != want {
						t.Errorf("packet %d goes to next hops %v, want %v", i, got, want)
					}
				}
				if _, again := n.Renew(1, ref^1, now, tt.asked, decided); !again || c.Renewed() != 1 {
					t.Errorf("its next packet goes on: %v, and %d renewals are counted, want 1", again, c.Renewed())
				}
			})
		})
	}
}

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/graph"
)

// known is a case of packets whose flows are known.
type known struct {
	kind
	flows int
}

func (c known) String() string { return "known/flows=" + count(c.flows) + c.kind.String() }

func count(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dM", n>>20)
	case n >= 1<<10 && n%1000 != 0:
		return fmt.Sprintf("%dk", n>>10)
	case n >= 1000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// knownFlows are how many flows there are in the cases of known flows.
func knownFlows() []int { return []int{1 << 10, 1 << 16, 1 << 20} }

// knownBudget is what the design allows a packet in ns.
func knownBudget(flows int) float64 {
	return map[int]float64{1 << 10: 30, 1 << 16: 60, 1 << 20: 90}[flows]
}

// loopThen is the cost in ns of the plain loop on the machine that the budgets
// were set on; see the scenario graph.
const loopThen = 14

// vpp is the cost in ns of a packet of a known flow in VPP with a stateful ACL,
// measured by us at another time and on another machine.
const vpp = "vpp-published"

func vppKnown(c known) float64 {
	if c.kind != (kind{}) {
		return 0
	}
	return map[int]float64{1 << 10: 31, 1 << 16: 64}[c.flows]
}

// contest is our path, the same without policy, and the plain loop, over the same
// conversations.
type contest struct {
	ours, open     *bed
	talk, openTalk *talk
	loop           *byhand.Loop
}

func newContest(ctx context.Context, k kind, rules, flows int) (*contest, error) {
	c := &contest{loop: newLoop(k)}
	var err error
	if c.ours, c.talk, err = underWay(ctx, k, rules, flows); err != nil {
		return nil, err
	}
	if c.open, c.openTalk, err = underWay(ctx, k, 0, flows); err != nil {
		c.ours.close()
		return nil, err
	}
	return c, nil
}

func (c *contest) close() {
	c.ours.close()
	c.open.close()
}

// underWay is a bed with conversations that have been opened.
func underWay(ctx context.Context, k kind, rules, flows int) (*bed, *talk, error) {
	b, err := newBed(ctx, k, rules, flows)
	if err != nil {
		return nil, nil, err
	}
	t := newTalk(b.arena, k, rules, flows)
	if err := b.open(t); err != nil {
		b.close()
		return nil, nil, fmt.Errorf("open %d conversations: %w", flows, err)
	}
	return b, t, nil
}

// newLoop makes the plain loop over the routes of a bed.
func newLoop(k kind) *byhand.Loop {
	routes := []netip.Prefix{covering(k.ipv6, 0), covering(k.ipv6, 1)}
	return byhand.NewLoop(k.ipv6, routes, routerMAC(0), hostMAC(0))
}

// floor is what a packet of t costs in the plain loop.
func floor(p *byhand.Loop, t *talk, d time.Duration) float64 {
	return byhand.Nanos(frames, d, func() time.Duration {
		t.write()
		start := time.Now()
		p.Forward(t.mem, t.metas, graph.VectorMax)
		return time.Since(start)
	})
}

// sides are what takes turns, ours first, which notes what its stops cost.
func (c *contest) sides(stops stops) []harness.Side {
	return []harness.Side{
		{Name: "ours", Window: func(d time.Duration) float64 {
			before := c.ours.engine.Stats()[0].Nodes
			nanos := c.ours.nanos(c.talk, d)
			stops.note(c.ours.engine, before)
			return nanos
		}},
		{Name: noPolicy, Window: func(d time.Duration) float64 { return c.open.nanos(c.openTalk, d) }},
		{Name: loop, Window: func(d time.Duration) float64 { return floor(c.loop, c.openTalk, d) }},
	}
}

// stops are what a packet cost in each stop, window by window, in ns. The engine
// takes the time of one pass in 64.
type stops map[string][]float64

// note adds what the stops have cost since.
func (s stops) note(e *graph.Engine, before []graph.NodeCounters) {
	names := e.Graph().Nodes()
	for i, n := range e.Stats()[0].Nodes {
		if packets := n.SampledPackets - before[i].SampledPackets; packets > 0 {
			s[names[i]] = append(s[names[i]], float64(n.SampledNanos-before[i].SampledNanos)/float64(packets))
		}
	}
}

// medians are what they cost all in all.
func (s stops) medians() map[string]float64 {
	out := map[string]float64{}
	for name, nanos := range s {
		out["ns_"+name] = harness.Summary(nanos).Median
	}
	return out
}

// check says whether all sides forwarded all that they were given.
func (c *contest) check() error {
	if c.loop.Bad > 0 {
		return fmt.Errorf("the plain loop found fault with %d of %d frames", c.loop.Bad, c.loop.Bad+c.loop.Sent)
	}
	if err := c.open.check(); err != nil {
		return fmt.Errorf("without policy: %w", err)
	}
	return c.ours.check()
}

// measure runs one case and reports it against each peer.
func (k known) measure(ctx context.Context, s *harness.Session, d time.Duration) error {
	c, err := newContest(ctx, k.kind, knownRules, k.flows)
	if err != nil {
		return err
	}
	defer c.close()
	stops := stops{}
	turns := s.Meter.Compare(ctx, d, c.sides(stops)...)
	allocs := harness.Allocations(8*frames, func() {
		for range 8 {
			c.ours.round(c.talk)
		}
	})
	if err := c.check(); err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	if turns.Sides[0] == nil {
		skip(s, k.String(), nanosPerPacket(), loop, knownBudget(k.flows))
		return nil
	}
	s.Say("%-30s %.1f ns; without policy %.1f, %s %.1f", k, turns.Sides[0].Median, turns.Sides[1].Median, loop, turns.Sides[2].Median)
	report := func(peer string, theirs *harness.Estimate) {
		r := harness.New(k.String(), nanosPerPacket(), turns.Sides[0], peer, theirs, knownBudget(k.flows), "")
		if peer == loop {
			r.WantRatio(loopThen / knownBudget(k.flows))
		}
		r.Allocs, r.Noise, r.Extra = &allocs, &turns.Noise, stops.medians()
		s.Report(r)
	}
	report(loop, turns.Sides[2])
	report(noPolicy, turns.Sides[1])
	if v := vppKnown(k); v != 0 {
		report(vpp, harness.Published(v))
	}
	if allocs != 0 {
		return fmt.Errorf("%s: a packet makes %v objects on the heap, want none", k, allocs)
	}
	return nil
}

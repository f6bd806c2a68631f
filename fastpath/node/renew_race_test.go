package node_test

import (
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/fastpath/flow"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// home is the one port that packets from the i-th host of a family come in by.
func home(i int) uint16 { return 1 + uint16(i)%(churnPorts-1) }

// chatter lets every host talk to every other, by all queues of its home.
func (c *churn) chatter() {
	loops := map[uint16][]gt.Packet{}
	for family := range 2 {
		for i := range c.hosts[family] {
			for j := range c.hosts[family] {
				if i != j {
					k := &talker{ends: [2]netip.Addr{c.hosts[family][min(i, j)], c.hosts[family][max(i, j)]}}
					loops[home(i)] = append(loops[home(i)], gt.Packet{Bytes: k.packet(i > j)})
				}
			}
		}
	}
	for port, loop := range loops {
		for i, q := range c.l.Queues(port) {
			q.Loop(append(loop[i:len(loop):len(loop)], loop[:i]...)...)
		}
	}
}

// change makes steps as a writer does beside whom workers run: what went out of use
// is used again only when all have begun another pass.
func (c *churn) change(t *testing.T) {
	t.Helper()
	for range 3 {
		c.step(t)
	}
	routes, labels := c.l.Tables.FIB.Generation(), c.labels.Generation()
	if err := c.l.Engine.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.l.Tables.FIB.Quiesced(routes)
	c.labels.Quiesced(labels)
}

// rest waits until there has been talk since the last change, and ends it.
func (c *churn) rest(t *testing.T) {
	t.Helper()
	decided := func() uint64 { return c.l.Tables.Court.Renewed() + c.l.Tables.Court.Rejudged() }
	for end, was := time.Now().Add(10*time.Second), decided(); decided() < was+20 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.l.Tables.Court.Begin()
	}
	for port := range churnPorts {
		for _, q := range c.l.Queues(port) {
			q.End()
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.l.Engine.Kick()
		if total := c.l.Engine.Total(); total.In() == total.Out() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after 10 s %+v", c.l.Engine.Total())
		}
	}
}

// Workers renew flows, judge them anew and make others while a writer changes all that
// they read. When it rests, each flow that is stamped with the generation in force is
// decided as judging it then gives.
func TestFlowsAreRenewedWhileTablesChange(t *testing.T) {
	c := newChurn(t, 11, gt.Config{Workers: 2, Running: true})
	rounds, inForce := 15, 0
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		c.chatter()
		for range 10 {
			c.change(t)
		}
		c.rest(t)
		for f := range c.l.Tables.Court.Flows.All(0) {
			if f.Decision.Generation == c.l.Tables.Court.Generation() {
				inForce++
				c.wantOneOf(t, &f)
			}
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	if renewed := c.l.Tables.Court.Renewed(); inForce < rounds || renewed < uint64(rounds) {
		t.Errorf("%d flows were of the generation in force, %d were renewed: the test shows little", inForce, renewed)
	}
}

// wantOneOf fails t unless a flow is decided as by a packet of one of its sides that
// came in at home.
func (c *churn) wantOneOf(t *testing.T, f *flow.Flow) {
	t.Helper()
	src, dst := f.Key[0].Addrs()
	var wants []flow.Decision
	want := func(from, to uint16) bool {
		d, _ := c.judged(f.Key[0], from, to)
		d.Generation = f.Decision.Generation
		wants = append(wants, d)
		return d == said(f)
	}
	for _, out := range c.exits(dst) {
		if want(c.homeOf(src), out) {
			return
		}
	}
	for _, out := range c.exits(src) {
		if want(out, c.homeOf(dst)) {
			return
		}
	}
	t.Errorf("flow from %v to %v: decided %+v, want one of %+v", src, dst, f.Decision, wants)
}

// said is what was decided about a flow, without a note of who else is told of it.
func said(f *flow.Flow) flow.Decision {
	d, verdicts := f.Decision, judge.Verdicts(&f.Decision)
	d.Verdict = [2]uint32{uint32(verdicts[0]), uint32(verdicts[1])}
	return d
}

func (c *churn) homeOf(a netip.Addr) uint16 {
	for _, hosts := range c.hosts {
		for i, h := range hosts {
			if h == a {
				return home(i)
			}
		}
	}
	return 0
}

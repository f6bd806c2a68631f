package node_test

import (
	"fmt"
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/flow"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// talker is a conversation that a test keeps alive.
type talker struct {
	ends     [2]netip.Addr // who began it, with whom
	judgedBy string        // all that was to be known when it was last decided
	touched  bool          // that was something else at some time since
}

// packet is the next one: of the originator's, or an answer.
func (c *talker) packet(reply bool) []byte {
	if reply {
		return gt.UDPPorts(c.ends[1], c.ends[0], 10, 53, 1000)
	}
	return gt.UDPPorts(c.ends[0], c.ends[1], 10, 1000, 53)
}

func (c *talker) key() flow.Key { return flow.NewKey(c.ends[0], c.ends[1], udp, 1000, 53, 0) }

// inputs is all that a conversation is decided from, in words: its addresses' sets,
// where its packets go, and whom that concerns.
func (c *churn) inputs(t *talker) (s string) {
	view := c.labels.View()
	for _, a := range t.ends {
		s += fmt.Sprint(view.Members(view.Lookup(a)), " ")
		exits := c.exits(a)
		if len(exits) != 1 { // a flow's share of it may change
			s += fmt.Sprint(c.hop(a), c.l.Tables.FIB.Members(c.hop(a)), " ")
		}
		for _, port := range exits {
			s += fmt.Sprintf("%d:%p ", port, c.policy[port])
		}
	}
	return s
}

// definite tells whether the same are asked about a conversation whichever way its
// packets take.
func (c *churn) definite(t *talker) bool {
	for _, a := range t.ends {
		for _, port := range c.exits(a) {
			if first := c.exits(a)[0]; c.policy[port] != c.policy[first] || (port == ownHost) != (first == ownHost) {
				return false
			}
		}
	}
	return true
}

// Whatever changes, in whatever order: what is stamped with the generation in force is
// what judging it from the tables in force gives, nothing passes that these deny, and
// no packet of a flow is judged again that nothing has changed for.
func TestRenewedFlowsAreThoseThatJudgingAnewWouldLeave(t *testing.T) {
	rounds, renewed, rejudged, passed := 4000, uint64(0), uint64(0), 0
	if testing.Short() {
		rounds = 300
	}
	for seed := range uint64(3) {
		c := newChurn(t, seed, gt.Config{})
		var talkers []*talker
		for family := range 2 {
			for i, a := range c.hosts[family] {
				for _, b := range c.hosts[family][i+1:] {
					talkers = append(talkers, &talker{ends: [2]netip.Addr{a, b}})
				}
			}
		}
		for range rounds {
			for range 1 + c.r.IntN(2) {
				c.step(t)
				c.l.Tables.FIB.Reclaim() // nobody is in a pass: numbers are used again at once
				c.labels.Reclaim()
				for _, k := range talkers {
					k.touched = k.touched || c.inputs(k) != k.judgedBy
				}
			}
			for range 4 {
				if c.send(t, talkers[c.r.IntN(len(talkers))]) {
					passed++
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		renewed += c.l.Tables.Court.Renewed()
		rejudged += c.l.Tables.Court.Rejudged()
	}
	if min(renewed, rejudged, uint64(passed)) < uint64(rounds)/10 {
		t.Errorf("%d packets passed, %d flows were renewed, %d packets judged anew: the test shows little", passed, renewed, rejudged)
	}
}

// send lets the next packet of a conversation come in by the port that it should,
// and holds what becomes of it against the tables. It tells whether the packet passed.
func (c *churn) send(t *testing.T, k *talker) (passed bool) {
	t.Helper()
	reply := c.r.IntN(2) == 0
	src, dst := k.ends[0], k.ends[1]
	if reply {
		src, dst = dst, src
	}
	in := outV // nobody's policy
	if ports := c.exits(src); len(ports) > 0 {
		in = ports[0]
	}
	was, _ := c.flow(k)
	before := c.l.Tables.Court.Rejudged()
	c.l.Inject(in, k.packet(reply))
	c.l.Run()
	anew := c.l.Tables.Court.Rejudged() - before
	f, known := c.flow(k)
	if anew > 0 && !k.touched && c.definite(k) {
		t.Errorf("a packet of %v was judged again though nothing has changed: %s; was %+v, is %+v", k.ends, k.judgedBy, was.Decision, f.Decision)
	}
	for port := range c.l.CollectAll() {
		passed = true
		if c.definite(k) {
			c.wantAllowed(t, f, known, src, in, port)
		}
	}
	if !known || f.Decision.Generation == was.Decision.Generation {
		return passed
	}
	c.wantDecided(t, f, src, in, c.exits(dst))
	k.judgedBy, k.touched = c.inputs(k), false
	return passed
}

// flow is that of a conversation, whoever began it.
func (c *churn) flow(k *talker) (flow.Flow, bool) {
	key := k.key()
	for f := range c.l.Tables.Court.Flows.All(0) {
		if f.Key[0] == key || f.Key[1] == key {
			return f, true
		}
	}
	return flow.Flow{}, false
}

// sides are the ports of who began a flow and of the other, of a packet that went
// from one port to another.
func sides(f *flow.Flow, src netip.Addr, in, out uint16) (from, to uint16) {
	if first, _ := f.Key[0].Addrs(); first != src {
		return out, in
	}
	return in, out
}

// wantDecided fails t unless a flow was decided as a packet from src would have it
// that came by port in and may have left by one of exits.
func (c *churn) wantDecided(t *testing.T, f flow.Flow, src netip.Addr, in uint16, exits []uint16) {
	t.Helper()
	var wants []flow.Decision
	for _, out := range exits {
		from, to := sides(&f, src, in, out)
		want, _ := c.judged(f.Key[0], from, to)
		want.Generation = f.Decision.Generation
		if want == said(&f) {
			return
		}
		wants = append(wants, want)
	}
	t.Errorf("flow of %v, by a packet from %v and port %d: decided %+v, want one of %+v", f.Key[0], src, in, f.Decision, wants)
}

// wantAllowed fails t if policy denies what has passed from one port to another.
func (c *churn) wantAllowed(t *testing.T, f flow.Flow, known bool, src netip.Addr, in, out uint16) {
	t.Helper()
	if !known { // then nobody's policy may concern it
		from := c.policy[in]
		if from != nil && (!from.Host || out != ownHost) || c.policy[out] != nil && in != ownHost {
			t.Errorf("a packet of no flow passed from port %d to %d, which have policies", in, out)
		}
		return
	}
	from, to := sides(&f, src, in, out)
	d, hostDenied := c.judged(f.Key[0], from, to)
	if hostDenied || judge.Denial(d.Verdicts()) != 0 {
		t.Errorf("a packet passed from port %d to %d, against policy: %+v", in, out, f)
	}
}

// Package judge asks policy about packets, and remembers the answer in their
// flows: the stops policy-out, policy-in and flow-new, and what they share with
// the stops before them.
//
//	flow (opens a Case) ► route (sends it on) ► policy-out ► policy-in ► flow-new ► as route had said
package judge

import (
	"sync/atomic"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/fastpath/overhear"
)

// Endpoint is what judges the packets that come by a port, and those that leave by
// it, by family: IPv4, IPv6. What no tier of a chain decides is denied, but where it is
// open, so one without tiers may do nothing. Once it is in force nothing of it changes:
// another policy is another Endpoint.
type Endpoint struct {
	Egress, Ingress [2]*chain.Chain // of who is behind the port: what comes by it, what leaves by it
	// Host says that the port is the node's own way to others, such as an uplink: asked is
	// about what the node forwards alone. What Calico calls the ingress of a host is Egress
	// here, seen from behind the port.
	Host       bool
	Open       [2][2]bool // what no tier of Egress, Ingress decides is allowed, by family
	Account    uint32     // that its flows are charged to
	HostDenied bool       // what it sends to its own node is dropped, whatever Egress says
	Ends       [2]Ends    // of Egress, Ingress
	Staged     [2]*Staged // likewise; nil where nothing is staged
}

// Court is all that packets are judged by.
type Court struct {
	FIB    *fib.Table
	Labels *label.Table
	Flows  *flow.Table // nil until Keep
	// KeepAllowed has flows go on that were allowed, whatever policy comes to say, until
	// they end; what was denied is judged anew. It is set before a graph is built.
	KeepAllowed bool
	// Post shows flows to servers of names to who learns names from them.
	Post *overhear.Post
	Record

	since      time.Duration // the flows' clock when the workers' showed 0
	generation atomic.Uint64
	seen       changes // until the generation began; the writer's
	plots      plots
	desks      map[int]*Desk // by worker
}

// NewCourt makes one where nobody has policy.
func NewCourt(routes *fib.Table, labels *label.Table) *Court {
	c := &Court{FIB: routes, Labels: labels, Post: overhear.NewPost(), desks: map[int]*Desk{}}
	c.Begin()
	routes.Watch(c.touch)
	labels.Watch(c.touch)
	return c
}

// Keep has the court keep what it decides in a table whose clock shows since when
// the workers' shows 0. Its generations go on beyond those of whoever used the table
// before, so that nothing of theirs is taken for what these tables would decide.
func (c *Court) Keep(flows *flow.Table, since time.Duration) {
	const eraShift = 44
	c.Flows, c.since = flows, since
	c.generation.Store(flows.Era() << eraShift)
	c.Begin()
}

// Moved has flows looked at before their next packet goes on: whether they would be
// decided as they were from the tables as they are now. It follows each change of
// routes and labels, and concerns the flows of their addresses; where there was none it
// does nothing.
func (c *Court) Moved() {
	now := c.changes()
	if now == c.seen {
		return
	}
	if now.ways != c.seen.ways {
		c.plots.all.Store(c.Coming())
	}
	c.begin(now)
}

// Begin is Moved for all flows, and in any case: it follows each change of who is
// judged by what.
func (c *Court) Begin() {
	c.plots.all.Store(c.Coming())
	c.begin(c.changes())
}

// begin lets the coming generation begin, after all changes that belong to it.
func (c *Court) begin(now changes) {
	c.seen = now
	generation := c.Coming()
	c.Labels.BirthsAt(generation + 1)
	c.generation.Store(generation)
}

// changes are counts of what flows are decided from: of where next hops lead, of
// routes, of labels.
type changes struct{ ways, routes, labels uint64 }

func (c *Court) changes() changes {
	return changes{c.FIB.Shifts(), c.FIB.Moves(), c.Labels.Generation()}
}

// Coming is the generation that changes belong to which are made now: it begins
// when they are in force.
func (c *Court) Coming() uint64 { return c.Generation() + 1 }

// Generation is that of all that flows are decided from. Who stamps a flow with it must have
// read it before the tables.
//
//fastpath:hot
func (c *Court) Generation() uint64 { return c.generation.Load() }

// Tick is the flows' time at a worker's clock.
//
//fastpath:hot
func (c *Court) Tick(w *graph.Worker) flow.Tick {
	return flow.TickAt(c.since + time.Duration(w.Now))
}

// Desk is what the stops that judge share within a worker.
type Desk struct {
	Docket Docket
	Flows  *flow.Worker // nil for a court without flows
	recorder

	renewed, rejudged atomic.Uint64 // see Court; one worker's, so that it need not lock to add
}

// count adds to a counter of the desk.
//
//fastpath:hot
func count(to *atomic.Uint64, n int) { to.Store(to.Load() + uint64(n)) }

// Renewed is how many times a known flow that was decided from former tables was found to be
// decided by those in force as it had been, and went on without being judged. Any
// goroutine may ask.
func (c *Court) Renewed() (n uint64) {
	for _, d := range c.desks {
		n += d.renewed.Load()
	}
	return n
}

// Rejudged is how many packets of known flows were judged anew, since something
// changed that their flow had been decided from. Any goroutine may ask.
func (c *Court) Rejudged() (n uint64) {
	for _, d := range c.desks {
		n += d.rejudged.Load()
	}
	return n
}

// Desk is a worker's; stops are made by one goroutine.
func (c *Court) Desk(worker int) *Desk {
	if c.desks[worker] == nil {
		c.desks[worker] = &Desk{recorder: c.Record.recorder()}
		if c.Flows != nil {
			c.desks[worker].Flows = c.Flows.Worker(worker)
		}
	}
	return c.desks[worker]
}

// Case is what the stops know of a packet that no flow speaks for: no flow is
// known, or it was judged by other tables than those in force. Index 0 is the
// originator's side or direction, 1 the other's: a known flow is judged as it
// began, whichever side's packet brings it up.
type Case struct {
	Packet     flow.Packet
	Flow       flow.Ref // to be judged anew; 0 for none
	Judged     uint64   // generation of the tables that it was judged by before
	Generation uint64   // and of those in force
	Unfit      flow.Reason
	Reply      bool         // the packet is not of the originator's direction
	Key        flow.Key     // of the originator's packets
	By         [2]*Endpoint // what judges each side; nil where nobody's policy does
	Asked      [2]uint32    // the same, as the flow remembers it
	ToHost     bool         // the other side is the node itself
	Aside      bool         // the packet came by another port than its sender's endpoint has: what is decided is for it alone
	Unrouted   bool         // no way leads back to its sender
	NextHop    [2]uint32    // to the other side, and to the originator
	Tuple      classifier.Packet
	Verdict    [2]classifier.Verdict // of each side's endpoint
	Edge       graph.Edge            // by which route sends the packet on
}

// Route notes where the packets of a case go, of which the one at hand goes by hop, and
// returns what leads back to its sender.
//
//fastpath:hot
func (c *Case) Route(view *fib.View, hop fib.NextHopID) *fib.Adjacency {
	hi, lo, there := c.Key.SrcHi, c.Key.SrcLo, 0
	if c.Reply {
		hi, lo, there = c.Key.DstHi, c.Key.DstLo, 1
	}
	var back fib.NextHopID
	if c.Key.IPv6() {
		back = view.Lookup6(hi, lo)
	} else {
		back = view.Lookup4(uint32(lo))
	}
	c.NextHop[there], c.NextHop[1-there] = uint32(hop), uint32(back)
	return view.Adjacency(view.Resolve(back, 0))
}

// Docket is the cases of a worker, by the packet's slot: they last a pass.
type Docket [2 * graph.VectorMax]Case

// At is the case of a slot.
//
//fastpath:hot
func (d *Docket) At(slot uint16) *Case { return &d[slot&graph.SlotMask] }

// heard is a bit of a flow's second verdict, which has no use for it: an endpoint asks
// for names, and its packets are to be shown to Court.Post.
const heard = 1 << 31

// Verdicts are a decision's, of both sides.
func Verdicts(d *flow.Decision) [2]classifier.Verdict {
	return [2]classifier.Verdict{classifier.Verdict(d.Verdict[0]), classifier.Verdict(d.Verdict[1] &^ heard)}
}

// Plain says of a flow's verdicts that its packets just go on: they are not denied, and
// nobody wants to see them.
//
//fastpath:hot
func Plain(verdicts uint64) bool {
	const actions, allowed = 7 << 29, uint64(classifier.Allow) << 29
	return verdicts&(actions<<32|actions) == allowed<<32|allowed
}

// Denial is why a flow's packets are dropped whose verdicts are those.
//
//fastpath:hot
func Denial(verdicts uint64) graph.Reason {
	switch {
	case classifier.Verdict(verdicts).Action() != classifier.Allow:
		return graph.EgressDenied
	case classifier.Verdict(verdicts>>32&^heard).Action() != classifier.Allow:
		return graph.IngressDenied
	}
	return graph.NoReason
}

// ShapeOf is what ip-input has found out of a packet, for the flow table.
//
//fastpath:hot
func ShapeOf(m *graph.Meta) flow.Shape {
	s := flow.Shape{Length: int(m.Len - uint32(m.L3)), Proto: m.Proto, IPv6: m.Flags&graph.IPv6 != 0, Segments: m.Segments}
	if m.L4 != 0 {
		s.L4 = int(m.L4 - m.L3)
	}
	return s
}

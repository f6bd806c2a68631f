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
)

// Endpoint is what judges the packets of a workload, by family: IPv4, IPv6. What
// no tier of a chain decides is denied, so one without tiers allows nothing.
type Endpoint struct {
	Egress, Ingress [2]*chain.Chain
	Account         uint32 // that its flows are charged to
	HostDenied      bool   // what it sends to its own node is dropped, whatever Egress says
}

// Court is all that packets are judged by.
type Court struct {
	FIB    *fib.Table
	Labels *label.Table
	// Flows must be set before a graph is built over the court if anybody will
	// have policy.
	Flows *flow.Table
	// FlowsSince is the flows' clock when the workers' showed 0.
	FlowsSince time.Duration

	generation atomic.Uint64
	desks      map[int]*Desk // by worker
}

// NewCourt makes one where nobody has policy.
func NewCourt(routes *fib.Table, labels *label.Table) *Court {
	c := &Court{FIB: routes, Labels: labels, desks: map[int]*Desk{}}
	c.generation.Store(1)
	return c
}

// Moved makes every flow be decided anew from the tables as they are now, before
// its next packet goes on. It follows each change of routes, labels, programs and of who is judged by what.
func (c *Court) Moved() { c.generation.Add(1) }

// Generation counts the changes of all that a flow is decided from.
//
//fastpath:hot
func (c *Court) Generation() uint64 { return c.generation.Load() }

// Tick is the flows' time at a worker's clock.
//
//fastpath:hot
func (c *Court) Tick(w *graph.Worker) flow.Tick {
	return flow.TickAt(c.FlowsSince + time.Duration(w.Now))
}

// Desk is what the stops that judge share within a worker.
type Desk struct {
	Docket Docket
	Flows  *flow.Worker // nil for a court without flows
}

// Desk is a worker's; stops are made by one goroutine.
func (c *Court) Desk(worker int) *Desk {
	if c.desks[worker] == nil {
		c.desks[worker] = &Desk{}
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
	ToHost     bool         // the other side is the node itself
	NextHop    [2]uint32    // to the other side, and to the originator
	Tuple      classifier.Packet
	Verdict    [2]classifier.Verdict // of each side's endpoint
	Edge       graph.Edge            // by which route sends the packet on
}

// Docket is the cases of a worker, by the packet's slot: they last a pass.
type Docket [2 * graph.VectorMax]Case

// At is the case of a slot.
//
//fastpath:hot
func (d *Docket) At(slot uint16) *Case { return &d[slot&graph.SlotMask] }

// Denial is why a flow's packets are dropped whose verdicts are those.
//
//fastpath:hot
func Denial(verdicts uint64) graph.Reason {
	switch {
	case classifier.Verdict(verdicts).Action() != classifier.Allow:
		return graph.EgressDenied
	case classifier.Verdict(verdicts>>32).Action() != classifier.Allow:
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

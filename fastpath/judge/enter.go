package judge

import (
	"slices"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/overhear"
)

// flow-new makes a flow of each packet that policy allows and that may open one,
// or has a known flow remember what was decided anew. The packet goes on as route
// had said.
//
// Uses: the packet's case. Sets: flag Judged. Drops: flow-mid-flow, flow-table-full,
// flow-over-share, flow-index-full, flow-tuple-taken.
func newSpec(t *Court, onward []string) graph.Spec {
	return graph.Spec{
		Name: "flow-new", Edges: append(onward, overhear.Name),
		New: func(worker int) graph.Node {
			return &flowNew{Court: t, Desk: t.Desk(worker), rewrite: graph.Edge(slices.Index(onward, "rewrite")), overhear: graph.Edge(len(onward))}
		},
	}
}

type flowNew struct {
	*Court
	*Desk
	rewrite, overhear graph.Edge
}

// Specs declares the stops of a court. onward are the edges of the stop that
// sends packets to policy-out, by which Case.Edge is numbered.
func Specs(c *Court, onward []string) []graph.Spec {
	return []graph.Spec{outSpec(c), inSpec(c), newSpec(c, onward)}
}

// Process enters each packet's flow.
func (n *flowNew) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	n.approach(v.Index())
	for i, slot := range v.Index() {
		c, m := n.Docket.At(slot), v.Meta(i)
		if c.Packet.Kind == flow.Later {
			next[i] = n.late(w, m, c)
			continue
		}
		if why := n.enter(w, c); why != flow.NoReason {
			next[i] = drop(m, graph.FlowReason(uint8(why)))
			continue
		}
		if m.Flags&graph.FirstPart != 0 {
			if why := n.Desk.First(n.Tick(w), w.Mem, m, &c.Packet, c.apart()); why != graph.NoReason {
				next[i] = drop(m, why)
				continue
			}
		}
		m.Flags |= graph.Judged
		next[i] = c.Edge
		if c.asksForNames() && n.Post.Question(w, m, c.Reply) && c.Edge == n.rewrite {
			next[i] = n.overhear
		}
	}
}

// approach has the memory fetched that enter will need, while others are made.
func (n *flowNew) approach(idx []uint16) {
	for _, slot := range idx {
		if c := n.Docket.At(slot); c.Flow == 0 && c.Packet.Kind != flow.Later && c.Packet.Kind != flow.Untracked {
			reverse := c.Key.Reverse()
			n.Desk.Flows.Approach(&reverse)
		}
	}
}

// enter makes the flow of a case, or stamps it.
func (n *flowNew) enter(w *graph.Worker, c *Case) flow.Reason {
	if c.Flow != 0 {
		if !c.Aside {
			n.Court.Flows.Stamp(c.Flow, c.Judged, decision(c)) // another worker may have been quicker: then its decision stands
		}
		return flow.NoReason
	}
	if c.Packet.Kind == flow.Untracked { // of no flow: judged each by itself
		return flow.NoReason
	}
	start := flow.Start{Reverse: c.Key.Reverse(), Decision: decision(c)}
	if c.Aside {
		start.Decision.Generation = 0 // older than any: whose packets these are will be asked for each
	}
	start.Endpoint = c.account()
	return n.Desk.Flows.Insert(n.Tick(w), &c.Packet, &start).Reason
}

// account is what a flow is charged to: who opened it, else whom it was opened to. What
// others open through a host's port is theirs only where no workload is at the other
// end, or strangers could use up what all pods have there.
func (c *Case) account() (to uint32) {
	for _, e := range c.By {
		if e != nil && !e.Host {
			return e.Account
		}
	}
	for _, e := range c.By {
		if e != nil {
			return e.Account
		}
	}
	return 0
}

// apart is what lets a case's datagram pass for itself.
func (c *Case) apart() flow.Apart {
	if !c.Aside {
		return flow.Apart{}
	}
	return flow.Apart{Generation: c.Generation, Asked: c.Asked}
}

// late lets a fragment without transport header pass if its first has: of this
// vector, or of one before.
func (n *flowNew) late(w *graph.Worker, m *graph.Meta, c *Case) graph.Edge {
	var part flow.Part
	var results [1]flow.Result
	packets := [1]flow.Packet{c.Packet}
	if !part.Read(w.Mem[m.Off+uint32(m.L3):m.Off+m.Head], ShapeOf(m)) {
		return drop(m, graph.FlowMalformed)
	}
	if why := n.Desk.Flows.Follow(n.Tick(w), &part, &packets[0]); why != flow.NoReason {
		return drop(m, graph.FlowReason(uint8(why)))
	}
	n.Desk.Flows.Lookup(n.Tick(w), packets[:], results[:])
	r := &results[0]
	switch {
	case r.Outcome == flow.Refused:
		return drop(m, graph.FlowReason(uint8(r.Reason)))
	case c.Aside && part.Apart == c.apart(): // its first has been let pass a moment ago, for itself
		m.Flags |= graph.Judged
		return c.Edge
	case r.Outcome != flow.Hit && r.Outcome != flow.Stale, r.Generation < c.Generation && !n.Stands(r.Generation, &packets[0].Key):
		return drop(m, graph.FlowFragmentUnknown)
	}
	if why := Denial(r.Verdict); why != graph.NoReason {
		return drop(m, why)
	}
	m.Flags |= graph.Judged
	return c.Edge
}

// First lets later fragments follow a datagram's first, m, which policy lets pass.
// Apart is by what, where that was decided for this datagram alone.
// It says why m must not pass all the same: it overlaps another, or there is no
// room to know it by, and those that follow would be dropped.
func (d *Desk) First(now flow.Tick, mem []byte, m *graph.Meta, p *flow.Packet, apart flow.Apart) graph.Reason {
	var part flow.Part
	if !part.Read(mem[m.Off+uint32(m.L3):m.Off+m.Head], ShapeOf(m)) {
		return graph.NoReason
	}
	part.Apart = apart
	if why := d.Flows.First(now, &part, p); why != flow.NoReason {
		return graph.FlowReason(uint8(why))
	}
	return graph.NoReason
}

// drop notes why a packet is dropped and answers with the edge that does it.
func drop(m *graph.Meta, r graph.Reason) graph.Edge {
	m.Reason = r
	return graph.Drop
}

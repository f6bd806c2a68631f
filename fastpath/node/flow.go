package node

import (
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/internal/pkt"
)

// flow sends packets of known flows on by what was decided about their flow,
// and opens a case for each of the others. It stands in the way only while an
// endpoint has policy.
//
// Uses: Off, Len, Head, L3, L4, Proto, InPort, Segments, GSO, Flags. Sets:
// Adjacency, Hash, flag Judged. Drops: no-policy, spoofed-source, egress-denied,
// ingress-denied, flow-*.
const (
	flowDrop graph.Edge = iota
	flowRewrite
	flowRoute
	flowOverhear
)

func flowSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "flow",
		Edges: []string{flowDrop: graph.DropName, flowRewrite: "rewrite", flowRoute: "route", flowOverhear: overhear.Name},
		New: func(worker int) graph.Node {
			return &flowStop{Tables: t, Desk: t.Court.Desk(worker), former: former{renewal: t.Court.NewRenewal(worker)}}
		},
	}
}

// flowStride is how many packets are looked up at once: what that takes stays in
// the nearest cache.
const flowStride = 32

type flowStop struct {
	*Tables
	*judge.Desk
	packets [flowStride]flow.Packet
	results [flowStride]flow.Result
	former  // of them, those whose flows were decided from former tables
}

// Process looks the flows of a vector up, a part of it at a time.
//
//fastpath:hot
func (n *flowStop) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	metas, idx := v.Metas(), v.Index()
	r := ruling{generation: n.Court.Generation()} // before all tables: see judge.Renewal
	r.view, r.st = n.FIB.View(), n.state.Load()
	if len(r.st.Policy) == 0 { // held until nobody had policy any more
		for i := range next {
			next[i] = flowRoute
		}
		return
	}
	for len(idx) > 0 {
		part := min(len(idx), flowStride)
		n.Read(n.Court.Tick(w), w.Mem, metas, idx[:part], n.packets[:part])
		n.Desk.Flows.Lookup(n.Court.Tick(w), n.packets[:part], n.results[:part])
		for i := 0; ; i++ {
			if i = n.swift(&r, metas, idx[:part], next, i); i == part {
				break
			}
			next[i] = n.decide(w, &r, &metas[idx[i]&graph.SlotMask], idx[i], i)
		}
		if n.former.packets > 0 {
			n.renew(w, &r, metas, idx[:part], next)
		}
		idx, next = idx[part:], next[part:]
	}
}

// ruling is what a vector's packets are judged by.
type ruling struct {
	view       fib.View
	st         *State
	generation uint64
	lane       lane
}

// lane is the way that a known flow's packet took: packets that come together mostly
// come by one port and go to few next hops.
type lane struct {
	hop, back fib.NextHopID
	id        fib.AdjacencyID
	room      uint32 // bytes of the longest packet, from the IP header on
	in        uint16
}

// swift sends packets on, from the i-th of the part, that go the way of the packet
// before them: all for which settled would say the same. It returns which one does not.
//
//fastpath:hot
func (n *flowStop) swift(by *ruling, metas *graph.Slots, part []uint16, next []graph.Edge, i int) int {
	const slow = graph.FirstPart | graph.Expiring
	l, generation := by.lane, by.generation
	next = next[:len(part)]
	for ; i < len(part); i++ {
		r, m := &n.results[i&(flowStride-1)], &metas[part[i]&graph.SlotMask]
		if r.Generation < generation && !n.Court.Stands(r.Generation, &n.packets[i&(flowStride-1)].Key) || r.Outcome != flow.Hit || fib.NextHopID(r.NextHop) != l.hop || fib.NextHopID(r.Back) != l.back || m.InPort != l.in ||
			m.Flags&slow != 0 || m.GSO != graph.GSONone || m.Len-uint32(m.L3) > l.room || !judge.Plain(r.Verdict) {
			return i
		}
		m.Flags |= graph.Judged
		m.Adjacency = uint32(l.id)
		next[i] = flowRewrite
	}
	return i
}

// decide says by which edge the i-th packet of the part leaves.
//
//fastpath:hot
func (n *flowStop) decide(w *graph.Worker, by *ruling, m *graph.Meta, slot uint16, i int) graph.Edge {
	r := &n.results[i&(flowStride-1)]
	if r.Outcome == flow.Hit || r.Outcome == flow.Stale {
		if r.Generation >= by.generation || n.Court.Stands(r.Generation, &n.packets[i&(flowStride-1)].Key) {
			return n.settled(w, by, m, i)
		}
		n.former.add(i, r.Ref)
		return flowRoute // for now: renew will tell
	}
	if r.Outcome == flow.Refused && r.Ref != 0 {
		return dropped(m, graph.FlowReason(uint8(r.Reason)))
	}
	if m.Flags&graph.FromUs != 0 {
		return flowRoute
	}
	n.open(w, by, m, slot, i)
	return flowRoute
}

// settled sends a packet on by what is in force for its flow.
//
//fastpath:hot
func (n *flowStop) settled(w *graph.Worker, by *ruling, m *graph.Meta, i int) graph.Edge {
	r := &n.results[i&(flowStride-1)]
	if why := judge.Denial(r.Verdict); why != graph.NoReason {
		return dropped(m, why)
	}
	in := by.st.port(m.InPort)
	if in.Flags&(Workload|NoPolicyState) != 0 {
		if why := refuseBack(by, in, m, fib.NextHopID(r.Back)); why != graph.NoReason {
			return dropped(m, why)
		}
	}
	m.Flags |= graph.Judged
	if m.Flags&graph.FirstPart != 0 {
		if why := n.Desk.First(n.Court.Tick(w), w.Mem, m, &n.packets[i&(flowStride-1)], flow.Apart{}); why != graph.NoReason {
			return dropped(m, why)
		}
	}
	answers := !judge.Plain(r.Verdict) && n.Court.Post.Question(w, m, r.Ref&1 != 0)
	id, single := by.view.Single(fib.NextHopID(r.NextHop))
	if !single {
		return flowRoute
	}
	a := by.view.Adjacency(id)
	if a.Kind != fib.Rewrite || m.Flags&graph.Expiring != 0 || tooBig(w.Mem, m, a.MTU) || a.Port == m.InPort {
		return flowRoute
	}
	m.Adjacency = uint32(id)
	if answers {
		return flowOverhear
	}
	by.lane = lane{hop: fib.NextHopID(r.NextHop), back: fib.NextHopID(r.Back), id: id, room: a.MTU, in: m.InPort}
	return flowRewrite
}

// refuseBack is the strict check of an endpoint's packets of a known flow: what
// goes the other way would leave by the port that m came by.
//
//fastpath:hot
func refuseBack(by *ruling, in *Port, m *graph.Meta, back fib.NextHopID) graph.Reason {
	if in.Flags&NoPolicyState != 0 {
		return graph.NoPolicy
	}
	a := by.view.Adjacency(by.view.Resolve(back, 0))
	if a.Port != m.InPort || a.Kind != fib.Rewrite && a.Kind != fib.Incomplete {
		return graph.SpoofedSource
	}
	return graph.NoReason
}

// open makes a case of a packet that no flow speaks for.
func (n *flowStop) open(w *graph.Worker, by *ruling, m *graph.Meta, slot uint16, i int) {
	c, p, r := n.Docket.At(slot), &n.packets[i], &n.results[i]
	*c = judge.Case{Packet: *p, Key: p.Key, Generation: by.generation}
	m.Flags |= graph.OnTrial
	switch {
	case p.Kind == flow.Later: // its first may be in the same vector: flow-new asks again
		if p.Why != flow.FragmentUnknown {
			c.Unfit = p.Why
		}
	case p.Kind == flow.Untracked, r.Outcome == flow.Refused && r.Reason == flow.UnknownQuote:
		alone(w.Mem, m, c)
	case r.Outcome == flow.Refused:
		c.Unfit = r.Reason
	case r.Outcome == flow.Hit || r.Outcome == flow.Stale: // judged by other tables
		c.Flow, c.Judged = r.Ref, r.Generation
		c.Key = n.Court.Flows.Original(r.Ref)
		c.Reply = (c.Key != p.Key) != (p.Kind == flow.Quote) // what an error quotes went the other way
	}
}

// alone has a packet judged by what it is itself: one that can be of no flow, or an
// ICMP error that quotes none that we know (Calico: such errors are ordinary
// packets).
func alone(mem []byte, m *graph.Meta, c *judge.Case) {
	s := judge.ShapeOf(m)
	s.L4 = 0
	c.Packet.Read(mem[m.Off+uint32(m.L3):m.Off+m.Head], s) // the addresses alone
	c.Packet.Kind = flow.Untracked
	c.Key = c.Packet.Key
	if (m.Proto == pkt.ProtoICMP || m.Proto == pkt.ProtoICMPv6) && m.L4 != 0 {
		at := int(m.Off + uint32(m.L4))
		c.Key.Tail |= uint64(mem[at])<<8 | uint64(mem[at+1])
	}
}

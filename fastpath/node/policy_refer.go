package node

import (
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
)

// refer decides for each packet, and sends those on to policy that it concerns
// and that no flow speaks for; their cases say by which edge they go on.
//
//fastpath:hot
func (n *route) refer(view *fib.View, st *State, mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge) {
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		hop := n.batch.NextHop(uint8(i))
		e := direct(view, st, mem, m, hop)
		next[i] = e
		if e == routeDrop || e == routeError || m.Flags&(graph.Judged|graph.FromUs) != 0 {
			continue
		}
		out := st.HostPort
		if e != routePunt && e != routeEcho {
			out = view.Adjacency(fib.AdjacencyID(m.Adjacency)).Port
		}
		if !st.concerned(m.InPort, out) {
			continue
		}
		if m.Flags&graph.OnTrial == 0 { // policy came into force behind flow's back, in this very pass
			next[i] = dropped(m, graph.NoPolicy)
			continue
		}
		n.summon(view, st, slot, m, e, hop, out)
		next[i] = routePolicy
	}
}

// summon notes in a packet's case who is to judge it: whose policy concerns the
// port it came in by, and the one it would leave by.
//
//fastpath:hot
func (n *route) summon(view *fib.View, st *State, slot uint16, m *graph.Meta, e graph.Edge, hop fib.NextHopID, out uint16) {
	c, from, to := n.Docket.At(slot), m.InPort, out
	if c.Reply {
		from, to = to, from
	}
	back := c.Route(view, hop)
	b := st.bench(from, to)
	c.Edge, c.By, c.Asked, c.ToHost = e, b.by, b.asked, to == st.HostPort
	c.Unrouted, c.Aside = st.origin(back, m.InPort)
}

// origin holds the port that a packet came by against the way back to its sender: none
// may lead there, or one that leads to the port of somebody else's policy. Then the
// packet is spoofed, or was sent around by somebody beyond this node; its sender's policy was not
// asked for it, and must be for the sender's own packets of the same flow. Only the
// first is refused (Calico: loose reverse path checks, and policy by interface).
//
//fastpath:hot
func (s *State) origin(back *fib.Adjacency, in uint16) (unrouted, aside bool) {
	switch back.Kind {
	case fib.Drop, fib.Blackhole, fib.Prohibit:
		return in != s.HostPort, false
	case fib.Local, fib.Punt:
		return false, false
	}
	e := s.policy(back.Port)
	return false, e != nil && !e.Host && back.Port != in
}

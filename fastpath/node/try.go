package node

import (
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
)

// Passage is what the stops around policy make of a packet.
type Passage struct {
	Reason    graph.Reason    // it ends there, for this
	Later     graph.Reason    // it ends behind policy, for this
	Next      string          // the stop it goes to, once policy has let it
	Adjacency fib.AdjacencyID // of its way
	OutPort   uint16          // that way's port
	Referred  bool            // policy is asked
	Case      judge.Case      // about whom, if it is
}

// Try asks ip-input and route what they make of an IP packet that comes in by a
// port and that no flow speaks for. Nothing is counted, sent or changed, and p is
// only read: it is for those who explain. Any goroutine may call it that keeps
// writers of the FIB from reusing what it looks at.
func (t *Tables) Try(in uint16, p []byte) Passage {
	view, st, metas, idx := t.FIB.View(), t.state.Load(), new(graph.Slots), []uint16{0}
	m := &metas[0]
	*m = graph.Meta{Len: uint32(len(p)), Head: uint32(len(p)), InPort: in, Segments: 1, Bufs: 1}
	switch e := header(m, p); {
	case e == ipDrop:
		return Passage{Reason: m.Reason}
	case e == ipND:
		return Passage{Next: "nd"}
	case m.L4 != 0 && transportLies(m, p):
		return Passage{Reason: graph.L4Length}
	}
	m.To = destination(m, p)
	n := &route{Tables: t, Desk: &judge.Desk{}}
	c := n.Docket.At(0)
	c.Packet.Read(p, judge.ShapeOf(m))
	c.Key, c.Generation = c.Packet.Key, t.Court.Generation()
	m.Flags |= graph.OnTrial
	next := []graph.Edge{routeDrop}
	n.lookUp(view, p, metas, idx)
	n.refer(&view, st, p, metas, idx, next)
	out := Passage{Adjacency: fib.AdjacencyID(m.Adjacency), Referred: next[0] == routePolicy, Case: *c}
	e := next[0]
	if out.Referred {
		e = c.Edge
	}
	switch out.Next = onward()[e]; e {
	case routeDrop, routeError:
		out.Reason = m.Reason
	case routePunt:
		if out.OutPort = st.HostPort; st.HostPort == graph.NoPort || st.HostPort == in {
			out.Later = graph.NoHostPort
		}
	default:
		out.OutPort = view.Adjacency(out.Adjacency).Port
		if e == routeRewrite && st.port(out.OutPort).Flags&NoPolicyState != 0 {
			out.Later = graph.NoPolicy
		}
	}
	return out
}

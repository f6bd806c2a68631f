package node

import (
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
)

// former gathers the packets of a part of a vector whose flows were decided from
// former tables. Packets of one flow that stand together are looked up once.
type former struct {
	renewal *judge.Renewal
	refs    [flowStride]flow.Ref
	flows   int
	at      [flowStride]struct{ packet, flow uint8 }
	packets int
}

//fastpath:hot
func (f *former) add(packet int, ref flow.Ref) {
	if f.flows == 0 || f.refs[(f.flows-1)&(flowStride-1)] != ref {
		f.refs[f.flows&(flowStride-1)] = ref
		f.flows++
	}
	at := &f.at[f.packets&(flowStride-1)]
	at.packet, at.flow = uint8(packet), uint8(f.flows-1)
	f.packets++
}

// renew lets packets go on by what was decided about their flows from former tables,
// where those in force would decide the same, and opens cases for the others.
//
//fastpath:hot
func (n *flowStop) renew(w *graph.Worker, by *ruling, metas *graph.Slots, idx []uint16, next []graph.Edge) {
	f := &n.former
	f.renewal.Look(by.view, f.refs[:f.flows])
	for _, at := range f.at[:f.packets] {
		i := int(at.packet)
		slot := idx[i]
		m := &metas[slot&graph.SlotMask]
		if n.stands(w.Mem, by, m, &n.results[i&(flowStride-1)], at.flow) {
			next[i] = n.settled(w, by, m, i)
		} else {
			n.open(w, by, m, slot, i)
		}
	}
	f.flows, f.packets = 0, 0
}

// stands says whether a packet's flow would be decided as it was, and puts what is in force
// for it into r.
//
//fastpath:hot
func (n *flowStop) stands(mem []byte, by *ruling, m *graph.Meta, r *flow.Result, i uint8) bool {
	d, ok := n.renewal.Settled(i, by.generation)
	reply := r.Ref&1 != 0
	if !ok {
		from, to := m.InPort, by.exit(mem, m, n.renewal.Hop(i, reply))
		if to == graph.NoPort {
			return false
		}
		if reply {
			from, to = to, from
		}
		b := by.st.bench(from, to)
		if b.by[0] != nil && b.by[0].HostDenied && to == by.st.HostPort && judge.Denial(d.Verdicts()) == graph.NoReason {
			return false // no flow remembers that
		}
		if d, ok = n.renewal.Renew(i, r.Ref, by.generation, b.asked, b.since); !ok {
			return false
		}
	}
	r.Verdict = d.Verdicts()
	r.NextHop, r.Back, r.Generation = d.NextHop[r.Ref&1], d.NextHop[r.Ref&1^1], d.Generation
	return true
}

// exit is the port that a packet would leave by whose next hop is hop, as direct and
// refer find it; graph.NoPort where they would not send it on.
//
//fastpath:hot
func (by *ruling) exit(mem []byte, m *graph.Meta, hop fib.NextHopID) uint16 {
	id, single := by.view.Single(hop)
	if !single {
		id = by.view.Resolve(hop, flowHash(mem, m))
	}
	switch a := by.view.Adjacency(id); a.Kind {
	case fib.Rewrite, fib.Attached, fib.Incomplete:
		return a.Port
	case fib.Local, fib.Punt:
		return by.st.HostPort
	}
	return graph.NoPort
}

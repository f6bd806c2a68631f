package judge

import (
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/internal/pkt"
)

// policy-out asks the policy of who opened a packet's flow, policy-in that of who
// it was opened to. Each judges the originator's first packet, whichever side's
// packet is at hand.
//
// Uses: the packet's case. Sets: the case's Tuple, NextHop, Verdict. Drops:
// egress-denied, ingress-denied, host-denied, encapsulated, flow-*.
const (
	policyDrop graph.Edge = iota
	policyOn
)

func outSpec(t *Court) graph.Spec {
	return graph.Spec{
		Name:  "policy-out",
		Edges: []string{policyDrop: graph.DropName, policyOn: "policy-in"},
		New:   func(worker int) graph.Node { return &policyOut{bar: bar{Court: t, Desk: t.Desk(worker)}} },
	}
}

func inSpec(t *Court) graph.Spec {
	return graph.Spec{
		Name:  "policy-in",
		Edges: []string{policyDrop: graph.DropName, policyOn: "flow-new"},
		New:   func(worker int) graph.Node { return &policyIn{bar{Court: t, Desk: t.Desk(worker)}} },
	}
}

// bar is where the packets of a vector that one chain judges come together.
type bar struct {
	*Court
	*Desk
	tuples   [classifier.Burst]classifier.Packet
	verdicts [classifier.Burst]classifier.Verdict
	teller
}

type policyOut struct {
	bar
	labels label.Batch
}

type policyIn struct{ bar }

// Process labels the packets of a vector and judges them for their originators.
func (n *policyOut) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	idx, known := v.Index(), 0
	for _, slot := range idx {
		c := n.Docket.At(slot)
		if c.Packet.Kind == flow.Later { // goes the way of its first, if that is known then
			c.By, c.Asked = [2]*Endpoint{}, [2]uint32{}
		}
		if c.Flow != 0 {
			known++
		}
	}
	count(&n.rejudged, known)
	n.label(idx)
	n.back(idx)
	n.look(w, v)
	n.judge(0, idx, next)
	for i, slot := range idx {
		c, m := n.Docket.At(slot), v.Meta(i)
		if why := unfit(c); why != graph.NoReason && next[i] != policyDrop {
			next[i] = drop(m, why)
		} else if next[i] == policyDrop {
			n.deny(c)
			m.Reason = graph.EgressDenied
		}
	}
}

// Process judges the packets of a vector for whom they were first meant.
func (n *policyIn) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	idx := v.Index()
	n.look(w, v)
	n.judge(1, idx, next)
	for i, slot := range idx {
		if next[i] == policyDrop {
			n.deny(n.Docket.At(slot))
			v.Meta(i).Reason = graph.IngressDenied
		}
	}
}

// label finds the classes of both sides of each case.
func (n *policyOut) label(idx []uint16) {
	view := n.Labels.View()
	for i, slot := range idx {
		k := &n.Docket.At(slot).Key
		if k.IPv6() {
			n.labels.Begin6(view, uint8(i), [2]uint64{k.SrcHi, k.SrcLo}, [2]uint64{k.DstHi, k.DstLo})
		} else {
			n.labels.Begin4(view, uint8(i), uint32(k.SrcLo), uint32(k.DstLo))
		}
	}
	n.labels.Finish(view)
	for i, slot := range idx {
		c := n.Docket.At(slot)
		from, to := n.labels.Classes(uint8(i))
		t := &c.Tuple
		t.SourceClass, t.DestinationClass, t.Protocol = uint32(from), uint32(to), c.Key.Proto()
		if !c.Key.IPv6() {
			t.Source, t.Destination = uint32(c.Key.SrcLo), uint32(c.Key.DstLo)
		}
		t.SourcePort, t.DestinationPort = c.Key.Ports()
		if t.Protocol == pkt.ProtoICMP || t.Protocol == pkt.ProtoICMPv6 {
			t.SourcePort = 0 // of a query the key has its identifier
		}
	}
}

// back finds the next hop that route has not: of the direction that the packet
// at hand does not take.
func (n *policyOut) back(idx []uint16) {
	view := n.FIB.View()
	for _, slot := range idx {
		c := n.Docket.At(slot)
		hi, lo, at := c.Key.SrcHi, c.Key.SrcLo, 1
		if c.Reply {
			hi, lo, at = c.Key.DstHi, c.Key.DstLo, 0
		}
		var hop fib.NextHopID
		if c.Key.IPv6() {
			hop = view.Lookup6(hi, lo)
		} else {
			hop = view.Lookup4(uint32(lo))
		}
		c.NextHop[at] = uint32(hop)
	}
}

// judge asks for each packet the policy of one side, 0 or 1, of its case: as many
// at a time as stand together and ask the same chain. Where there is none, all
// is allowed.
func (n *bar) judge(side int, idx []uint16, next []graph.Edge) {
	for len(idx) > 0 {
		by, some := n.chain(side, idx[0])
		k := 0
		for k < min(len(idx), len(n.tuples)) {
			if other, also := n.chain(side, idx[k]); other != by || also != some {
				break
			}
			n.tuples[k] = n.Docket.At(idx[k]).Tuple
			k++
		}
		n.ask(by, some, k)
		for i := range k {
			n.Docket.At(idx[i]).Verdict[side] = n.verdicts[i]
			next[i] = policyOn
			if n.verdicts[i].Action() != classifier.Allow {
				next[i] = policyDrop
			}
		}
		n.tell(side, by, idx[:k])
		idx, next = idx[k:], next[k:]
	}
}

// ask judges the first k tuples.
func (n *bar) ask(by *chain.Chain, some bool, k int) {
	verdicts := n.verdicts[:k]
	switch {
	case !some:
		for i := range verdicts {
			verdicts[i] = classifier.NewVerdict(classifier.Allow, 0, 0)
		}
	case by == nil:
		clear(verdicts)
	default:
		by.Match(n.tuples[:k], verdicts)
	}
}

// chain is what judges one side of a case; some is false where nothing does.
func (n *bar) chain(side int, slot uint16) (by *chain.Chain, some bool) {
	c := n.Docket.At(slot)
	e := c.By[side]
	if e == nil {
		return nil, false
	}
	family := 0
	if c.Key.IPv6() {
		family = 1
	}
	if side == 0 {
		return e.Egress[family], true
	}
	return e.Ingress[family], true
}

// unfit is why a packet is dropped whatever policy says.
func unfit(c *Case) graph.Reason {
	from := c.By[0]
	switch {
	case c.Unfit != flow.NoReason:
		return graph.FlowReason(uint8(c.Unfit))
	case from != nil && c.Flow == 0 && isEncapsulated(&c.Packet):
		return graph.Encapsulated
	case from != nil && from.HostDenied && c.ToHost:
		return graph.HostDenied
	}
	return graph.NoReason
}

// deny has a known flow remember that it is denied now, so that its next packets
// need not be judged.
func (n *bar) deny(c *Case) {
	if c.Flow != 0 {
		n.Court.Flows.Stamp(c.Flow, c.Judged, decision(c))
	}
}

// decision is what a case has come to.
func decision(c *Case) flow.Decision {
	return flow.Decision{
		Verdict: [2]uint32{uint32(c.Verdict[0]), uint32(c.Verdict[1])},
		Class:   [2]uint32{c.Tuple.SourceClass, c.Tuple.DestinationClass},
		NextHop: c.NextHop, Asked: c.Asked, Generation: c.Generation,
	}
}

// isEncapsulated tells packets that would carry others past policy: IP in IP, and
// VXLAN on the port that Calico gives it.
func isEncapsulated(p *flow.Packet) bool {
	const vxlan = 4789
	_, port := p.Key.Ports()
	proto := p.Key.Proto()
	return proto == pkt.ProtoIPIP || proto == pkt.ProtoUDP && port == vxlan
}

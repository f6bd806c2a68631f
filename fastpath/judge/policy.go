package judge

import (
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/internal/pkt"
)

// policy-out asks the policy of who opened a packet's flow, policy-in that of who
// it was opened to. Each judges the originator's first packet, whichever side's
// packet is at hand.
//
// Uses: the packet's case. Sets: the case's Tuple, Verdict. Drops: egress-denied,
// ingress-denied, host-denied, encapsulated, spoofed-source, flow-*.
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
			c.By = [2]*Endpoint{}
		}
		if c.Flow != 0 {
			known++
		}
	}
	count(&n.rejudged, known)
	n.label(idx)
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
			n.labels.Begin6(uint8(i), [2]uint64{k.SrcHi, k.SrcLo}, [2]uint64{k.DstHi, k.DstLo})
		} else {
			n.labels.Begin4(uint8(i), uint32(k.SrcLo), uint32(k.DstLo))
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

// judge asks for each packet the policy of one side, 0 or 1, of its case: as many
// at a time as stand together and ask the same chain. Where there is none, all
// is allowed.
func (n *bar) judge(side int, idx []uint16, next []graph.Edge) {
	for len(idx) > 0 {
		by := n.asked(side, idx[0])
		k := 0
		for k < min(len(idx), len(n.tuples)) {
			if n.asked(side, idx[k]) != by {
				break
			}
			n.tuples[k] = n.Docket.At(idx[k]).Tuple
			k++
		}
		n.ask(by, k)
		for i := range k {
			n.Docket.At(idx[i]).Verdict[side] = n.verdicts[i]
			next[i] = policyOn
			if n.verdicts[i].Action() != classifier.Allow {
				next[i] = policyDrop
			}
		}
		n.tell(side, by.chain, idx[:k])
		idx, next = idx[k:], next[k:]
	}
}

// Unopposed is the verdict on packets of which nobody's policy, or no tier of one that
// is open, has anything to say.
//
//fastpath:hot
func Unopposed() classifier.Verdict { return classifier.NewVerdict(classifier.Allow, 0, 0) }

// ask judges the first k tuples.
func (n *bar) ask(by asked, k int) {
	verdicts := n.verdicts[:k]
	switch {
	case !by.some:
		for i := range verdicts {
			verdicts[i] = Unopposed()
		}
	case by.chain == nil:
		clear(verdicts)
	default:
		by.chain.Match(n.tuples[:k], verdicts)
		if by.open {
			allowRest(verdicts)
		}
	}
}

// allowRest allows what no tier has decided.
func allowRest(verdicts []classifier.Verdict) {
	for i, v := range verdicts {
		if v.Action() == classifier.NoMatch {
			verdicts[i] = Unopposed()
		}
	}
}

// asked is what judges one side of a case.
type asked struct {
	chain *chain.Chain
	some  bool // anything does
	open  bool // what no tier decides is allowed
}

func (n *bar) asked(side int, slot uint16) asked {
	c := n.Docket.At(slot)
	e := c.By[side]
	if e == nil {
		return asked{}
	}
	chains := [2]*[2]*chain.Chain{&e.Egress, &e.Ingress}[side]
	return asked{chains[c.family()], true, e.Open[side][c.family()]}
}

// unfit is why a packet is dropped whatever policy says.
func unfit(c *Case) graph.Reason {
	from := c.By[0]
	switch {
	case c.Unfit != flow.NoReason:
		return graph.FlowReason(uint8(c.Unfit))
	case c.Unrouted && c.Flow == 0:
		return graph.SpoofedSource
	case from != nil && !from.Host && c.Flow == 0 && isEncapsulated(&c.Packet):
		return graph.Encapsulated
	case from != nil && from.HostDenied && c.ToHost:
		return graph.HostDenied
	}
	return graph.NoReason
}

// deny has a known flow remember that it is denied now, so that its next packets
// need not be judged.
func (n *bar) deny(c *Case) {
	if c.Flow != 0 && !c.Aside {
		n.Court.Flows.Stamp(c.Flow, c.Judged, decision(c))
	}
}

// decision is what a case has come to.
func decision(c *Case) flow.Decision {
	second := uint32(c.Verdict[1])
	if c.asksForNames() {
		second |= heard
	}
	return flow.Decision{
		Verdict: [2]uint32{uint32(c.Verdict[0]), second},
		Class:   [2]uint32{c.Tuple.SourceClass, c.Tuple.DestinationClass},
		NextHop: c.NextHop, Asked: c.Asked, Generation: c.Generation,
	}
}

// asksForNames says of a flow that a workload whose policy was asked opened it to a
// server of names. (What comes by an uplink is not believed: whoever sends it might ask a
// server of his own here.)
func (c *Case) asksForNames() bool {
	_, port := c.Key.Ports()
	proto := c.Key.Proto()
	return c.By[0] != nil && !c.By[0].Host && port == overhear.Port && (proto == pkt.ProtoUDP || proto == pkt.ProtoTCP)
}

// isEncapsulated tells packets that would carry others past policy: IP in IP, and
// VXLAN on the port that Calico gives it.
func isEncapsulated(p *flow.Packet) bool {
	const vxlan = 4789
	_, port := p.Key.Ports()
	proto := p.Key.Proto()
	return proto == pkt.ProtoIPIP || proto == pkt.ProtoUDP && port == vxlan
}

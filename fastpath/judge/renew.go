package judge

import (
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
)

// RenewalMax is how many flows a Renewal looks at.
const RenewalMax = 32

// Renewal finds out which flows that were decided from former tables would be
// decided the same by those in force, without judging them.
//
// Most it need not look at: those for whose addresses nothing has changed (Court.Stands).
//
// A decision was made from the classes of both addresses, from who was asked for
// each side, and from what those say; next hops matter to it in that they lead to
// the port of who is asked. So a flow stands if
//
//   - the classes of its addresses, looked up anew, have the numbers that it remembers,
//     and neither is younger than its decision;
//   - those who would be asked, found anew by the packet's two ports, are those whom it
//     remembers, and none was put in force after its decision.
//
// Then it is stamped with its old verdict, the next hops of today and the generation in
// force. That is sound since generations are counted so:
//
//  1. Writers first change what is read (tables, and how old each part is: the coming
//     generation), and then let the coming generation begin. There is one writer.
//  2. Readers first read which generation has begun, and then anything else. So what is
//     stamped with a generation was decided from tables of that age or younger.
//  3. A number (a class, an endpoint's port) is given to something else only with a later
//     age, and not before all readers have begun another pass.
//
// Take a flow that was stamped in generation F and a part that is found now to be of age
// A ≤ F. By 1 the part was as it is before F began. By 3 it has not changed since, or it
// would be of an age of F+1 at least. By 2 whoever stamped the flow read it after F began,
// therefore just as it is now, or even younger, if that was after us. So the same was
// asked by the same tuple, and the answer is that of the tables in force or of younger
// ones. What a writer changes while we look makes the flow be looked at again, when the
// coming generation begins.
type Renewal struct {
	*Court
	*Desk
	labels      label.Batch
	there, back fib.Batch
	view        label.View
	keys        [RenewalMax]flow.Key
	was         [RenewalMax]flow.Decision
	told        [RenewalMax]bool // was is whole
}

// NewRenewal makes one of a worker.
func (c *Court) NewRenewal(worker int) *Renewal { return &Renewal{Court: c, Desk: c.Desk(worker)} }

// Look looks up what flows, RenewalMax at most, were decided from and what they would
// be decided from now. The generation in force must have been read before.
//
//fastpath:hot
func (n *Renewal) Look(routes fib.View, refs []flow.Ref) {
	flows := n.Court.Flows
	for i, ref := range refs {
		n.was[i&(RenewalMax-1)], n.told[i&(RenewalMax-1)] = flows.Decision(ref)
	}
	for i, ref := range refs {
		n.keys[i&(RenewalMax-1)] = flows.Original(ref)
	}
	n.view = n.Labels.View()
	var there4, there6, back4, back6 int // lookups that have not ended
	for i := range refs {
		k, at := &n.keys[i&(RenewalMax-1)], uint8(i)
		if k.IPv6() {
			n.labels.Begin6(at, [2]uint64{k.SrcHi, k.SrcLo}, [2]uint64{k.DstHi, k.DstLo})
			there6 = n.there.Begin6(routes, at, k.DstHi, k.DstLo, there6)
			back6 = n.back.Begin6(routes, at, k.SrcHi, k.SrcLo, back6)
		} else {
			n.labels.Begin4(at, uint32(k.SrcLo), uint32(k.DstLo))
			there4 = n.there.Begin4(routes, at, uint32(k.DstLo), there4)
			back4 = n.back.Begin4(routes, at, uint32(k.SrcLo), back4)
		}
	}
	n.labels.Finish(n.view)
	n.there.Finish4(routes, there4)
	n.there.Finish6(routes, there6)
	n.back.Finish4(routes, back4)
	n.back.Finish6(routes, back6)
}

// Hop is where packets of the i-th flow go, by what is in force.
//
//fastpath:hot
func (n *Renewal) Hop(i uint8, reply bool) fib.NextHopID {
	if reply {
		return n.back.NextHop(i)
	}
	return n.there.NextHop(i)
}

// Settled is the decision of the i-th flow, if that is of generation now already:
// another worker, or another packet of the flow, may have been quicker.
//
//fastpath:hot
func (n *Renewal) Settled(i uint8, now uint64) (*flow.Decision, bool) {
	d := &n.was[i&(RenewalMax-1)]
	return d, n.told[i&(RenewalMax-1)] && d.Generation >= now
}

// lasts says whether a flow goes on whatever policy says now.
//
//fastpath:hot
func (n *Renewal) lasts(d *flow.Decision) bool {
	return n.KeepAllowed && d.Generation > 0 && Denial(d.Verdicts()) == graph.NoReason
}

// same says whether what the i-th flow was decided from is as it was.
//
//fastpath:hot
func (n *Renewal) same(i uint8, d *flow.Decision, asked [2]uint32, since uint64) bool {
	from, to := n.labels.Classes(i)
	return d.Asked == asked && d.Class == [2]uint32{uint32(from), uint32(to)} && max(since, n.view.Born(from), n.view.Born(to)) <= d.Generation
}

// Renew stamps the i-th flow with generation now if it stands. asked is who would be
// asked, as in flow.Decision, and since when the younger of them is in force.
//
//fastpath:hot
func (n *Renewal) Renew(i uint8, ref flow.Ref, now uint64, asked [2]uint32, since uint64) (*flow.Decision, bool) {
	d := &n.was[i&(RenewalMax-1)]
	if !n.told[i&(RenewalMax-1)] || !n.lasts(d) && !n.same(i, d, asked, since) {
		return nil, false
	}
	hops := [2]uint32{uint32(n.there.NextHop(i)), uint32(n.back.NextHop(i))}
	if n.Court.Flows.Renew(ref, d, hops, now) { // else another worker has been quicker: what it found holds as well
		count(&n.renewed, 1)
	}
	return d, true
}

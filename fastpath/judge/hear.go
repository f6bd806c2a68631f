package judge

import (
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph"
)

// Hear says what policy makes of the packet of a case, as the stops do: why it is
// dropped, or no reason. It fills in the case's Tuple and both sides' Verdict, also
// that of a side that is not asked any more. It counts nothing and changes no flow,
// for those who explain; any goroutine may call it.
func (c *Court) Hear(k *Case) graph.Reason {
	n := policyOut{bar: bar{Court: c, Desk: &Desk{}}}
	at := n.Docket.At(0)
	*at = *k
	n.label([]uint16{0})
	for side := range at.Verdict {
		n.tuples[0] = at.Tuple
		n.ask(n.asked(side, 0), 1)
		at.Verdict[side] = n.verdicts[0]
	}
	*k = *at
	switch why := unfit(k); {
	case k.Verdict[0].Action() != classifier.Allow:
		return graph.EgressDenied
	case why != graph.NoReason:
		return why
	case k.Verdict[1].Action() != classifier.Allow:
		return graph.IngressDenied
	}
	return graph.NoReason
}

// Barred is why the packet of a case is dropped whatever the lists say.
func (k *Case) Barred() graph.Reason { return unfit(k) }

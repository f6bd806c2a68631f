package judge

import (
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
)

// Staged is what would judge one direction of an endpoint if staged policies were
// in force. It is asked beside what is, for counters alone.
type Staged struct {
	Chain   [2]*chain.Chain // by family: IPv4, IPv6
	Open    [2]bool         // likewise: what no tier decides would be allowed
	Ends    Ends
	Denies  uint32 // number, in Record.Ends, of packets that are allowed and would be denied
	Permits uint32 // and of those that are denied and would be allowed
}

// Equal says whether two are the same, or both are none.
func (s *Staged) Equal(other *Staged) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s.Chain == other.Chain && s.Open == other.Open && s.Ends.Equal(&other.Ends) && s.Denies == other.Denies && s.Permits == other.Permits
}

// stage counts what staged policies would make of cases: as many at a time as
// stand together and ask the same. Their tuples are the first of n.tuples.
func (n *bar) stage(side int, idx []uint16) {
	for from := 0; from < len(idx); {
		first := n.Docket.At(idx[from])
		by, family := first.By[side].Staged[side], first.family()
		to := from + 1
		for to < len(idx) {
			if c := n.Docket.At(idx[to]); c.By[side].Staged[side] != by || c.family() != family {
				break
			}
			to++
		}
		if by != nil {
			would := n.would[:to-from]
			if asked := by.Chain[family]; asked == nil {
				clear(would)
			} else {
				asked.Match(n.tuples[from:to], would)
				if by.Open[family] {
					allowRest(would)
				}
			}
			for i, slot := range idx[from:to] {
				n.compare(side, by, n.Docket.At(slot), would[i])
			}
		}
		from = to
	}
}

// compare counts what staged policies would make of a packet, and whether that
// would turn what became of it.
func (n *bar) compare(side int, by *Staged, c *Case, would classifier.Verdict) {
	if !c.counts(side) {
		return
	}
	n.count(n.pending, &by.Ends, c, would)
	passes, wouldPass := c.Verdict[side].Action() == classifier.Allow, would.Action() == classifier.Allow
	switch {
	case passes && !wouldPass:
		n.ends.at(by.Denies).add(&c.Packet)
	case !passes && wouldPass:
		n.ends.at(by.Permits).add(&c.Packet)
	}
}

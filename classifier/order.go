package classifier

import "iter"

// Order yields a verdict of tier 0 for each rule of the list as it stands, edits
// included, from the first to the last: its action and id.
func (p *Program) Order() iter.Seq[Verdict] {
	return func(yield func(Verdict) bool) {
		var added []addition
		if p.over != nil {
			added = p.over.added
		}
		for rank := range uint32(p.Rules() + 1) {
			for len(added) > 0 && added[0].before == rank {
				if !yield(added[0].verdict) {
					return
				}
				added = added[1:]
			}
			if int(rank) < p.Rules() && !p.over.isDead(rank) && !yield(p.verdicts[rank]) {
				return
			}
		}
	}
}

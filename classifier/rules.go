package classifier

import "iter"

// All yields for each rule of the list, in no order that counts, a verdict of its
// action and id. Rules that were removed by an edit may be among them.
func (p *Program) All() iter.Seq[Verdict] {
	return func(yield func(Verdict) bool) {
		for _, v := range p.verdicts[:len(p.verdicts)-1] {
			if !yield(v) {
				return
			}
		}
		if p.over == nil {
			return
		}
		for i := range p.over.added {
			if !yield(p.over.added[i].verdict) {
				return
			}
		}
	}
}

package policy

import (
	"cmp"
	"slices"

	"margay.dev/margay/classifier"
)

// Sets are the wanted ones of all sets that were told, with all members that were
// told, by id. It is for who begins late to care for a set: the work follows the
// number of all sets, and the members of those that are wanted.
func (c *Calculation) Sets(wanted func(classifier.SetID) bool) []SetChange {
	var out []SetChange
	add := func(s *memberSet) {
		if s != nil && s.told && wanted(s.id) {
			out = append(out, SetChange{ID: s.id, Name: s.name, Joined: s.all()})
		}
	}
	for _, g := range c.gathered {
		add(g.set)
		for _, s := range g.pairs {
			add(s)
		}
	}
	slices.SortFunc(out, func(a, b SetChange) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

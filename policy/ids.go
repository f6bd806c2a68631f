package policy

// ids hands out numbers from 1 to most. What comes back is given again only
// after free was called, the lowest numbers not first.
type ids struct {
	most, last uint32
	free       []uint32
}

// take gives an id, 0 if there is none left.
func (i *ids) take() uint32 {
	if n := len(i.free); n > 0 {
		id := i.free[n-1]
		i.free = i.free[:n-1]
		return id
	}
	if i.last == i.most {
		return 0
	}
	i.last++
	return i.last
}

// NumberSetsAbove has the sets of selectors numbered from above first, which is at most
// 1<<30. It is for a calculation that knows no object yet.
func (c *Calculation) NumberSetsAbove(first uint32) { c.setIDs.last = first }

// freed are ids that came out of use with one generation of changes.
type freed struct {
	generation  uint64
	sets, rules []uint32
}

// Settled says that nobody uses what was told before the Changes of this
// generation: ids that were last used there may be given to others from now on.
// Without this call, ids are not used twice.
func (c *Calculation) Settled(generation uint64) {
	for len(c.gone) > 0 && c.gone[0].generation <= generation {
		g := c.gone[0]
		c.gone = c.gone[1:]
		c.setIDs.free = append(c.setIDs.free, g.sets...)
		for _, id := range g.rules {
			delete(c.rules, id)
		}
		c.ruleIDs.free = append(c.ruleIDs.free, g.rules...)
	}
}

// Rule says which rule an id stands for, also for some time after it is gone. It
// is false for what never was told, and for 0.
func (c *Calculation) Rule(id uint32) (RuleRef, bool) {
	ref, ok := c.rules[id]
	return ref, ok
}

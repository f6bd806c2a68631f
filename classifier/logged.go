package classifier

// HasLog reports whether the list has Log rules at all: where it has none,
// Logged need not be asked.
func (p *Program) HasLog() bool { return len(p.logs) > 0 }

// Logged appends to ids the rule ids of all Log rules that match the key and
// come before the rule that decides, in their order, one for each rule.
func (p *Program) Logged(k *Key, ids []uint32) []uint32 {
	if len(p.logs) == 0 {
		return ids
	}
	return p.logged(k, p.rank(k), ids)
}

// logged appends the ids of the Log rules before rank that match.
func (p *Program) logged(k *Key, rank uint32, ids []uint32) []uint32 {
	for i := range p.logs {
		c := p.descend(p.logs[i].root, k)
		last := uint32(len(p.verdicts) - 1)
		for j := c & firstMask; j < c&firstMask+c>>countShift&countMask; j++ {
			b := &p.boxes[j]
			if r := b.rank(); r < rank && r != last && b.holds(k) {
				ids = append(ids, p.verdicts[r].Rule())
				last = r
			}
		}
	}
	return ids
}

package classifier

// HasLog reports whether the list has Log rules at all: where it has none,
// Logged need not be asked.
func (p *Program) HasLog() bool {
	return p.hasLog || p.over != nil && len(p.over.added) > 0
}

// Logged appends to ids the rule ids of all Log rules that match the key and
// come before the rule that decides, in their order, one for each rule.
func (p *Program) Logged(k *Key, ids []uint32) []uint32 {
	switch rank := p.rank(k); {
	case !p.HasLog():
		return ids
	case p.over == nil && !p.strange(k):
		return p.logged(k, rank, ids)
	default:
		return p.reread(k, rank, ids)
	}
}

// logged asks the log tree for what comes before a rank.
func (p *Program) logged(k *Key, rank uint32, ids []uint32) []uint32 {
	if len(p.logs) == 0 {
		return ids
	}
	c := p.descend(p.logs[0].root, k)
	last := uint32(len(p.verdicts))
	boxes := p.leafBoxes(c)
	for i := range boxes {
		if b := &boxes[i]; b.rank() < rank && b.rank() != last && b.holds(k) {
			last = b.rank()
			ids = append(ids, p.verdicts[last].Rule())
		}
	}
	return ids
}

// reread finds the same by reading the list, with what was added to it.
func (p *Program) reread(k *Key, rank uint32, ids []uint32) []uint32 {
	rank, index := p.decide(k, rank)
	in, ok := p.members(k)
	if !ok {
		return ids
	}
	added := additions{p: p, bare: p.bare(k), in: in, end: index}
	if index >= 0 {
		rank = p.over.added[index].before
	}
	last := uint32(len(p.verdicts))
	for i := p.linear.next(&added.bare, &in, 0); i < len(p.linear.boxes); i = p.linear.next(&added.bare, &in, i+1) {
		r := p.linear.boxes[i].rank()
		if r >= rank {
			break
		}
		if p.verdicts[r].Action() == Log && r != last && !p.over.isDead(r) {
			last = r
			ids = append(added.until(r, ids), p.verdicts[r].Rule())
		}
	}
	return added.until(rank, ids)
}

// additions goes through the added Log rules that match a key.
type additions struct {
	p    *Program
	bare Key
	in   members
	at   int // the next box
	end  int // the rule that decides, -1 if none of these does
}

// until appends those that stand before a rank, and before the end.
func (a *additions) until(rank uint32, ids []uint32) []uint32 {
	o := a.p.over
	if o == nil {
		return ids
	}
	last := -1
	for ; a.at < len(o.block.boxes); a.at++ {
		a.at = o.block.next(&a.bare, &a.in, a.at)
		if a.at == len(o.block.boxes) {
			break
		}
		index := int(o.block.boxes[a.at].rank())
		if index == a.end || o.added[index].before > rank {
			break
		}
		if o.added[index].verdict.Action() == Log && index != last {
			last = index
			ids = append(ids, o.added[index].verdict.Rule())
		}
	}
	return ids
}

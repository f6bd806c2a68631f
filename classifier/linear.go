package classifier

import "sort"

// block is a list of rules as plain boxes in their order, for what no tree can
// answer: a class whose combination was not known to the compile, a rule that
// was added or removed since. Slow, and always right.
type block struct {
	boxes  []box
	termAt []uint32 // where the terms of a rank begin; empty in mode Addresses
	terms  []term
}

// members are the sets that hold source and destination, sorted, as a program numbers them.
type members [2][]uint32

// next returns the first box from i on that the key is inside, and that has its
// terms true; len(boxes) if there is none.
func (b *block) next(k *Key, in *members, i int) int {
	for ; i < len(b.boxes); i++ {
		if x := &b.boxes[i]; x.holds(k) && b.granted(x.rank(), in) {
			break
		}
	}
	return i
}

// from is the first box of a rank, or of the next that has any.
func (b *block) from(rank uint32) int {
	return sort.Search(len(b.boxes), func(i int) bool { return b.boxes[i].rank() >= rank })
}

// granted reports whether all terms of a rank are true.
func (b *block) granted(rank uint32, in *members) bool {
	if len(b.termAt) == 0 {
		return true
	}
	for _, t := range b.terms[b.termAt[rank]:b.termAt[rank+1]] {
		if contains(in[t>>31], uint32(t&termSet)) == (t&termNot != 0) {
			return false
		}
	}
	return true
}

// contains looks a number up in a sorted list, which is short.
func contains(sorted []uint32, v uint32) bool {
	for _, x := range sorted {
		if x >= v {
			return x == v
		}
	}
	return false
}

// bare is a key for comparing without its addresses, which are local classes.
func (p *Program) bare(k *Key) Key {
	if p.mode == Classes {
		return Key{k[0] &^ (1<<32 - 1), k[1] &^ (1<<32 - 1)}
	}
	return *k
}

// members are the sets of a key's two sides; false where a side is of no class
// that the program was told of.
func (p *Program) members(k *Key) (in members, ok bool) {
	if p.mode == Addresses {
		return in, true
	}
	for i, local := range [2]uint32{k.Source(), k.Destination()} {
		r := p.sides[i].rows.Load()
		if local >= r.count() {
			return in, false
		}
		in[i] = r.row(local)
	}
	return in, true
}

// strange reports whether the trees cannot judge the key: one of its classes is
// a combination that the compile did not know.
//
//fastpath:hot
func (p *Program) strange(k *Key) bool {
	return p.mode == Classes && (k.Source() >= p.sides[0].known || k.Destination() >= p.sides[1].known)
}

// search finds the rank that decides by reading the list from a rank on, past
// Log rules and those that were removed.
func (p *Program) search(k *Key, from uint32) uint32 {
	none := uint32(len(p.verdicts) - 1)
	in, ok := p.members(k)
	if !ok {
		return none
	}
	bare := p.bare(k)
	for i := p.linear.next(&bare, &in, p.linear.from(from)); i < len(p.linear.boxes); i = p.linear.next(&bare, &in, i+1) {
		if rank := p.linear.boxes[i].rank(); p.verdicts[rank].Action() != Log && !p.over.isDead(rank) {
			return rank
		}
	}
	return none
}

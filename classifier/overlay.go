package classifier

import (
	"errors"
	"fmt"
	"slices"
)

// What an overlay holds at most. More changes than that ask for a compile.
const (
	MaxAdded   = 64
	MaxRemoved = 1024

	maxAddedBoxes = 64 * MaxAdded
)

// ErrCompile is what Edit wraps where only a compile can make the change.
var ErrCompile = errors.New("compile the list anew")

// Edit is one change of a list: Rule is put before what is at Position now, or
// what is at Position goes. Positions count from 0.
type Edit struct {
	Position int
	Remove   bool
	Rule     Rule // unless Remove
}

// Edited reports whether the program has changed since it was compiled.
func (p *Program) Edited() bool { return p.over != nil }

// overlay is what has changed since the compile: ranks that are dead, and rules
// that were added, compared one by one.
type overlay struct {
	dead    []uint64 // a bit for each rank, that of no rule included
	removed []uint32 // the ranks whose bit is set, ascending
	added   []addition
	block   block // boxes and terms of the added rules; a box's rank is the index of its rule
	loaded  bool  // from an image, which does not have the added rules themselves
}

// bury marks the ranks that were removed, of so many.
func (o *overlay) bury(rules int) {
	o.dead = make([]uint64, rules/64+1)
	for _, rank := range o.removed {
		o.dead[rank/64] |= 1 << (rank % 64)
	}
}

// addition is a rule that was added. It stands before the rank.
type addition struct {
	before  uint32
	rule    Rule
	verdict Verdict
}

//fastpath:hot
func (o *overlay) isDead(rank uint32) bool {
	return o != nil && o.dead[rank/64]>>(rank%64)&1 != 0
}

// Edit returns a program that stands for the list after the edits, each made on
// what the one before it left. It shares the tables of p, costs microseconds,
// and is a little slower to match until the list is compiled anew: a packet that
// one of the edits concerns, or of a set that only added rules name, is judged
// by reading the list. It must be told of every class before it is in force.
//
// It reports an edit that is not possible, and, wrapping ErrCompile, one that
// needs a compile: too many changes, a rule with sets in a list that had none, a
// program that was compiled without Options.Editable, or loaded with edits. l
// numbers the lists of prefixes, as it did for the compile; a list that has none
// does without. The goroutine that adds classes calls it.
func (p *Program) Edit(l *Literals, edits ...Edit) (*Program, error) {
	if len(p.linear.boxes) == 0 && p.Rules() > 0 && p.mode == Addresses {
		return nil, fmt.Errorf("edit list of %d rules: it was not compiled to be editable: %w", p.Rules(), ErrCompile)
	}
	o := &overlay{}
	if p.over != nil {
		o.removed, o.added = slices.Clone(p.over.removed), slices.Clone(p.over.added)
		if p.over.loaded {
			return nil, fmt.Errorf("edit list of %d rules: it was loaded with edits, and the image does not have their rules: %w", p.length(o), ErrCompile)
		}
	}
	for i := range edits {
		if err := p.edit(o, &edits[i]); err != nil {
			return nil, fmt.Errorf("edit %d of %d on list of %d rules: %w", i, len(edits), p.length(o), err)
		}
	}
	q := *p
	if q.over = o; len(o.removed)+len(o.added) == 0 {
		q.over = nil
	} else if err := q.compare(o, l); err != nil {
		return nil, fmt.Errorf("edit list of %d rules: %w", p.length(o), err)
	}
	n := q.counts()
	q.size = n.parts()[numParts]
	return &q, nil
}

// length is how many rules the list has with an overlay.
func (p *Program) length(o *overlay) int { return p.Rules() - len(o.removed) + len(o.added) }

// edit makes one change to an overlay.
func (p *Program) edit(o *overlay, e *Edit) error {
	n := p.length(o)
	if e.Position < 0 || e.Position > n || e.Remove && e.Position == n {
		return fmt.Errorf("position %d is not in it", e.Position)
	}
	rank, index, isAdded := p.locate(o, e.Position)
	switch {
	case !e.Remove:
		if len(o.added) == MaxAdded {
			return fmt.Errorf("%d rules were added already: %w", MaxAdded, ErrCompile)
		}
		o.added = slices.Insert(o.added, index, addition{before: rank, rule: e.Rule, verdict: NewVerdict(e.Rule.Action, e.Rule.ID, 0)})
	case isAdded:
		o.added = slices.Delete(o.added, index, index+1)
	default:
		if len(o.removed) == MaxRemoved {
			return fmt.Errorf("%d rules were removed already: %w", MaxRemoved, ErrCompile)
		}
		at, _ := slices.BinarySearch(o.removed, rank)
		o.removed = slices.Insert(o.removed, at, rank)
	}
	return nil
}

// locate finds what is at a position: an added rule by its index, else a rank.
// Either way a rule put before it gets that rank and that index.
func (p *Program) locate(o *overlay, position int) (rank uint32, index int, isAdded bool) {
	alive := func(rank uint32) int { // living ranks before this one
		gone, _ := slices.BinarySearch(o.removed, rank)
		return int(rank) - gone
	}
	for index < len(o.added) {
		switch at := alive(o.added[index].before) + index; {
		case at == position:
			return o.added[index].before, index, true
		case at > position:
			return p.living(o, position-index), index, false
		}
		index++
	}
	return p.living(o, position-index), index, false
}

// living is the rank before which so many are alive, and which is alive itself
// or behind the last.
func (p *Program) living(o *overlay, count int) uint32 {
	rank := count
	for _, gone := range o.removed {
		if int(gone) <= rank {
			rank++
		}
	}
	return uint32(rank)
}

// compare makes the overlay comparable: its bits and the block of the added
// rules. A side of which they name another set becomes another side.
func (p *Program) compare(o *overlay, l *Literals) error {
	o.bury(p.Rules())
	w := work{mode: p.mode, literals: l}
	for i, s := range p.sides {
		if s != nil {
			w.sides[i] = sideClasses{ids: s.ids, index: s.lookup(), uses: make([]int, len(s.ids)), shared: true}
		}
	}
	for i := range o.added {
		r := []Rule{o.added[i].rule}
		if err := Validate(r); err != nil {
			return err
		}
		switch {
		case p.mode == Addresses && !literal(r):
			return fmt.Errorf("add rule of id %d: the list has no sets yet: %w", r[0].ID, ErrCompile)
		case p.mode == Classes && l == nil && len(r[0].Source.Nets)+len(r[0].Source.NotNets)+len(r[0].Destination.Nets)+len(r[0].Destination.NotNets) > 0:
			return fmt.Errorf("add rule of id %d: it has prefixes, and there is nothing to number them: %w", r[0].ID, ErrCompile)
		}
		w.terms = append(w.terms, w.termsOf(&r[0]))
	}
	for i, s := range p.sides {
		if s != nil && !w.sides[i].shared {
			p.sides[i] = newSide(w.sides[i].ids, s.compiled())
		}
	}
	return w.overlaid(o)
}

// first returns the index of the added rule that decides for a key before the
// rank does, -1 if there is none.
func (p *Program) first(k *Key, rank uint32) int {
	o := p.over
	if o == nil || len(o.added) == 0 {
		return -1
	}
	in, ok := p.members(k)
	if !ok {
		return -1
	}
	bare := p.bare(k)
	for i := o.block.next(&bare, &in, 0); i < len(o.block.boxes); i = o.block.next(&bare, &in, i+1) {
		index := o.block.boxes[i].rank()
		if o.added[index].before > rank {
			break
		}
		if o.added[index].verdict.Action() != Log {
			return int(index)
		}
	}
	return -1
}

// judge turns the ranks in out, which the trees gave, into verdicts where trees
// are not the whole truth.
func (p *Program) judge(keys []Key, out []Verdict) {
	verdicts, source, destination := p.verdicts, uint32(0), uint32(0) // with edits nothing is known
	if p.over == nil {
		source, destination = p.sides[0].known, p.sides[1].known
	}
	for i := range keys {
		if k := &keys[i]; k.Source() < source && k.Destination() < destination {
			out[i] = verdicts[out[i]]
		} else {
			out[i] = p.settle(k, uint32(out[i]))
		}
	}
}

// settle is the verdict of a key for which the trees have given a rank.
func (p *Program) settle(k *Key, rank uint32) Verdict {
	rank, index := p.decide(k, rank)
	if index >= 0 {
		return p.over.added[index].verdict
	}
	return p.verdicts[rank]
}

// decide corrects a rank that the trees have given for a key, and finds the
// added rule that comes before it, -1 if there is none.
func (p *Program) decide(k *Key, rank uint32) (uint32, int) {
	switch {
	case p.strange(k):
		rank = p.search(k, 0)
	case p.over.isDead(rank):
		rank = p.search(k, rank)
	}
	return rank, p.first(k, rank)
}

package classifier

import (
	"iter"

	"margay.dev/margay/classifier/cut"
)

// Reading is a program's list as it stands, edits included, to be read from the
// top by those who explain verdicts. It asks what the walkers ask, of the list
// beside the trees, at the pace of one rule after the other.
type Reading struct {
	p     *Program
	index [2]map[SetID]uint32 // the numbers of sets, by side
}

// Clause is one way for a rule to match: all that it asks must be true. A rule
// with several ranges has several clauses, next to each other.
type Clause struct {
	Verdict                               Verdict // the rule's action and id, of tier 0
	Protocol, SourcePort, DestinationPort Range
	// Source and Destination are the first and the last IPv4 address that will do;
	// all there are where Terms ask instead.
	Source, Destination [2]uint32
	Terms               []Term
}

// Term is a question of a rule about a set of addresses.
type Term struct {
	Set         SetID
	Destination bool // about the destination, else the source
	Not         bool // the address must not be in it
}

// Read begins to read the program's list; nil where the image has nothing but
// trees (see Options.Editable).
func (p *Program) Read() *Reading {
	if len(p.linear.boxes) == 0 && p.Rules() > 0 && p.mode == Addresses {
		return nil
	}
	r := &Reading{p: p}
	for i, s := range p.sides {
		if s == nil {
			continue
		}
		r.index[i] = make(map[SetID]uint32, len(s.ids))
		for j, id := range s.ids {
			r.index[i][id] = uint32(j)
		}
	}
	return r
}

// Clauses yields what each rule asks, in the order of the list. Terms are good
// until the next one.
func (r *Reading) Clauses() iter.Seq[Clause] {
	return func(yield func(Clause) bool) {
		var terms []Term
		r.each(func(b *block, i int, v Verdict) bool {
			x := &b.boxes[i]
			terms = r.terms(b, x.rank(), terms[:0])
			low, high := x.ends()
			ports := func(f int) Range { return Range{uint16(low[f]), uint16(high[f])} }
			return yield(Clause{
				Verdict:  v,
				Protocol: ports(cut.Protocol), SourcePort: ports(cut.SourcePort), DestinationPort: ports(cut.DestinationPort),
				Source: [2]uint32{low[cut.Source], high[cut.Source]}, Destination: [2]uint32{low[cut.Destination], high[cut.Destination]},
				Terms: terms,
			})
		})
	}
}

// Match is the program's verdict of a packet whose source and destination are in
// these sets, whatever its classes are, as if the rules of the id without were not
// in the list. EndOfTier is no rule's id.
func (r *Reading) Match(k *Packet, sets [2][]SetID, without uint32) (out Verdict) {
	key := NewKey(k.Source, k.Destination, k.Protocol, k.SourcePort, k.DestinationPort)
	bare := r.p.bare(&key)
	var in members
	for i, index := range r.index {
		in[i] = (&sideClasses{index: index}).project(sets[i])
	}
	r.each(func(b *block, i int, v Verdict) bool {
		x := &b.boxes[i]
		if v.Action() == Log || v.Rule() == without || !x.holds(&bare) || !b.granted(x.rank(), &in) {
			return true
		}
		out = v
		return false
	})
	return out
}

// each yields the boxes of the list as it is now, in their order.
func (r *Reading) each(yield func(b *block, i int, v Verdict) bool) {
	p, o, at := r.p, r.p.over, 0
	added := func(before uint32) bool { // those that stand before a rank
		for ; o != nil && at < len(o.block.boxes); at++ {
			a := &o.added[o.block.boxes[at].rank()]
			if a.before > before {
				break
			}
			if !yield(&o.block, at, a.verdict) {
				return false
			}
		}
		return true
	}
	for i := range p.linear.boxes {
		rank := p.linear.boxes[i].rank()
		if !added(rank) || !o.isDead(rank) && !yield(&p.linear, i, p.verdicts[rank]) {
			return
		}
	}
	added(uint32(p.Rules()))
}

// terms appends the questions of a rank.
func (r *Reading) terms(b *block, rank uint32, out []Term) []Term {
	if len(b.termAt) == 0 {
		return out
	}
	for _, t := range b.terms[b.termAt[rank]:b.termAt[rank+1]] {
		out = append(out, Term{Set: r.p.sides[t>>31].ids[t&termSet], Destination: t&termDestination != 0, Not: t&termNot != 0})
	}
	return out
}

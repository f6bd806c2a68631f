package classifier

import (
	"fmt"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// work is a list on its way into an image.
type work struct {
	list     []Rule
	mode     Mode
	budget   int
	literals *Literals

	sides  [2]sideClasses
	terms  [][]term   // by rank, mode Classes
	items  []cut.Item // of the rules that decide, for the trees
	logs   []cut.Item // of the Log rules
	linear []cut.Item // of all rules, with any address in mode Classes
	room   float64    // bytes that the trees should take for an item
	limit  float64    // and those that they may
	times  float64    // how many times as many items there are in truth
}

// prepare makes items of the list, or says what does not fit the budget.
func (w *work) prepare(combinations [][]SetID, editable bool) error {
	w.mode = Addresses
	if !literal(w.list) {
		w.mode = Classes
	}
	if w.mode == Classes {
		for i := range w.sides {
			w.sides[i].index = map[SetID]uint32{}
		}
		for i := range w.list {
			w.terms = append(w.terms, w.termsOf(&w.list[i]))
		}
		for i := range w.sides {
			w.sides[i].number(combinations)
		}
	}
	limit := min(w.budget/boxSize, maxBoxes, cut.MaxItems)
	for rank := range w.list {
		if err := w.rule(rank, limit, editable || w.mode == Classes); err != nil {
			return err
		}
	}
	return nil
}

// rule makes the items of one rule.
func (w *work) rule(rank, limit int, linear bool) (err error) {
	r := &w.list[rank]
	source, destination := w.spans(r, rank)
	into := &w.items
	if r.Action == Log {
		into = &w.logs
	}
	if *into, err = expand(*into, r, uint32(rank), source, destination, limit); err != nil || !linear {
		return err
	}
	w.linear, err = expand(w.linear, r, uint32(rank), w.open(source), w.open(destination), limit)
	return err
}

// spans are what the rule asks of the two sides, in the terms of the mode.
func (w *work) spans(r *Rule, rank int) (source, destination []cut.Span) {
	if w.mode == Addresses {
		return addresses(r.Source.Nets), addresses(r.Destination.Nets)
	}
	terms := w.terms[rank]
	split := slices.IndexFunc(terms, func(t term) bool { return t&termDestination != 0 })
	if split < 0 {
		split = len(terms)
	}
	return w.sides[0].answer(terms[:split]), w.sides[1].answer(terms[split:])
}

// open is what a linear box asks of a side: in mode Classes the terms do it.
func (w *work) open(spans []cut.Span) []cut.Span {
	if w.mode == Classes {
		return []cut.Span{{Hi: 1<<32 - 1}}
	}
	return spans
}

// termsOf are the questions of a rule about sets: first those about the source.
func (w *work) termsOf(r *Rule) (terms []term) {
	if w.mode == Addresses {
		return nil
	}
	for i, s := range []*Side{&r.Source, &r.Destination} {
		flag := term(i) << 31
		ask := func(id SetID, not term) { terms = append(terms, flag|not|term(w.sides[i].need(id))) }
		if len(s.Nets) > 0 {
			ask(w.literals.ID(s.Nets), 0)
		}
		if len(s.NotNets) > 0 {
			ask(w.literals.ID(s.NotNets), termNot)
		}
		for _, id := range s.Sets {
			ask(id, 0)
		}
		for _, id := range s.NotSets {
			ask(id, termNot)
		}
	}
	return terms
}

// block packs the linear items with their terms.
func (w *work) block() block {
	b := block{boxes: make([]box, len(w.linear))}
	for i := range w.linear {
		b.boxes[i] = boxOf(&w.linear[i])
	}
	if w.mode == Classes {
		b.termAt = []uint32{0}
		for _, terms := range w.terms {
			b.terms = append(b.terms, terms...)
			b.termAt = append(b.termAt, uint32(len(b.terms)))
		}
	}
	return b
}

// overlaid makes the block of an overlay's added rules.
func (w *work) overlaid(o *overlay) (err error) {
	for i := range o.added {
		r := &o.added[i].rule
		source, destination := w.open(addresses(nil)), w.open(addresses(nil))
		if w.mode == Addresses {
			source, destination = addresses(r.Source.Nets), addresses(r.Destination.Nets)
		}
		if w.linear, err = expand(w.linear, r, uint32(i), source, destination, maxAddedBoxes); err != nil {
			return fmt.Errorf("add rule: %w: %w", ErrCompile, err)
		}
	}
	o.block = w.block()
	return nil
}

// sets are those that the sides name, each once, in ascending order.
func (w *work) sets() (out []Set) {
	ids := slices.Concat(w.sides[0].ids, w.sides[1].ids)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		s := Set{ID: id}
		if id&AnonymousSet != 0 {
			s.Prefixes = w.literals.Prefixes(id)
		}
		out = append(out, s)
	}
	return out
}

package index

import (
	"iter"
	"maps"
	"slices"

	"margay.dev/margay/api/selector"
)

// entry is a selector, with all that own one of its text.
type entry[I, S comparable] struct {
	selector *selector.Selector
	labels   []string // that it names, sorted
	needs    []selector.Restriction
	possible bool
	anchors  []anchor // what it hangs on; none: it is loose
	owners   map[S]struct{}
	items    map[*item[I, S]]struct{} // that it picks
}

// anchor is what an entry may hang on: a label with a value, or with any.
type anchor struct {
	label, value string
	any          bool
}

// SetSelector gives the owner a selector, in the place of any that it had.
func (x *Index[I, S]) SetSelector(owner S, sel *selector.Selector) {
	old := x.owners[owner]
	if old != nil && old.selector.String() == sel.String() {
		return
	}
	e := x.entry(sel)
	x.owners[owner] = e
	for it := range e.items {
		if old == nil || !has(old.items, it) {
			x.started(owner, it.key)
		}
	}
	e.owners[owner] = struct{}{}
	if old != nil {
		x.disown(old, owner, e)
	}
}

// RemoveSelector takes the owner's selector away, if it has one.
func (x *Index[I, S]) RemoveSelector(owner S) {
	if e, ok := x.owners[owner]; ok {
		delete(x.owners, owner)
		x.disown(e, owner, nil)
	}
}

// disown takes an owner from e and tells of what the owner's next entry, if any,
// does not pick. An entry without owners goes.
func (x *Index[I, S]) disown(e *entry[I, S], owner S, next *entry[I, S]) {
	delete(e.owners, owner)
	for it := range e.items {
		if next == nil || !has(next.items, it) {
			x.stopped(owner, it.key)
		}
	}
	if len(e.owners) > 0 {
		return
	}
	for it := range e.items {
		delete(it.picked, e)
	}
	x.unhang(e)
	delete(x.entries, e.selector.String())
}

// entry finds the entry of a selector's text, or makes it and asks it about the
// things that have what it needs.
func (x *Index[I, S]) entry(sel *selector.Selector) *entry[I, S] {
	if e, ok := x.entries[sel.String()]; ok {
		return e
	}
	e := &entry[I, S]{
		selector: sel, labels: sel.Names(),
		owners: make(map[S]struct{}), items: make(map[*item[I, S]]struct{}),
	}
	e.needs, e.possible = sel.Restrictions()
	x.entries[sel.String()] = e
	x.hang(e)
	if e.possible {
		for it := range x.candidates(e) {
			x.ask(e, it)
		}
	}
	return e
}

// names reports whether the selector names one of the labels, which are sorted.
func (e *entry[I, S]) names(labels []string) bool {
	a, b := e.labels, labels
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			return true
		case a[0] < b[0]:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}

// ask picks the item for e, if e does not pick it yet and should.
func (x *Index[I, S]) ask(e *entry[I, S], it *item[I, S]) {
	if has(e.items, it) || !x.picks(e, it) {
		return
	}
	e.items[it] = struct{}{}
	it.picked[e] = struct{}{}
	for s := range e.owners {
		x.started(s, it.key)
	}
}

func (x *Index[I, S]) unpick(e *entry[I, S], it *item[I, S]) {
	delete(e.items, it)
	delete(it.picked, e)
	for s := range e.owners {
		x.stopped(s, it.key)
	}
}

func (x *Index[I, S]) picks(e *entry[I, S], it *item[I, S]) bool {
	x.evaluations++
	return e.selector.Evaluate(it.labels)
}

// candidates are the items that have the rarest thing that e needs.
func (x *Index[I, S]) candidates(e *entry[I, S]) iter.Seq[*item[I, S]] {
	best, fewest := all(maps.Values(x.items)), len(x.items)
	for _, need := range e.needs {
		p, ok := x.postings[need.Label]
		if need.Need == selector.Absent {
			continue
		}
		if !ok {
			return all[*item[I, S]]()
		}
		sets := slices.Collect(maps.Values(p.values))
		if need.Need == selector.OneOf {
			sets = nil
			for _, v := range need.Values {
				sets = append(sets, p.values[v])
			}
		}
		n, keys := 0, make([]iter.Seq[*item[I, S]], len(sets))
		for i, set := range sets {
			n, keys[i] = n+len(set), maps.Keys(set)
		}
		if n < fewest {
			best, fewest = all(keys...), n
		}
	}
	return best
}

// all goes through one sequence after the other.
func all[T any](parts ...iter.Seq[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, part := range parts {
			for v := range part {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// hang hangs e on the need on which the fewest others hang. One that picks
// nothing hangs nowhere.
func (x *Index[I, S]) hang(e *entry[I, S]) {
	if !e.possible {
		return
	}
	least := 0
	for _, need := range e.needs {
		anchors := anchorsOf(need)
		load := 0
		for _, a := range anchors {
			load += 1 + len(x.anchored[a])
		}
		if len(anchors) > 0 && (e.anchors == nil || load < least) {
			e.anchors, least = anchors, load
		}
	}
	for _, a := range e.anchors {
		put(x.anchored, a, e)
	}
	if e.anchors == nil {
		x.loose[e] = struct{}{}
		for _, name := range e.labels {
			put(x.looseBy, name, e)
		}
	}
}

// unhang takes e from where hang put it.
func (x *Index[I, S]) unhang(e *entry[I, S]) {
	for _, a := range e.anchors {
		take(x.anchored, a, e)
	}
	if _, ok := x.loose[e]; ok {
		delete(x.loose, e)
		for _, name := range e.labels {
			take(x.looseBy, name, e)
		}
	}
}

// anchorsOf is what an entry with this need may hang on; nothing, if the label
// must be absent.
func anchorsOf(need selector.Restriction) []anchor {
	switch need.Need {
	case selector.Present:
		return []anchor{{label: need.Label, any: true}}
	case selector.OneOf:
		anchors := make([]anchor, len(need.Values))
		for i, v := range need.Values {
			anchors[i] = anchor{label: need.Label, value: v}
		}
		return anchors
	}
	return nil
}

// hanging are the entries that hang on one of the labels.
func (x *Index[I, S]) hanging(labels map[string]string) iter.Seq[*entry[I, S]] {
	return func(yield func(*entry[I, S]) bool) {
		for name, value := range labels {
			for _, a := range [...]anchor{{label: name, value: value}, {label: name, any: true}} {
				for e := range x.anchored[a] {
					if !yield(e) {
						return
					}
				}
			}
		}
	}
}

func has[K comparable](set map[K]struct{}, k K) bool {
	_, ok := set[k]
	return ok
}

// put adds v to the set of k.
func put[K, V comparable](sets map[K]map[V]struct{}, k K, v V) {
	if sets[k] == nil {
		sets[k] = make(map[V]struct{})
	}
	sets[k][v] = struct{}{}
}

// take removes v from the set of k.
func take[K, V comparable](sets map[K]map[V]struct{}, k K, v V) {
	delete(sets[k], v)
	if len(sets[k]) == 0 {
		delete(sets, k)
	}
}

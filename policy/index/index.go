// Package index knows which things each of many selectors picks, and says so
// when that changes, at a cost that follows the change.
//
//	SetItem(thing, labels, parents) ─┐
//	SetParent(name, labels)         ─┼─► started(owner, thing), stopped(owner, thing)
//	SetSelector(owner, selector)    ─┘
//
// A thing's labels are its own and those that it inherits from its parents: its
// own win, then those of earlier parents.
//
// Two things keep the work small. A selector is asked again only if it names a
// label that changed. And of those that do not pick a thing yet, only such are
// asked as hang on one of its labels: each selector that needs some label (see
// [selector.Selector.Restrictions]) hangs on one need, the one on which the
// fewest others hang; the others are loose. Selectors of equal text are asked
// once, whoever owns them.
package index

import (
	"iter"
	"maps"
	"slices"

	"margay.dev/margay/api/selector"
)

// Index joins things of type I and owners of selectors of type S. It is for one
// goroutine. Make it with New.
type Index[I, S comparable] struct {
	started, stopped func(S, I)

	items    map[I]*item[I, S]
	parents  map[string]*parent[I, S]
	owners   map[S]*entry[I, S]
	entries  map[string]*entry[I, S] // by the selector's text
	postings map[string]*posting[I, S]

	anchored map[anchor]map[*entry[I, S]]struct{}
	loose    map[*entry[I, S]]struct{}            // hang on nothing
	looseBy  map[string]map[*entry[I, S]]struct{} // the same, by each label they name

	evaluations uint64
}

// item is a thing with its labels.
type item[I, S comparable] struct {
	key     I
	own     map[string]string
	parents []string
	labels  selector.Map // own and inherited
	picked  map[*entry[I, S]]struct{}
}

// parent is labels that items inherit. It is there while it has labels or children.
type parent[I, S comparable] struct {
	labels   map[string]string
	children map[*item[I, S]]struct{}
}

// posting is who has a label, by its value.
type posting[I, S comparable] struct {
	items  int
	values map[string]map[*item[I, S]]struct{}
}

// New makes an index without things and selectors. It calls started when an
// owner's selector begins to pick a thing and stopped when it ceases to, in the
// midst of the call that brings that about; neither may call the index.
func New[I, S comparable](started, stopped func(S, I)) *Index[I, S] {
	return &Index[I, S]{
		started: started, stopped: stopped,
		items:    make(map[I]*item[I, S]),
		parents:  make(map[string]*parent[I, S]),
		owners:   make(map[S]*entry[I, S]),
		entries:  make(map[string]*entry[I, S]),
		postings: make(map[string]*posting[I, S]),
		anchored: make(map[anchor]map[*entry[I, S]]struct{}),
		loose:    make(map[*entry[I, S]]struct{}),
		looseBy:  make(map[string]map[*entry[I, S]]struct{}),
	}
}

// Evaluations counts how often a selector was asked about a thing.
func (x *Index[I, S]) Evaluations() uint64 { return x.evaluations }

// Owners are those whose selectors pick the thing, in no order.
func (x *Index[I, S]) Owners(key I) iter.Seq[S] {
	return func(yield func(S) bool) {
		it, ok := x.items[key]
		if !ok {
			return
		}
		for e := range it.picked {
			for s := range e.owners {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// SetItem adds a thing, or gives it other labels and parents. A parent that
// nobody has described yet has no labels.
func (x *Index[I, S]) SetItem(key I, labels map[string]string, parents []string) {
	it, known := x.items[key]
	if !known {
		it = &item[I, S]{key: key, picked: make(map[*entry[I, S]]struct{})}
		x.items[key] = it
	}
	if !slices.Equal(it.parents, parents) {
		x.leaveParents(it)
		it.parents = slices.Clone(parents)
		for _, name := range parents {
			x.parent(name).children[it] = struct{}{}
		}
	}
	it.own = maps.Clone(labels)
	x.relabel(it, x.inherit(it), !known)
}

// RemoveItem forgets a thing; one that is not there is forgotten already.
func (x *Index[I, S]) RemoveItem(key I) {
	it, ok := x.items[key]
	if !ok {
		return
	}
	for e := range it.picked {
		x.unpick(e, it)
	}
	x.leaveParents(it)
	for name, value := range it.labels {
		x.withdraw(it, name, value)
	}
	delete(x.items, key)
}

// SetParent gives a parent labels, which its children inherit. No labels are the
// same as no parent.
func (x *Index[I, S]) SetParent(name string, labels map[string]string) {
	p := x.parent(name)
	if maps.Equal(p.labels, labels) {
		x.dropParent(name, p)
		return
	}
	p.labels = maps.Clone(labels)
	for it := range p.children {
		x.relabel(it, x.inherit(it), false)
	}
	x.dropParent(name, p)
}

// parent finds a parent, or makes one that has no labels yet.
func (x *Index[I, S]) parent(name string) *parent[I, S] {
	p, ok := x.parents[name]
	if !ok {
		p = &parent[I, S]{children: make(map[*item[I, S]]struct{})}
		x.parents[name] = p
	}
	return p
}

// dropParent forgets a parent that nobody has and nobody describes.
func (x *Index[I, S]) dropParent(name string, p *parent[I, S]) {
	if len(p.children) == 0 && len(p.labels) == 0 {
		delete(x.parents, name)
	}
}

func (x *Index[I, S]) leaveParents(it *item[I, S]) {
	for _, name := range it.parents {
		if p, ok := x.parents[name]; ok {
			delete(p.children, it)
			x.dropParent(name, p)
		}
	}
}

// inherit gives the labels of an item: its own, then its parents', the first wins.
func (x *Index[I, S]) inherit(it *item[I, S]) map[string]string {
	labels := make(map[string]string, len(it.own))
	for _, name := range slices.Backward(it.parents) {
		if p, ok := x.parents[name]; ok {
			maps.Copy(labels, p.labels)
		}
	}
	maps.Copy(labels, it.own)
	return labels
}

// relabel gives an item its labels and asks who may pick it now, or no longer.
func (x *Index[I, S]) relabel(it *item[I, S], labels map[string]string, fresh bool) {
	old := it.labels
	changed := differences(old, labels)
	if len(changed) == 0 && !fresh {
		return
	}
	it.labels = labels
	for _, name := range changed {
		if value, ok := old[name]; ok {
			x.withdraw(it, name, value)
		}
		if value, ok := labels[name]; ok {
			x.post(it, name, value)
		}
	}
	for e := range it.picked {
		if e.names(changed) && !x.picks(e, it) {
			x.unpick(e, it)
		}
	}
	for e := range x.hanging(labels) {
		if fresh || e.names(changed) {
			x.ask(e, it)
		}
	}
	if fresh {
		for e := range x.loose {
			x.ask(e, it)
		}
		return
	}
	for _, name := range changed {
		for e := range x.looseBy[name] {
			x.ask(e, it)
		}
	}
}

// differences are the names of labels that are not the same in both, sorted.
func differences(a, b map[string]string) []string {
	var names []string
	for name, value := range a {
		if other, ok := b[name]; !ok || other != value {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// post notes that the item has the label.
func (x *Index[I, S]) post(it *item[I, S], name, value string) {
	p, ok := x.postings[name]
	if !ok {
		p = &posting[I, S]{values: make(map[string]map[*item[I, S]]struct{})}
		x.postings[name] = p
	}
	if p.values[value] == nil {
		p.values[value] = make(map[*item[I, S]]struct{})
	}
	p.values[value][it] = struct{}{}
	p.items++
}

// withdraw notes that the item no longer has the label.
func (x *Index[I, S]) withdraw(it *item[I, S], name, value string) {
	p := x.postings[name]
	delete(p.values[value], it)
	if len(p.values[value]) == 0 {
		delete(p.values, value)
	}
	if p.items--; p.items == 0 {
		delete(x.postings, name)
	}
}

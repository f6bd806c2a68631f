package label

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
)

// Class names a combination of sets; 0 is no set.
type Class uint32

const (
	// MaxClass is the highest class. Classes that wait for readers count too.
	MaxClass = 1<<22 - 1

	// MaxSets is how many sets may hold an address.
	MaxSets = 1 << 14
)

// Reasons to refuse a change, for errors.Is.
var (
	ErrPrefix = errors.New("not a prefix that can be a member")
	ErrSet    = errors.New("not a set that can have members")
	ErrAbsent = errors.New("not a member")
	ErrFull   = errors.New("table is full")
)

// Watcher is told which classes there are: by the writer, within the call that
// changes the table. It must not change the table.
type Watcher interface {
	// ClassBorn tells what a new class holds, sorted, before any reader can meet
	// the class. The slice is good until the class has died.
	ClassBorn(class Class, sets []classifier.SetID)

	// ClassDied tells that no address has the class any more. Readers may meet it
	// until the table's owner calls Quiesced; only then it may be born again, as
	// another combination.
	ClassDied(class Class)
}

// Table holds sets of addresses and gives each address its class. New makes one.
// Its methods are for one writer at a time, except View, which any goroutine may
// call at any time. Readers work on Views.
type Table struct {
	trie    *fib.Table
	rows    [2]rows // IPv4, IPv6
	members members
	owns    lists // what prefixes joined themselves
	classes lists // what readers see: with what covers them
	births  births
	watcher Watcher
	change  change // in progress
	watch   func(netip.Prefix)

	insert func(netip.Prefix, fib.NextHopID) error // trie.SetRoute for a prefix that is new to it
}

// New returns a table without members: every address has class 0. watcher may
// be nil.
func New(watcher Watcher) *Table {
	t := &Table{trie: fib.New(), owns: newLists(), classes: newLists(), watcher: watcher}
	for i := range t.rows {
		t.rows[i].compare = compareRows
	}
	t.members.compare = compareMembers
	t.insert = t.trie.SetRoute
	return t
}

// Change is a prefix that joins a set, or leaves it.
type Change struct {
	Set    classifier.SetID
	Prefix netip.Prefix
	Leave  bool
}

// Join makes the addresses of p members of set. A prefix that joins twice, as
// when two sources name it, is a member until it left twice. It refuses
// prefixes that are invalid, unmasked or IPv4-mapped (ErrPrefix), set 0 (ErrSet),
// and what there is no room for (ErrFull); then the table stays as it was.
func (t *Table) Join(set classifier.SetID, p netip.Prefix) error {
	return t.Apply([]Change{{Set: set, Prefix: p}})
}

// Leave takes back one Join of exactly p. It refuses what Join does, and a prefix
// that is no member by itself (ErrAbsent); then the table stays as it was.
func (t *Table) Leave(set classifier.SetID, p netip.Prefix) error {
	return t.Apply([]Change{{Set: set, Prefix: p, Leave: true}})
}

// Apply makes many changes, in whatever order, as one: all of them or, with an
// error, none. Any one address goes from its class before to its class after at
// once. (Of what the trie has no room for, readers may have seen some for a
// moment.) It is the fast way to load a table.
func (t *Table) Apply(changes []Change) error {
	t.change.steps = slices.Grow(t.change.steps, len(changes))
	for _, c := range changes {
		p, err := check(c.Set, c.Prefix)
		if err != nil {
			t.change.reset()
			return fmt.Errorf("change members of set %d: %w", c.Set, err)
		}
		t.change.step(c.Set, p, !c.Leave)
	}
	return t.commit()
}

// Replace makes set hold exactly these prefixes, each as often as it is listed,
// as Apply does.
func (t *Table) Replace(set classifier.SetID, prefixes []netip.Prefix) error {
	if set == 0 {
		return fmt.Errorf("replace members of set 0, want at least 1: %w", ErrSet)
	}
	for _, q := range prefixes {
		p, err := check(set, q)
		if err != nil {
			t.change.reset()
			return fmt.Errorf("replace members of set %d: %w", set, err)
		}
		t.change.step(set, p, true)
	}
	for m := range t.members.of(set) {
		t.change.steps = append(t.change.steps, step{m.prefix(), set, -int32(m.times())})
	}
	return t.commit()
}

// Watch has each prefix told whose own sets change, before readers see it or just
// after, within the call that changes them: its addresses may have another class now.
// watch must not change the table.
func (t *Table) Watch(watch func(netip.Prefix)) { t.watch = watch }

// Len is the number of memberships, those that joined several times counted once.
func (t *Table) Len() int { return t.members.count }

// Classes is the number of classes that addresses have, class 0 not counted.
func (t *Table) Classes() int { return t.classes.live }

// All yields every class that readers may meet and what it holds, class 0 not:
// those that addresses have, and those that died and wait for Quiesced. A program
// must hear of all of them before it is in force. The loop's body must not change
// the table.
func (t *Table) All() iter.Seq2[Class, []classifier.SetID] {
	return func(yield func(Class, []classifier.SetID) bool) {
		for id, refs := range t.classes.refs {
			if refs > 0 && !yield(Class(id), t.classes.at(uint32(id))) {
				return
			}
		}
		for _, r := range t.classes.waiting {
			if !yield(Class(r.id), t.classes.at(r.id)) {
				return
			}
		}
	}
}

// Generation is the number of the last change. The owner of the table notes
// it, waits until each reader has taken a View since (or is parked without
// one), and then calls Quiesced with it.
func (t *Table) Generation() uint64 { return t.trie.Generation() }

// Quiesced lets the table reuse the classes, and all else, that changes up to
// that generation left behind. A reader that still uses a View from before may
// then be led astray.
func (t *Table) Quiesced(upTo uint64) {
	t.trie.Quiesced(upTo)
	t.classes.quiesced(upTo)
}

// Reclaim is Quiesced up to now: for an owner who knows that no View is in use.
func (t *Table) Reclaim() { t.Quiesced(t.Generation()) }

// Memory says where a Table's bytes are.
type Memory struct {
	Trie    int // what lookups read, and the trie's own list of prefixes
	Classes int // what each class holds, and how it is found by that
	Members int // the writer's lists of prefixes and memberships
	Waiting int // classes that wait for Quiesced
}

// Memory reports the memory that the table holds, in bytes.
func (t *Table) Memory() Memory {
	const elem = 24 // both lists'
	m := t.trie.Memory()
	return Memory{
		Trie:    m.Trie4 + m.Trie6 + m.Routes4 + m.Routes6 + m.NextHops + m.Adjacent,
		Classes: t.classes.bytes() + t.births.bytes(),
		Members: t.owns.bytes() + t.rows[0].bytes(elem) + t.rows[1].bytes(elem) + t.members.bytes(elem) + t.change.bytes(),
		Waiting: len(t.classes.waiting),
	}
}

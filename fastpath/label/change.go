package label

import (
	"cmp"
	"fmt"
	"slices"

	"margay.dev/margay/classifier"
)

// change is a change in progress, with what it takes to undo it. Between calls
// it is empty; its slices are kept for the next one.
type change struct {
	steps   []step
	counted []counted
	touched []touch
	moves   []move
	born    []uint32
	told    bool               // of those that were born
	joined  []classifier.SetID // sets that the prefix at hand joins, sorted
	left    []classifier.SetID // and leaves
	list    []classifier.SetID // under construction
}

// step is how often more, or less, a prefix is in a set.
type step struct {
	prefix
	set classifier.SetID
	by  int32
}

// counted is a membership and how often it was one before.
type counted struct {
	member
	before int
}

// touch is a prefix whose own sets change.
type touch struct {
	prefix
	before uint32 // its own sets before
	fresh  bool   // it had none
	empty  bool   // it has none now
}

// move is a prefix whose class changes; its row has the new one already.
type move struct {
	prefix
	before uint32
	fresh  bool // as in touch
}

// keepMax is how many elements of a change's slices are kept for the next.
const keepMax = 1 << 12

func (c *change) reset() {
	if cap(c.steps) > keepMax || cap(c.moves) > keepMax {
		*c = change{}
		return
	}
	c.steps, c.counted, c.touched = c.steps[:0], c.counted[:0], c.touched[:0]
	c.moves, c.born, c.told = c.moves[:0], c.born[:0], false
}

func (c *change) bytes() int {
	return 32*cap(c.steps) + 40*cap(c.counted) + 32*cap(c.touched) + 32*cap(c.moves) +
		4*(cap(c.born)+cap(c.joined)+cap(c.left)+cap(c.list))
}

func (c *change) step(set classifier.SetID, p prefix, join bool) {
	by := int32(1)
	if !join {
		by = -1
	}
	c.steps = append(c.steps, step{p, set, by})
}

// commit makes the steps of t.change, or none of them.
func (t *Table) commit() error {
	defer t.change.reset()
	c := &t.change
	asked := len(c.steps)
	c.counted, c.touched = slices.Grow(c.counted, len(c.steps)), slices.Grow(c.touched, len(c.steps))
	err := t.count()
	if err == nil {
		err = t.regroup()
	}
	if err == nil {
		err = t.reclass()
	}
	if err == nil {
		err = t.admit()
	}
	if err != nil {
		t.undo()
		return fmt.Errorf("change %d memberships: %w", asked, err)
	}
	t.settle()
	if t.watch != nil {
		for _, p := range c.touched {
			t.watch(p.netip())
		}
	}
	return nil
}

// count changes memberships, and leaves of the steps one for each that came to be, by 1, or
// ended, by -1. It goes set by set, as memberships lie.
func (t *Table) count() error {
	c := &t.change
	order(c.steps, func(a, b step) int {
		if a.set != b.set {
			return cmp.Compare(a.set, b.set)
		}
		return a.prefix.compare(b.prefix)
	})
	kept := 0
	for at := c.steps; len(at) > 0; {
		s, by, n := at[0], 0, 0
		for ; n < len(at) && at[n].set == s.set && at[n].prefix == s.prefix; n++ {
			by += int(at[n].by)
		}
		at = at[n:]
		before, err := t.countOne(s.set, s.prefix, by)
		if err != nil {
			return err
		}
		if after := before + by; (before == 0) != (after == 0) {
			s.by = 1
			if after == 0 {
				s.by = -1
			}
			c.steps[kept] = s
			kept++
		}
	}
	c.steps = c.steps[:kept]
	return nil
}

// countOne changes how often a prefix is in a set, and returns how often it was.
func (t *Table) countOne(set classifier.SetID, p prefix, by int) (before int, err error) {
	m := newMember(set, p)
	before = t.members.times(m)
	switch after := before + by; {
	case after < 0:
		return 0, fmt.Errorf("set %d: %s joined %d times and leaves %d times: %w", set, p.netip(), before, -by, ErrAbsent)
	case after > joinedMax:
		return 0, fmt.Errorf("set %d: %s joined %d times, want at most %d: %w", set, p.netip(), after, joinedMax, ErrFull)
	case by != 0:
		t.change.counted = append(t.change.counted, counted{m, before})
		t.members.put(m, after)
	}
	return before, nil
}

// regroup gives each prefix of the steps that count left its own sets.
func (t *Table) regroup() error {
	c := &t.change
	order(c.steps, func(a, b step) int {
		if d := a.prefix.compare(b.prefix); d != 0 {
			return d
		}
		return cmp.Compare(a.set, b.set)
	})
	for at := c.steps; len(at) > 0; {
		c.joined, c.left = c.joined[:0], c.left[:0]
		p, n := at[0].prefix, 0
		for ; n < len(at) && at[n].prefix == p; n++ {
			if at[n].by > 0 {
				c.joined = append(c.joined, at[n].set)
			} else {
				c.left = append(c.left, at[n].set)
			}
		}
		at = at[n:]
		if err := t.touch(p); err != nil {
			return err
		}
	}
	return nil
}

// order sorts what is not sorted yet: what comes set by set, as it mostly does, costs a look.
func order(steps []step, compare func(a, b step) int) {
	if !slices.IsSortedFunc(steps, compare) {
		slices.SortFunc(steps, compare)
	}
}

// touch gives a prefix the sets that it joined and takes those that it left.
func (t *Table) touch(p prefix) error {
	c, rs := &t.change, t.family(p)
	s, ok := rs.spot(p.key, p.bits)
	r := rs.at(s)
	if !ok {
		r = rs.add(s, p.key, p.bits)
		t.classes.hold(r.class())
	}
	before := r.own()
	c.list = without(c.list[:0], t.owns.at(before), c.left)
	c.list = union(c.list, c.joined)
	own, _, err := t.owns.intern(c.list)
	if err != nil {
		own = before
		t.owns.hold(own)
	}
	r.setOwn(own)
	c.touched = append(c.touched, touch{p, before, !ok, own == 0})
	return err
}

func (t *Table) family(p prefix) *rows {
	if p.ipv6 {
		return &t.rows[1]
	}
	return &t.rows[0]
}

// without appends to list what is in from but not in these; both are sorted.
func without(list, from, these []classifier.SetID) []classifier.SetID {
	for _, set := range from {
		for len(these) > 0 && these[0] < set {
			these = these[1:]
		}
		if len(these) == 0 || these[0] != set {
			list = append(list, set)
		}
	}
	return list
}

// union adds more to list; both are sorted and the sum is.
func union(list, more []classifier.SetID) []classifier.SetID {
	i, j := len(list)-1, len(more)-1
	list = append(list, more...)
	at := len(list) // from the back, so that nothing is overwritten that is still needed
	for ; j >= 0; at-- {
		switch {
		case i < 0 || list[i] < more[j]:
			list[at-1] = more[j]
			j--
		case list[i] == more[j]:
			list[at-1] = more[j]
			i, j = i-1, j-1
		default:
			list[at-1] = list[i]
			i--
		}
	}
	return append(list[:i+1], list[at:]...)
}

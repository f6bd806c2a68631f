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
	c.counted, c.touched = slices.Grow(c.counted, len(c.steps)), slices.Grow(c.touched, len(c.steps))
	if len(c.steps) > 1 {
		slices.SortFunc(c.steps, func(a, b step) int {
			if d := a.prefix.compare(b.prefix); d != 0 {
				return d
			}
			return cmp.Compare(a.set, b.set)
		})
	}
	err := t.count()
	if err == nil {
		err = t.reclass()
	}
	if err == nil {
		err = t.admit()
	}
	if err != nil {
		t.undo()
		return fmt.Errorf("change %d memberships: %w", len(c.steps), err)
	}
	t.settle()
	if t.watch != nil {
		for _, p := range c.touched {
			t.watch(p.netip())
		}
	}
	return nil
}

// count changes memberships, and notes which prefixes have other sets of their
// own now.
func (t *Table) count() error {
	for at := t.change.steps; len(at) > 0; {
		n := 1
		for n < len(at) && at[n].prefix == at[0].prefix {
			n++
		}
		if err := t.countPrefix(at[:n]); err != nil {
			return err
		}
		at = at[n:]
	}
	return nil
}

// countPrefix is count for one prefix, whose steps are sorted by set.
func (t *Table) countPrefix(steps []step) error {
	c, p := &t.change, steps[0].prefix
	c.joined, c.left = c.joined[:0], c.left[:0]
	for len(steps) > 0 {
		set, by := steps[0].set, 0
		for len(steps) > 0 && steps[0].set == set {
			by, steps = by+int(steps[0].by), steps[1:]
		}
		m := newMember(set, p)
		before := t.members.times(m)
		after := before + by
		switch {
		case after < 0:
			return fmt.Errorf("set %d: %s joined %d times and leaves %d times: %w", set, p.netip(), before, -by, ErrAbsent)
		case after > joinedMax:
			return fmt.Errorf("set %d: %s joined %d times, want at most %d: %w", set, p.netip(), after, joinedMax, ErrFull)
		case before == 0 && after > 0:
			c.joined = append(c.joined, set)
		case before > 0 && after == 0:
			c.left = append(c.left, set)
		}
		c.counted = append(c.counted, counted{m, before})
		t.members.put(m, after)
	}
	if len(c.joined)+len(c.left) == 0 {
		return nil
	}
	return t.touch(p)
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

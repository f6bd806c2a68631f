package label

import (
	"fmt"

	"margay.dev/margay/fastpath/fib"
)

// frame is a prefix on the way down to the one at hand.
type frame struct {
	bits  uint8
	moved bool
	class uint32
}

// frames are those that cover one another; 0 to 128 bits, and what covers them all.
type frames struct {
	stack [130]frame
	n     int
}

func (f *frames) push(bits uint8, class uint32, moved bool) {
	f.stack[f.n] = frame{bits, moved, class}
	f.n++
}

// coverOf drops the frames that do not cover r and returns the last that does.
func (f *frames) coverOf(r *row) frame {
	for f.n > 1 && f.stack[f.n-1].bits != r.up() {
		f.n--
	}
	return f.stack[f.n-1]
}

// reclass gives every row whose class changes its new one. The trie stays as it is.
func (t *Table) reclass() error {
	c := &t.change
	for i := 0; i < len(c.touched); {
		n, err := t.descend(c.touched[i:])
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// descend goes from the first touched prefix down to all that it covers, as far
// as classes change. What covers it is done already, as touched is sorted. It
// returns how many of the touched prefixes it met.
func (t *Table) descend(touched []touch) (met int, err error) {
	top, rs := touched[0], t.family(touched[0].prefix)
	s, _ := rs.spot(top.key, top.bits)
	var above frames
	if cover := rs.cover(rs.at(s)); cover != nil {
		above.push(cover.bits(), cover.class(), false)
	} else {
		above.push(noCover, 0, false)
	}
	for ; ; s = rs.next(s) {
		r := rs.at(s)
		if r == nil || !r.under(top.key, top.bits) {
			return met, nil
		}
		cover, moved, fresh := above.coverOf(r), false, false
		isTouched := met < len(touched) && touched[met].prefix == prefix{r.key, r.bits(), top.ipv6}
		if isTouched {
			fresh = touched[met].fresh
			met++
		}
		if isTouched || cover.moved {
			if moved, err = t.move(r, cover.class, top.ipv6, fresh); err != nil {
				return met, err
			}
		}
		if met == 1 && isTouched && !moved { // what is touched below may still have to
			return met, nil
		}
		above.push(r.bits(), r.class(), moved)
	}
}

// move gives r the class that its own sets and its cover's make.
func (t *Table) move(r *row, cover uint32, ipv6, fresh bool) (moved bool, err error) {
	c := &t.change
	c.list = union(append(c.list[:0], t.classes.at(cover)...), t.owns.at(r.own()))
	class, born, err := t.classes.intern(c.list)
	if err != nil {
		return false, err
	}
	if class == r.class() {
		t.release(class)
		return false, nil
	}
	if born {
		c.born = append(c.born, class)
	}
	c.moves = append(c.moves, move{prefix{r.key, r.bits(), ipv6}, r.class(), fresh})
	r.setClass(class)
	return true, nil
}

// admit tells of the classes that were born and puts the prefixes that are new
// into the trie, those that are covered before those that cover them, so that
// each address goes to its last class at once.
func (t *Table) admit() error {
	c := &t.change
	for _, class := range c.born {
		t.births.note(class)
		if t.watcher != nil {
			t.watcher.ClassBorn(Class(class), t.classes.at(class))
		}
	}
	c.told = true
	for i := len(c.touched) - 1; i >= 0; i-- {
		tc := &c.touched[i]
		if !tc.fresh {
			continue
		}
		class := t.family(tc.prefix).get(tc.key, tc.bits).class()
		if err := t.insert(tc.netip(), fib.NextHopID(class)); err != nil {
			for _, in := range c.touched[i+1:] {
				if in.fresh {
					t.trie.DeleteRoute(in.netip())
				}
			}
			return fmt.Errorf("find room for %s, want fewer or wider prefixes (%w): %w", tc.netip(), err, ErrFull)
		}
	}
	return nil
}

// undo takes back what count and reclass did.
func (t *Table) undo() {
	c := &t.change
	for i := len(c.moves) - 1; i >= 0; i-- {
		m := &c.moves[i]
		r := t.family(m.prefix).get(m.key, m.bits)
		t.release(r.class())
		r.setClass(m.before)
	}
	for i := len(c.touched) - 1; i >= 0; i-- {
		tc := &c.touched[i]
		r := t.family(tc.prefix).get(tc.key, tc.bits)
		t.releaseOwn(r.own())
		r.setOwn(tc.before)
		if tc.fresh {
			t.release(r.class())
			t.family(tc.prefix).drop(tc.key, tc.bits)
		}
	}
	for i := len(c.counted) - 1; i >= 0; i-- {
		t.members.put(c.counted[i].member, c.counted[i].before)
	}
}

// settle puts all classes in force: first the new ones of prefixes that stay,
// then those that joined nothing any more give way to what covers them, the
// widest first, so that each address goes to its last class at once.
func (t *Table) settle() {
	c := &t.change
	for i := range c.moves {
		m := &c.moves[i]
		if m.fresh {
			continue
		}
		if r := t.family(m.prefix).get(m.key, m.bits); r.own() != 0 {
			_ = t.trie.SetRoute(m.netip(), fib.NextHopID(r.class())) // a prefix that is there needs no room
		}
	}
	for i := range c.touched {
		tc := &c.touched[i]
		t.releaseOwn(tc.before)
		if !tc.empty {
			continue
		}
		rs := t.family(tc.prefix)
		t.trie.DeleteRoute(tc.netip())
		t.release(rs.get(tc.key, tc.bits).class())
		rs.drop(tc.key, tc.bits)
	}
	for i := range c.moves {
		t.release(c.moves[i].before)
	}
}

// release takes one holder from a class.
func (t *Table) release(class uint32) {
	if t.classes.release(class, t.Generation()) && t.change.told && t.watcher != nil {
		t.watcher.ClassDied(Class(class))
	}
}

// releaseOwn takes one holder from a list that only the writer reads.
func (t *Table) releaseOwn(id uint32) {
	t.owns.release(id, 0)
	t.owns.quiesced(0)
}

package nft

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Try brings a change into force for a while, unless Confirm makes it stay. Until
// then the kernel has both states: packets go by the new one while a set has their
// family, whose members the kernel itself forgets when the time is over. So the
// former state comes back also when this process is gone, hangs, or cannot
// be reached. Changes in the meantime are made to what is tried.
//
// Connections that the new state let through, and the former one would not, go on.
// A trial that follows another one goes back to where the first one began.
func (t *Table) Try(c Change, within time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expire(); err != nil {
		return err
	}
	if within <= 0 {
		return fmt.Errorf("try a change for %v: want a time to confirm it in", within)
	}
	if t.side == nil {
		return ErrNotWhole // there is nothing to go back to
	}
	if t.lost && !c.Whole {
		return ErrRolledBack
	}
	from := t.side
	if c.Whole {
		from = &side{view: t.side.view}
	}
	next, err := t.build(c, from)
	if err != nil {
		return err
	}
	former := t.side
	b := newBatch(t.options.Table)
	if t.trial != nil {
		former = t.trial.former
	}
	image, err := t.compose(former, next)
	if err != nil {
		return err
	}
	if t.trial == nil {
		b.gate(within)
	}
	b.makeSets(next)
	b.turn(t.image, image)
	if t.trial != nil { // its rules are gone by now
		b.deleteSets(t.side)
		b.open(within)
	}
	if err := t.commit(b); err != nil {
		return err
	}
	t.side, t.image, t.lost = next, image, false
	t.trial = &trial{former: former, deadline: time.Now().Add(within)}
	return nil
}

// Confirm makes what is tried stay. It fails with ErrRolledBack where that has
// ended, and with ErrNoTrial where there is none.
func (t *Table) Confirm() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expire(); err != nil {
		return err
	}
	if t.lost {
		return ErrRolledBack
	}
	if t.trial == nil {
		return ErrNoTrial
	}
	return t.settle(t.side, t.trial.former)
}

// Revert ends a trial before its time: the former state is in force. A
// whole change must follow, as after a trial that was not confirmed in time.
func (t *Table) Revert() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expire(); err != nil {
		return err
	}
	if t.lost {
		return nil
	}
	if t.trial == nil {
		return ErrNoTrial
	}
	return t.rollBack()
}

// Trial is until when what was given last is tried; not ok: it stays, or was
// rolled back.
func (t *Table) Trial() (deadline time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trial == nil || !time.Now().Before(t.trial.deadline) {
		return time.Time{}, false
	}
	return t.trial.deadline, true
}

// expire notices that a trial is over: the kernel has gone back already.
func (t *Table) expire() error {
	if t.trial == nil || time.Now().Before(t.trial.deadline) {
		return nil
	}
	return t.rollBack()
}

func (t *Table) rollBack() error {
	if err := t.settle(t.trial.former, t.side); err != nil {
		return err
	}
	t.lost = true
	return nil
}

// settle ends a trial: one side stays, and the other is taken away.
func (t *Table) settle(stays, goes *side) error {
	image, err := t.compose(stays, nil)
	if err != nil {
		return err
	}
	b := newBatch(t.options.Table)
	b.turn(t.image, image)
	b.deleteSets(goes)
	b.deleteSet(gateName)
	if err := t.commit(b); err != nil {
		return err
	}
	t.side, t.image, t.trial = stays, image, nil
	return nil
}

func (b *batch) deleteSets(s *side) {
	for _, id := range slices.Sorted(maps.Keys(s.sets)) {
		b.deleteSet(s.nameOf(id)(4))
		b.deleteSet(s.nameOf(id)(6))
	}
}

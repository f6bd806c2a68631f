package flow

import "sync/atomic"

// Rebuild makes all that leads to flows anew from the flows themselves: index, free
// list, wheel and accounts. It is for a table whose users may have died between any
// two stores; nobody else may use the table meanwhile. It reads every flow once.
// Flows that were being made or taken out are dropped, and counted as retired.
// It returns how many flows there are.
func (t *Table) Rebuild() int {
	clear(t.index)
	clear(t.wheel)
	clear(t.owned)
	h := t.head
	h.freed, h.intake, h.pending, h.due, h.limbo = 0, 0, 0, 0, [2]uint32{}
	h.vacant = uint32(t.Limit()) + 1 - h.fresh
	for i := range t.fragments {
		t.fragments[i].lock = 0
	}
	for i := range t.counts {
		clear(t.counts[i][countState : countState+States])
	}
	live := 0
	for i := uint32(1); i < h.fresh; i++ {
		if t.revive(i) {
			live++
			continue
		}
		c := &t.entries[i].core
		c.state = uint64(word(c.state).freed())
		t.give(i)
	}
	s := t.Stats()
	t.count(countRetired, int(s.Inserted-s.Expired-s.Retired)-live)
	return live
}

// revive puts a flow back into index, accounts and wheel. It is false if the flow
// was not whole.
func (t *Table) revive(i uint32) bool {
	e := &t.entries[i]
	e.rest.queued, e.rest.slot = 0, unslotted
	state := word(e.core.state) &^ busy
	h1, h2 := t.seed.hash(&e.sides[0].key), t.seed.hash(&e.sides[1].key)
	if state&dead != 0 || state.state() == Free || e.rest.endpoint >= uint32(len(t.owned)) ||
		t.find(&e.sides[0].key, h1) != 0 || t.find(&e.sides[1].key, h2) != 0 {
		return false
	}
	if !t.place(h1, Ref(i<<1)) {
		return false
	}
	if !t.place(h2, Ref(i<<1|1)) {
		t.displace(h1, Ref(i<<1))
		return false
	}
	e.core.state = uint64(state)
	if e.core.stamp&1 != 0 { // half decided: nobody has this generation
		e.core.stamp = 0
	}
	atomic.AddUint32(&t.owned[e.rest.endpoint], 1)
	t.count(countState+int(state.state()), 1)
	t.wake(i)
	return true
}

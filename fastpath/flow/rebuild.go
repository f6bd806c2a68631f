package flow

import (
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

// Rebuild makes all that leads to flows anew from the flows themselves: index, free
// list, wheel and accounts. It is for a table whose users may have died between any
// two stores; nobody else may use the table meanwhile. It reads every flow once, and
// believes nothing: flows that were being made or taken out, or that there cannot
// be, are dropped, and counted as retired; the others are to be decided anew. Datagrams of which fragments are awaited
// are forgotten. It returns how many flows there are.
func (t *Table) Rebuild() int {
	clear(t.index)
	clear(t.wheel)
	clear(t.owned)
	h := t.head
	h.freed, h.intake, h.pending, h.due, h.limbo = 0, 0, 0, 0, [2]uint32{}
	h.vacant = uint32(t.Limit()) + 1 - h.fresh
	clear(t.fragments)
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
	if !possible(e, state) || e.rest.endpoint >= uint32(len(t.owned)) {
		return false
	}
	h1, h2 := t.seed.hash(&e.sides[0].key), t.seed.hash(&e.sides[1].key)
	if t.find(&e.sides[0].key, h1) != 0 || t.find(&e.sides[1].key, h2) != 0 {
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
	e.core.stamp = 0 // nobody's generation: what was decided may be half of it, or of tables that are gone
	atomic.AddUint32(&t.owned[e.rest.endpoint], 1)
	t.count(countState+int(state.state()), 1)
	t.wake(i)
	return true
}

// possible reports whether a flow in use can be like this one.
func possible(e *entry, state word) bool {
	const marks = 0xff << 40
	one, other := e.sides[0].key.Tail&marks, e.sides[1].key.Tail&marks
	if one&tailMark == 0 || one&^(tailMark|tailIPv6) != 0 || one != other || state&dead != 0 {
		return false
	}
	if e.sides[0].key.Proto() != pkt.ProtoTCP {
		return state.state() == OneWay || state.state() == BothWays
	}
	return state.state() >= Opening && state.state() <= Reset
}

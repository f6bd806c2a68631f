package flow

import (
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

// Values of a flow's slot that are none of the wheel.
const (
	unslotted = 0
	inLimbo   = 1<<32 - 1
)

// timeoutOf tells which timeout a flow has.
func timeoutOf(proto uint8, s State) int {
	switch proto {
	case pkt.ProtoTCP:
		switch s {
		case Opening, Answered:
			return timeoutTCPOpening
		case Closing, Closed:
			return timeoutTCPClosed
		case Reset:
			return timeoutTCPReset
		}
		return timeoutTCPEstablished
	case pkt.ProtoUDP:
		if s == OneWay {
			return timeoutUDPOneWay
		}
		return timeoutUDP
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return timeoutICMP
	}
	return timeoutGeneric
}

// wake puts a flow on the intake, where the owner finds what is new, what ends
// earlier than it did, and what is dead.
func (t *Table) wake(i uint32) {
	r := &t.entries[i].rest
	if !atomic.CompareAndSwapUint32(&r.queued, 0, 1) {
		return
	}
	for {
		top := atomic.LoadUint32(&t.head.intake)
		put32(&r.wake, top)
		if atomic.CompareAndSwapUint32(&t.head.intake, top, i) {
			return
		}
	}
}

// Advance ends the flows that have been idle for too long, up to now. It looks at
// no more than budget flows and slots of the wheel, and reports whether it has left
// work for the next call, which one goroutine, the owner, makes a few times a
// second. A flow is looked at when it is new, when it ends earlier than it did,
// and when it would have ended had no packet come since it was looked at.
func (t *Table) Advance(now Tick, budget int) (more bool) {
	h := t.head
	before := t.counts[t.Workers()]
	for ; budget > 0 && t.step(now); budget-- {
	}
	if own := &t.counts[t.Workers()]; before[countExpired] != own[countExpired] || before[countRetired] != own[countRetired] {
		atomic.AddUint64(&h.batch, 1)
	}
	return budget == 0
}

// step looks at one flow, or turns the wheel by one slot. It reports whether there
// was anything to do.
func (t *Table) step(now Tick) bool {
	h := t.head
	switch behind := int32(uint32(now) - h.wheelNow); {
	case h.pending != 0:
		i := h.pending
		r := &t.entries[i].rest
		h.pending = atomic.LoadUint32(&r.wake)
		atomic.StoreUint32(&r.queued, 0)
		t.look(i, now)
	case atomic.LoadUint32(&h.intake) != 0:
		h.pending = atomic.SwapUint32(&h.intake, 0)
	case h.due != 0:
		t.look(h.due, now)
	case behind > wheelSlots: // the clock has jumped: each slot once
		h.wheelNow = uint32(now) - wheelSlots
	case behind < -skew: // or back: whatever is in a slot is looked at in its turn
		h.wheelNow = uint32(now)
	case behind > 0:
		h.wheelNow++
		slot := &t.wheel[h.wheelNow%wheelSlots]
		h.due, *slot = *slot, 0
	default:
		return false
	}
	return true
}

// look ends a flow that has been idle for too long, and puts any other into the
// slot of the tick in which it will have been.
func (t *Table) look(i uint32, now Tick) {
	e := &t.entries[i]
	state := word(atomic.LoadUint64(&e.core.state))
	switch {
	case state.state() == Free || e.rest.slot == inLimbo: // woken when it was gone already
		return
	case state&dead != 0:
		t.remove(i, countRetired)
		return
	}
	end := t.ends(e, state, now)
	if int32(end-uint32(now)) > 0 {
		t.link(i, end)
		return
	}
	state, ok := e.core.claim()
	if end = t.ends(e, state, now); ok && int32(end-uint32(now)) > 0 { // a packet has come this very moment
		e.core.release(state)
		t.link(i, end)
		return
	}
	if ok {
		e.core.release(state | dead)
	}
	t.remove(i, countExpired)
}

// skew is how many ticks the clocks of workers and owner may lie apart.
const skew = 4

// ends is the tick at which a flow will have been idle for too long. A packet that
// was seen in what is the future, as the clock has jumped back, counts as of now.
func (t *Table) ends(e *entry, s word, now Tick) uint32 {
	for d := range e.sides {
		if seen := &e.sides[d].seen; int32(atomic.LoadUint32(seen)-uint32(now)) > skew {
			put32(seen, uint32(now))
		}
	}
	seen := later(atomic.LoadUint32(&e.sides[0].seen), atomic.LoadUint32(&e.sides[1].seen))
	return seen + t.timeout(e.sides[0].key.Proto(), s.state())
}

// link puts a flow into the slot of a tick, or the last that the wheel reaches.
func (t *Table) link(i, at uint32) {
	h := t.head
	switch ahead := int32(at - h.wheelNow); {
	case ahead < 1:
		at = h.wheelNow + 1
	case ahead >= wheelSlots:
		at = h.wheelNow + wheelSlots - 1
	}
	t.unlink(i)
	r, slot := &t.entries[i].rest, at%wheelSlots
	r.slot, r.prev = slot+1, 0
	first := t.wheel[slot]
	atomic.StoreUint32(&r.next, first)
	if first != 0 {
		t.entries[first].rest.prev = i
	}
	t.wheel[slot] = i
}

// unlink takes a flow out of its slot, or of what was in one that is being looked at.
func (t *Table) unlink(i uint32) {
	r := &t.entries[i].rest
	if r.slot == unslotted {
		return
	}
	switch next := atomic.LoadUint32(&r.next); {
	case r.prev != 0:
		atomic.StoreUint32(&t.entries[r.prev].rest.next, next)
	case t.head.due == i:
		t.head.due = next
	default:
		t.wheel[r.slot-1] = next
	}
	if next := atomic.LoadUint32(&r.next); next != 0 {
		t.entries[next].rest.prev = r.prev
	}
	r.slot = unslotted
}

// remove takes a dead flow out of the index and the account, and keeps it until
// nobody can see it any more.
func (t *Table) remove(i uint32, why int) {
	h, e := t.head, &t.entries[i]
	t.unlink(i)
	t.displace(t.seed.hash(&e.sides[0].key), Ref(i<<1))
	t.displace(t.seed.hash(&e.sides[1].key), Ref(i<<1|1))
	atomic.AddUint32(&t.owned[atomic.LoadUint32(&e.rest.endpoint)], ^uint32(0))
	t.count(why, 1)
	t.count(countState+int(word(atomic.LoadUint64(&e.core.state)).state()), -1)
	e.rest.slot, e.rest.removed = inLimbo, h.batch+1
	atomic.StoreUint32(&e.rest.next, 0)
	if h.limbo[0] == 0 {
		h.limbo[0] = i
	} else {
		atomic.StoreUint32(&t.entries[h.limbo[1]].rest.next, i)
	}
	h.limbo[1] = i
}

// Generation numbers the removals. What was removed up to now is used again after
// Quiesced is told this number.
func (t *Table) Generation() uint64 { return atomic.LoadUint64(&t.head.batch) }

// Quiesced tells the table, from the owner's goroutine, that every reader has begun
// another vector since Generation was g.
func (t *Table) Quiesced(g uint64) {
	h := t.head
	for i := h.limbo[0]; i != 0 && t.entries[i].rest.removed <= g; i = h.limbo[0] {
		e := &t.entries[i]
		h.limbo[0] = atomic.LoadUint32(&e.rest.next)
		e.rest.slot = unslotted
		state := word(atomic.LoadUint64(&e.core.state))
		atomic.StoreUint64(&e.core.state, uint64(state.freed()))
		t.give(i)
	}
}

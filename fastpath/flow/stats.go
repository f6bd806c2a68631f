package flow

import (
	"iter"
	"sync/atomic"
	"time"
)

// The places of counters among a worker's, or the owner's.
const (
	countInserted = iota
	countExpired
	countRetired
	countState   // one for each state; those of all workers and the owner together tell how many there are
	countRefused = countState + States
)

// add counts for a worker.
func (w *Worker) add(what, n int) { bump(w.counts, what, n) }

// count counts for the owner.
func (t *Table) count(what, n int) { bump(&t.counts[t.Workers()], what, n) }

// bump changes a counter that only one goroutine changes.
func bump(c *[counters]uint64, what, n int) {
	put(&c[what], atomic.LoadUint64(&c[what])+uint64(n))
}

// Stats is how full a table is and what became of flows and packets. At rest
//
//	Inserted = Flows + Expired + Retired
type Stats struct {
	Limit    int // flows that there may be
	Flows    int // that there are
	Waiting  int // ended, and not yet to be used again
	ByState  [States]int
	Inserted uint64
	Expired  uint64 // idle for too long
	Retired  uint64 // taken out, or opened again
	Refused  [Reasons]uint64
	Partial  int // datagrams of which fragments are awaited
}

// Stats adds up what workers and owner have counted.
func (t *Table) Stats() Stats {
	s := Stats{Limit: t.Limit(), Partial: t.partial()}
	for i := range t.counts {
		at := func(what int) uint64 { return atomic.LoadUint64(&t.counts[i][what]) }
		s.Inserted += at(countInserted)
		s.Expired += at(countExpired)
		s.Retired += at(countRetired)
		for state := range s.ByState {
			s.ByState[state] += int(at(countState + state))
		}
		for why := range s.Refused {
			s.Refused[why] += at(countRefused + why)
		}
	}
	for _, n := range s.ByState {
		s.Flows += n
	}
	s.Waiting = max(0, s.Limit-int(atomic.LoadUint32(&t.head.vacant))-s.Flows)
	return s
}

// Held is how many flows are charged to an endpoint, those not yet to be used
// again left out.
func (t *Table) Held(endpoint uint32) int { return int(atomic.LoadUint32(&t.owned[endpoint])) }

// Flow is one flow as it was when it was looked at. Index 0 is the originator's
// direction.
type Flow struct {
	Key         [2]Key
	State       State
	Endpoint    uint32
	Age, Idle   time.Duration
	Packets     [2]uint64
	Bytes       [2]uint64
	Decision    Decision
	index       uint32
	incarnation uint32
}

// All lists the flows that there are. Flows that begin or end meanwhile may be
// among them or not; each is told whole or not at all.
func (t *Table) All(now Tick) iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		for i := uint32(1); i < atomic.LoadUint32(&t.head.fresh); i++ {
			if f, ok := t.flow(i, now); ok && !yield(f) {
				return
			}
		}
	}
}

// flow reads a flow, if there is one and it stays itself meanwhile.
func (t *Table) flow(i uint32, now Tick) (f Flow, ok bool) {
	e := &t.entries[i]
	before := word(atomic.LoadUint64(&e.core.state))
	if before&dead != 0 || before.state() == Free {
		return f, false
	}
	f = Flow{State: before.state(), index: i, incarnation: uint32(before >> incarnationShift)}
	for d := range e.sides {
		s := &e.sides[d]
		f.Key[d], f.Packets[d], f.Bytes[d] = s.key.load(), atomic.LoadUint64(&s.packets), atomic.LoadUint64(&s.bytes)
	}
	since := func(at uint32) time.Duration { return time.Duration(max(0, int32(uint32(now)-at))) * tick }
	f.Endpoint = atomic.LoadUint32(&e.rest.endpoint)
	f.Age = since(atomic.LoadUint32(&e.rest.created))
	f.Idle = since(later(atomic.LoadUint32(&e.sides[0].seen), atomic.LoadUint32(&e.sides[1].seen)))
	f.Decision, _ = t.Decision(Ref(i << 1))
	after := word(atomic.LoadUint64(&e.core.state))
	return f, after&dead == 0 && uint32(after>>incarnationShift) == f.incarnation
}

// Retire ends a flow that All has told of: from now on no lookup finds it. It is
// false if the flow has ended by itself. Any goroutine may call it.
func (t *Table) Retire(f Flow) bool {
	c := &t.entries[f.index].core
	state, ok := c.claim()
	if !ok {
		return false
	}
	same := uint32(state>>incarnationShift) == f.incarnation && state.state() != Free
	if same {
		state |= dead
	}
	c.release(state)
	if same {
		t.wake(f.index)
	}
	return same
}

package flow

import (
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

// share is how many times the flows that are vacant an endpoint may hold. So one
// endpoint alone may have 4/5 of the table, two that want all they can get 4/9 each,
// n of them 4/(4n+1): a share grows until there is pressure, then those who hold
// most are refused first, and a fifth or more of an equal share stays for who
// holds little. No endpoint needs to be counted or swept for it.
const share = 4

// Start is what a flow begins with.
type Start struct {
	Reverse  Key    // of replies: Key.Reverse, unless an address or port is translated
	Endpoint uint32 // that the flow is charged to, below Config.Endpoints
	Decision
}

// Approach has the bucket fetched that Insert of a flow locks for its Reverse, and that no
// lookup has come to: for who is about to make many. It waits for nothing.
func (w *Worker) Approach(reverse *Key) {
	h := w.t.seed.hash(reverse)
	fetchBucket(&w.t.index[h&w.t.mask])
}

// Insert makes a flow for a packet that was a Miss, or a Reopen, and has been
// judged. Where another worker made one meanwhile the packet belongs to that, as
// Lookup would say; then the decision in force is that one's.
func (w *Worker) Insert(now Tick, p *Packet, n *Start) (r Result) {
	if !p.opens() {
		r.refuse(w, MidFlow)
		return r
	}
	t := w.t
	h1, h2 := t.seed.hash(&p.Key), t.seed.hash(&n.Reverse)
	t.lockBoth(h1, h2)
	for {
		ref := t.find(&p.Key, h1)
		if ref == 0 || w.replaces(p, ref) {
			w.insert(now, p, n, &r, h1, h2)
			break
		}
		if w.advance(now, p, &r, ref); r.Outcome != Miss { // it has not ended this very moment
			r.decided(t.entry(ref), ref)
			break
		}
	}
	t.unlockBoth(h1, h2)
	return r
}

// replaces takes a flow out that has ended, if the packet opens it again.
func (w *Worker) replaces(p *Packet, ref Ref) bool {
	c := &w.t.entry(ref).core
	if p.Key.Proto() != pkt.ProtoTCP {
		return false
	}
	state, ok := c.claim()
	if !ok {
		return true // it has just been taken out
	}
	ended := state.state() == Closed || state.state() == Reset
	if ended {
		state |= dead
	}
	c.release(state)
	if ended {
		w.t.wake(uint32(ref >> 1))
	}
	return ended
}

// insert makes the flow, under the locks of both keys.
func (w *Worker) insert(now Tick, p *Packet, n *Start, r *Result, h1, h2 uint64) {
	t := w.t
	if t.find(&n.Reverse, h2) != 0 {
		r.refuse(w, TupleTaken)
		return
	}
	i, why := t.admit(n.Endpoint)
	if why != NoReason {
		r.refuse(w, why)
		return
	}
	e := &t.entries[i]
	state := e.fill(now, p, n)
	w.add(countInserted, 1)
	w.add(countState+int(state.state()), 1)
	if ref := Ref(i << 1); !t.place(h1, ref) || !t.place(h2, ref|1) {
		atomic.StoreUint64(&e.core.state, uint64(state|dead)) // the owner takes it out: somebody may have seen it
		r.refuse(w, IndexFull)
	} else {
		r.Outcome = Inserted
		r.decided(e, ref)
	}
	t.wake(i)
}

// admit takes a flow for an endpoint, or says why it may not have one.
func (t *Table) admit(endpoint uint32) (uint32, Reason) {
	held := &t.owned[endpoint]
	switch vacant := atomic.LoadUint32(&t.head.vacant); {
	case vacant == 0:
		return 0, TableFull
	case uint64(atomic.LoadUint32(held)) >= share*uint64(vacant):
		return 0, OverShare
	}
	i, ok := t.take()
	if !ok {
		return 0, TableFull
	}
	atomic.AddUint32(held, 1)
	return i, NoReason
}

// fill writes a flow that nobody sees yet.
func (e *entry) fill(now Tick, p *Packet, n *Start) word {
	c, r := &e.core, &e.rest
	e.sides[0].key.put(&p.Key)
	e.sides[1].key.put(&n.Reverse)
	for d := range e.sides {
		s := &e.sides[d]
		put(&s.packets, 0)
		put(&s.bytes, 0)
		put32(&s.seen, uint32(now))
	}
	e.sides[0].count(now, p)
	put32(&r.endpoint, n.Endpoint)
	put32(&r.created, uint32(now))
	put32(&r.class[0], n.Class[0])
	put32(&r.class[1], n.Class[1])
	put32(&r.asked[0], n.Asked[0])
	put32(&r.asked[1], n.Asked[1])
	put(&c.verdict, pair(n.Verdict[1], n.Verdict[0]))
	put32(&c.nextHop[0], n.NextHop[0])
	put32(&c.nextHop[1], n.NextHop[1])
	put(&c.stamp, n.Generation<<1)
	state := word(atomic.LoadUint64(&c.state))>>incarnationShift<<incarnationShift + incarnationUnit
	if p.Key.Proto() == pkt.ProtoTCP {
		s := segment{Packet: p, core: c, state: state}
		s.open()
		state = s.state.derive()
	} else {
		state |= word(OneWay)
	}
	c.release(state)
	return state
}

package flow

import (
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

// stride is how many lookups are under way at once: what they touch stays in the
// nearest cache, and their memory accesses overlap.
const stride = 64

// Worker is one worker's way to the table; it is used by one goroutine at a time.
type Worker struct {
	t      *Table
	counts *[counters]uint64
	refs   [stride]Ref
}

// Worker is the i-th worker's way to the table.
func (t *Table) Worker(i int) *Worker { return &Worker{t: t, counts: &t.counts[i]} }

// Result is what the table says of a packet. What was decided about the flow is
// told with it, to be acted on if Generation is the one in force.
type Result struct {
	Ref        Ref // the flow and the packet's direction, 0 if there is none
	Outcome    Outcome
	Reason     Reason // of Refused
	NextHop    uint32 // of the packet's direction
	Back       uint32 // of the other direction
	Verdict    uint64 // of both sides: that of the source's endpoint in the lower half
	Generation uint64 // 0 while somebody decides anew
}

// Lookup finds the flow of each packet, and takes note of what the packet says
// about its flow. out must be as long. now is the worker's clock.
//
//fastpath:hot
func (w *Worker) Lookup(now Tick, packets []Packet, out []Result) {
	for len(packets) > 0 {
		n := min(len(packets), stride)
		locate(w.t.index, w.t.entries, &w.t.seed, packets[:n], w.refs[:n])
		w.follow(now, packets[:n], out[:n])
		packets, out = packets[n:], out[n:]
	}
}

// follow brings each flow up to date.
//
//fastpath:hot
func (w *Worker) follow(now Tick, packets []Packet, out []Result) {
	refs := w.refs[:len(packets)]
	for len(packets) > 0 {
		n := steady(w.t.entries, now, packets, refs, out)
		packets, refs, out = packets[n:], refs[n:], out[n:]
		if len(packets) == 0 {
			return
		}
		ref := w.t.confirm(&packets[0].Key, refs[0])
		if ref != refs[0] && ref != 0 { // it lies elsewhere, and may be steady there
			refs[0] = ref
			continue
		}
		out[0].Reason = NoReason
		out[0].decided(w.t.entry(ref), ref)
		w.special(now, &packets[0], &out[0], ref)
		packets, refs, out = packets[1:], refs[1:], out[1:]
	}
}

// confirm returns ref if that is a live flow of key k, else what is.
func (t *Table) confirm(k *Key, ref Ref) Ref {
	e := t.entry(ref)
	if e.sides[ref&1].key == *k && word(atomic.LoadUint64(&e.core.state))&dead == 0 {
		return ref
	}
	return t.find(k, t.seed.hash(k))
}

// decided fills in what was decided about the flow, all of one age.
func (r *Result) decided(e *entry, ref Ref) {
	c := &e.core
	stamp := atomic.LoadUint64(&c.stamp)
	r.Ref, r.NextHop, r.Back = ref, atomic.LoadUint32(&c.nextHop[ref&1]), atomic.LoadUint32(&c.nextHop[ref&1^1])
	r.Verdict = atomic.LoadUint64(&c.verdict)
	if r.Generation = stamp >> 1; stamp&1 != 0 || atomic.LoadUint64(&c.stamp) != stamp {
		r.Generation = 0
	}
}

// count adds a packet to its direction.
func (s *side) count(now Tick, p *Packet) {
	put(&s.packets, atomic.LoadUint64(&s.packets)+uint64(p.Segments))
	put(&s.bytes, atomic.LoadUint64(&s.bytes)+uint64(p.Bytes))
	if atomic.LoadUint32(&s.seen) != uint32(now) {
		put32(&s.seen, uint32(now))
	}
}

// special follows a packet that is not one of the many.
func (w *Worker) special(now Tick, p *Packet, r *Result, ref Ref) {
	switch {
	case p.Kind == Unusable:
		r.refuse(w, p.Why)
		r.Ref = 0
	case ref == 0 && p.Kind == Quote:
		r.refuse(w, UnknownQuote)
	case ref == 0 || p.Kind == Untracked || p.Kind == Later:
		r.Ref, r.Outcome = 0, Miss
	case p.Kind == Quote:
		w.related(p, r, ref)
	default:
		w.advance(now, p, r, ref)
	}
}

// related judges an ICMP error by the packet that it quotes: it is for who sent
// that, and changes nothing about the flow.
func (w *Worker) related(p *Packet, r *Result, ref Ref) {
	c := &w.t.entry(ref).core
	state := word(atomic.LoadUint64(&c.state))
	d := int(ref & 1)
	r.Ref = ref ^ 1
	if p.Key.Proto() == pkt.ProtoTCP && !c.underWay(p.Seq, state, d) {
		r.refuse(w, ForgedQuote)
		return
	}
	r.decided(w.t.entry(ref), ref^1)
	r.Outcome = Hit
}

// refuse counts a refusal.
func (r *Result) refuse(w *Worker, why Reason) {
	r.Outcome, r.Reason = Refused, why
	w.add(countRefused+int(why), 1)
}

// advance lets a packet change its flow's state.
func (w *Worker) advance(now Tick, p *Packet, r *Result, ref Ref) {
	e, d := w.t.entry(ref), int(ref&1)
	before, ok := e.core.claim()
	if !ok {
		r.Ref, r.Outcome = 0, Miss
		return
	}
	after := before
	r.Outcome = Hit
	switch {
	case p.Key.Proto() == pkt.ProtoTCP:
		s := segment{Packet: p, core: &e.core, d: d, state: before, liberal: w.t.liberal}
		r.Outcome, r.Reason = s.judge()
		after = s.state.derive()
	case d != 0:
		after = before&^stateMask | word(BothWays)
	}
	if r.Outcome == Hit { // before others may end the flow, by its new state
		e.sides[d].count(now, p)
	}
	e.core.release(after)
	w.moved(ref, before, after)
	if r.Outcome == Refused {
		w.add(countRefused+int(r.Reason), 1)
	}
}

// moved counts a flow's change of state, and has the owner look at it where it
// ends earlier for it.
func (w *Worker) moved(ref Ref, before, after word) {
	from, to := before.state(), after.state()
	if from == to {
		return
	}
	w.add(countState+int(from), -1)
	w.add(countState+int(to), 1)
	if proto := w.t.entry(ref).sides[0].key.Proto(); w.t.timeout(proto, to) < w.t.timeout(proto, from) {
		w.t.wake(uint32(ref >> 1))
	}
}

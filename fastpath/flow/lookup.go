package flow

import (
	"math/bits"
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
	hashes [stride]uint64
	near   uint64 // what was read to have it near; nobody needs it
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
		w.locate(packets[:n])
		w.follow(now, packets[:n], out[:n])
		packets, out = packets[n:], out[n:]
	}
}

// locate finds the cell that each key most likely lies in; where there is none any
// will do, steady compares keys. It goes in short loops over all, so that the processor
// has many accesses to memory under way at once: one that is long holds up what
// comes some two hundred instructions later. The hash is that of seed.hash, too
// long for the compiler to put it here by itself.
//
//fastpath:hot
func (w *Worker) locate(packets []Packet) {
	t := w.t
	index, s, hashes := t.index, &t.seed, w.hashes[:len(packets)]
	mask := uint64(len(index) - 1)
	for i := range packets {
		k := &packets[i].Key
		hashes[i] = mix(mix(k.SrcHi^s[0], k.SrcLo^s[1])^k.Tail^s[4], mix(k.DstHi^s[2], k.DstLo^s[3])^s[5])
	}
	near := uint64(0)
	for _, h := range hashes {
		near |= atomic.LoadUint64(&index[h&mask].tags)
	}
	refs := w.refs[:len(hashes)]
	for i, h := range hashes {
		b := &index[h&mask]
		m := match(atomic.LoadUint64(&b.tags), tagOf(h))
		refs[i] = Ref(atomic.LoadUint32(&b.refs[bits.TrailingZeros64(m)/8%cells]))
	}
	entries := t.entries
	for _, ref := range refs {
		e := &entries[ref>>1]
		near |= atomic.LoadUint64(&e.core.state) | atomic.LoadUint64(&e.sides[ref&1].packets)
	}
	w.near = near
}

// follow brings each flow up to date.
//
//fastpath:hot
func (w *Worker) follow(now Tick, packets []Packet, out []Result) {
	refs := w.refs[:len(packets)]
	for len(packets) > 0 {
		n := w.t.steady(now, packets, refs, out)
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

// steady takes packets from the front whose flow was found at once, and that change
// nothing of it but counters and windows: most of all. It returns how many it took, and calls
// nothing, so that all it needs stays in registers.
//
//fastpath:hot
func (t *Table) steady(now Tick, packets []Packet, refs []Ref, out []Result) int {
	entries, refs, out := t.entries, refs[:len(packets)], out[:len(packets)]
	for i := range packets {
		p, ref := &packets[i], refs[i]
		e := &entries[ref>>1]
		c, d := &e.core, ref&1
		k, s := &p.Key, &e.sides[d]
		if (k.SrcHi^s.key.SrcHi)|(k.SrcLo^s.key.SrcLo)|(k.DstHi^s.key.DstHi)|(k.DstLo^s.key.DstLo)|(k.Tail^s.key.Tail) != 0 {
			return i
		}
		state := atomic.LoadUint64(&c.state)
		switch state & uint64(stateMask|busy|dead) {
		case uint64(Established):
			sent, heard := atomic.LoadUint64(&c.sent[d]), atomic.LoadUint64(&c.heard[d])
			theirSent, edge := atomic.LoadUint64(&c.sent[d^1]), uint32(atomic.LoadUint64(&c.heard[d^1]))
			end, last, window := p.Seq+p.Length, uint32(sent>>32), uint32(sent)
			theirLast, theirWindow := uint32(theirSent>>32), uint32(theirSent)
			// Each is negative where the segment is bad; see segment.window.
			good := int32(edge-p.Seq) | int32(end-(last-theirWindow)) |
				int32(theirLast-p.Ack) | int32(p.Ack-(theirLast-max(window, leastAckWindow)))
			if p.Kind != Steady || good < 0 {
				return i
			}
			offer := uint32(p.Window) << word(state).shift(uint32(d))
			if after(end, last) || offer > window {
				put(&c.sent[d], pair(later(end, last), max(window, offer)))
			}
			if acked, granted := uint32(heard>>32), uint32(heard); after(p.Ack, acked) || after(p.Ack+offer, granted) {
				put(&c.heard[d], pair(later(p.Ack, acked), later(p.Ack+offer, granted)))
			}
		case uint64(OneWay) | uint64(d)<<40, uint64(BothWays): // one way is the originator's
			if p.Kind != Plain {
				return i
			}
		default:
			return i
		}
		r := &out[i]
		// The counters are exact as long as a direction's packets do not come to two
		// workers in the same moment.
		put(&s.packets, atomic.LoadUint64(&s.packets)+uint64(p.Segments))
		put(&s.bytes, atomic.LoadUint64(&s.bytes)+uint64(p.Bytes))
		if atomic.LoadUint32(&s.seen) != uint32(now) {
			put32(&s.seen, uint32(now))
		}
		stamp := atomic.LoadUint64(&c.stamp)
		r.Ref, r.Outcome, r.Reason = ref, Hit, NoReason
		r.NextHop, r.Back = atomic.LoadUint32(&c.nextHop[d]), atomic.LoadUint32(&c.nextHop[d^1])
		r.Verdict = atomic.LoadUint64(&c.verdict)
		if r.Generation = stamp >> 1; stamp&1 != 0 || atomic.LoadUint64(&c.stamp) != stamp {
			r.Generation = 0
		}
	}
	return len(packets)
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

package flow

import (
	"math/bits"
	"sync/atomic"
)

// locatePortable finds, for up to stride packets, the cell of the index that each key
// most likely lies in; where there is none any will do, steady compares keys. It goes in
// short loops over all, so that the processor has many accesses to memory under way at
// once: one that is long holds up what comes some two hundred instructions later. The
// hash is that of seed.hash, too long for the compiler to put it here by itself.
//
//fastpath:hot
func locatePortable(index []bucket, entries []entry, s *seed, packets []Packet, refs []Ref) {
	var room [stride]uint64
	hashes, refs := room[:len(packets)], refs[:len(packets)]
	mask := uint64(len(index) - 1)
	for i := range packets {
		k := &packets[i].Key
		hashes[i] = mix(mix(k.SrcHi^s[0], k.SrcLo^s[1])^k.Tail^s[4], mix(k.DstHi^s[2], k.DstLo^s[3])^s[5])
	}
	near := uint64(0)
	for _, h := range hashes {
		near |= atomic.LoadUint64(&index[h&mask].tags)
	}
	for i, h := range hashes {
		b := &index[h&mask]
		m := match(atomic.LoadUint64(&b.tags), tagOf(h))
		refs[i] = Ref(atomic.LoadUint32(&b.refs[bits.TrailingZeros64(m)/8%cells]))
	}
	for _, ref := range refs {
		e := &entries[ref>>1]
		near |= atomic.LoadUint64(&e.core.state) | atomic.LoadUint64(&e.sides[ref&1].packets)
	}
	_ = near // it was read to have it near
}

// steadyPortable takes packets from the front whose flow was found at once, and that change
// nothing of it but counters and windows: most of all. It returns how many it took, and calls
// nothing, so that all it needs stays in registers.
//
//fastpath:hot
func steadyPortable(entries []entry, now Tick, packets []Packet, refs []Ref, out []Result) int {
	refs, out = refs[:len(packets)], out[:len(packets)]
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

package fib

import "sync/atomic"

// BatchMax is how many lookups a Batch holds: as many as the graph's vector has
// packets.
const BatchMax = 256

// Batch is lookups under way, each at a place from 0 to BatchMax-1. They overlap
// their memory accesses: whoever has a loop over packets begins all lookups
// there, and Finish4 and Finish6 take those that one access did not end on, level
// by level. All of a batch must be of one View.
type Batch struct {
	cells        [BatchMax]uint32
	dst4         [BatchMax]uint32
	dst6         [BatchMax]key
	open4, open6 [BatchMax]uint8 // places of those that have not ended
	jumps4       [BatchMax]uint8 // and of those of them that have come to a jump
	depth        [BatchMax]uint8 // bits that led to the cell of an IPv6 lookup
}

// Begin4 begins Lookup4 of dst at place i. open is how many IPv4 lookups that
// were begun before have not ended; it returns how many have not now.
//
//fastpath:hot
func (b *Batch) Begin4(v View, i uint8, dst uint32, open int) int {
	c := atomic.LoadUint32(&v.t.root4[dst>>16])
	// Noted in any case: the next one takes the same room if this one has ended,
	// which costs less than a branch that is often mistaken.
	b.cells[i], b.dst4[i], b.open4[uint8(open)] = c, dst, i
	return open + unended(c)
}

// Begin6 begins Lookup6 at place i, as Begin4 does.
//
//fastpath:hot
func (b *Batch) Begin6(v View, i uint8, hi, lo uint64, open int) int {
	c := atomic.LoadUint32(&v.t.root6[hi>>48])
	b.cells[i], b.dst6[i], b.depth[i], b.open6[uint8(open)] = c, key{hi, lo}, rootBits, i
	return open + unended(c)
}

// unended is 1 for a block or a jump, 0 for a value.
//
//fastpath:hot
func unended(c uint32) int { return int((c>>31 | c>>30) & 1) }

// NextHop is the answer of the lookup at place i, which has ended.
//
//fastpath:hot
func (b *Batch) NextHop(i uint8) NextHopID { return NextHopID(b.cells[i] & indexMask) }

// Finish4 brings the open IPv4 lookups to their ends: block by block where they come to
// blocks alone, as they do where routes lie close, and the others one by one.
//
//fastpath:hot
func (b *Batch) Finish4(v View, open int) {
	trie := v.t.trie4
	blocks, jumps := 0, 0
	for _, i := range b.open4[:open] {
		c := b.cells[i]
		if c&kindMask == cellBlock {
			c = atomic.LoadUint32(&trie[wordOf(c)+b.dst4[i]>>8&255])
			b.cells[i] = c
		}
		b.open4[uint8(blocks)], b.jumps4[uint8(jumps)] = i, i
		blocks += int(c >> 30 & 1)
		jumps += int(c >> 31)
	}
	for _, i := range b.open4[:blocks] {
		b.cells[i] = atomic.LoadUint32(&trie[wordOf(b.cells[i])+b.dst4[i]&255])
	}
	for _, i := range b.jumps4[:jumps] {
		b.cells[i] = descend4(trie, b.cells[i], b.dst4[i], 0)
	}
}

// Finish6 brings the open IPv6 lookups to their ends, a step of each at a time. (What is
// step6 elsewhere stands in the loop: a call costs as much as a step.)
//
//fastpath:hot
func (b *Batch) Finish6(v View, open int) {
	trie := v.t.trie6
	for open > 0 {
		left := 0
		for _, i := range b.open6[:open] {
			c, k, depth := b.cells[i], &b.dst6[i], uint32(b.depth[i])
			at := int(wordOf(c))
			if c < cellJump {
				w := k.hi
				if depth >= 64 {
					w = k.lo
				}
				c, depth = atomic.LoadUint32(&trie[at+int(w>>((56-depth)&63)&255)]), depth+8
			} else {
				j := (*jump)(trie[at : at+len(jump{})])
				to, hit := atomic.LoadUint32(&j[jumpMiss]), atomic.LoadUint32(&j[jumpHit])
				if j.covers6(*k) {
					to = hit
				}
				c, depth = to, j[jumpLen]
			}
			b.cells[i], b.depth[i], b.open6[uint8(left)] = c, uint8(depth), i
			left += unended(c)
		}
		open = left
	}
}

// Lookup4 is the View's Lookup4 of each address in dst, into out, which must be
// as long.
//
//fastpath:hot
func (b *Batch) Lookup4(v View, dst []uint32, out []NextHopID) {
	for len(dst) > 0 {
		n, open := min(len(dst), BatchMax), 0
		for i, d := range dst[:n] {
			open = b.Begin4(v, uint8(i), d, open)
		}
		b.Finish4(v, open)
		for i := range out[:n] {
			out[i] = b.NextHop(uint8(i))
		}
		dst, out = dst[n:], out[n:]
	}
}

// Lookup6 is the View's Lookup6 of each address in dst (upper, lower 64 bits),
// into out, which must be as long.
//
//fastpath:hot
func (b *Batch) Lookup6(v View, dst [][2]uint64, out []NextHopID) {
	for len(dst) > 0 {
		n, open := min(len(dst), BatchMax), 0
		for i, d := range dst[:n] {
			open = b.Begin6(v, uint8(i), d[0], d[1], open)
		}
		b.Finish6(v, open)
		for i := range out[:n] {
			out[i] = b.NextHop(uint8(i))
		}
		dst, out = dst[n:], out[n:]
	}
}

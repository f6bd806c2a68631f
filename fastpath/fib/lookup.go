package fib

import "sync/atomic"

// vectorSize is how many lookups are in flight together at most: as many as the
// graph's vector has packets.
const vectorSize = 256

// Lookup4 returns the next hop of the longest prefix that holds dst, an IPv4
// address in host byte order; NoRoute where there is none.
//
//fastpath:hot
func (v *View) Lookup4(dst uint32) NextHopID {
	c := atomic.LoadUint32(&v.t.root4[dst>>16])
	if c >= cellBlock {
		c = descend4(v.t.trie4, c, dst, 8)
	}
	return NextHopID(c & indexMask)
}

// descend4 follows c, a block or a jump, to a value. The block's octet of dst
// is shift bits from the right.
//
//fastpath:hot
func descend4(trie []uint32, c, dst, shift uint32) uint32 {
	for c >= cellBlock {
		c, shift = step4(trie, c, dst, shift)
	}
	return c
}

// step4 goes one block or jump further. Whether a jump's key is equal selects,
// and does not branch: a branch would wait for the memory behind it, and the
// next lookups of the vector with it.
//
//fastpath:hot
func step4(trie []uint32, c, dst, shift uint32) (uint32, uint32) {
	at := c & indexMask << unitShift
	if c < cellJump {
		return atomic.LoadUint32(&trie[at+dst>>(shift&31)&255]), shift - 8
	}
	j := (*[8]uint32)(trie[at:])
	n := 32 - j[jumpLen]
	to, hit := atomic.LoadUint32(&j[jumpMiss]), atomic.LoadUint32(&j[jumpHit])
	if (dst^j[jumpKey])>>(n&31) == 0 {
		to = hit
	}
	return to, n - 8 // a miss is a value and needs no shift
}

// Lookup6 returns the next hop of the longest prefix that holds the IPv6
// address whose upper and lower 64 bits are hi and lo; NoRoute where there is
// none.
//
//fastpath:hot
func (v *View) Lookup6(hi, lo uint64) NextHopID {
	c := atomic.LoadUint32(&v.t.root6[hi>>48])
	if c >= cellBlock {
		c = descend6(v.t.trie6, c, key{hi, lo}, rootBits)
	}
	return NextHopID(c & indexMask)
}

// descend6 follows c, a block of that depth or a jump, to a value.
//
//fastpath:hot
func descend6(trie []uint32, c uint32, k key, depth uint32) uint32 {
	for c >= cellBlock {
		c, depth = step6(trie, c, k, depth)
	}
	return c
}

// step6 goes one block or jump further.
//
//fastpath:hot
func step6(trie []uint32, c uint32, k key, depth uint32) (uint32, uint32) {
	at := c & indexMask << unitShift
	if c < cellJump {
		w := k.hi
		if depth >= 64 {
			w = k.lo
		}
		return atomic.LoadUint32(&trie[at+uint32(w>>((56-depth)&63))&255]), depth + 8
	}
	j := (*[8]uint32)(trie[at:])
	m := maskOf(j[jumpLen])
	hi := k.hi ^ (uint64(j[jumpKey])<<32 | uint64(j[jumpKey+1]))
	lo := k.lo ^ (uint64(j[jumpKey+2])<<32 | uint64(j[jumpKey+3]))
	to, hit := atomic.LoadUint32(&j[jumpMiss]), atomic.LoadUint32(&j[jumpHit])
	if hi&m.hi|lo&m.lo == 0 {
		to = hit
	}
	return to, j[jumpLen] // a miss is a value and needs no depth
}

// Step is a lookup under way: an answer, or a place in the tables of its View to
// go on from. Many lookups overlap their memory accesses when all take their
// first step before any takes its second, and whoever has a loop over packets
// takes the first one there.
type Step uint32

// Unfinished is 1 if the lookup must go on, else 0.
//
//fastpath:hot
func (s Step) Unfinished() int { return int((s>>31 | s>>30) & 1) }

// NextHop is the answer, if the lookup is not unfinished.
//
//fastpath:hot
func (s Step) NextHop() NextHopID { return NextHopID(uint32(s) & indexMask) }

// Start4 takes the first step of Lookup4.
//
//fastpath:hot
func (v *View) Start4(dst uint32) Step { return Step(atomic.LoadUint32(&v.t.root4[dst>>16])) }

// Start6 takes the first step of Lookup6.
//
//fastpath:hot
func (v *View) Start6(hi uint64) Step { return Step(atomic.LoadUint32(&v.t.root6[hi>>48])) }

// Finish4 brings the lookups of dst, begun in steps, to their end. It goes level
// by level. Steps may be finished already.
//
//fastpath:hot
func (v *View) Finish4(dst []uint32, steps []Step) {
	trie := v.t.trie4
	steps = steps[:len(dst)]
	for i, d := range dst {
		if c := uint32(steps[i]); c&kindMask == cellBlock {
			steps[i] = Step(atomic.LoadUint32(&trie[c&indexMask<<unitShift+d>>8&255]))
		}
	}
	for i, d := range dst {
		if c := uint32(steps[i]); c >= cellBlock {
			steps[i] = Step(descend4(trie, c, d, 0))
		}
	}
}

// LookupVector4 is Lookup4 of each address in dst, into out, which must be as
// long.
//
//fastpath:hot
func (v *View) LookupVector4(dst []uint32, out []NextHopID) {
	var steps [vectorSize]Step
	out = out[:len(dst)]
	for len(dst) > 0 {
		n := min(len(dst), vectorSize)
		for i, d := range dst[:n] {
			steps[i] = v.Start4(d)
		}
		v.Finish4(dst[:n], steps[:n])
		for i := range out[:n] {
			out[i] = steps[i].NextHop()
		}
		dst, out = dst[n:], out[n:]
	}
}

// Finish6 brings the lookups of dst (upper, lower 64 bits), begun in steps, to
// their end. It goes level by level. Steps may be finished already.
//
//fastpath:hot
func (v *View) Finish6(dst [][2]uint64, steps []Step) {
	for len(dst) > 0 {
		n := min(len(dst), vectorSize)
		v.finish6(dst[:n], steps[:n])
		dst, steps = dst[n:], steps[n:]
	}
}

//fastpath:hot
func (v *View) finish6(dst [][2]uint64, steps []Step) {
	trie := v.t.trie6
	steps = steps[:len(dst)]
	var depth [vectorSize]uint8 // bits that led to a step, beyond those of the root
	for left := 1; left > 0; {
		left = 0
		for i := range dst {
			if c := uint32(steps[i]); c >= cellBlock {
				c, d := step6(trie, c, key{dst[i][0], dst[i][1]}, rootBits+uint32(depth[i&(vectorSize-1)]))
				steps[i], depth[i&(vectorSize-1)] = Step(c), uint8(d-rootBits)
				left |= Step(c).Unfinished()
			}
		}
	}
}

// LookupVector6 is Lookup6 of each address in dst (upper, lower 64 bits), into
// out, which must be as long.
//
//fastpath:hot
func (v *View) LookupVector6(dst [][2]uint64, out []NextHopID) {
	var steps [vectorSize]Step
	out = out[:len(dst)]
	for len(dst) > 0 {
		n := min(len(dst), vectorSize)
		for i := range dst[:n] {
			steps[i] = v.Start6(dst[i][0])
		}
		v.finish6(dst[:n], steps[:n])
		for i := range out[:n] {
			out[i] = steps[i].NextHop()
		}
		dst, out = dst[n:], out[n:]
	}
}

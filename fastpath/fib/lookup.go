package fib

import "sync/atomic"

// Lookup4 returns the next hop of the longest prefix that holds dst, an IPv4
// address in host byte order; NoRoute where there is none.
//
//fastpath:hot
func (v *View) Lookup4(dst uint32) NextHopID {
	trie := v.t.trie4
	c := below4(trie, below4(trie, atomic.LoadUint32(&v.t.root4[dst>>16]), dst>>8), dst)
	if c >= cellJump {
		c = descend4(trie, c, dst, 0)
	}
	return NextHopID(c & indexMask)
}

// Lookup4 is the View's Lookup4 of each address in dst, into out, which must be as
// long: the root's cells of all, then those of two blocks, which is as deep as blocks alone go,
// without a branch on what any lookup has come to, and last those that have come to
// a jump, one by one. It is faster than a Batch where addresses lie in a row already.
//
//fastpath:hot
func Lookup4[T ~uint32](v View, dst []uint32, out []T) {
	root, trie := v.t.root4, v.t.trie4
	out = out[:len(dst)]
	for i, d := range dst {
		out[i] = T(atomic.LoadUint32(&root[d>>16]))
	}
	for i, d := range dst {
		out[i] = T(below4(trie, uint32(out[i]), d>>8))
	}
	jumps := uint32(0)
	for i, d := range dst {
		c := below4(trie, uint32(out[i]), d)
		out[i] = T(c & (cellJump | indexMask))
		jumps |= c
	}
	if jumps < cellJump {
		return
	}
	for i, d := range dst {
		if c := uint32(out[i]); c >= cellJump {
			out[i] = T(descend4(trie, c, d, 0) & indexMask)
		}
	}
}

// below4 is the cell that a block has for the last octet of dst. Any other cell stays
// what it is, without a branch, which would often be mistaken where some addresses have routes of
// their own and others have not.
//
//fastpath:hot
func below4(trie []uint32, c, dst uint32) uint32 {
	block := -(c >> 30 & 1)
	return c ^ (c^atomic.LoadUint32(&trie[(wordOf(c)+dst&255)&block]))&block
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
	at := int(c & indexMask << unitShift)
	if c < cellJump {
		return atomic.LoadUint32(&trie[at+int(dst>>(shift&31)&255)]), shift - 8
	}
	j := (*jump)(trie[at : at+len(jump{})])
	n := 32 - j[jumpLen]
	to, hit := atomic.LoadUint32(&j[jumpMiss]), atomic.LoadUint32(&j[jumpHit])
	if (dst^j[jumpKey+1])>>(n&31) == 0 {
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
	at := int(c & indexMask << unitShift)
	if c < cellJump {
		w := k.hi
		if depth >= 64 {
			w = k.lo
		}
		return atomic.LoadUint32(&trie[at+int(w>>((56-depth)&63)&255)]), depth + 8
	}
	j := (*jump)(trie[at : at+len(jump{})])
	to, hit := atomic.LoadUint32(&j[jumpMiss]), atomic.LoadUint32(&j[jumpHit])
	if j.covers6(k) {
		to = hit
	}
	return to, j[jumpLen] // a miss is a value and needs no depth
}

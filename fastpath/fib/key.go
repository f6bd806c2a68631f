package fib

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// key is an address of either family, left-aligned in 128 bits: an IPv4
// address fills the upper 32.
type key struct{ hi, lo uint64 }

// keyOf turns an address that is valid and not IPv4-mapped into a key.
func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// prefix is the way back: the first n bits of k as a prefix of the family.
func (k key) prefix(n int, is4 bool) netip.Prefix {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.hi>>32))
		return netip.PrefixFrom(netip.AddrFrom4(b), n)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), n)
}

// maskOf has the first n of 128 bits set; n is 0 to 128.
func maskOf(n uint32) key {
	return key{^uint64(0) << (64 - min(n, 64)), ^uint64(0) << (128 - max(n, 64))}
}

// masked keeps the first n bits.
func (k key) masked(n int) key {
	m := maskOf(uint32(n))
	return key{k.hi & m.hi, k.lo & m.lo}
}

// octet returns the 8 bits that follow the first d; d is a multiple of 8
// below 128.
func (k key) octet(d int) uint32 {
	w := k.hi
	if d&64 != 0 {
		w = k.lo
	}
	return uint32(w>>((56-d)&63)) & 255
}

// withOctet returns k with o in the 8 bits that follow the first d, which
// must be zero in k.
func (k key) withOctet(d int, o uint32) key {
	if d&64 != 0 {
		k.lo |= uint64(o) << ((56 - d) & 63)
	} else {
		k.hi |= uint64(o) << ((56 - d) & 63)
	}
	return k
}

// common counts the leading bits that k and o share.
func (k key) common(o key) int {
	if x := k.hi ^ o.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(k.lo^o.lo)
}

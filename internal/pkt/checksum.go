package pkt

import (
	"encoding/binary"
	"math/bits"
)

// Sum is the ones'-complement sum of b as big-endian 16-bit words (RFC 1071),
// folded to 16 bits; an odd last byte counts as the high half of a word.
// Sums of parts add up, provided that every part but the last has an even length
// (else see SumAt).
//
//fastpath:hot
func Sum(b []byte) uint32 {
	// Words are loaded the other way round, which saves a byte swap for each:
	// the sum of swapped words is the swapped sum.
	var s, c uint64
	for len(b) >= 64 {
		w := b[:64]
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	s, c = bits.Add64(s, tail(b), c)
	return uint32(bits.ReverseBytes16(fold64(s, c)))
}

// tail is fewer than eight bytes as one little-endian number.
//
//fastpath:hot
func tail(b []byte) (t uint64) {
	if len(b) >= 4 {
		t = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
		switch len(b) {
		case 3:
			t |= uint64(b[2])<<48 | uint64(binary.LittleEndian.Uint16(b))<<32
		case 2:
			t |= uint64(binary.LittleEndian.Uint16(b)) << 32
		case 1:
			t |= uint64(b[0]) << 32
		}
		return t
	}
	switch len(b) {
	case 3:
		t = uint64(b[2])<<16 | uint64(binary.LittleEndian.Uint16(b))
	case 2:
		t = uint64(binary.LittleEndian.Uint16(b))
	case 1:
		t = uint64(b[0])
	}
	return t
}

// fold64 folds s and a carry c into it to 16 bits.
//
//fastpath:hot
func fold64(s, c uint64) uint16 {
	t := s>>32 + s&0xffffffff + c // under 2^34
	t = t>>16 + t&0xffff          // under 2^19
	t = t>>16 + t&0xffff
	return uint16(t>>16 + t)
}

// SumAt is what b adds to the sum of a packet in which it begins at byte at.
//
//fastpath:hot
func SumAt(b []byte, at int) uint32 {
	s := Sum(b)
	if at&1 != 0 {
		s = uint32(bits.ReverseBytes16(uint16(s)))
	}
	return s
}

// Fold brings a sum of sums and header fields to 16 bits.
//
//fastpath:hot
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// PseudoSum is the sum of the pseudo-header that TCP, UDP and ICMPv6 checksums
// cover (RFC 9293 section 3.1, RFC 8200 section 8.1): addrs is source and
// destination address one after the other, as they lie in both IP headers, and
// length the bytes from the transport header on, at most 65,535.
//
//fastpath:hot
func PseudoSum(addrs []byte, proto uint8, length int) uint32 {
	return Sum(addrs) + uint32(proto) + uint32(uint16(length))
}

package plain

import (
	"encoding/binary"
	"math/bits"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// portable4 is IPv4 in Go.
//
//fastpath:hot
func portable4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	next = next[:len(idx)]
	const window, dfBit = window4, 54 // DF, in the first word
	_ = metas[0]                      // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		l3, flags := uint32(m.L3), m.Flags
		have := m.Head - l3
		if m.Head < l3+window || uint16(flags&(Unplain|graph.IPv6))|uint16(m.Bufs^1)|uint16(m.GSO) != 0 {
			return i
		}
		at := int(m.Off + l3)
		h := (*[window]byte)(mem[at : at+window])
		one, two := binary.LittleEndian.Uint64(h[0:8]), binary.LittleEndian.Uint64(h[8:16])
		total := uint32(bits.ReverseBytes16(uint16(one >> 16)))
		to := binary.LittleEndian.Uint32(h[16:20])
		if one&mask4 != 0x45 || uint8(two) <= 1 || total-window > have-window || Class4[h[12]]|Class4[h[16]] != Unicast4 ||
			!sumHolds(one, two, to) {
			return i
		}
		proto := uint8(two >> 8)
		size, least := uint32(binary.BigEndian.Uint16(h[window-4:])), uint32(8) // what UDP says of itself
		if proto != pkt.ProtoUDP {
			if proto != pkt.ProtoTCP || total < pkt.IPv4Size+20 {
				return i
			}
			size, least = uint32(mem[at+pkt.IPv4Size+12]>>4)*4, 20 // and TCP of its header
		}
		if size < least || size > total-pkt.IPv4Size {
			return i
		}
		m.Flags = flags | graph.Flags(one>>dfBit&1)*graph.DontFrag
		m.L4, m.Proto = uint16(l3)+pkt.IPv4Size, proto
		m.Len, m.Head = l3+total, l3+total
		m.To = uint64(bits.ReverseBytes32(to)) << 32
		next[i] = edge
	}
	return len(idx)
}

// portable6 is IPv6 in Go.
//
//fastpath:hot
func portable6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	next = next[:len(idx)]
	const window = window6
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		l3, flags := uint32(m.L3), m.Flags
		have := m.Head - l3
		if m.Head < l3+window || uint16(flags&Unplain)|uint16(m.Bufs^1)|uint16(m.GSO) != 0 || l3 != 0 && flags&graph.IPv6 == 0 {
			return i
		}
		at := int(m.Off + l3)
		h := (*[window]byte)(mem[at : at+window])
		one := binary.LittleEndian.Uint64(h[0:8])
		total := pkt.IPv6Size + uint32(bits.ReverseBytes16(uint16(one>>32)))
		if one&0xf0 != 0x60 || one>>56 <= 1 || total-window > have-window || class6[h[8]]|class6[h[24]] != unicast6 {
			return i
		}
		proto := uint8(one >> 48)
		size, least := uint32(binary.BigEndian.Uint16(h[window-4:])), uint32(8) // what UDP says of itself
		if proto != pkt.ProtoUDP {
			if proto != pkt.ProtoTCP || total < pkt.IPv6Size+20 {
				return i
			}
			size, least = uint32(mem[at+pkt.IPv6Size+12]>>4)*4, 20 // and TCP of its header
		}
		if size < least || size > total-pkt.IPv6Size {
			return i
		}
		m.Flags = flags | graph.IPv6 | graph.DontFrag
		m.L4, m.Proto = uint16(l3)+pkt.IPv6Size, proto
		m.Len, m.Head = l3+total, l3+total
		m.To = binary.BigEndian.Uint64(h[24:32])
		next[i] = edge
	}
	return len(idx)
}

// sumHolds says whether the ones'-complement sum of an IPv4 header, given as
// little-endian words, is all ones (RFC 1071). Since 2^16 and all its powers leave
// 1 modulo 0xffff, the sum of wider words with their carries is a multiple of
// 0xffff exactly then; it is never zero, for the header's first byte is not.
//
//fastpath:hot
func sumHolds(one, two uint64, three uint32) bool {
	sum, c := bits.Add64(one, two, 0)
	sum, c = bits.Add64(sum, uint64(three), c)
	return (sum+c)*inverse <= multiples
}

package node

import (
	"encoding/binary"
	"math/bits"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// Most packets are plain: whole in one buffer, no work left to an offload, an IP
// header without options or extensions between addresses that may be forwarded,
// UDP or TCP behind it. plain4 and plain6 accept those in as few steps as that
// takes and judge nothing: what they stop at, for whatever reason, is for
// inspect, which would say and note the same of all that they accept.

// unplain are the flags of packets that need a longer look.
const unplain = graph.Partial | graph.Broadcast

// plain4 accepts plain IPv4 packets from the front of idx and returns how many.
//
//fastpath:hot
func plain4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge) int {
	next = next[:len(idx)]
	const (
		window = pkt.IPv4Size + 8  // up to where UDP and TCP differ
		mask   = 0xff3f<<48 | 0xff // version, header length, and what fragments have
		dfBit  = 54                // DF, in the same word
	)
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		l3, flags := uint32(m.L3), m.Flags
		have := m.Head - l3
		if m.Head < l3+window || uint16(flags&(unplain|graph.IPv6))|uint16(m.Bufs^1)|uint16(m.GSO) != 0 {
			return i
		}
		at := int(m.Off + l3)
		h := (*[window]byte)(mem[at : at+window])
		one, two := binary.LittleEndian.Uint64(h[0:8]), binary.LittleEndian.Uint64(h[8:16])
		total := uint32(bits.ReverseBytes16(uint16(one >> 16)))
		to := binary.LittleEndian.Uint32(h[16:20])
		if one&mask != 0x45 || uint8(two) <= 1 || total-window > have-window || class4[h[12]]|class4[h[16]] != unicast4 ||
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
		next[i] = ipRoute
	}
	return len(idx)
}

// plain6 accepts plain IPv6 packets from the front of idx and returns how many.
//
//fastpath:hot
func plain6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge) int {
	next = next[:len(idx)]
	const window = pkt.IPv6Size + 8 // up to where UDP and TCP differ
	_ = metas[0]                    // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		l3, flags := uint32(m.L3), m.Flags
		have := m.Head - l3
		if m.Head < l3+window || uint16(flags&unplain)|uint16(m.Bufs^1)|uint16(m.GSO) != 0 || l3 != 0 && flags&graph.IPv6 == 0 {
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
		next[i] = ipRoute
	}
	return len(idx)
}

// What the first octet of an IPv6 address says about it.
const (
	unicast6 uint8 = iota // may be source and destination
	unsure6               // multicast, or in a prefix that holds what may not (see addresses6)
)

var class6 = [256]uint8{0x00: unsure6, 0xfe: unsure6, 0xff: unsure6}

// sumHolds says whether the ones'-complement sum of an IPv4 header, given as
// little-endian words, is all ones (RFC 1071). Since 2^16 and all its powers leave
// 1 modulo 0xffff, the sum of wider words with their carries is a multiple of
// 0xffff exactly then; it is never zero, for the header's first byte is not.
//
//fastpath:hot
func sumHolds(one, two uint64, three uint32) bool {
	sum, c := bits.Add64(one, two, 0)
	sum, c = bits.Add64(sum, uint64(three), c)
	return (sum+c)%0xffff == 0
}

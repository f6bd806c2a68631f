package node

import (
	"encoding/binary"
	"math/bits"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// ip-input believes nothing: it checks the IP header (RFC 1812 section 5.2.2,
// RFC 8200), finds the transport header, and trims link-layer padding.
//
// Uses: Off, Len, Head, L3, InPort. Sets: L4, Proto, Len, flags IPv6,
// DontFrag, Expiring, Fragment, FirstPart, Options.
// Drops: ip-*, ext-header, fragment-invalid, l4-*, rx-offload.
const (
	ipDrop graph.Edge = iota
	ipND
	ipRoute
)

func ipInputSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  EntryL3,
		Edges: []string{ipDrop: graph.DropName, ipND: "nd", ipRoute: "route"},
		New:   func(int) graph.Node { return &ipInput{t} },
	}
}

type ipInput struct{ *Tables }

// Process checks each packet's IP header.
//
//fastpath:hot
func (n *ipInput) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	mem := w.Mem
	metas, idx := v.Metas(), v.Index()
	next = next[:len(idx)]
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		l3 := uint32(m.L3)
		if m.Head < l3+pkt.IPv4Size {
			next[i] = dropped(m, graph.IPTruncated)
			continue
		}
		at := int(m.Off + l3)
		h := (*[pkt.IPv4Size]byte)(mem[at : at+pkt.IPv4Size])
		if h[0] == 0x45 && m.Flags&graph.IPv6 == 0 {
			next[i] = plain4(m, h)
		} else {
			next[i] = other(m, mem[m.Off+l3:m.Off+m.Head])
		}
		if next[i] == ipRoute && m.L4 != 0 && transportLies(m, mem) {
			next[i] = dropped(m, graph.L4Length)
		}
		if uint16(m.Flags&(graph.Partial|graph.Broadcast))|uint16(m.Bufs^1)|uint16(m.GSO) != 0 {
			next[i] = special(w, m, next[i])
		}
	}
}

// other checks all that is not an IPv4 header without options.
//
//fastpath:hot
func other(m *graph.Meta, p []byte) graph.Edge {
	switch {
	case p[0]>>4 == 6 && (m.L3 == 0 || m.Flags&graph.IPv6 != 0):
		return input6(m, p)
	case p[0]>>4 == 4 && m.Flags&graph.IPv6 == 0:
		return options4(m, p)
	}
	return dropped(m, graph.IPVersion)
}

// What the first octet of an IPv4 address says about it.
const (
	unicast4   uint8 = iota // may be source and destination
	multicast4              // destination only, and not ours to forward
	martian4                // 0/8, 127/8 and 240/4 never appear on a wire
)

var class4 = func() (c [256]uint8) {
	c[0], c[127] = martian4, martian4
	for i := 224; i < 240; i++ {
		c[i] = multicast4
	}
	for i := 240; i < 256; i++ {
		c[i] = martian4
	}
	return c
}()

// plain4 checks an IPv4 header without options.
//
//fastpath:hot
func plain4(m *graph.Meta, h *[pkt.IPv4Size]byte) graph.Edge {
	if !sumHolds(h) {
		return dropped(m, graph.IPChecksum)
	}
	total, have := uint32(binary.BigEndian.Uint16(h[2:4])), m.Len-uint32(m.L3)
	if total != have {
		if total < pkt.IPv4Size || total > have {
			return dropped(m, graph.IPTruncated)
		}
		trim(m, total)
	}
	proto, frag, flags := h[9], binary.BigEndian.Uint16(h[6:8]), m.Flags
	if frag&0x4000 != 0 {
		flags |= graph.DontFrag
	}
	if h[8] <= 1 {
		flags |= graph.Expiring
	}
	m.Flags, m.L4, m.Proto = flags, m.L3+pkt.IPv4Size, proto
	if class4[h[12]]|class4[h[16]] != unicast4 {
		return unusual4(m, h)
	}
	if frag&0x3fff != 0 {
		return fragment4(m, frag, total-pkt.IPv4Size)
	}
	if total-pkt.IPv4Size < uint32(pkt.MinTransport[proto]) {
		return dropped(m, graph.L4Truncated)
	}
	return ipRoute
}

// sumHolds says whether the ones'-complement sum of a header is all ones (RFC
// 1071). Since 2^16 and all its powers leave 1 modulo 0xffff, the sum of wider
// words with their carries is a multiple of 0xffff exactly then; it is never
// zero, for the header's first byte is not.
//
//fastpath:hot
func sumHolds(h *[pkt.IPv4Size]byte) bool {
	sum, c := bits.Add64(binary.LittleEndian.Uint64(h[0:8]), binary.LittleEndian.Uint64(h[8:16]), 0)
	sum, c = bits.Add64(sum, uint64(binary.LittleEndian.Uint32(h[16:20])), c)
	return (sum+c)%0xffff == 0
}

// trim takes link-layer padding off: the packet is n bytes from L3 on.
//
//fastpath:hot
func trim(m *graph.Meta, n uint32) {
	if end := uint32(m.L3) + n; end < m.Len {
		m.Len = end
		m.Head = min(m.Head, end)
	}
}

// unusual4 says why an address that is not unicast will not do.
func unusual4(m *graph.Meta, h *[pkt.IPv4Size]byte) graph.Edge {
	broadcast := h[16] == 255 && h[17] == 255 && h[18] == 255 && h[19] == 255
	if class4[h[12]] == unicast4 && (class4[h[16]] == multicast4 || broadcast) {
		return dropped(m, graph.IPMulticast)
	}
	return dropped(m, graph.IPMartian)
}

// fragment4 checks one part of a datagram of n bytes behind its header
// (RFC 791; RFC 1858 and 3128 for parts that would hide the transport header).
func fragment4(m *graph.Meta, frag uint16, n uint32) graph.Edge {
	at, more := uint32(frag&0x1fff)*8, frag&0x2000 != 0
	m.Flags |= graph.Fragment
	switch {
	case n == 0, more && n%8 != 0, at+n > 65535-pkt.IPv4Size:
		return dropped(m, graph.FragInvalid)
	case at == 0:
		m.Flags |= graph.FirstPart
		if n < uint32(pkt.MinTransport[m.Proto]) {
			return dropped(m, graph.FragInvalid)
		}
	case at < uint32(pkt.MinTransport[m.Proto]):
		return dropped(m, graph.FragInvalid)
	default:
		m.L4 = 0
	}
	return ipRoute
}

// options4 checks an IPv4 header with options. p is what lies in the first
// buffer from the IP header on.
func options4(m *graph.Meta, p []byte) graph.Edge {
	size := int(p[0]&15) * 4
	if size < pkt.IPv4Size || size > len(p) {
		return dropped(m, graph.IPHeaderLength)
	}
	if pkt.Fold(pkt.Sum(p[:size])) != 0xffff {
		return dropped(m, graph.IPChecksum)
	}
	total := uint32(binary.BigEndian.Uint16(p[2:4]))
	if total < uint32(size) || total > m.Len-uint32(m.L3) {
		return dropped(m, graph.IPTruncated)
	}
	if !optionsAllowed(p[pkt.IPv4Size:size]) {
		return dropped(m, graph.IPOptions)
	}
	trim(m, total)
	m.L4, m.Proto = m.L3+uint16(size), p[9]
	m.Flags |= graph.Options
	if p[8] <= 1 {
		m.Flags |= graph.Expiring
	}
	h := (*[pkt.IPv4Size]byte)(p)
	if class4[h[12]] != unicast4 || class4[h[16]] != unicast4 {
		return unusual4(m, h)
	}
	frag := binary.BigEndian.Uint16(p[6:8])
	if frag&0x4000 != 0 {
		m.Flags |= graph.DontFrag
	}
	if frag&0x3fff != 0 {
		return fragment4(m, frag, total-uint32(size))
	}
	if total-uint32(size) < uint32(pkt.MinTransport[m.Proto]) {
		return dropped(m, graph.L4Truncated)
	}
	return ipRoute
}

// optionsAllowed walks IPv4 options. Source routes let a sender choose its way
// around policy (RFC 7126 section 4.3 and 4.4): refused. So is a list that lies.
func optionsAllowed(o []byte) bool {
	const end, nop, looseRoute, strictRoute = 0, 1, 131, 137
	for len(o) > 0 {
		switch o[0] {
		case end:
			return true
		case nop:
			o = o[1:]
			continue
		case looseRoute, strictRoute:
			return false
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return false
		}
		o = o[o[1]:]
	}
	return true
}

// transportLies says whether the transport header contradicts the packet:
// a TCP header longer than it, a UDP length of more than is there, except in
// first fragments, which are shorter than that by nature.
//
//fastpath:hot
func transportLies(m *graph.Meta, mem []byte) bool {
	have, at := m.Head-uint32(m.L4), int(m.Off+uint32(m.L4))
	switch m.Proto {
	case pkt.ProtoUDP:
		if have < 8 {
			return true
		}
		p := (*[8]byte)(mem[at : at+8])
		n := uint32(binary.BigEndian.Uint16(p[4:6]))
		if m.Flags&graph.Fragment != 0 {
			return n < 8
		}
		return n < 8 || n > m.Len-uint32(m.L4)
	case pkt.ProtoTCP:
		if have < 20 {
			return true
		}
		p := (*[20]byte)(mem[at : at+20])
		size := uint32(p[12]>>4) * 4
		return size < 20 || size > have
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return have < pkt.ICMPHeaderSize // the rest lies in a later buffer
	}
	return false
}

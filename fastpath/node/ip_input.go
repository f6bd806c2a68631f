package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/plain"
	"margay.dev/margay/internal/pkt"
)

// ip-input believes nothing: it checks the IP header (RFC 1812 section 5.2.2,
// RFC 8200), finds the transport header, and trims link-layer padding.
//
// Uses: Off, Len, Head, L3, InPort. Sets: L4, Proto, Len, To, flags IPv6,
// DontFrag, Expiring, Fragment, FirstPart, Options.
// Drops: ip-*, ext-header, fragment-invalid, l4-*, rx-offload.
const (
	ipDrop graph.Edge = iota
	ipND
	ipRoute
	ipFlow
)

func ipInputSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  EntryL3,
		Edges: []string{ipDrop: graph.DropName, ipND: "nd", ipRoute: "route", ipFlow: "flow"},
		New:   func(int) graph.Node { return &ipInput{t} },
	}
}

type ipInput struct{ *Tables }

// Process checks each packet's IP header.
//
//fastpath:hot
func (n *ipInput) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	mem, metas, idx, rest := w.Mem, v.Metas(), v.Index(), next
	for len(idx) > 0 {
		n := plain.IPv4(mem, metas, idx, rest, ipRoute)
		if n < len(idx) {
			n += plain.IPv6(mem, metas, idx[n:], rest[n:], ipRoute)
		}
		if n == 0 {
			rest[0] = inspect(w, &metas[idx[0]&graph.SlotMask])
			n = 1
		}
		idx, rest = idx[n:], rest[n:]
	}
	if len(n.state.Load().Policy) > 0 {
		judged(next)
	}
}

// judged sends what would go to route to flow first.
//
//fastpath:hot
func judged(next []graph.Edge) {
	for i, e := range next {
		if e == ipRoute {
			next[i] = ipFlow
		}
	}
}

// inspect checks a packet of any shape.
func inspect(w *graph.Worker, m *graph.Meta) graph.Edge {
	p := w.Packet(m)[m.L3:]
	e := header(m, p)
	if e == ipRoute {
		m.To = destination(m, p)
	}
	if e == ipRoute && m.L4 != 0 && transportLies(m, w.Mem) {
		e = dropped(m, graph.L4Length)
	}
	if m.Flags&plain.Unplain != 0 || m.Bufs != 1 || m.GSO != graph.GSONone {
		e = special(w, m, e)
	}
	return e
}

// destination is what Meta.To holds of a packet whose IP header begins with p.
func destination(m *graph.Meta, p []byte) uint64 {
	if m.Flags&graph.IPv6 == 0 {
		return uint64(binary.BigEndian.Uint32(p[16:20])) << 32
	}
	return binary.BigEndian.Uint64(p[24:32])
}

// header checks the IP header. p is what lies in the first buffer from it on.
func header(m *graph.Meta, p []byte) graph.Edge {
	switch {
	case len(p) < pkt.IPv4Size:
		return dropped(m, graph.IPTruncated)
	case p[0]>>4 == 6 && (m.L3 == 0 || m.Flags&graph.IPv6 != 0):
		return input6(m, p)
	case p[0]>>4 == 4 && m.Flags&graph.IPv6 == 0:
		return input4(m, p)
	}
	return dropped(m, graph.IPVersion)
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
	if plain.Class4[h[12]] == plain.Unicast4 && (plain.Class4[h[16]] == plain.Multicast4 || broadcast) {
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

// input4 checks an IPv4 packet. p is what lies in the first buffer from the IP
// header on.
func input4(m *graph.Meta, p []byte) graph.Edge {
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
	if size > pkt.IPv4Size {
		m.Flags |= graph.Options
	}
	if p[8] <= 1 {
		m.Flags |= graph.Expiring
	}
	h := (*[pkt.IPv4Size]byte)(p)
	if plain.Class4[h[12]] != plain.Unicast4 || plain.Class4[h[16]] != plain.Unicast4 {
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

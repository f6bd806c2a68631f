package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// maxExtHeaders bounds the walk along IPv6 extension headers: more than these
// in one packet have no honest use (RFC 9098 section 5).
const maxExtHeaders = 8

// input6 checks an IPv6 packet. p is what lies in the first buffer from the IP
// header on.
//
//fastpath:hot
func input6(m *graph.Meta, p []byte) graph.Edge {
	m.Flags |= graph.IPv6 | graph.DontFrag
	if len(p) < pkt.IPv6Size {
		return dropped(m, graph.IPTruncated)
	}
	h := (*[pkt.IPv6Size]byte)(p)
	total := pkt.IPv6Size + uint32(binary.BigEndian.Uint16(h[4:6]))
	if total > m.Len-uint32(m.L3) {
		return dropped(m, graph.IPTruncated)
	}
	trim(m, total)
	m.L4, m.Proto = m.L3+pkt.IPv6Size, h[6]
	if h[7] <= 1 {
		m.Flags |= graph.Expiring
	}
	if r := addresses6(h); r != graph.NoReason {
		return notForwarded6(m, p, r)
	}
	if pkt.IsExtension(m.Proto) {
		return extensions6(m, p[:min(uint32(len(p)), total)], total)
	}
	if total-pkt.IPv6Size < uint32(pkt.MinTransport[m.Proto]) {
		return dropped(m, graph.L4Truncated)
	}
	if m.Proto == pkt.ProtoICMPv6 && uint32(len(p)) > pkt.IPv6Size && isND(p[pkt.IPv6Size]) {
		return ipND
	}
	return ipRoute
}

func isND(icmpType uint8) bool {
	return icmpType >= pkt.ICMP6RouterSol && icmpType <= pkt.ICMP6Redirect
}

// addresses6 says why source and destination will not do for forwarding:
// unspecified, loopback, multicast, IPv4-mapped (RFC 4291, RFC 6890), and
// link-local, which must not leave its link (RFC 4291 section 2.5.6).
//
//fastpath:hot
func addresses6(h *[pkt.IPv6Size]byte) graph.Reason {
	if h[8] == 0xff {
		return graph.IPMartian
	}
	if h[24] == 0xff {
		return graph.IPMulticast
	}
	const linkLocal = 0xfe80 >> 6 // fe80::/10
	src, dst := binary.BigEndian.Uint64(h[8:16]), binary.BigEndian.Uint64(h[24:32])
	if src>>54 == linkLocal || dst>>54 == linkLocal {
		return graph.IPMartian
	}
	if src == 0 && low6Martian(binary.BigEndian.Uint64(h[16:24])) {
		return graph.IPMartian
	}
	if dst == 0 && low6Martian(binary.BigEndian.Uint64(h[32:40])) {
		return graph.IPMartian
	}
	return graph.NoReason
}

// low6Martian judges the low half of an address whose high half is zero: ::,
// ::1 and ::ffff:0:0/96 never appear on a wire.
func low6Martian(low uint64) bool { return low <= 1 || low>>32 == 0xffff }

// notForwarded6 lets neighbour discovery through, which lives on multicast and
// on the unspecified source, and drops the rest for reason r.
func notForwarded6(m *graph.Meta, p []byte, r graph.Reason) graph.Edge {
	whole := m.Head >= uint32(m.L4)+pkt.ICMPHeaderSize // p may still have padding behind it
	if m.Proto == pkt.ProtoICMPv6 && p[8] != 0xff && whole && isND(p[pkt.IPv6Size]) {
		return ipND
	}
	return dropped(m, r)
}

// extensions6 walks the extension headers to the transport header, which must
// lie in the first buffer (RFC 7112). p ends where the packet does.
func extensions6(m *graph.Meta, p []byte, total uint32) graph.Edge {
	m.Flags |= graph.Options
	at, proto := pkt.IPv6Size, m.Proto
	for n := 0; pkt.IsExtension(proto); n++ {
		size := pkt.ExtensionSize(p[at:], proto)
		switch {
		case n == maxExtHeaders, size == 0, at+size > len(p),
			proto == pkt.ProtoHopByHop && n > 0,                       // it comes first or not at all (RFC 8200 section 4.1)
			proto == pkt.ProtoFragment && m.Flags&graph.Fragment != 0, // a part of a part
			proto == pkt.ProtoRouting && p[at+2] == 0:
			return dropped(m, graph.ExtHeader) // routing type 0: RFC 5095
		case proto == pkt.ProtoFragment:
			if edge, done := fragment6(m, p, at, total); done {
				return edge
			}
		}
		proto = p[at]
		at += size
	}
	m.Proto, m.L4 = proto, m.L3+uint16(at)
	if proto == pkt.ProtoNone {
		m.L4 = 0
		return ipRoute
	}
	if len(p)-at < int(pkt.MinTransport[proto]) {
		if m.Flags&graph.Fragment != 0 {
			return dropped(m, graph.FragInvalid) // the first part must show it
		}
		return dropped(m, graph.L4Truncated)
	}
	if proto == pkt.ProtoICMPv6 && isND(p[at]) {
		return dropped(m, graph.NDInvalid) // behind extension headers or fragmented: RFC 6980
	}
	return ipRoute
}

// fragment6 checks a fragment header (RFC 8200 section 4.5). It is done when
// the packet's fate is decided: no transport header follows in a later part.
func fragment6(m *graph.Meta, p []byte, at int, total uint32) (graph.Edge, bool) {
	word := binary.BigEndian.Uint16(p[at+2:])
	offset, more := uint32(word&^7), word&1 != 0
	rest := total - uint32(at) - 8
	if offset == 0 && !more {
		return 0, false // an atomic fragment is a whole packet (RFC 6946)
	}
	m.Flags |= graph.Fragment
	if rest == 0 || more && rest%8 != 0 || offset+rest > 65535 {
		return dropped(m, graph.FragInvalid), true
	}
	if offset == 0 {
		m.Flags |= graph.FirstPart
		return 0, false
	}
	if offset < uint32(pkt.MinTransport[p[at]]) {
		return dropped(m, graph.FragInvalid), true
	}
	m.Proto, m.L4 = p[at], 0
	return ipRoute, true
}

package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// icmp-echo answers echo requests to our addresses (RFC 792, RFC 4443 section
// 4.2), in place. On bifurcated ports the kernel answers and none comes here.
//
// Uses: Off, Len, Head, L3, L4, Flags. Sets: Adjacency, flag FromUs. Drops:
// echo-invalid, for parts of a datagram, chains of buffers and wrong checksums;
// too-big, where the way back takes less than the request had.
func echoSpec(t *Tables) graph.Spec {
	return graph.Spec{Name: "icmp-echo", Edges: replyEdges(), New: func(int) graph.Node { return &echo{t} }}
}

type echo struct{ *Tables }

// Process turns each request into its reply.
func (n *echo) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		if m.Flags&(graph.Fragment|graph.Broadcast) != 0 || m.Bufs > 1 || !turnEcho(w.Packet(m), m) {
			next[i] = dropped(m, graph.EchoInvalid)
			continue
		}
		w.Turn(graph.UsedEcho, graph.MadeEchoReply, m)
		m.Flags &^= graph.Options
		next[i] = n.sendBack(w.Mem, m)
	}
}

// turnEcho makes the reply of the request in p; false when its checksum is
// wrong. IPv4 options go back as they came (RFC 1122 section 3.2.2.6); IPv6
// extension headers were for us and do not.
func turnEcho(p []byte, m *graph.Meta) bool {
	ip, msg := p[m.L3:], p[m.L4:]
	ipv6 := m.Flags&graph.IPv6 != 0
	if m.Flags&(graph.Verified|graph.Partial) == 0 {
		sum := pkt.Sum(msg)
		if ipv6 {
			sum += pkt.PseudoSum(ip[8:40], pkt.ProtoICMPv6, len(msg))
		}
		if pkt.Fold(sum) != 0xffff {
			return false
		}
	}
	m.Flags &^= graph.Partial
	msg[2], msg[3] = 0, 0
	if ipv6 {
		ip = stripExtensions(p, m)
		var src [16]byte
		copy(src[:], ip[8:24])
		copy(ip[8:24], ip[24:40])
		copy(ip[24:40], src[:])
		ip[7], msg[0] = 64, pkt.ICMP6EchoReply
		finishICMP(msg, ip[8:40], true)
		return true
	}
	var src [4]byte
	copy(src[:], ip[12:16])
	copy(ip[12:16], ip[16:20])
	copy(ip[16:20], src[:])
	ip[8], msg[0] = 64, pkt.ICMPEchoReply
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^pkt.Fold(pkt.Sum(ip[:m.L4-m.L3])))
	finishICMP(msg, nil, false)
	return true
}

// stripExtensions moves the IPv6 header up to the transport header, and returns
// the packet from there on.
func stripExtensions(p []byte, m *graph.Meta) []byte {
	if l3 := m.L4 - pkt.IPv6Size; l3 != m.L3 {
		copy(p[l3:], p[m.L3:m.L3+pkt.IPv6Size])
		m.L3 = l3
		p[l3+6] = pkt.ProtoICMPv6
		binary.BigEndian.PutUint16(p[l3+4:], uint16(len(p)-int(m.L4)))
	}
	return p[m.L3:]
}

package node

import (
	"encoding/binary"
	"net/netip"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// The edges of nodes that answer: icmp-echo and icmp-error.
const (
	replyDrop graph.Edge = iota
	replyRewrite
	replyResolve
	replyPunt
)

func replyEdges() []string {
	return []string{replyDrop: graph.DropName, replyRewrite: "rewrite", replyResolve: "resolve", replyPunt: "punt"}
}

// sendBack finds the way of a packet that we made, by its destination.
func (t *Tables) sendBack(mem []byte, m *graph.Meta) graph.Edge {
	a, st := t.way(mem, m), t.state.Load()
	switch a.Kind {
	case fib.Rewrite:
		if st.port(a.Port).Flags&NoPolicyState != 0 {
			return dropped(m, graph.NoPolicy)
		}
		if m.Len-uint32(m.L3) > a.MTU {
			return dropped(m, graph.TooBig)
		}
		return replyRewrite
	case fib.Incomplete, fib.Attached:
		return replyResolve
	case fib.Punt, fib.Local:
		return replyPunt
	}
	return dropped(m, graph.NoRoute)
}

// way looks up where m goes, as route would, and notes both.
func (t *Tables) way(mem []byte, m *graph.Meta) *fib.Adjacency {
	view := t.FIB.View()
	ip := mem[m.Off+uint32(m.L3):]
	m.To = destination(m, ip)
	var nh fib.NextHopID
	if m.Flags&graph.IPv6 == 0 {
		nh = view.Lookup4(uint32(m.To >> 32))
	} else {
		nh = view.Lookup6(m.To, binary.BigEndian.Uint64(ip[32:]))
	}
	m.Hash = flowHash(mem, m)
	id := view.Resolve(nh, m.Hash)
	m.Adjacency = uint32(id)
	return view.Adjacency(id)
}

// source is our address of a family for packets out of port.
func (s *State) source(port uint16, ipv6 bool) (netip.Addr, bool) {
	if a, ok := s.Sources[Source{port, ipv6}]; ok {
		return a, true
	}
	a, ok := s.Sources[Source{graph.NoPort, ipv6}]
	return a, ok
}

// putIPv4 writes an IPv4 header without options at h: TTL 64, DF clear, which
// is what errors and replies of a router carry.
func putIPv4(h []byte, proto uint8, src, dst []byte, payload int) {
	clear(h[:pkt.IPv4Size])
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(pkt.IPv4Size+payload))
	h[8], h[9] = 64, proto
	copy(h[12:16], src)
	copy(h[16:20], dst)
	binary.BigEndian.PutUint16(h[10:], ^pkt.Fold(pkt.Sum(h[:pkt.IPv4Size])))
}

// putIPv6 writes an IPv6 header at h.
func putIPv6(h []byte, proto, hopLimit uint8, src, dst []byte, payload int) {
	clear(h[:pkt.IPv6Size])
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = proto, hopLimit
	copy(h[8:24], src)
	copy(h[24:40], dst)
}

// finishICMP stores the checksum of the ICMP or ICMPv6 message p, whose field
// must be zero; addrs is needed for ICMPv6 only.
func finishICMP(p, addrs []byte, ipv6 bool) {
	sum := pkt.Sum(p)
	if ipv6 {
		sum += pkt.PseudoSum(addrs, pkt.ProtoICMPv6, len(p))
	}
	binary.BigEndian.PutUint16(p[2:], ^pkt.Fold(sum))
}

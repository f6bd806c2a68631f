package node

import (
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// special looks again at what ip-input decided for packets that are more than
// plain bytes in one buffer: chains, group frames, and work left to offloads.
func special(w *graph.Worker, m *graph.Meta, e graph.Edge) graph.Edge {
	if m.Bufs > 1 {
		cutChain(w, m)
	}
	switch {
	case e != ipRoute:
		return e
	case m.Flags&graph.Broadcast != 0:
		return dropped(m, graph.IPMulticast) // RFC 1812 section 5.3.4, RFC 1122 section 3.3.6
	case (m.Flags&graph.Partial != 0 || m.GSO != graph.GSONone) && offloadLies(w.Packet(m), m):
		return dropped(m, graph.RxOffload)
	}
	return e
}

// cutChain frees the buffers, and parts of them, that lie behind the end of a
// packet whose padding was trimmed.
func cutChain(w *graph.Worker, m *graph.Meta) {
	left, b, n := m.Len-m.Head, m.Buf, uint8(1)
	for ; left > 0 && n < m.Bufs; n++ {
		b = w.Arena.Segment(b).Next
		s := w.Arena.Segment(b)
		s.Len = uint16(min(uint32(s.Len), left))
		left -= uint32(s.Len)
	}
	if n < m.Bufs {
		w.Cache.FreeChain(w.Arena.Segment(b).Next, int(m.Bufs-n))
		m.Bufs = n
	}
}

// offloadLies says whether the checksum or the segments that a port left for
// later contradict the headers in p. A port looks at bounds; a packet that is
// shorter by its own account, or is part of a datagram, shows only here.
func offloadLies(p []byte, m *graph.Meta) bool {
	kind, field, header := graph.GSOUDP, uint16(6), uint32(8)
	switch m.Proto {
	case pkt.ProtoUDP:
	case pkt.ProtoTCP:
		kind, field = graph.GSOTCP4, 16
		if m.Flags&graph.IPv6 != 0 {
			kind = graph.GSOTCP6
		}
		header = uint32(p[m.L4+12]>>4) * 4 // transportLies has seen it
	default:
		return true
	}
	if m.Flags&graph.Partial == 0 || m.Flags&graph.Fragment != 0 || m.Bufs != 1 ||
		m.CsumStart != m.L4 || m.CsumOffset != field {
		return true
	}
	if m.GSO == graph.GSONone {
		return false
	}
	payload, size := m.Len-uint32(m.L4)-header, uint32(m.GSOSize)
	return m.GSO != kind || size == 0 || payload == 0 || (payload+size-1)/size != uint32(m.Segments)
}

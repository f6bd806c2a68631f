package port

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// The virtio-net header in front of each packet of a TUN queue (virtio 1.2
// section 5.1.6, without num_buffers), always little endian here:
//
//	flags[1] gso_type[1] hdr_len[2] gso_size[2] csum_start[2] csum_offset[2]
const (
	vnetSize = 10

	vnetNeedsCsum = 1 // in flags
	vnetDataValid = 2

	vnetNone = 0 // in gso_type
	vnetTCP4 = 1
	vnetTCP6 = 4
	vnetUDP  = 5
	vnetECN  = 0x80 // the first segment has CWR: a note for hardware
)

// readVnet notes what header h says of packet p, which begins at its IP header.
// It says false when h contradicts p.
//
//fastpath:hot
func readVnet(h *[vnetSize]byte, p []byte, m *graph.Meta) bool {
	switch {
	case h[0]&vnetNeedsCsum != 0:
		m.Flags = graph.Partial
		m.CsumStart, m.CsumOffset = binary.LittleEndian.Uint16(h[6:]), binary.LittleEndian.Uint16(h[8:])
		if m.CsumStart < pkt.IPv4Size || int(m.CsumStart)+int(m.CsumOffset)+2 > len(p) || m.CsumOffset&1 != 0 {
			return false
		}
	case h[1] != vnetNone:
		return false // a superpacket's checksum is always partial
	case h[0]&vnetDataValid != 0:
		m.Flags = graph.Verified
	}
	if h[1] == vnetNone {
		return true
	}
	return readGSO(h, p, m)
}

//fastpath:hot
func readGSO(h *[vnetSize]byte, p []byte, m *graph.Meta) bool {
	switch h[1] &^ vnetECN {
	case vnetTCP4:
		m.GSO = graph.GSOTCP4
	case vnetTCP6:
		m.GSO = graph.GSOTCP6
	case vnetUDP:
		m.GSO = graph.GSOUDP
	default:
		return false
	}
	if m.GSO == graph.GSOUDP && h[1]&vnetECN != 0 || int(binary.LittleEndian.Uint16(h[2:])) > len(p) {
		return false
	}
	m.GSOSize = binary.LittleEndian.Uint16(h[4:])
	var s superpacket
	if !s.open(p, m) {
		return false
	}
	n := s.count()
	if n == 1 { // one segment is an ordinary packet
		m.GSO, m.GSOSize = graph.GSONone, 0
	}
	m.Segments = uint16(n)
	return true
}

// putVnet writes the header for packet p, which begins at its IP header and
// whose first buffer it is. It says false when m contradicts p.
//
//fastpath:hot
func putVnet(h *[vnetSize]byte, p []byte, m *graph.Meta) bool {
	*h = [vnetSize]byte{}
	if m.Flags&graph.Partial == 0 {
		if m.Flags&graph.Verified != 0 {
			h[0] = vnetDataValid
		}
		return m.GSO == graph.GSONone
	}
	if int(m.CsumStart)+int(m.CsumOffset)+2 > len(p) {
		return false
	}
	h[0] = vnetNeedsCsum
	binary.LittleEndian.PutUint16(h[6:], m.CsumStart)
	binary.LittleEndian.PutUint16(h[8:], m.CsumOffset)
	switch m.GSO {
	case graph.GSONone:
		return true
	case graph.GSOTCP4:
		h[1] = vnetTCP4
	case graph.GSOTCP6:
		h[1] = vnetTCP6
	case graph.GSOUDP:
		h[1] = vnetUDP
	}
	size := udpSize
	if m.GSO != graph.GSOUDP {
		t := p[m.CsumStart:]
		if len(t) < tcpSize {
			return false
		}
		size = int(t[tcpData]>>4) * 4
		if t[tcpFlags]&tcpCWR != 0 {
			h[1] |= vnetECN
		}
	}
	if int(m.CsumStart)+size > len(p) {
		return false
	}
	binary.LittleEndian.PutUint16(h[2:], m.CsumStart+uint16(size))
	binary.LittleEndian.PutUint16(h[4:], m.GSOSize)
	return true
}

package port

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// TCP flags, and where the fields lie that segmentation and GRO touch.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80

	tcpSize = 20 // without options
	udpSize = 8

	ip4Length, ip4ID, ip4Frag, ip4Proto, ip4Check = 2, 4, 6, 9, 10
	ip6Length, ip6Next                            = 4, 6
	udpLength, udpCheck                           = 4, 6
	tcpSeq, tcpAck, tcpData, tcpFlags             = 4, 8, 12, 13
	tcpWindow, tcpCheck                           = 14, 16
)

// superpacket is a GSO packet laid open: what its segments share and how they
// are cut.
type superpacket struct {
	head    []byte // link, network and transport headers
	payload []byte
	size    int // payload bytes of each segment but the last
	l3, l4  int // where the IP and the transport header begin
	v6, udp bool
	sum     uint32 // pseudo-header sum, without the length
	id      uint16 // IPv4 identification of the first segment
	seq     uint32 // TCP sequence number of the first segment
	flags   byte   // TCP flags of the whole
}

// open checks that p, whose facts are m, can be cut, and lays it open. p begins
// at the link layer or, where there is none, at the IP header (m.L3).
//
//fastpath:hot
func (s *superpacket) open(p []byte, m *graph.Meta) bool {
	s.l3, s.l4 = int(m.L3), int(m.CsumStart)
	s.size, s.udp = int(m.GSOSize), m.GSO == graph.GSOUDP
	if m.Flags&graph.Partial == 0 || s.size == 0 || m.Bufs != 1 || !s.network(p, m.GSO) {
		return false
	}
	t := p[s.l4:]
	at, size := udpCheck, udpSize
	if !s.udp {
		if len(t) < tcpSize {
			return false
		}
		at, size = tcpCheck, int(t[tcpData]>>4)*4
		s.seq, s.flags = binary.BigEndian.Uint32(t[tcpSeq:]), t[tcpFlags]
	}
	if int(m.CsumOffset) != at || (!s.udp && size < tcpSize) || len(t) <= size {
		return false
	}
	// The field holds the sum over addresses, protocol and the whole length:
	// what remains without the length serves every segment.
	s.sum = uint32(binary.BigEndian.Uint16(t[at:])) + uint32(^uint16(len(t)))
	s.head, s.payload = p[:s.l4+size], t[size:]
	return true
}

// network checks the IP header and that the transport header follows it.
//
//fastpath:hot
func (s *superpacket) network(p []byte, kind graph.GSOKind) bool {
	proto := byte(pkt.ProtoTCP)
	if s.udp {
		proto = pkt.ProtoUDP
	}
	if len(p) > s.l3+pkt.EthernetSize+1<<16 || s.l4 > len(p) || s.l4 < s.l3+pkt.IPv4Size {
		return false
	}
	ip := p[s.l3:]
	if len(ip) > 1<<16-1 {
		return false
	}
	switch ip[0] >> 4 {
	case 4:
		s.id = binary.BigEndian.Uint16(ip[ip4ID:])
		return kind != graph.GSOTCP6 && int(ip[0]&15)*4 == s.l4-s.l3 && ip[ip4Proto] == proto &&
			binary.BigEndian.Uint16(ip[ip4Frag:])&0x3fff == 0
	case 6:
		s.v6 = true
		return kind != graph.GSOTCP4 && transport6(ip, s.l4-s.l3, proto)
	}
	return false
}

// transport6 walks IPv6 extension headers and says whether they lead to proto
// at byte at. Only headers that every segment may repeat are allowed.
//
//fastpath:hot
func transport6(ip []byte, at int, proto byte) bool {
	if at < pkt.IPv6Size || len(ip) < at {
		return false
	}
	next, i := ip[ip6Next], pkt.IPv6Size
	for i < at {
		if next != pkt.ProtoHopByHop && next != pkt.ProtoRouting && next != pkt.ProtoDestOpts || i+2 > len(ip) {
			return false
		}
		next, i = ip[i], i+int(ip[i+1])*8+8
	}
	return i == at && next == proto
}

// count is how many segments there are.
//
//fastpath:hot
func (s *superpacket) count() int { return (len(s.payload) + s.size - 1) / s.size }

// frames is how many frames each segment but the last fills, and all together. It
// is more than maxCut where the headers do not fit into one.
//
//fastpath:hot
func (s *superpacket) frames() (each, all int) {
	if len(s.head) > chunkRoom {
		return 0, maxCut + 1
	}
	n := s.count()
	each = (s.largest() + chunkRoom - 1) / chunkRoom
	last := (len(s.head) + len(s.payload) - (n-1)*s.size + chunkRoom - 1) / chunkRoom
	return each, (n-1)*each + last
}

// largest is the size of the longest segment in bytes, headers included.
//
//fastpath:hot
func (s *superpacket) largest() int { return len(s.head) + min(s.size, len(s.payload)) }

// segment writes the headers of segment i to dst, which has room for len(head)
// bytes, complete with checksums, and returns the segment's payload.
//
//fastpath:hot
func (s *superpacket) segment(dst []byte, i int) []byte {
	from := i * s.size
	end := min(from+s.size, len(s.payload))
	payload := s.payload[from:end]
	dst = dst[:len(s.head)]
	copy(dst, s.head)
	ip, t := dst[s.l3:], dst[s.l4:]
	if s.v6 {
		binary.BigEndian.PutUint16(ip[ip6Length:], uint16(len(ip)-pkt.IPv6Size+len(payload)))
	} else {
		ip := ip[:s.l4-s.l3]
		binary.BigEndian.PutUint16(ip[ip4Length:], uint16(len(ip)+len(t)+len(payload)))
		binary.BigEndian.PutUint16(ip[ip4ID:], s.id+uint16(i))
		binary.BigEndian.PutUint16(ip[ip4Check:], 0)
		binary.BigEndian.PutUint16(ip[ip4Check:], ^pkt.Fold(pkt.Sum(ip)))
	}
	at := udpCheck
	if s.udp {
		binary.BigEndian.PutUint16(t[udpLength:], uint16(udpSize+len(payload)))
	} else {
		at = tcpCheck
		s.tcp(t, i, from, end)
	}
	binary.BigEndian.PutUint16(t[at:], 0)
	// The transport header has an even length, so that the sums add up.
	sum := ^pkt.Fold(s.sum + uint32(len(t)+len(payload)) + pkt.Sum(t) + pkt.Sum(payload))
	if sum == 0 && s.udp {
		sum = 0xffff // RFC 768: none is written as zero
	}
	binary.BigEndian.PutUint16(t[at:], sum)
	return payload
}

// tcp sets what differs in the TCP header t of segment i, bytes from to end.
//
//fastpath:hot
func (s *superpacket) tcp(t []byte, i, from, end int) {
	binary.BigEndian.PutUint32(t[tcpSeq:], s.seq+uint32(from))
	flags := s.flags
	if i > 0 {
		flags &^= tcpCWR // RFC 3168 section 6.1.2: it answers one ECN echo
	}
	if end < len(s.payload) {
		flags &^= tcpFIN | tcpPSH
	}
	t[tcpFlags] = flags
}

// complete turns a partial checksum of a packet that lies in one piece into a
// whole one. It says false when the facts contradict the packet.
//
//fastpath:hot
func complete(p []byte, m *graph.Meta) bool {
	start, at := int(m.CsumStart), int(m.CsumStart)+int(m.CsumOffset)
	if at+2 > len(p) || m.CsumOffset&1 != 0 {
		return false
	}
	putPartial(p[at:], pkt.Sum(p[start:]), m)
	return true
}

// putPartial writes the checksum whose sum, the partial field included, is sum.
//
//fastpath:hot
func putPartial(field []byte, sum uint32, m *graph.Meta) {
	c := ^pkt.Fold(sum)
	if c == 0 && m.CsumOffset == udpCheck {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(field, c)
	m.Flags &^= graph.Partial
}

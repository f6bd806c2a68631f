package port

import (
	"bytes"
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// Trains of TCP segments, coalesced as the kernel's GRO does it, so that the
// receiver pays once for what we would write as forty packets. A train holds
// segments of one flow that follow each other in the vector and in sequence, and
// differ in nothing that a superpacket cannot tell. Cutting it again gives back
// the same segments, byte for byte (but for the identification of packets that
// must not be fragmented, which means nothing: RFC 6864 section 4.1).

// maxTrains is how many flows coalesce at once within one vector.
const maxTrains = 16

// class is what GRO can do with a packet.
type class uint8

const (
	notTCP      class = iota // no business of ours
	unknownFlow              // might be a part of any flow
	odd                      // of a known flow, to be written alone
	mergeable
)

// segment is what GRO reads in a packet.
type segment struct {
	flow     uint64 // mixed from addresses and ports; equal flows have equal ones
	l4       int    // bytes from the IP header to the TCP header
	head     int    // bytes of all headers
	len      int    // of the packet
	seq      uint32
	push, v6 bool
	bad      bool // a checksum was found to be wrong
}

// read sorts packet m, which begins at its IP header.
//
//fastpath:hot
func (s *segment) read(io *graph.IO, m *graph.Meta) class {
	p := io.Mem[m.Off : m.Off+m.Head]
	if len(p) < pkt.IPv4Size {
		return unknownFlow
	}
	s.len = int(m.Len)
	var c class
	switch p[0] >> 4 {
	case 4:
		c = s.read4(p)
	case 6:
		c = s.read6(p)
	default:
		c = unknownFlow
	}
	if c != mergeable {
		return c
	}
	if len(p) < s.l4+tcpSize {
		return unknownFlow
	}
	t := p[s.l4:]
	s.flow = mix(s.flow, uint64(binary.LittleEndian.Uint32(t)))
	s.seq = binary.BigEndian.Uint32(t[tcpSeq:])
	s.head = s.l4 + int(t[tcpData]>>4)*4
	s.push = t[tcpFlags]&tcpPSH != 0
	if m.GSO != graph.GSONone || m.Flags&(graph.Partial|graph.Verified) != 0 ||
		s.head < s.l4+tcpSize || s.head > len(p) || s.head >= s.len || t[tcpFlags]&^tcpPSH != tcpACK {
		return odd
	}
	return mergeable
}

//fastpath:hot
func (s *segment) read4(p []byte) class {
	if p[ip4Proto] != pkt.ProtoTCP {
		return notTCP
	}
	s.l4 = int(p[0]&15) * 4
	if s.l4 < pkt.IPv4Size || binary.BigEndian.Uint16(p[ip4Frag:])&0x3fff != 0 ||
		int(binary.BigEndian.Uint16(p[ip4Length:])) != s.len {
		return unknownFlow
	}
	s.flow = mix(4, binary.LittleEndian.Uint64(p[12:20]))
	return mergeable
}

//fastpath:hot
func (s *segment) read6(p []byte) class {
	if len(p) < pkt.IPv6Size {
		return unknownFlow
	}
	switch p[ip6Next] {
	case pkt.ProtoTCP:
	case pkt.ProtoUDP, pkt.ProtoICMPv6:
		return notTCP
	default:
		return unknownFlow // extension headers may lead to TCP
	}
	s.v6, s.l4 = true, pkt.IPv6Size
	if int(binary.BigEndian.Uint16(p[ip6Length:]))+pkt.IPv6Size != s.len {
		return unknownFlow
	}
	s.flow = mix(mix(6, binary.LittleEndian.Uint64(p[8:])), binary.LittleEndian.Uint64(p[16:]))
	s.flow = mix(mix(s.flow, binary.LittleEndian.Uint64(p[24:])), binary.LittleEndian.Uint64(p[32:]))
	return mergeable
}

//fastpath:hot
func mix(h, x uint64) uint64 {
	h = (h ^ x) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// leads says whether the packet can be the first of a train: the vnet header
// goes in front of it.
//
//fastpath:hot
func (s *segment) leads(io *graph.IO, m *graph.Meta) bool {
	return m.Off-io.Arena.Start(m.Buf) >= vnetSize && int(m.Bufs) <= maxPiece
}

// train is a superpacket in the making.
type train struct {
	flow        uint64
	first, last uint16 // packets of the vector, linked by groTable.next
	count       int    // packets in it; 0 is a free place
	pieces      int    // buffers of all packets
	size        int    // payload bytes of every packet but the last
	len         int    // of the superpacket, headers included
	l4, head    int
	next        uint32 // sequence number that goes on with it
	id          uint16 // IPv4 identification of the last packet
	sameID      bool   // identifications do not count up
	v6          bool
	verified    bool // the first packet's checksums have been verified
	done        bool // nothing may follow
}

// groTable holds the trains of one burst.
type groTable struct {
	trains [maxTrains]train
	used   int // places that may be taken, from the front
	open   int // trains that wait
	victim int // place to be freed next when all are taken
	next   [graph.VectorMax]uint16

	made, merged, bad uint64
}

//fastpath:hot
func (g *groTable) reset() { g.used, g.open = 0, 0 }

// find is the open train of a flow, or nil.
//
//fastpath:hot
func (g *groTable) find(flow uint64) *train {
	for i := range g.trains[:g.used] {
		if t := &g.trains[i]; t.flow == flow && t.count > 0 {
			return t
		}
	}
	return nil
}

// free is a place for a new train; what waits in it must be written first.
//
//fastpath:hot
func (g *groTable) free() *train {
	if g.open < g.used {
		for i := range g.trains[:g.used] {
			if g.trains[i].count == 0 {
				return &g.trains[i]
			}
		}
	}
	if g.used < maxTrains {
		t := &g.trains[g.used]
		t.count = 0
		g.used++
		return t
	}
	g.victim = (g.victim + 1) % maxTrains
	return &g.trains[g.victim]
}

// start opens a train with packet i.
//
//fastpath:hot
func (g *groTable) start(t *train, s *segment, i int) {
	*t = train{
		flow: s.flow, first: uint16(i), last: uint16(i), count: 1, size: s.len - s.head, len: s.len,
		l4: s.l4, head: s.head, next: s.seq + uint32(s.len-s.head), v6: s.v6,
	}
	g.open++
}

// extend adds packet i to t if it goes on with it, and says whether it did.
// Checksums are verified here and not before: a packet that stays alone is
// written as it came, and its receiver verifies it.
//
//fastpath:hot
func (g *groTable) extend(io *graph.IO, v *graph.Vector, t *train, s *segment, i int) bool {
	first, m := v.Meta(int(t.first)), v.Meta(i)
	size := s.len - s.head
	if s.seq != t.next || s.head != t.head || s.l4 != t.l4 || s.v6 != t.v6 || size > t.size ||
		t.len+size > 1<<16-1 || t.pieces+int(m.Bufs)+int(first.Bufs) > maxPiece {
		return false
	}
	a, b := io.Mem[first.Off:first.Off+uint32(t.head)], io.Mem[m.Off:m.Off+uint32(s.head)]
	if !t.sameNetwork(a, b) || !sameTCP(a[t.l4:], b[t.l4:]) {
		return false
	}
	if !t.verified {
		if t.verified = verify(io, first, t.l4, t.v6); !t.verified {
			g.bad++
			return false
		}
	}
	if s.bad = !verify(io, m, s.l4, s.v6); s.bad {
		g.bad++
		return false
	}
	t.id = binary.BigEndian.Uint16(b[ip4ID:])
	g.next[t.last] = uint16(i)
	t.last = uint16(i)
	t.count++
	t.pieces += int(m.Bufs)
	t.len += size
	t.next += uint32(size)
	t.done = s.push || size < t.size
	return true
}

// sameNetwork says whether packet b's IP header goes on with that of a, the
// first of the train.
//
//fastpath:hot
func (t *train) sameNetwork(a, b []byte) bool {
	if t.v6 {
		return binary.LittleEndian.Uint32(a) == binary.LittleEndian.Uint32(b) &&
			bytes.Equal(a[ip6Next:pkt.IPv6Size], b[ip6Next:pkt.IPv6Size])
	}
	if a[0] != b[0] || a[1] != b[1] || !bytes.Equal(a[ip4Frag:ip4Check], b[ip4Frag:ip4Check]) ||
		!bytes.Equal(a[ip4Check+2:t.l4], b[ip4Check+2:t.l4]) {
		return false
	}
	last := t.id
	if t.count == 1 {
		last = binary.BigEndian.Uint16(a[ip4ID:])
	}
	id := binary.BigEndian.Uint16(b[ip4ID:])
	const dontFragment = 0x40
	if t.count == 1 && id == last && a[ip4Frag]&dontFragment != 0 {
		t.sameID = true
		return true
	}
	if t.sameID {
		return id == last
	}
	return id == last+1
}

// sameTCP says whether two TCP headers of one size differ in nothing but
// sequence number, PSH and checksum.
//
//fastpath:hot
func sameTCP(a, b []byte) bool {
	return binary.LittleEndian.Uint32(a) == binary.LittleEndian.Uint32(b) &&
		binary.LittleEndian.Uint32(a[tcpAck:]) == binary.LittleEndian.Uint32(b[tcpAck:]) &&
		a[tcpData] == b[tcpData] &&
		binary.LittleEndian.Uint16(a[tcpWindow:]) == binary.LittleEndian.Uint16(b[tcpWindow:]) &&
		bytes.Equal(a[tcpCheck+2:], b[tcpCheck+2:])
}

// verify says whether a packet's checksums are right.
//
//fastpath:hot
func verify(io *graph.IO, m *graph.Meta, l4 int, v6 bool) bool {
	p := io.Mem[m.Off : m.Off+m.Head]
	addrs := p[8:pkt.IPv6Size]
	if !v6 {
		if pkt.Fold(pkt.Sum(p[:l4])) != 0xffff {
			return false
		}
		addrs = p[12:pkt.IPv4Size]
	}
	return pkt.Fold(pkt.PseudoSum(addrs, pkt.ProtoTCP, int(m.Len)-l4)+sumChain(io, m, l4)) == 0xffff
}

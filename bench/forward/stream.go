package forward

import (
	"encoding/binary"
	"net/netip"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

const (
	frameSize = 64 // bytes of a frame, without the checksum of the wire
	lineSize  = 64 // bytes of a cache line
)

// stream is the frames that go round, and where they go to. Before each round
// they are written anew, as a packet generator does: the bytes are then in the
// caches as they are after a NIC's or a generator's write.
type stream struct {
	mem      []byte
	metas    []graph.Meta
	template [frameSize]byte
	sum      uint32 // of the template's IPv4 header, its destination 0
	ipv6     bool
	dst4     []uint32
	dst6     [][16]byte
	at       int // destination that comes next
}

// newStream lays n frames at the start of chunks of the arena. A NIC writes
// every packet at the same offset of its chunk, so that all compete for the same
// sets of the caches; spread moves them apart, as other layouts would.
func newStream(a *umem.Arena, n int, dsts []netip.Addr, spread bool) *stream {
	s := &stream{mem: a.Bytes(), ipv6: dsts[0].Is6()}
	for i := range n {
		off := a.Start(umem.Buf(i)) + umem.Headroom
		if spread {
			off += uint32(i%(umem.ChunkSize/2/lineSize)) * lineSize
		}
		s.metas = append(s.metas, graph.Meta{Off: off, Len: frameSize, Head: frameSize, Buf: umem.Buf(i), Bufs: 1, Segments: 1})
	}
	for _, d := range dsts {
		if s.ipv6 {
			s.dst6 = append(s.dst6, d.As16())
		} else {
			b := d.As4()
			s.dst4 = append(s.dst4, binary.BigEndian.Uint32(b[:]))
		}
	}
	s.makeTemplate()
	return s
}

// makeTemplate is an Ethernet frame of 64 B with UDP in it, to no destination yet.
func (s *stream) makeTemplate() {
	f := s.template[:]
	ours, theirs := ourMAC(), peerMAC()
	copy(f, ours[:])
	copy(f[6:], theirs[:])
	ip, udp := f[14:], f[14+20:]
	if s.ipv6 {
		binary.BigEndian.PutUint16(f[12:], pkt.EtherIPv6)
		udp = f[14+40:]
		src := netip.MustParseAddr("2001:db8:1::1").As16()
		ip[0], ip[6], ip[7] = 0x60, pkt.ProtoUDP, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[8:], src[:])
	} else {
		binary.BigEndian.PutUint16(f[12:], pkt.EtherIPv4)
		ip[0], ip[8], ip[9] = 0x45, 64, pkt.ProtoUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		copy(ip[12:], []byte{10, 0, 0, 1})
		s.sum = pkt.Sum(ip[:20])
	}
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], 4001)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
}

// write makes every frame anew, each to the next destination.
func (s *stream) write() {
	if s.ipv6 {
		s.write6()
	} else {
		s.write4()
	}
}

func (s *stream) write4() {
	for i := range s.metas {
		f := s.mem[s.metas[i].Off:][:frameSize]
		copy(f, s.template[:])
		d := s.dst4[s.at]
		if s.at++; s.at == len(s.dst4) {
			s.at = 0
		}
		binary.BigEndian.PutUint32(f[30:], d)
		sum := s.sum + d>>16 + d&0xffff
		sum = sum>>16 + sum&0xffff
		sum += sum >> 16
		binary.BigEndian.PutUint16(f[24:], ^uint16(sum))
	}
}

func (s *stream) write6() {
	for i := range s.metas {
		f := s.mem[s.metas[i].Off:][:frameSize]
		copy(f, s.template[:])
		copy(f[38:54], s.dst6[s.at][:])
		if s.at++; s.at == len(s.dst6) {
			s.at = 0
		}
	}
}

//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// What of RFC 9260 an association begins with. Section 3.1 has the common header,
// 3.3.2 and 3.3.3 INIT and INIT ACK, 3.3.3.1 the cookie, 6.8 the checksum.
const (
	sctpHeader  = 12
	chunkInit   = 1
	chunkAck    = 2
	initLength  = 20 // of the chunk, without parameters
	cookieParam = 7
	window      = 65535 // octets, as little as both sides must have is 1500
)

// sctp is one raw socket: it begins associations and answers those of others. No
// association ever comes to stand.
type sctp struct {
	conn   *net.IPConn
	served map[uint16]bool

	mu      sync.Mutex
	pending map[association]func()
}

// association is what an INIT ACK is known by.
type association struct {
	peer netip.AddrPort
	port uint16 // ours
	tag  uint32 // ours
}

func listenSCTP(at netip.Addr, served map[uint16]bool) (*sctp, error) {
	c, err := net.ListenIP("ip:132", &net.IPAddr{IP: at.AsSlice()})
	if err != nil {
		return nil, fmt.Errorf("open raw SCTP socket: %w", err)
	}
	return &sctp{conn: c, served: served, pending: map[association]func(){}}, nil
}

// initiate sends an INIT, and calls heard once its INIT ACK has come, but not
// after forget.
func (s *sctp) initiate(port uint16, to netip.AddrPort, heard func()) (forget func(), err error) {
	a := association{to, port, newTag()}
	s.mu.Lock()
	s.pending[a] = heard
	s.mu.Unlock()
	forget = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pending, a)
	}
	packet := sctpPacket(port, to.Port(), 0, chunkInit, a.tag)
	_, err = s.conn.WriteToIP(packet, &net.IPAddr{IP: to.Addr().AsSlice()})
	return forget, err
}

// serve reads until the socket is closed.
func (s *sctp) serve() {
	b := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFromIP(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		addr, ok := netip.AddrFromSlice(from.IP)
		if p, well := parseSCTP(b[:n]); ok && well {
			s.take(addr.Unmap(), p)
		}
	}
}

func (s *sctp) take(from netip.Addr, p sctpInit) {
	switch {
	case p.chunk == chunkInit && p.verification == 0 && s.served[p.dst]:
		answer := sctpPacket(p.dst, p.src, p.tag, chunkAck, newTag())
		_, _ = s.conn.WriteToIP(answer, &net.IPAddr{IP: from.AsSlice()})
	case p.chunk == chunkAck:
		a := association{netip.AddrPortFrom(from, p.src), p.dst, p.verification}
		s.mu.Lock()
		heard := s.pending[a]
		delete(s.pending, a)
		s.mu.Unlock()
		if heard != nil {
			heard()
		}
	}
}

// sctpInit is a packet whose first chunk is INIT or INIT ACK.
type sctpInit struct {
	src, dst     uint16
	verification uint32 // tag, which the receiver of the packet has chosen
	chunk        byte
	tag          uint32 // that the sender has chosen
}

// parseSCTP refuses what is cut short or has a wrong checksum.
func parseSCTP(b []byte) (p sctpInit, ok bool) {
	if len(b) < sctpHeader+initLength || binary.LittleEndian.Uint32(b[8:]) != sctpSum(b) {
		return p, false
	}
	c := b[sctpHeader:]
	if n := int(binary.BigEndian.Uint16(c[2:])); n < initLength || n > len(c) {
		return p, false
	}
	be := binary.BigEndian
	return sctpInit{be.Uint16(b), be.Uint16(b[2:]), be.Uint32(b[4:]), c[0], be.Uint32(c[4:])}, c[0] == chunkInit || c[0] == chunkAck
}

// sctpPacket is an INIT or an INIT ACK, the latter with a cookie.
func sctpPacket(src, dst uint16, verification uint32, chunk byte, tag uint32) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, src)
	b = be.AppendUint16(b, dst)
	b = be.AppendUint32(b, verification)
	b = be.AppendUint32(b, 0) // checksum
	length := uint16(initLength)
	if chunk == chunkAck {
		length += 8
	}
	b = append(b, chunk, 0)
	b = be.AppendUint16(b, length)
	b = be.AppendUint32(b, tag)
	b = be.AppendUint32(b, window)
	b = be.AppendUint16(b, 1)   // outbound streams
	b = be.AppendUint16(b, 1)   // inbound streams at most
	b = be.AppendUint32(b, tag) // first transmission sequence number
	if chunk == chunkAck {
		b = be.AppendUint16(b, cookieParam)
		b = be.AppendUint16(b, 8)
		b = be.AppendUint32(b, tag)
	}
	binary.LittleEndian.PutUint32(b[8:], sctpSum(b))
	return b
}

// newTag is anything but 0, which is no tag.
func newTag() uint32 { return rand.Uint32() | 1 }

// sctpSum is the CRC32c of the packet with its checksum as zero.
func sctpSum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:8])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, b[sctpHeader:])
}

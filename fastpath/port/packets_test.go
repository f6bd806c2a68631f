package port

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
)

// packetSpec says what packet to make. The zero value is an IPv4 TCP packet.
type packetSpec struct {
	v6, udp, link     bool
	payload, gso      int // bytes, and of each segment; gso 0 is no superpacket
	flags             byte
	options           []byte // of TCP, a multiple of four
	extension         []byte // IPv6 extension header or IPv4 options, next header is set
	src, dst          string
	sport             uint16
	seq, ack          uint32
	id, window        uint16
	tos, ttl          byte
	dontFragment      bool
	whole             bool // checksum complete
	seed              byte // of the payload
	corrupt, corrupt4 bool // wrong TCP checksum, wrong IPv4 checksum
}

// build makes the packet, and what a port would know of it.
func (s packetSpec) build() ([]byte, graph.Meta) {
	var m graph.Meta
	t := s.transport()
	ip := s.network(len(t))
	m.CsumStart, m.CsumOffset, m.Segments = uint16(len(ip)), tcpCheck, 1
	if s.udp {
		m.CsumOffset = udpCheck
	}
	sum := plainPseudo(ip, len(t), s.udp)
	if s.whole {
		binary.BigEndian.PutUint16(t[m.CsumOffset:], ^plainFold(sum+plainWords(t)))
	} else {
		binary.BigEndian.PutUint16(t[m.CsumOffset:], plainFold(sum))
		m.Flags = graph.Partial
	}
	if s.corrupt {
		t[len(t)-1] ^= 0x55
	}
	if s.gso > 0 {
		m.GSO, m.GSOSize = graph.GSOTCP4, uint16(s.gso)
		m.Segments = uint16((s.payload + s.gso - 1) / s.gso)
		if s.v6 {
			m.GSO = graph.GSOTCP6
		}
		if s.udp {
			m.GSO = graph.GSOUDP
		}
	}
	var p []byte
	if s.link {
		p = append(p, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0)
		if s.v6 {
			p[12], p[13] = 0x86, 0xdd
		}
		m.L3 = 14
		m.CsumStart += 14
	}
	p = append(append(p, ip...), t...)
	m.Len, m.Head, m.Bufs = uint32(len(p)), uint32(len(p)), 1
	return p, m
}

func (s packetSpec) transport() []byte {
	var t []byte
	if s.udp {
		t = make([]byte, udpSize, udpSize+s.payload)
		binary.BigEndian.PutUint16(t, 4000+s.sport)
		binary.BigEndian.PutUint16(t[2:], 5000)
		binary.BigEndian.PutUint16(t[4:], uint16(udpSize+s.payload))
	} else {
		t = make([]byte, tcpSize, tcpSize+len(s.options)+s.payload)
		binary.BigEndian.PutUint16(t, 4000+s.sport)
		binary.BigEndian.PutUint16(t[2:], 5000)
		binary.BigEndian.PutUint32(t[4:], s.seq)
		binary.BigEndian.PutUint32(t[8:], s.ack)
		t[tcpData] = byte((tcpSize + len(s.options)) / 4 << 4)
		t[tcpFlags] = s.flags
		if s.flags == 0 {
			t[tcpFlags] = tcpACK
		}
		binary.BigEndian.PutUint16(t[14:], 1000+s.window)
		t = append(t, s.options...)
	}
	for i := range s.payload {
		t = append(t, s.seed+byte(i*7)+byte(i>>8))
	}
	return t
}

func (s packetSpec) network(n int) []byte {
	proto := byte(6)
	if s.udp {
		proto = 17
	}
	src, dst := "10.91.1.2", "10.91.2.2"
	if s.v6 {
		src, dst = "fd91:1::2", "fd91:2::2"
	}
	if s.src != "" {
		src, dst = s.src, s.dst
	}
	ext := bytes.Clone(s.extension)
	if s.v6 {
		ip := make([]byte, 40)
		ip[0], ip[1] = 0x60|s.tos>>4, s.tos<<4
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ext)+n))
		ip[6], ip[7] = proto, 64-s.ttl
		if len(ext) > 0 {
			ip[6], ext[0] = 60, proto
		}
		copy(ip[8:], netip.MustParseAddr(src).AsSlice())
		copy(ip[24:], netip.MustParseAddr(dst).AsSlice())
		return append(ip, ext...)
	}
	ip := make([]byte, 20)
	ip[0], ip[1] = 0x45+byte(len(ext)/4), s.tos
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(ext)+n))
	binary.BigEndian.PutUint16(ip[4:], s.id)
	if s.dontFragment {
		ip[6] = 0x40
	}
	ip[8], ip[9] = 64-s.ttl, proto
	copy(ip[12:], netip.MustParseAddr(src).AsSlice())
	copy(ip[16:], netip.MustParseAddr(dst).AsSlice())
	ip = append(ip, ext...)
	binary.BigEndian.PutUint16(ip[10:], ^plainFold(plainWords(ip)))
	if s.corrupt4 {
		ip[10] ^= 0x55
	}
	return ip
}

// plainWords, plainFold and plainPseudo are RFC 1071 as it reads.
func plainWords(b []byte) (s uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

func plainFold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func plainPseudo(ip []byte, n int, udp bool) uint32 {
	s := uint32(6 + n)
	if udp {
		s = uint32(17 + n)
	}
	if ip[0]>>4 == 6 {
		return s + plainWords(ip[8:40])
	}
	return s + plainWords(ip[12:20])
}

// plainSegments cuts a superpacket that begins at its IP header, step by step
// from the whole: the oracle of superpacket, and what undoes GRO.
func plainSegments(p []byte, l4, size int, udp bool) (all [][]byte) {
	head := l4 + 8
	if !udp {
		head = l4 + int(p[l4+12]>>4)*4
	}
	for at := head; at < len(p); at += size {
		end := min(at+size, len(p))
		b := append(bytes.Clone(p[:head]), p[at:end]...)
		t := b[l4:]
		if b[0]>>4 == 6 {
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		} else {
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(p[4:])+uint16(len(all)))
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], ^plainFold(plainWords(b[:l4])))
		}
		check := 6
		if udp {
			binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		} else {
			check = 16
			binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(p[l4+4:])+uint32(at-head))
			if len(all) > 0 {
				t[13] &^= 0x80
			}
			if end < len(p) {
				t[13] &^= 0x09
			}
		}
		field := t[check:]
		field[0], field[1] = 0, 0
		sum := ^plainFold(plainWords(t) + plainPseudo(b, len(t), udp))
		if udp && sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(field, sum)
		all = append(all, b)
	}
	return all
}

// place puts a packet into the arena: a super when it is large, unless frames is
// set; then a chain.
func place(t testing.TB, io *graph.IO, p []byte, m graph.Meta, frames bool) graph.Meta {
	t.Helper()
	q := &memoryQueue{port: &Memory{cfg: MemoryConfig{Offload: !frames}}}
	var out graph.Meta
	if !q.admit(io, &Packet{Bytes: p, Meta: m}, &out) {
		t.Fatal("out of buffers")
	}
	return out
}

// firstLayer is the layer that an IP packet begins with.
func firstLayer(p []byte) gopacket.LayerType {
	if p[0]>>4 == 6 {
		return layers.LayerTypeIPv6
	}
	return layers.LayerTypeIPv4
}

// decode parses a packet from the IP header on with gopacket and checks its
// lengths and checksums.
func decode(t testing.TB, p []byte) gopacket.Packet {
	t.Helper()
	d := gopacket.NewPacket(p, firstLayer(p), gopacket.Default)
	if e := d.ErrorLayer(); e != nil {
		t.Fatalf("gopacket cannot read %x: %v", p[:min(len(p), 80)], e.Error())
	}
	if d.Metadata().Truncated {
		t.Fatalf("lengths of %x lie", p[:min(len(p), 80)])
	}
	n := d.NetworkLayer()
	var sum uint16
	var err error
	switch l := d.TransportLayer().(type) {
	case *layers.TCP:
		_ = l.SetNetworkLayerForChecksum(n)
		sum, err = l.ComputeChecksum()
	case *layers.UDP:
		_ = l.SetNetworkLayerForChecksum(n)
		if l.Checksum == 0 || int(l.Length) != len(l.Contents)+len(l.Payload) {
			t.Fatalf("UDP checksum %d, length %d of %d", l.Checksum, l.Length, len(l.Contents)+len(l.Payload))
		}
		if sum = plainFold(plainWords(l.Contents) + plainWords(l.Payload) + plainPseudo(p, int(l.Length), true)); sum == 0xffff {
			sum = 0
		}
	default:
		t.Fatalf("no transport header in %x", p[:min(len(p), 80)])
	}
	if err != nil || sum != 0 {
		t.Fatalf("transport checksum is off by %#x (%v)", sum, err)
	}
	if ip, ok := n.(*layers.IPv4); ok && plainFold(plainWords(ip.Contents)) != 0xffff {
		t.Fatalf("IPv4 checksum %#x is wrong", ip.Checksum)
	}
	return d
}

func testIO(t testing.TB, frames, supers int) *graph.IO {
	a := newArena(t, frames, supers)
	return graph.NewIO(a, a.Cache(0))
}

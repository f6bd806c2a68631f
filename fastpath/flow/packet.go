package flow

import (
	"encoding/binary"

	"margay.dev/margay/internal/pkt"
)

// Kind is how a packet is looked up.
type Kind uint8

// The kinds of packet.
const (
	Plain     Kind = iota // by its own key
	Steady                // by its own key: of TCP, and neither opens nor ends a connection
	Quote                 // an ICMP error, by the key of the packet that it quotes
	Later                 // a fragment without transport header: Follow makes it Followed
	Followed              // a fragment whose flow is known by its first
	Untracked             // never of a flow, such as neighbour discovery: judge each by itself
	Unusable              // its header cannot be read, Packet.Why says what is wrong
)

// Flags of a TCP header (RFC 9293 section 3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Packet is what the table must know of a packet. A superpacket is one packet
// whose payload is that of all its segments.
type Packet struct {
	Key      Key
	Seq, Ack uint32 // of TCP
	Length   uint32 // of TCP: payload bytes, in sequence space
	Bytes    uint32 // of the IP packet, to be counted
	Window   uint16 // of TCP, as it stands in the header
	Segments uint16 // wire packets it stands for, to be counted
	Flags    uint8  // of TCP
	Scale    uint8  // of a SYN: the window scale option's shift plus one, 0 without the option (RFC 7323)
	Kind     Kind
	Why      Reason // of Unusable
}

// Shape is what an earlier stop has found out about a packet.
type Shape struct {
	L4       int // bytes from the IP header to the transport header; 0 where there is none in this packet
	Length   int // bytes of the IP packet
	Proto    uint8
	IPv6     bool
	Zone     uint16
	Segments uint16
}

// Read fills p from b, which begins with a checked IP header and holds the
// packet's first bytes: all, or at least its headers. Nothing behind the
// IP header is believed.
//
//fastpath:hot
func (p *Packet) Read(b []byte, s Shape) {
	k := &p.Key
	k.Tail = tail(s.Proto, s.IPv6, s.Zone)
	if s.IPv6 {
		if len(b) < pkt.IPv6Size {
			p.unusable(Malformed)
			return
		}
		a := (*[32]byte)(b[8:40])
		k.SrcHi, k.SrcLo = binary.BigEndian.Uint64(a[0:8]), binary.BigEndian.Uint64(a[8:16])
		k.DstHi, k.DstLo = binary.BigEndian.Uint64(a[16:24]), binary.BigEndian.Uint64(a[24:32])
	} else {
		if len(b) < pkt.IPv4Size {
			p.unusable(Malformed)
			return
		}
		a := (*[8]byte)(b[12:20])
		k.SrcHi, k.SrcLo = 0, uint64(binary.BigEndian.Uint32(a[0:4]))
		k.DstHi, k.DstLo = 0, uint64(binary.BigEndian.Uint32(a[4:8]))
	}
	p.Bytes, p.Segments, p.Kind, p.Why = uint32(s.Length), s.Segments, Plain, NoReason
	p.Flags, p.Scale = 0, 0
	if s.L4 <= 0 || s.L4 > len(b) {
		p.Kind = Later
		return
	}
	p.transport(b, s)
}

// transport reads the transport header.
//
//fastpath:hot
func (p *Packet) transport(b []byte, s Shape) {
	switch l4 := b[s.L4:]; s.Proto {
	case pkt.ProtoTCP:
		p.tcp(l4, s.Length-s.L4)
	case pkt.ProtoUDP, pkt.ProtoSCTP:
		if len(l4) < int(pkt.MinTransport[s.Proto]) {
			p.unusable(Malformed)
			return
		}
		p.Key.Tail |= uint64(binary.BigEndian.Uint32(l4))
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		p.icmp(l4, s)
	}
}

// tcp reads a TCP header. n is how many bytes header and payload have.
//
//fastpath:hot
func (p *Packet) tcp(b []byte, n int) {
	if len(b) < 20 {
		p.unusable(Malformed)
		return
	}
	h := (*[20]byte)(b)
	size := int(h[12]>>4) * 4
	if size < 20 || size > len(b) || size > n {
		p.unusable(Malformed)
		return
	}
	p.Key.Tail |= uint64(binary.BigEndian.Uint32(h[0:4]))
	p.Seq, p.Ack = binary.BigEndian.Uint32(h[4:8]), binary.BigEndian.Uint32(h[8:12])
	p.Flags, p.Window = h[13], binary.BigEndian.Uint16(h[14:16])
	p.Length = uint32(n - size)
	if p.Flags&(SYN|FIN|RST|ACK) == ACK {
		p.Kind = Steady
	} else if p.Flags&SYN != 0 && size > 20 {
		p.Scale = windowScale(b[20:size])
	}
}

// windowScale reads the one option that matters here from a SYN's (RFC 7323
// section 2.2), plus one, 0 where it is absent. The list is read as far as it is
// well formed. Selective acknowledgements need not be known: what a sender may
// send follows from the acknowledgement number and the window alone.
func windowScale(o []byte) uint8 {
	const end, nop, scale, most = 0, 1, 3, 14
	for len(o) > 0 && o[0] != end {
		if o[0] == nop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return 0
		}
		if o[0] == scale && o[1] == 3 {
			return min(o[2], most) + 1
		}
		o = o[o[1]:]
	}
	return 0
}

// icmp tells queries and their replies, errors, and all else.
func (p *Packet) icmp(b []byte, s Shape) {
	if len(b) < pkt.ICMPHeaderSize || (s.Proto == pkt.ProtoICMPv6) != s.IPv6 {
		p.unusable(Malformed)
		return
	}
	switch kind := b[0]; {
	case isQuery(kind, s.IPv6):
		p.Key.Tail |= uint64(binary.BigEndian.Uint16(b[4:6]))<<16 | uint64(kind)<<8 | uint64(b[1])
	case isError(kind, s.IPv6):
		p.quote(b, s)
	default:
		p.Kind = Untracked
	}
}

// isQuery tells queries and replies of the family's own ICMP.
func isQuery(kind uint8, ipv6 bool) bool {
	return answers[kind] != 255 && ipv6 == (kind >= 128)
}

// isError tells the messages that quote a packet (RFC 792, RFC 4443). A source
// quench is none any more (RFC 6633), a redirect is not for those behind us.
func isError(kind uint8, ipv6 bool) bool {
	const parameter4, parameter6 = 12, 4
	if ipv6 {
		return kind >= pkt.ICMP6Unreachable && kind <= parameter6
	}
	return kind == pkt.ICMPUnreachable || kind == pkt.ICMPTimeExceeded || kind == parameter4
}

func (p *Packet) unusable(why Reason) { p.Kind, p.Why = Unusable, why }

// opens reports whether a packet may make a flow. That of TCP is a SYN alone: a
// connection that was under way before is not trusted.
func (p *Packet) opens() bool {
	if p.Kind != Plain {
		return false
	}
	switch p.Key.Proto() {
	case pkt.ProtoTCP:
		return p.Flags&(SYN|ACK|RST|FIN) == SYN
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return asks[uint8(p.Key.Tail>>8)]
	}
	return true
}

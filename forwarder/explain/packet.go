package explain

import (
	"encoding/binary"
	"net/netip"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/pkt"
)

// packet is the first packet of the connection, as little as it can be.
func (t *tuple) packet() []byte {
	p := t.transport(t.sourcePort, t.destinationPort, 2) // SYN
	return header(t.source.addr, t.destination.addr, t.proto8, p)
}

// answer is the packet that comes back.
func (t *tuple) answer() []byte {
	p := t.transport(t.destinationPort, t.sourcePort, 0x12) // SYN, ACK
	if t.echo && t.source.addr.Is4() {
		p[0] = pkt.ICMPEchoReply
	} else if t.echo {
		p[0] = pkt.ICMP6EchoReply
	}
	return header(t.destination.addr, t.source.addr, t.proto8, p)
}

// transport is a transport header without checksum, which no stop looks at.
func (t *tuple) transport(from, to uint16, flags byte) []byte {
	p := make([]byte, max(8, pkt.MinTransport[t.proto8]))
	switch {
	case t.echo:
		p[0] = byte(t.destinationPort >> 8)
	case hasPorts(t.proto8):
		binary.BigEndian.PutUint16(p, from)
		binary.BigEndian.PutUint16(p[2:], to)
	}
	switch t.proto8 {
	case pkt.ProtoTCP:
		p[12], p[13] = 5<<4, flags
	case pkt.ProtoUDP:
		binary.BigEndian.PutUint16(p[4:], 8)
	}
	return p
}

// header puts an IP header before a payload.
func header(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	const hops = 64
	if src.Is4() {
		p := make([]byte, pkt.IPv4Size, pkt.IPv4Size+len(payload))
		p[0], p[8], p[9] = 0x45, hops, proto
		binary.BigEndian.PutUint16(p[2:], uint16(pkt.IPv4Size+len(payload)))
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(p[10:], ^pkt.Fold(pkt.Sum(p)))
		return append(p, payload...)
	}
	p := make([]byte, pkt.IPv6Size, pkt.IPv6Size+len(payload))
	p[0], p[6], p[7] = 0x60, proto, hops
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, payload...)
}

func (t *tuple) proto() *pb.Explanation_Tuple {
	return &pb.Explanation_Tuple{
		Source: t.source.addr.String(), Destination: t.destination.addr.String(), Protocol: uint32(t.proto8),
		SourcePort: uint32(t.sourcePort), DestinationPort: uint32(t.destinationPort),
	}
}

package flow

import (
	"encoding/binary"

	"margay.dev/margay/internal/pkt"
)

// quoted is how much of a transport header an ICMP error must quote: ports and,
// of TCP, the sequence number (RFC 792; RFC 5927 says why that one matters).
const quoted = 8

// maxExtensions is how many IPv6 extension headers are walked at most.
const maxExtensions = 8

// quote makes p the lookup of the packet that an ICMP error at b quotes.
func (p *Packet) quote(b []byte, s Shape) {
	to := [2]uint64{p.Key.DstHi, p.Key.DstLo}
	if mtuBelowLeast(b, s.IPv6) {
		p.unusable(ForgedQuote)
		return
	}
	inner, proto, ok := innerHeader(b[pkt.ICMPHeaderSize:], s.IPv6, &p.Key)
	if !ok || len(inner) < quoted || to != [2]uint64{p.Key.SrcHi, p.Key.SrcLo} {
		p.unusable(BadQuote)
		return
	}
	p.Key.Tail = tail(proto, s.IPv6, s.Zone)
	p.Kind = Quote
	switch proto {
	case pkt.ProtoTCP:
		p.Seq = binary.BigEndian.Uint32(inner[4:8])
		fallthrough
	case pkt.ProtoUDP, pkt.ProtoSCTP:
		p.Key.Tail |= uint64(binary.BigEndian.Uint32(inner))
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		if !isQuery(inner[0], s.IPv6) { // an error about an error, which nobody may send
			p.unusable(BadQuote)
			return
		}
		p.Key.Tail |= uint64(binary.BigEndian.Uint16(inner[4:6]))<<16 | uint64(inner[0])<<8 | uint64(inner[1])
	}
}

// mtuBelowLeast tells errors that ask for packets smaller than any link may
// (RFC 8201 section 4, RFC 791).
func mtuBelowLeast(b []byte, ipv6 bool) bool {
	if ipv6 {
		return b[0] == pkt.ICMP6TooBig && binary.BigEndian.Uint32(b[4:8]) < pkt.MinMTU6
	}
	mtu := binary.BigEndian.Uint16(b[6:8]) // 0 by routers older than RFC 1191
	return b[0] == pkt.ICMPUnreachable && b[1] == pkt.ICMP4FragNeeded && mtu != 0 && mtu < pkt.MinMTU4
}

// innerHeader reads the addresses of a quoted IP packet into k, and returns what
// is quoted of its transport header. A quoted packet is cut short by nature; its
// lengths are not looked at.
func innerHeader(b []byte, ipv6 bool, k *Key) (l4 []byte, proto uint8, ok bool) {
	if !ipv6 {
		if len(b) < pkt.IPv4Size || b[0]>>4 != 4 {
			return nil, 0, false
		}
		size := int(b[0]&15) * 4
		later := binary.BigEndian.Uint16(b[6:8])&0x1fff != 0
		if size < pkt.IPv4Size || size > len(b) || later {
			return nil, 0, false
		}
		k.SrcHi, k.SrcLo = 0, uint64(binary.BigEndian.Uint32(b[12:16]))
		k.DstHi, k.DstLo = 0, uint64(binary.BigEndian.Uint32(b[16:20]))
		return b[size:], b[9], true
	}
	if len(b) < pkt.IPv6Size || b[0]>>4 != 6 {
		return nil, 0, false
	}
	k.SrcHi, k.SrcLo = binary.BigEndian.Uint64(b[8:16]), binary.BigEndian.Uint64(b[16:24])
	k.DstHi, k.DstLo = binary.BigEndian.Uint64(b[24:32]), binary.BigEndian.Uint64(b[32:40])
	proto, b, frag := extensions(b[6], b[pkt.IPv6Size:])
	if b == nil || len(frag) > 0 && binary.BigEndian.Uint16(frag[2:4])&^7 != 0 {
		return nil, 0, false
	}
	return b, proto, true
}

// extensions walks IPv6 extension headers (RFC 8200 section 4). It returns what
// lies behind them, nil where they are malformed or too many, and the fragment
// header if there is one, behind which it stops in later fragments.
func extensions(proto uint8, b []byte) (behind uint8, rest, frag []byte) {
	for n := 0; pkt.IsExtension(proto); n++ {
		size := pkt.ExtensionSize(b, proto)
		if n == maxExtensions || size == 0 || size > len(b) {
			return proto, nil, frag
		}
		kind := proto
		proto = b[0]
		if kind == pkt.ProtoFragment {
			frag = b[:size]
			if binary.BigEndian.Uint16(frag[2:4])&^7 != 0 {
				return proto, b[size:], frag
			}
		}
		b = b[size:]
	}
	return proto, b, frag
}

package filter

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"margay.dev/margay/internal/pkt"
)

// Packets are laid out by hand: what a filter reads is where bytes lie. Checksums
// are zero, for nobody here looks at them.

var (
	near4, far4, other4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("192.0.2.9")
	near6, far6, other6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("fd00::9")
)

func be16(vs ...uint16) (b []byte) {
	for _, v := range vs {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

// ether puts an Ethernet header and tags (EtherType, id) before a payload.
func ether(kind uint16, payload []byte, tags ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	return slices.Concat(b, be16(tags...), be16(kind), payload)
}

// frame puts an Ethernet header before an IP packet.
func frame(ip []byte, tags ...uint16) []byte { return ether(versionType(ip), ip, tags...) }

// ip is a packet of either family; bytes behind a v6 header may be extensions.
func ip(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() {
		return ip4(src, dst, proto, 0, nil, payload)
	}
	h := slices.Concat([]byte{0x60, 0, 0, 0}, be16(uint16(len(payload))), []byte{proto, 64})
	return slices.Concat(h, src.AsSlice(), dst.AsSlice(), payload)
}

// ip4 is an IPv4 packet with its fragment word and options, whole words of them.
func ip4(src, dst netip.Addr, proto uint8, frag uint16, options, payload []byte) []byte {
	size := pkt.IPv4Size + len(options)
	h := slices.Concat([]byte{0x40 | byte(size/4), 0}, be16(uint16(size+len(payload)), 7, frag), []byte{64, proto, 0, 0})
	return slices.Concat(h, src.AsSlice(), dst.AsSlice(), options, payload)
}

// part is a fragment of either family: offset in units of 8 bytes.
func part(src, dst netip.Addr, proto uint8, offset uint16, more bool, payload []byte) []byte {
	if src.Is4() {
		word := offset
		if more {
			word |= 0x2000
		}
		return ip4(src, dst, proto, word, nil, payload)
	}
	return ip(src, dst, pkt.ProtoFragment, partHeader(proto, offset, more, payload))
}

// partHeader is an IPv6 fragment header and what it stands before.
func partHeader(next uint8, offset uint16, more bool, rest []byte) []byte {
	word := offset << 3
	if more {
		word |= 1
	}
	return slices.Concat([]byte{next, 0}, be16(word, 0, 99), rest)
}

// ext is an extension header of 8 bytes and what it stands before.
func ext(next uint8, rest []byte) []byte {
	return slices.Concat([]byte{next, 0, 1, 4, 0, 0, 0, 0}, rest)
}

// auth is an authentication header of 16 bytes and what it stands before.
func auth(next uint8, rest []byte) []byte {
	return slices.Concat([]byte{next, 2}, make([]byte, 14), rest)
}

// exts is n extension headers in a row, of which the last names next.
func exts(n int, next uint8, rest []byte) []byte {
	for ; n > 0; n-- {
		rest, next = ext(next, rest), pkt.ProtoDestOpts
	}
	return rest
}

// ported is the front of a TCP, UDP or SCTP header, with enough behind it that no
// expression of tcpdump reads past the end.
func ported(src, dst uint16) []byte { return append(be16(src, dst), make([]byte, 40)...) }

// icmp is an ICMP message, with a quoted UDP packet for port 53 behind it.
func icmp(kind, code uint8) []byte {
	return slices.Concat([]byte{kind, code, 0, 0, 0, 0, 0, 0}, ip(near4, far4, pkt.ProtoUDP, ported(4000, 53)))
}

func arp(op uint16, sender, target netip.Addr) []byte {
	b := slices.Concat(be16(1, pkt.EtherIPv4), []byte{6, 4}, be16(op))
	return slices.Concat(b, make([]byte, 6), sender.AsSlice(), make([]byte, 6), target.AsSlice(), make([]byte, 18))
}

// sample is a packet with a name, from its Ethernet header on.
type sample struct {
	name  string
	frame []byte
}

// samples are packets of every kind the language tells apart. None is cut short.
func samples() []sample {
	s := []sample{
		{"arp request", ether(pkt.EtherARP, arp(1, near4, far4))},
		{"arp reply", ether(pkt.EtherARP, arp(2, far4, near4))},
		{"tagged arp", ether(pkt.EtherARP, arp(1, other4, far4), pkt.EtherVLAN, 10)},
		{"lldp", ether(0x88cc, make([]byte, 60))},
		{"802.3", ether(60, make([]byte, 60))},
		{"v4 options udp", frame(ip4(near4, far4, pkt.ProtoUDP, 0, []byte{148, 4, 0, 0, 1, 1, 1, 0}, ported(4000, 53)))},
		{"v4 options icmp", frame(ip4(near4, far4, pkt.ProtoICMP, 0, []byte{148, 4, 0, 0}, icmp(8, 0)))},
		{"v4 options first part", frame(ip4(near4, far4, pkt.ProtoUDP, 0x2000, []byte{148, 4, 0, 0}, ported(4000, 53)))},
		{"v4 dont fragment", frame(ip4(near4, far4, pkt.ProtoTCP, 0x4000, nil, ported(4000, 80)))},
		{"v6 atomic fragment", frame(part(near6, far6, pkt.ProtoUDP, 0, false, ported(4000, 53)))},
		{"v6 hop-by-hop udp", frame(ip(near6, far6, 0, ext(pkt.ProtoUDP, ported(4000, 53))))},
		{"v6 hop-by-hop icmp", frame(ip(near6, far6, 0, ext(pkt.ProtoICMPv6, icmp(143, 0))))},
		{"v6 two extensions tcp", frame(ip(near6, far6, 0, ext(pkt.ProtoDestOpts, ext(pkt.ProtoTCP, ported(443, 4000)))))},
		{"v6 routing tcp", frame(ip(near6, far6, pkt.ProtoRouting, ext(pkt.ProtoTCP, ported(4000, 80))))},
		{"v6 authenticated udp", frame(ip(near6, far6, pkt.ProtoAH, auth(pkt.ProtoUDP, ported(4000, 53))))},
		{"v6 hop-by-hop first part", frame(ip(near6, far6, 0, ext(pkt.ProtoFragment, partHeader(pkt.ProtoUDP, 0, true, ported(4000, 53)))))},
		{"v6 hop-by-hop later part", frame(ip(near6, far6, 0, ext(pkt.ProtoFragment, partHeader(pkt.ProtoUDP, 8, true, ported(4000, 53)))))},
		{"v6 eight extensions", frame(ip(near6, far6, pkt.ProtoDestOpts, exts(8, pkt.ProtoUDP, ported(4000, 53))))},
		{"v4 echo reply", frame(ip(far4, near4, pkt.ProtoICMP, icmp(0, 0)))},
		{"v4 unreachable host", frame(ip(far4, near4, pkt.ProtoICMP, icmp(3, 1)))},
		{"v6 unreachable network", frame(ip(far6, near6, pkt.ProtoICMPv6, icmp(1, 0)))},
		{"v6 no next header", frame(ip(near6, far6, pkt.ProtoNone, make([]byte, 40)))},
	}
	s = append(s, family("v4", near4, far4, other4, pkt.ProtoICMP, icmp(8, 0), icmp(3, 4))...)
	return append(s, family("v6", near6, far6, other6, pkt.ProtoICMPv6, icmp(128, 0), icmp(1, 4))...)
}

// family is what both families have alike.
func family(v string, near, far, other netip.Addr, proto uint8, echo, unreachable []byte) []sample {
	return []sample{
		{v + " dns query", frame(ip(near, far, pkt.ProtoUDP, ported(4000, 53)))},
		{v + " dns answer", frame(ip(far, near, pkt.ProtoUDP, ported(53, 4000)))},
		{v + " udp of another", frame(ip(other, far, pkt.ProtoUDP, ported(8000, 8080)))},
		{v + " tcp request", frame(ip(near, far, pkt.ProtoTCP, ported(4000, 443)))},
		{v + " tcp answer", frame(ip(far, near, pkt.ProtoTCP, ported(443, 4000)))},
		{v + " tcp of another", frame(ip(near, other, pkt.ProtoTCP, ported(8079, 80)))},
		{v + " sctp", frame(ip(near, far, pkt.ProtoSCTP, ported(4000, 53)))},
		{v + " echo", frame(ip(near, far, proto, echo))},
		{v + " unreachable", frame(ip(far, near, proto, unreachable))},
		{v + " gre", frame(ip(near, far, 47, ported(4000, 53)))},
		{v + " esp", frame(ip(near, far, pkt.ProtoESP, ported(4000, 53)))},
		{v + " first part", frame(part(near, far, pkt.ProtoUDP, 0, true, ported(4000, 53)))},
		{v + " middle part", frame(part(near, far, pkt.ProtoUDP, 8, true, ported(4000, 53)))},
		{v + " last part", frame(part(near, far, pkt.ProtoUDP, 16, false, ported(4000, 53)))},
		{v + " first part of an echo", frame(part(near, far, proto, 0, true, echo))},
		{v + " later part of an echo", frame(part(near, far, proto, 8, false, echo))},
		{v + " tagged udp", frame(ip(near, far, pkt.ProtoUDP, ported(4000, 53)), pkt.EtherVLAN, 10)},
		{v + " tagged tcp with priority", frame(ip(near, far, pkt.ProtoTCP, ported(4000, 443)), pkt.EtherVLAN, 5<<13|20)},
		{v + " tagged echo", frame(ip(near, far, proto, echo), pkt.EtherVLAN, 10)},
		{v + " tagged last part", frame(part(near, far, pkt.ProtoUDP, 16, false, ported(4000, 53)), pkt.EtherVLAN, 10)},
		{v + " provider's tag", frame(ip(near, far, pkt.ProtoUDP, ported(4000, 53)), pkt.EtherQinQ, 10)},
	}
}

package graphtest

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/node"
)

// Frame serializes layers with right lengths and checksums. It panics on layers
// that cannot be serialized, which is a bug of the test.
func Frame(ls ...gopacket.SerializableLayer) []byte {
	return serialize(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls)
}

// Verbatim serializes layers with the lengths and checksums they have.
func Verbatim(ls ...gopacket.SerializableLayer) []byte {
	return serialize(gopacket.SerializeOptions{}, ls)
}

func serialize(opts gopacket.SerializeOptions, ls []gopacket.SerializableLayer) []byte {
	var ip gopacket.NetworkLayer
	for _, l := range ls {
		switch l := l.(type) {
		case gopacket.NetworkLayer:
			ip = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(ip); err != nil {
				panic(err)
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, opts, ls...); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// IP is an IP header of the family of src: TTL 64, and for IPv4 with DF.
func IP(src, dst netip.Addr, proto layers.IPProtocol) gopacket.SerializableLayer {
	return IPTTL(src, dst, proto, 64)
}

// IPTTL is IP with another TTL or hop limit.
func IPTTL(src, dst netip.Addr, proto layers.IPProtocol, ttl uint8) gopacket.SerializableLayer {
	if src.Is4() {
		return &layers.IPv4{Version: 4, TTL: ttl, Id: 4711, Protocol: proto, Flags: layers.IPv4DontFragment,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	return &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// Payload is n bytes that differ from one another.
func Payload(n int) gopacket.Payload {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

// UDP is an IP packet with n bytes in UDP.
func UDP(src, dst netip.Addr, n int) []byte { return UDPTTL(src, dst, n, 64) }

// UDPTTL is UDP with another TTL or hop limit.
func UDPTTL(src, dst netip.Addr, n int, ttl uint8) []byte {
	return Frame(IPTTL(src, dst, layers.IPProtocolUDP, ttl), &layers.UDP{SrcPort: 1111, DstPort: 2222}, Payload(n))
}

// UDPPorts is UDP with given ports, which tell flows apart.
func UDPPorts(src, dst netip.Addr, n int, sport, dport uint16) []byte {
	return Frame(IP(src, dst, layers.IPProtocolUDP), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, Payload(n))
}

// TCP is an IP packet with n bytes in TCP.
func TCP(src, dst netip.Addr, n int) []byte {
	return Frame(IP(src, dst, layers.IPProtocolTCP), &layers.TCP{SrcPort: 1111, DstPort: 2222, Seq: 99, ACK: true, Ack: 7, Window: 500}, Payload(n))
}

// Echo is an echo request with n bytes.
func Echo(src, dst netip.Addr, n int) []byte {
	if src.Is4() {
		return Frame(IP(src, dst, layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 5, Seq: 6}, Payload(n))
	}
	return Frame(IP(src, dst, layers.IPProtocolICMPv6),
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 5, SeqNumber: 6}, Payload(n))
}

// Ether puts an IP packet into an Ethernet frame, with a tag for each VLAN id.
func Ether(dst, src node.MAC, ip []byte, vlans ...uint16) []byte {
	kind := layers.EthernetTypeIPv4
	if len(ip) > 0 && ip[0]>>4 == 6 {
		kind = layers.EthernetTypeIPv6
	}
	return EtherType(dst, src, kind, ip, vlans...)
}

// EtherType is Ether with an EtherType of its own. Unlike gopacket it adds no
// padding.
func EtherType(dst, src node.MAC, kind layers.EthernetType, payload []byte, vlans ...uint16) []byte {
	f := append(append([]byte(nil), dst[:]...), src[:]...)
	for _, id := range vlans {
		f = binary.BigEndian.AppendUint16(f, uint16(layers.EthernetTypeDot1Q))
		f = binary.BigEndian.AppendUint16(f, id)
	}
	f = binary.BigEndian.AppendUint16(f, uint16(kind))
	return append(f, payload...)
}

// ARP is a frame with an ARP message.
func ARP(dst, src node.MAC, op uint16, sender netip.Addr, target node.MAC, targetIP netip.Addr, vlans ...uint16) []byte {
	a := &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: src[:], SourceProtAddress: sender.AsSlice(),
		DstHwAddress: target[:], DstProtAddress: targetIP.AsSlice()}
	return EtherType(dst, src, layers.EthernetTypeARP, Verbatim(a), vlans...)
}

// ND is an IPv6 packet with a neighbour discovery message: hop limit 255.
func ND(src, dst netip.Addr, kind uint8, body gopacket.SerializableLayer) []byte {
	return NDHop(src, dst, kind, body, 255)
}

// NDHop is ND with another hop limit.
func NDHop(src, dst netip.Addr, kind uint8, body gopacket.SerializableLayer, hopLimit uint8) []byte {
	return Frame(IPTTL(src, dst, layers.IPProtocolICMPv6, hopLimit),
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, body)
}

// Solicit is a neighbour solicitation for target; mac is left out if it is zero.
func Solicit(src, dst, target netip.Addr, mac node.MAC) []byte {
	return ND(src, dst, layers.ICMPv6TypeNeighborSolicitation,
		&layers.ICMPv6NeighborSolicitation{TargetAddress: net.IP(target.AsSlice()), Options: linkAddress(layers.ICMPv6OptSourceAddress, mac)})
}

// Advertise is a neighbour advertisement of target; mac is left out if it is zero.
func Advertise(src, dst, target netip.Addr, flags uint8, mac node.MAC) []byte {
	return ND(src, dst, layers.ICMPv6TypeNeighborAdvertisement,
		&layers.ICMPv6NeighborAdvertisement{Flags: flags, TargetAddress: net.IP(target.AsSlice()), Options: linkAddress(layers.ICMPv6OptTargetAddress, mac)})
}

func linkAddress(kind layers.ICMPv6Opt, mac node.MAC) layers.ICMPv6Options {
	if mac == (node.MAC{}) {
		return nil
	}
	return layers.ICMPv6Options{{Type: kind, Data: append([]byte(nil), mac[:]...)}}
}

// SolicitedNode is the group and the MAC that solicitations for a go to.
func SolicitedNode(a netip.Addr) (netip.Addr, node.MAC) {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]}),
		node.MAC{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}

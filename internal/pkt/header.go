// Package pkt knows what packet headers look like: numbers, field offsets,
// checksums. It works on bytes and keeps nothing.
package pkt

// EtherTypes that Margay speaks.
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherVLAN = 0x8100 // IEEE 802.1Q
	EtherIPv6 = 0x86dd
	EtherQinQ = 0x88a8 // IEEE 802.1ad
)

// IP protocol numbers, as IANA assigns them.
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNone     = 59
	ProtoDestOpts = 60
	ProtoSCTP     = 132
)

// Sizes in bytes.
const (
	EthernetSize = 14
	VLANSize     = 4
	IPv4Size     = 20 // without options
	IPv6Size     = 40
	ARPSize      = 28   // for IPv4 over Ethernet
	MinMTU4      = 68   // RFC 791
	MinMTU6      = 1280 // RFC 8200 section 5
)

// ICMP types (RFC 792) and ICMPv6 types (RFC 4443, RFC 4861, RFC 2710).
const (
	ICMPEchoReply      = 0
	ICMPUnreachable    = 3
	ICMPEcho           = 8
	ICMPTimeExceeded   = 11
	ICMP6Unreachable   = 1
	ICMP6TooBig        = 2
	ICMP6TimeExceeded  = 3
	ICMP6Echo          = 128
	ICMP6EchoReply     = 129
	ICMP6RouterSol     = 133
	ICMP6RouterAdv     = 134
	ICMP6NeighborSol   = 135
	ICMP6NeighborAdv   = 136
	ICMP6Redirect      = 137
	ICMPHeaderSize     = 8
	ICMP4HostUnreached = 1  // code of unreachable
	ICMP4FragNeeded    = 4  // code of unreachable
	ICMP4Prohibited    = 13 // code of unreachable (RFC 1812 section 5.2.7.1)
	ICMP6Prohibited    = 1
	ICMP6AddrUnreached = 3
)

// MinTransport is the fewest bytes a transport header has, by IP protocol.
var MinTransport = [256]uint8{
	ProtoICMP: 8, ProtoTCP: 20, ProtoUDP: 8, ProtoICMPv6: 8, ProtoSCTP: 12,
}

// AddressBytes is source and destination of the IP packet at b, one after the
// other. b must hold a whole IP header.
//
//fastpath:hot
func AddressBytes(b []byte, ipv6 bool) []byte {
	if ipv6 {
		return b[8:40]
	}
	return b[12:20]
}

// IsExtension reports whether an IPv6 next header value is that of an extension
// header behind which the chain goes on (RFC 8200 section 4, RFC 4302).
//
//fastpath:hot
func IsExtension(proto uint8) bool {
	switch proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoAH, ProtoDestOpts:
		return true
	}
	return false
}

// ExtensionSize is the length in bytes of the extension header of kind proto at
// the front of b, as it says itself, which may be more than is there; 0 if not
// even that can be read.
//
//fastpath:hot
func ExtensionSize(b []byte, proto uint8) int {
	if len(b) < 8 {
		return 0
	}
	switch proto {
	case ProtoFragment:
		return 8
	case ProtoAH:
		return (int(b[1]) + 2) * 4
	}
	return (int(b[1]) + 1) * 8
}

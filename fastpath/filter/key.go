package filter

import (
	"encoding/binary"
	"net/netip"

	"margay.dev/margay/internal/pkt"
)

// Key is what a filter asks a packet about. Read fills it from the packet's
// bytes, but for what they do not tell: InPort, OutPort and Length are the caller's.
type Key struct {
	InPort, OutPort    uint16     // indexes as Bind resolved them; graph.NoPort where there is none, or none yet
	VLAN               uint16     // id of the outermost tag; 0 if untagged
	EtherType          uint16     // behind one tag; by the IP version where there is no Ethernet header
	Src, Dst           netip.Addr // not unmapped; of ARP, the sender's and the target's
	Proto              uint8      // behind IPv6 extension headers; 0 if that is not to be seen
	SrcPort, DstPort   uint16     // of TCP, UDP and SCTP
	ICMPType, ICMPCode uint8      // of ICMP over IPv4 and ICMPv6 over IPv6; an error's own, not what it quotes
	HasPorts           bool       // SrcPort and DstPort were read
	HasICMP            bool       // ICMPType and ICMPCode were read
	Fragment           bool       // it is a part of a datagram; only the first has ports or ICMP
	Length             uint32     // bytes of the whole packet, with its Ethernet header
}

// maxExtHeaders is how many IPv6 extension headers Read walks at most: as many
// as ip-input lets through.
const maxExtHeaders = 8

// Read fills k from a packet's first bytes, which begin with an Ethernet header
// if l2 and with the IP header if not; 128 show all of most packets. What cannot
// be read is zero. InPort, OutPort and Length stay as they are.
//
//fastpath:hot
func (k *Key) Read(b []byte, l2 bool) {
	*k = Key{InPort: k.InPort, OutPort: k.OutPort, Length: k.Length}
	if l2 {
		b = k.readEthernet(b)
	} else {
		k.EtherType = versionType(b)
	}
	switch k.EtherType {
	case pkt.EtherIPv4:
		k.readIPv4(b)
	case pkt.EtherIPv6:
		k.readIPv6(b)
	case pkt.EtherARP:
		k.readARP(b)
	}
}

// versionType is the EtherType that an IP packet would have, 0 for what is none.
//
//fastpath:hot
func versionType(b []byte) uint16 {
	switch {
	case len(b) > 0 && b[0]>>4 == 4:
		return pkt.EtherIPv4
	case len(b) > 0 && b[0]>>4 == 6:
		return pkt.EtherIPv6
	}
	return 0
}

// readEthernet returns what lies behind the header and one tag.
//
//fastpath:hot
func (k *Key) readEthernet(b []byte) []byte {
	if len(b) < pkt.EthernetSize {
		return nil
	}
	k.EtherType, b = binary.BigEndian.Uint16(b[12:14]), b[pkt.EthernetSize:]
	if tagged := k.EtherType == pkt.EtherVLAN || k.EtherType == pkt.EtherQinQ; tagged && len(b) >= pkt.VLANSize {
		k.VLAN = binary.BigEndian.Uint16(b) & 0xfff
		k.EtherType, b = binary.BigEndian.Uint16(b[2:4]), b[pkt.VLANSize:]
	}
	return b
}

// readARP reads ARP for IPv4 over Ethernet (RFC 826).
//
//fastpath:hot
func (k *Key) readARP(b []byte) {
	const kind = 1<<48 | pkt.EtherIPv4<<32 | 6<<24 | 4<<16 // of hardware, of protocol, and their addresses' sizes
	if len(b) < pkt.ARPSize || binary.BigEndian.Uint64(b)&^0xffff != kind {
		return
	}
	k.Src = netip.AddrFrom4([4]byte(b[14:18]))
	k.Dst = netip.AddrFrom4([4]byte(b[24:28]))
}

// readIPv4 reads from an IPv4 header on. A header that lies about its length is
// read as far as it has a meaning: such packets are what one looks for.
//
//fastpath:hot
func (k *Key) readIPv4(b []byte) {
	if len(b) < pkt.IPv4Size || b[0]>>4 != 4 {
		return
	}
	k.Src = netip.AddrFrom4([4]byte(b[12:16]))
	k.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	k.Proto = b[9]
	frag := binary.BigEndian.Uint16(b[6:8])
	k.Fragment = frag&0x3fff != 0
	size := int(b[0]&15) * 4
	if total := int(binary.BigEndian.Uint16(b[2:4])); total >= size {
		b = b[:min(len(b), total)] // what follows is padding
	}
	if frag&0x1fff != 0 || size < pkt.IPv4Size || size > len(b) {
		return
	}
	k.readTransport(b[size:])
}

// readIPv6 reads from an IPv6 header on, along the extension headers.
//
//fastpath:hot
func (k *Key) readIPv6(b []byte) {
	if len(b) < pkt.IPv6Size || b[0]>>4 != 6 {
		return
	}
	k.Src = netip.AddrFrom16([16]byte(b[8:24]))
	k.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	proto, payload := b[6], int(binary.BigEndian.Uint16(b[4:6]))
	b = b[pkt.IPv6Size:]
	if payload > 0 { // zero is also what a packet of more than 64 KiB says (RFC 2675)
		b = b[:min(len(b), payload)]
	}
	for n := 0; pkt.IsExtension(proto); n++ {
		size := pkt.ExtensionSize(b, proto)
		if n == maxExtHeaders || size == 0 || size > len(b) {
			return
		}
		if proto == pkt.ProtoFragment {
			frag := binary.BigEndian.Uint16(b[2:4])
			k.Fragment = k.Fragment || frag&^6 != 0 // offset 0 and no more: a whole packet (RFC 6946)
			if frag&^7 != 0 {
				k.Proto = b[0]
				return
			}
		}
		proto, b = b[0], b[size:]
	}
	k.Proto = proto
	k.readTransport(b)
}

// readTransport reads the ports or the ICMP type at the front of b.
//
//fastpath:hot
func (k *Key) readTransport(b []byte) {
	switch k.Proto {
	case pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP:
		if len(b) >= 4 {
			k.HasPorts = true
			k.SrcPort, k.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:4])
		}
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		if len(b) >= 2 && (k.Proto == pkt.ProtoICMPv6) == (k.EtherType == pkt.EtherIPv6) {
			k.HasICMP = true
			k.ICMPType, k.ICMPCode = b[0], b[1]
		}
	}
}

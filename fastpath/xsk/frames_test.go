package xsk

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// family has the addresses that the steering tests use, and what differs between
// IPv4 and IPv6 in the frames they build.
type family struct {
	name string

	pod   netip.Addr // in a prefix that is ours whole
	hole  netip.Addr // local, within that prefix
	node  netip.Addr // local
	host  netip.Addr // of the host, nothing of ours
	peer  netip.Addr // of somebody else
	icmp  uint8
	echo  [2]uint8 // types of request and reply
	error []uint8  // types that quote
	info  []uint8  // types that do not
}

var families = []family{
	{
		name: "v4",
		pod:  netip.MustParseAddr("10.1.2.3"), hole: netip.MustParseAddr("10.1.0.5"),
		node: netip.MustParseAddr("10.9.0.1"), host: netip.MustParseAddr("10.9.0.2"), peer: netip.MustParseAddr("203.0.113.9"),
		icmp: unix.IPPROTO_ICMP, echo: [2]uint8{8, 0}, error: []uint8{3, 11, 12}, info: []uint8{5, 13, 14},
	}, {
		name: "v6",
		pod:  netip.MustParseAddr("fd01::2:3"), hole: netip.MustParseAddr("fd01::5"),
		node: netip.MustParseAddr("fd09::1"), host: netip.MustParseAddr("fd09::2"), peer: netip.MustParseAddr("2001:db8::9"),
		icmp: unix.IPPROTO_ICMPV6, echo: [2]uint8{128, 129}, error: []uint8{1, 2, 3, 4}, info: []uint8{134, 135, 137},
	},
}

// steerFamilies sets what is ours of both families:
// the pods' prefix, two local addresses, and services on these.
func steerFamilies(t testing.TB) *Steering {
	t.Helper()
	s, err := NewSteering()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range families {
		pods, err := f.pod.Prefix(16)
		must(err)
		must(s.SetPrefix(pods, Whole))
		must(s.SetPrefix(netip.PrefixFrom(f.hole, f.hole.BitLen()), Local))
		must(s.SetPrefix(netip.PrefixFrom(f.node, f.node.BitLen()), Local))
		must(s.SetService(f.icmp, 1000, 1999))
	}
	must(s.SetService(unix.IPPROTO_TCP, 30000, 32767))
	must(s.SetService(unix.IPPROTO_UDP, 4789, 4789))
	must(s.SetService(unix.IPPROTO_UDP, 40000, 65535))
	must(s.SetService(unix.IPPROTO_SCTP, 7000, 7000))
	must(s.SetService(unix.IPPROTO_IPIP, 0, 0))
	return s
}

// fragment says which part of a packet to build; the zero value is all of it.
type fragment struct {
	id     uint32
	offset uint16 // in units of eight bytes
	more   bool
}

// ip builds a packet from src to dst. In IPv6 a fragment gets its extension header.
func (f family) ip(src, dst netip.Addr, proto uint8, part fragment, payload []byte) []byte {
	if f.name == "v4" {
		ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocol(proto), SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
			Id: uint16(part.id), FragOffset: part.offset}
		if part.more {
			ip.Flags = layers.IPv4MoreFragments
		}
		return serialize(ip, gopacket.Payload(payload))
	}
	if part != (fragment{}) {
		payload = slices.Concat(fragmentHeader(proto, part), payload)
		proto = unix.IPPROTO_FRAGMENT
	}
	return serialize(&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(proto), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()},
		gopacket.Payload(payload))
}

func fragmentHeader(next uint8, part fragment) []byte {
	h := make([]byte, 8)
	h[0] = next
	offset := part.offset << 3
	if part.more {
		offset |= 1
	}
	binary.BigEndian.PutUint16(h[2:], offset)
	binary.BigEndian.PutUint32(h[4:], part.id)
	return h
}

// whole builds a packet that is not fragmented.
func (f family) whole(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	return f.ip(src, dst, proto, fragment{}, payload)
}

// quote builds an ICMP message of a type that may quote, with a packet in it.
func (f family) quote(src, dst netip.Addr, kind uint8, packet []byte) []byte {
	return f.whole(src, dst, f.icmp, slices.Concat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, packet))
}

// header is the size of the IP header without options or extensions.
func (f family) header() int {
	if f.name == "v4" {
		return 20
	}
	return 40
}

// frame puts Ethernet before a packet, and a tag for each ethertype of vlans.
func frame(packet []byte, vlans ...uint16) []byte {
	b := make([]byte, 12, 64+len(packet))
	b[5], b[11] = 2, 1
	for _, v := range vlans {
		b = binary.BigEndian.AppendUint16(b, v)
		b = append(b, 0, 7)
	}
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return append(binary.BigEndian.AppendUint16(b, kind), packet...)
}

func udp(src, dst uint16) []byte {
	return serialize(&layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}, gopacket.Payload("payload"))
}

func tcp(src, dst uint16) []byte {
	return serialize(&layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), DataOffset: 5, SYN: true})
}

func sctp(src, dst uint16) []byte {
	return serialize(&layers.SCTP{SrcPort: layers.SCTPPort(src), DstPort: layers.SCTPPort(dst)})
}

func echo(kind uint8, id uint16) []byte {
	b := []byte{kind, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, 0, 1, 'p', 'i', 'n', 'g')
}

// chain builds IPv6 extension headers of the kinds given, then next. Each is as
// long as its length field, set to units, says.
func chain(next uint8, units int, kinds ...uint8) (first uint8, b []byte) {
	for i, kind := range kinds {
		following := next
		if i+1 < len(kinds) {
			following = kinds[i+1]
		}
		size := (units + 1) * 8
		if kind == unix.IPPROTO_AH {
			size = (units + 2) * 4
		}
		h := make([]byte, size)
		h[0], h[1] = following, uint8(units)
		b = append(b, h...)
	}
	if len(kinds) == 0 {
		return next, b
	}
	return kinds[0], b
}

func serialize(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, l...); err != nil {
		panic(err) // the frames are constants of the tests
	}
	return b.Bytes()
}

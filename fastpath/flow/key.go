package flow

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

// Key is what tells one direction of a flow from all others: 40 bytes, the same
// for both families. An IPv4 address is the lower 32 bits of Lo. No key of a
// packet is the zero Key.
type Key struct {
	SrcHi, SrcLo uint64
	DstHi, DstLo uint64
	Tail         uint64 // zone 16, family and mark 8, protocol 8, source port 16, destination port 16 bits
}

// What is set in the tail of a key of each family, in zone 0.
const (
	TailIPv4 = tailMark
	TailIPv6 = tailMark | tailIPv6

	tailMark = 1 << 40 // set in every key of a packet
	tailIPv6 = 1 << 41
)

// NewKey makes the key of a direction. src and dst must be of one family and not
// mapped. zone keeps flows of overlapping address ranges apart. Of ICMP queries
// the source port is the identifier and the destination port type<<8 | code;
// protocols without ports have 0, 0.
func NewKey(src, dst netip.Addr, proto uint8, srcPort, dstPort, zone uint16) Key {
	k := Key{Tail: tail(proto, src.Is6(), zone) | uint64(srcPort)<<16 | uint64(dstPort)}
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		k.SrcLo, k.DstLo = uint64(binary.BigEndian.Uint32(s[:])), uint64(binary.BigEndian.Uint32(d[:]))
		return k
	}
	s, d := src.As16(), dst.As16()
	k.SrcHi, k.SrcLo = binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:])
	k.DstHi, k.DstLo = binary.BigEndian.Uint64(d[:8]), binary.BigEndian.Uint64(d[8:])
	return k
}

// tail is a Tail without ports.
//
//fastpath:hot
func tail(proto uint8, ipv6 bool, zone uint16) uint64 {
	t := tailMark | uint64(proto)<<32 | uint64(zone)<<48
	if ipv6 {
		t |= tailIPv6
	}
	return t
}

// Proto is the IP protocol.
//
//fastpath:hot
func (k *Key) Proto() uint8 { return uint8(k.Tail >> 32) }

// IPv6 tells the family.
//
//fastpath:hot
func (k *Key) IPv6() bool { return k.Tail&tailIPv6 != 0 }

// Zone is the zone that the key was made with.
func (k *Key) Zone() uint16 { return uint16(k.Tail >> 48) }

// Ports are source and destination port, as NewKey has them.
func (k *Key) Ports() (src, dst uint16) { return uint16(k.Tail >> 16), uint16(k.Tail) }

// Addrs are source and destination address.
func (k *Key) Addrs() (src, dst netip.Addr) {
	return addr(k.SrcHi, k.SrcLo, k.IPv6()), addr(k.DstHi, k.DstLo, k.IPv6())
}

func addr(hi, lo uint64, ipv6 bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	if ipv6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}

// Reverse is the key of the answers, where nothing is translated on the way: for
// an ICMP query that of its reply.
func (k *Key) Reverse() Key {
	r := Key{SrcHi: k.DstHi, SrcLo: k.DstLo, DstHi: k.SrcHi, DstLo: k.SrcLo, Tail: k.Tail &^ 0xffffffff}
	src, dst := k.Ports()
	if p := k.Proto(); p == pkt.ProtoICMP || p == pkt.ProtoICMPv6 {
		r.Tail |= uint64(src)<<16 | uint64(answers[dst>>8])<<8 | uint64(dst&255)
		return r
	}
	r.Tail |= uint64(dst)<<16 | uint64(src)
	return r
}

// put stores a key where somebody may be reading who then finds out that it
// changed.
func (k *Key) put(to *Key) {
	put(&k.SrcHi, to.SrcHi)
	put(&k.SrcLo, to.SrcLo)
	put(&k.DstHi, to.DstHi)
	put(&k.DstLo, to.DstLo)
	put(&k.Tail, to.Tail)
}

// load is the way back.
func (k *Key) load() Key {
	return Key{
		SrcHi: atomic.LoadUint64(&k.SrcHi), SrcLo: atomic.LoadUint64(&k.SrcLo),
		DstHi: atomic.LoadUint64(&k.DstHi), DstLo: atomic.LoadUint64(&k.DstLo), Tail: atomic.LoadUint64(&k.Tail),
	}
}

// answers pairs the types of ICMP queries with those of their replies, both ways:
// echo, timestamp and address mask of ICMP, echo of ICMPv6. The numbers of the two
// protocols do not meet. 255 is for all others.
var answers = func() (a [256]uint8) {
	for i := range a {
		a[i] = 255
	}
	for query, reply := range queries {
		a[query], a[reply] = reply, query
	}
	return a
}()

var queries = map[uint8]uint8{pkt.ICMPEcho: pkt.ICMPEchoReply, 13: 14, 17: 18, pkt.ICMP6Echo: pkt.ICMP6EchoReply}

// asks marks the types of queries, which may open a flow; replies may not.
var asks = func() (a [256]bool) {
	for query := range queries {
		a[query] = true
	}
	return a
}()

// seed keeps the hash unknown to those who choose the packets.
type seed [6]uint64

// hash mixes all of k.
//
//fastpath:hot
func (s *seed) hash(k *Key) uint64 {
	src := mix(k.SrcHi^s[0], k.SrcLo^s[1])
	dst := mix(k.DstHi^s[2], k.DstLo^s[3])
	return mix(src^k.Tail^s[4], dst^s[5])
}

// mix folds the product of two words.
//
//fastpath:hot
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

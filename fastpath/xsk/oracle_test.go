package xsk

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// oracle is the steering program over again, in plain Go over the lists that were
// set: slow, without bitmaps, tries or offsets.
type oracle struct {
	prefixes  []OwnedPrefix
	services  []Service
	fragments map[string]bool
}

func newOracle(s *Steering) *oracle {
	return &oracle{prefixes: s.Prefixes(), services: s.Services(), fragments: map[string]bool{}}
}

// header is what the oracle reads of an IP packet.
type header struct {
	src, dst    netip.Addr
	proto       uint8
	id          string // of the fragmented packet
	first, rest bool   // is the first fragment of several, a later one
	payload     []byte
	complete    bool // all of the headers is there
}

func (o *oracle) judge(frame []byte) verdict {
	kind, b := ethertype(frame)
	var h header
	switch kind {
	case unix.ETH_P_IP:
		h = readIPv4(b)
	case unix.ETH_P_IPV6:
		h = readIPv6(b)
	case 0:
		return unparsed
	default:
		return theirs
	}
	if !h.dst.IsValid() {
		return unparsed
	}
	if o.owner(h.dst) == Whole {
		return ours
	}
	if !h.complete {
		return unparsed
	}
	key := fmt.Sprint(h.src, h.dst, h.id)
	if h.rest {
		return judged(o.fragments[key])
	}
	wanted := o.wanted(h)
	if h.first {
		o.fragments[key] = wanted
	}
	return judged(wanted)
}

func judged(wanted bool) verdict {
	if wanted {
		return ours
	}
	return theirs
}

func ethertype(b []byte) (uint16, []byte) {
	kind, b := binary.BigEndian.Uint16(b[12:]), b[14:]
	for range 2 {
		if kind != unix.ETH_P_8021Q && kind != unix.ETH_P_8021AD {
			break
		}
		if len(b) < 4 {
			return 0, nil
		}
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	return kind, b
}

func readIPv4(b []byte) (h header) {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 {
		return h
	}
	h.src, h.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	h.proto = b[9]
	h.id = fmt.Sprint(binary.BigEndian.Uint16(b[4:]), h.proto)
	flags := binary.BigEndian.Uint16(b[6:])
	h.rest = flags&0x1fff != 0
	h.first = !h.rest && flags&0x2000 != 0
	h.complete = true
	if n := int(b[0]&15) * 4; n <= len(b) {
		h.payload = b[n:]
	}
	return h
}

func readIPv6(b []byte) (h header) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return h
	}
	h.src, h.dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	next, b := b[6], b[40:]
	for range 8 {
		if !extension(next) {
			break
		}
		if len(b) < 8 {
			return h
		}
		size := (int(b[1]) + 1) * 8
		switch next {
		case unix.IPPROTO_AH:
			size = (int(b[1]) + 2) * 4
		case unix.IPPROTO_FRAGMENT:
			size = 8
			flags := binary.BigEndian.Uint16(b[2:])
			h.id = fmt.Sprint(binary.BigEndian.Uint32(b[4:]))
			h.rest = flags&0xfff8 != 0
			h.first = h.first || !h.rest && flags&1 != 0
		}
		next = b[0]
		b = b[min(size, len(b)):]
		if h.rest {
			h.complete = true
			return h
		}
	}
	h.proto, h.payload, h.complete = next, b, !extension(next)
	return h
}

func extension(proto uint8) bool {
	return slices.Contains([]uint8{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_AH, unix.IPPROTO_FRAGMENT}, proto)
}

func (o *oracle) owner(a netip.Addr) (owner Ownership) {
	longest := -1
	for _, p := range o.prefixes {
		if p.Prefix.Contains(a) && p.Prefix.Bits() > longest {
			longest, owner = p.Prefix.Bits(), p.Ownership
		}
	}
	return owner
}

func (o *oracle) service(proto uint8, number uint16) bool {
	return slices.ContainsFunc(o.services, func(s Service) bool {
		return s.Proto == proto && s.Low <= number && number <= s.High
	})
}

func (o *oracle) familyOf(h header) family {
	if h.dst.Is4() {
		return families[0]
	}
	return families[1]
}

// wanted judges by what follows the IP header.
func (o *oracle) wanted(h header) bool {
	f, b := o.familyOf(h), h.payload
	local := o.owner(h.dst) == Local
	if h.proto == f.icmp {
		switch {
		case len(b) < 8:
			return false
		case slices.Contains(f.error, b[0]):
			return o.sent(f, b[8:])
		}
		return local && b[0] == f.echo[1] && o.service(f.icmp, binary.BigEndian.Uint16(b[4:]))
	}
	if !local {
		return false
	}
	if !ported(h.proto) {
		return o.service(h.proto, 0) && o.plain(h.proto)
	}
	return len(b) >= 4 && o.service(h.proto, binary.BigEndian.Uint16(b[2:]))
}

// sent says whether a quoted packet came from us.
func (o *oracle) sent(f family, b []byte) bool {
	read := readIPv4
	if f.name == "v6" {
		read = readIPv6
	}
	h := read(b)
	if !h.complete {
		return false
	}
	switch owner := o.owner(h.src); {
	case owner == Whole:
		return true
	case owner != Local || h.rest:
		return false
	}
	b = h.payload
	switch {
	case h.proto == f.icmp:
		return len(b) >= 8 && slices.Contains(f.echo[:], b[0]) && o.service(f.icmp, binary.BigEndian.Uint16(b[4:]))
	case !ported(h.proto):
		return o.service(h.proto, 0) && o.plain(h.proto)
	}
	return len(b) >= 4 && o.service(h.proto, binary.BigEndian.Uint16(b))
}

func ported(proto uint8) bool {
	return slices.Contains([]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}, proto)
}

// plain keeps ids of echoes out of the protocols without ports: the ICMP of the
// other family is such a protocol.
func (o *oracle) plain(proto uint8) bool {
	return proto != unix.IPPROTO_ICMP && proto != unix.IPPROTO_ICMPV6
}

// seeds are the frames of the table, and some that only IPv6 has.
func seeds() [][]byte {
	var all [][]byte
	for _, f := range families {
		for _, tt := range steeringTests {
			all = append(all, frame(tt.packet(f)), frame(tt.packet(f), unix.ETH_P_8021Q))
		}
		for _, p := range []fragment{{1, 0, true}, {1, 2, true}, {1, 4, false}} {
			all = append(all, frame(f.ip(f.peer, f.node, unix.IPPROTO_UDP, p, udp(9, 4789))))
		}
	}
	v6 := families[1]
	for _, kinds := range [][]uint8{{0}, {60, 43}, {0, 51, 60}, {44}, {44, 60}, {60, 60, 60, 60, 60, 60, 60, 60}} {
		first, b := chain(unix.IPPROTO_UDP, 0, kinds...)
		all = append(all, frame(v6.whole(v6.peer, v6.node, first, slices.Concat(b, udp(5, 4789)))))
	}
	return all
}

// FuzzSteering has the program in the kernel and the oracle judge the same frames.
func FuzzSteering(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, uint16(len(s)), uint16(0), uint32(0))
	}
	f.Add(seeds()[0], uint16(30), uint16(14), uint32(0x4f000000))
	s := steerFamilies(f)
	b := newBench(f, s, false, true)
	f.Fuzz(func(t *testing.T, frame []byte, length, at uint16, patch uint32) {
		if len(frame) < 14 { // the kernel runs the program on no less
			frame = append(frame, make([]byte, 14-len(frame))...)
		}
		frame = slices.Clone(frame[:max(14, min(len(frame), int(length), 3000))])
		if i := int(at); i+4 <= len(frame) {
			binary.BigEndian.PutUint32(frame[i:], patch)
		}
		o := newOracle(s)
		b.t = t
		b.forget(s)   // frames come in any order here
		for range 2 { // the second time a first fragment has been seen
			if got, want := b.judge(frame), o.judge(frame); got != want {
				t.Fatalf("program says %s, oracle says %s of %x", got, want, frame)
			}
		}
	})
}

// TestSteeringAgreesWithOracle mutates the seeds one field at a time, in order, so
// that later fragments meet the first ones that came before.
func TestSteeringAgreesWithOracle(t *testing.T) {
	s := steerFamilies(t)
	b, o := newBench(t, s, false, true), newOracle(s)
	check := func(frame []byte) {
		if got, want := b.judge(frame), o.judge(frame); got != want {
			t.Fatalf("program says %s, oracle says %s of %x", got, want, frame)
		}
	}
	for _, seed := range seeds() {
		check(seed)
		for i := 12; i < len(seed); i++ {
			for _, to := range []byte{0, 1, 4, 6, 0x2f, 0x33, 0x3a, 0x3c, 0x45, 0x4f, 0x60, 0x80, 0xff} {
				frame := slices.Clone(seed)
				frame[i] = to
				check(frame)
			}
		}
	}
}

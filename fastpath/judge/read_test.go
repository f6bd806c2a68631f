package judge

import (
	"testing"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// someSegment is an IPv4 or IPv6 packet of TCP with so many words of options.
func someSegment(ipv6 bool, flags uint8, options int) []byte {
	l4 := pkt.IPv4Size
	if ipv6 {
		l4 = pkt.IPv6Size
	}
	b := make([]byte, l4+20+4*options+9)
	for i := range b {
		b[i] = byte(7 * i)
	}
	b[0] = 0x45
	if ipv6 {
		b[0] = 0x60
	}
	b[l4+12], b[l4+13] = byte(5+options)<<4, flags
	return b
}

// FuzzPlain reads any bytes both ways: what the loop takes it must have read as the
// slow way does, and it must take what is plain.
func FuzzPlain(f *testing.F) {
	for _, ipv6 := range []bool{false, true} {
		for _, proto := range []uint8{pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoICMP} {
			l4 := uint8(pkt.IPv4Size)
			if ipv6 {
				l4 = pkt.IPv6Size
			}
			f.Add(someSegment(ipv6, flow.ACK, 0), proto, l4, uint8(14), uint16(0))
			f.Add(someSegment(ipv6, flow.ACK|flow.PSH, 3), proto, l4, uint8(0), uint16(9))
			f.Add(someSegment(ipv6, flow.SYN, 1), proto, l4, uint8(0), uint16(0))
			f.Add(someSegment(ipv6, flow.ACK, 0)[:l4+12], proto, l4, uint8(0), uint16(0))
			f.Add(someSegment(ipv6, flow.ACK, 0), proto, uint8(0), uint8(0), uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, proto, l4, l3 uint8, behind uint16) {
		if len(packet) < pkt.IPv4Size || len(packet) > 2000 || l4 != 0 && int(l4) > len(packet) || l4 != 0 && l4 < pkt.IPv4Size {
			return
		}
		ipv6 := packet[0]>>4 == 6
		if ipv6 && (len(packet) < pkt.IPv6Size || l4 != 0 && l4 < pkt.IPv6Size) {
			return // ip-input has seen to that
		}
		const off = 256
		mem := append(make([]byte, off+int(l3)), packet...)
		one := graph.Meta{Off: off, L3: uint16(l3), Proto: proto, Segments: 3, Flags: graph.Judged | graph.OnTrial,
			Head: uint32(l3) + uint32(len(packet)), Len: uint32(l3) + uint32(len(packet)) + uint32(behind)}
		if l4 != 0 {
			one.L4 = uint16(l3) + uint16(l4)
		}
		if ipv6 {
			one.Flags |= graph.IPv6
		}
		other := one
		metas, got := new(graph.Slots), []flow.Packet{{Seq: 1, Scale: 1, Why: flow.Malformed}}
		metas[0] = one
		if l4 == 0 { // a later fragment
			if plain(mem, metas, []uint16{0}, got) != 0 {
				t.Errorf("the loop takes a packet without transport header")
			}
			return
		}
		want := flow.Packet{}
		(&Desk{}).slow(0, mem, &other, &want)
		plainly := want.Kind == flow.Steady || want.Kind == flow.Plain && proto == pkt.ProtoUDP
		if plain(mem, metas, []uint16{0}, got) == 0 {
			if plainly {
				t.Errorf("the loop does not take %+v", want)
			}
			return
		}
		if want.Kind == flow.Plain { // the fields of TCP are not read
			got[0].Seq, got[0].Ack, got[0].Window, got[0].Length = want.Seq, want.Ack, want.Window, want.Length
		}
		if got[0] != want || metas[0] != other {
			t.Errorf("the loop reads %+v of %+v, want %+v of %+v", got[0], metas[0], want, other)
		}
	})
}

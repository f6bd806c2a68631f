package judge

import (
	"math/rand/v2"
	"testing"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/mem/fence"
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
		for _, loop := range []func([]byte, *graph.Slots, []uint16, []flow.Packet) int{plain, plainPortable} {
			readsAsSlow(t, mem, one, loop)
		}
	})
}

// readsAsSlow has one packet read by a loop and by slow.
func readsAsSlow(t *testing.T, mem []byte, one graph.Meta, loop func([]byte, *graph.Slots, []uint16, []flow.Packet) int) {
	t.Helper()
	other := one
	metas, got := new(graph.Slots), []flow.Packet{{Seq: 1, Scale: 1, Why: flow.Malformed}}
	metas[0] = one
	if one.L4 == 0 { // a later fragment
		if loop(mem, metas, []uint16{0}, got) != 0 {
			t.Errorf("the loop takes a packet without transport header")
		}
		return
	}
	want := flow.Packet{}
	(&Desk{}).slow(0, mem, &other, &want)
	plainly := want.Kind == flow.Steady || want.Kind == flow.Plain && one.Proto == pkt.ProtoUDP
	if loop(mem, metas, []uint16{0}, got) == 0 {
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
}

// TestPlainReadsNoFurther has packets of all lengths end where memory does.
func TestPlainReadsNoFurther(t *testing.T) {
	const off, l3 = 256, 14
	for _, ipv6 := range []bool{false, true} {
		l4 := pkt.IPv4Size
		if ipv6 {
			l4 = pkt.IPv6Size
		}
		whole := append(make([]byte, off+l3), someSegment(ipv6, flow.ACK, 0)[:l4+20]...)
		mem := fence.Copy(t, whole)
		for _, proto := range []uint8{pkt.ProtoTCP, pkt.ProtoUDP} {
			for n := range 20 + 1 {
				end := len(mem) - 20 + n
				m := graph.Meta{Off: off + 20 - uint32(n), L3: l3, L4: uint16(l3 + l4), Proto: proto, Segments: 1}
				copy(mem[m.Off:], whole[off:off+l3+l4+n])
				m.Head, m.Len = uint32(l3+l4+n), uint32(l3+l4+n)
				if ipv6 {
					m.Flags = graph.IPv6
				}
				metas, packets := &graph.Slots{m}, make([]flow.Packet, 1)
				want := n >= 20 || n >= 8 && proto == pkt.ProtoUDP
				if got := plain(mem, metas, []uint16{0}, packets) == 1; got != want {
					t.Errorf("IPv6 %v, protocol %d, %d bytes up to %d: taken %v, want %v", ipv6, proto, n, end, got, want)
				}
			}
		}
	}
}

// TestPlainBursts holds the loop in assembly against that in Go, on bursts of all kinds; elsewhere they
// are the same.
func TestPlainBursts(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	rng := rand.New(rand.NewPCG(1, 2))
	taken, packets := 0, 0
	for range rounds {
		n := rng.IntN(33)
		taken += plainBurst(t, rng, n)
		packets += n
	}
	if taken < packets/4 || taken > packets*9/10 {
		t.Errorf("%d of %d packets were plain: they show little", taken, packets)
	}
}

// plainBurst reads n packets both ways, on behind each that is not plain, and says how many were.
func plainBurst(t *testing.T, rng *rand.Rand, n int) (taken int) {
	mem := make([]byte, 256+33*128)
	for i := range mem {
		mem[i] = uint8(rng.Uint32())
	}
	metas, idx, first := new(graph.Slots), make([]uint16, n), rng.IntN(graph.VectorMax)
	for i := range idx {
		idx[i] = uint16(first + 2*i)
		metas[idx[i]&graph.SlotMask] = someMeta(rng, mem, uint32(256+128*i))
	}
	others := *metas
	got, want := make([]flow.Packet, n+1), make([]flow.Packet, n+1)
	for at := 0; at < n; at++ {
		k, l := plain(mem, metas, idx[at:], got[at:n]), plainPortable(mem, &others, idx[at:], want[at:n])
		if at += l; k != l {
			t.Fatalf("%d packets are plain, want %d: %+v", k, l, metas[idx[at-max(l-k, 0)]&graph.SlotMask])
		}
		taken += l
		if at < n {
			got[at], want[at] = flow.Packet{}, flow.Packet{} // what is not plain may be left half read
		}
	}
	for i := range got {
		if p := &got[i]; p.Kind == flow.Plain { // the fields of TCP are not read
			p.Seq, p.Ack, p.Window, p.Length = want[i].Seq, want[i].Ack, want[i].Window, want[i].Length
		}
		if got[i] != want[i] {
			t.Fatalf("packet %d of %d is read as %+v, want %+v", i, n, got[i], want[i])
		}
	}
	if *metas != others {
		t.Fatalf("packets become %+v, want %+v", metas, others)
	}
	return taken
}

// someMeta is of a packet that begins at off, and is plain or nearly so.
func someMeta(rng *rand.Rand, mem []byte, off uint32) graph.Meta {
	l3, size := uint16(14+4*rng.IntN(2)), uint16(pkt.IPv4Size)
	m := graph.Meta{Off: off, L3: l3, Proto: pkt.ProtoTCP, Segments: uint16(rng.Uint32()), Flags: graph.Flags(rng.Uint32()) &^ (graph.IPv6 | graph.FromUs)}
	if rng.IntN(2) == 0 {
		m.Flags, size = m.Flags|graph.IPv6, pkt.IPv6Size
	}
	m.L4 = l3 + size + uint16(4*rng.IntN(3)&^4)
	m.Head = uint32(m.L4) + 20 + rng.Uint32N(24)
	tcp := mem[off+uint32(m.L4):]
	tcp[12], tcp[13] = uint8(5+rng.IntN(4))<<4|tcp[12]&15, uint8(flow.ACK)|tcp[13]&^uint8(flow.SYN|flow.FIN|flow.RST)
	switch rng.IntN(24) {
	case 0:
		tcp[13] = uint8(rng.Uint32())
	case 1:
		tcp[12] = uint8(rng.Uint32())
	case 2:
		m.Flags |= graph.FromUs
	case 3:
		m.Head = uint32(m.L4) + rng.Uint32N(22)
	case 4:
		m.L4 = uint16(rng.IntN(int(m.L3 + pkt.IPv4Size))) // ip-input lets none begin within an IPv6 header's latter half
	case 5:
		if size == pkt.IPv4Size {
			m.L4 = l3 + 16 + uint16(rng.IntN(8))
		}
	case 6:
		m.Proto = uint8(rng.Uint32())
	case 7, 8, 9, 10, 11, 12:
		m.Proto = pkt.ProtoUDP
	}
	m.Len = m.Head + rng.Uint32N(3)*700
	return m
}

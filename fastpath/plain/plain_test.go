package plain

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/mem/fence"
	"margay.dev/margay/internal/pkt"
)

// What is accepted ip-input's function for any packet holds against its own opinion
// (FuzzShortInput in fastpath/node). Here the loops in assembly are held against those in Go;
// elsewhere they are the same.

const edge graph.Edge = 5

// loop is what accepts packets of a family.
type loop func([]byte, *graph.Slots, []uint16, []graph.Edge, graph.Edge) int

// somePacket writes a packet to b, plain but for one thing now and then, and returns its Meta, with L3 bytes in front.
func somePacket(rng *rand.Rand, b []byte, off uint32, ipv6 bool) graph.Meta {
	m := graph.Meta{Off: off, L3: []uint16{0, 14, 18}[rng.IntN(3)], Bufs: 1, Segments: uint16(rng.Uint32()), GSOSize: uint16(rng.Uint32())}
	m.Flags = graph.Flags(rng.Uint32()) &^ (Unplain | graph.IPv6)
	size := pkt.IPv4Size
	if ipv6 {
		m.Flags, size = m.Flags|graph.IPv6, pkt.IPv6Size
	}
	p := b[off+uint32(m.L3):]
	for i := range p[:100] {
		p[i] = uint8(rng.Uint32())
	}
	proto, least := uint8(pkt.ProtoTCP), 20
	if rng.IntN(2) == 0 {
		proto, least = pkt.ProtoUDP, 8
	}
	n := least + rng.IntN(16)
	if proto == pkt.ProtoTCP {
		p[size+12] = uint8(5+rng.IntN(n/4-4))<<4 | uint8(rng.IntN(16))
	} else {
		binary.BigEndian.PutUint16(p[size+4:], uint16(7+rng.IntN(n-6)))
	}
	if ipv6 {
		p[0], p[4], p[5], p[6], p[8], p[24] = 0x60|p[0]&15, 0, uint8(n), proto, 0x20|p[8]&15, 0x20|p[24]&15
	} else {
		p[0], p[2], p[3], p[6], p[7], p[9], p[12], p[16] = 0x45, 0, uint8(size+n), p[6]&0x40, 0, proto, 10, 20
	}
	m.Head = uint32(m.L3) + uint32(size+n)
	m.Len = m.Head
	spoil(rng, p[:size+n], &m)
	if !ipv6 && rng.IntN(10) == 0 { // the words of the header add up to nearly 2^64, so that the last one carries
		binary.LittleEndian.PutUint32(p[12:], ^binary.LittleEndian.Uint32(p[4:]))
	}
	if !ipv6 && rng.IntN(40) != 0 {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^pkt.Fold(pkt.Sum(p[:size])))
	}
	return m
}

// spoil changes something of a packet now and then, for better or worse.
func spoil(rng *rand.Rand, p []byte, m *graph.Meta) {
	switch rng.IntN(20) {
	case 0, 1, 2:
		p[rng.IntN(len(p))] = uint8(rng.Uint32())
	case 3:
		p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
	case 4:
		p[7+rng.IntN(2)] = uint8(rng.IntN(3)) // hops, of either family
	case 5:
		m.Head -= min(m.Head, rng.Uint32N(30))
		m.Len = m.Head
	case 6:
		m.Head += rng.Uint32N(3) // padding
		m.Len = m.Head
	case 7:
		m.Flags ^= 1 << rng.IntN(16)
	case 8:
		m.GSO = graph.GSOKind(rng.IntN(4))
	case 9:
		m.Bufs = uint8(rng.IntN(4))
	}
}

// agree has both loops of a family accept n packets, on behind each that is not plain, and
// says how many were.
func agree(t testing.TB, rng *rand.Rand, n int, ipv6 bool) (taken int) {
	mem := make([]byte, 256+n*128+256)
	metas, idx, first := new(graph.Slots), make([]uint16, n), rng.IntN(2)
	for i := range idx {
		idx[i] = uint16(first + 2*i)
		metas[idx[i]&graph.SlotMask] = somePacket(rng, mem, uint32(256+128*i), ipv6 != (rng.IntN(30) == 0))
	}
	var ours, theirs loop = IPv4, portable4
	if ipv6 {
		ours, theirs = IPv6, portable6
	}
	others, next, nexts := *metas, make([]graph.Edge, n+1), make([]graph.Edge, n+1)
	for at := 0; at < n; at++ {
		got, want := ours(mem, metas, idx[at:], next[at:n], edge), theirs(mem, &others, idx[at:], nexts[at:n], edge)
		if got != want {
			p := &metas[idx[at+min(got, want)]&graph.SlotMask]
			t.Fatalf("from %d of %d on %d are plain, want %d: %+v of %x", at, n, got, want, p, mem[p.Off:p.Off+64])
		}
		at += got
		taken += got
	}
	if *metas != others {
		t.Fatalf("packets become %+v, want %+v", metas, others)
	}
	for i := range next {
		if next[i] != nexts[i] {
			t.Fatalf("packet %d of %d leaves by edge %d, want %d", i, n, next[i], nexts[i])
		}
	}
	return taken
}

func TestLoopsAgree(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, ipv6 := range []bool{false, true} {
		taken, packets := 0, 0
		for range rounds {
			n := rng.IntN(40)
			taken += agree(t, rng, n, ipv6)
			packets += n
		}
		if taken < packets/2 || taken > packets*9/10 {
			t.Errorf("IPv6 %v: %d of %d packets were plain: they show little", ipv6, taken, packets)
		}
	}
}

func FuzzLoopsAgree(f *testing.F) {
	f.Add(uint64(1), uint8(40), false)
	f.Add(uint64(2), uint8(1), true)
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, ipv6 bool) {
		agree(t, rand.New(rand.NewPCG(seed, 3)), int(n), ipv6)
	})
}

// TestAcceptReadsNoFurther has packets of all lengths end where memory does.
func TestAcceptReadsNoFurther(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, accept := range []loop{IPv4, IPv6} {
		for n := range 80 {
			b := make([]byte, 512)
			m := somePacket(rng, b, 0, n%2 != 0)
			mem := fence.Copy(t, b[:n])
			m.Head, m.Len = uint32(n), uint32(n)
			accept(mem, &graph.Slots{m}, []uint16{0}, make([]graph.Edge, 1), edge)
		}
	}
}

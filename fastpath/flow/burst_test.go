package flow

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// scene is what both loops read and write, of a table that no history would lead to:
// they must agree on any.
type scene struct {
	index   []bucket
	entries []entry
	seed    seed
	packets []Packet
}

// someScene makes one of n packets, which mostly are of flows that are there, within their windows or next to
// them.
func someScene(rng *rand.Rand, n int) *scene {
	s := &scene{index: make([]bucket, 1<<(3+rng.IntN(4))), entries: make([]entry, 1+rng.IntN(100)), packets: make([]Packet, n)}
	for i := range s.seed {
		s.seed[i] = rng.Uint64()
	}
	for i := range s.entries {
		someFlow(rng, &s.entries[i])
	}
	for i := range s.index {
		b := &s.index[i]
		b.tags = rng.Uint64() & (rng.Uint64() | 0x8080808080808080)
		for c := range b.refs {
			b.refs[c] = s.someRef(rng)
		}
	}
	for i := range s.packets {
		s.somePacket(rng, &s.packets[i])
	}
	return s
}

func (s *scene) someRef(rng *rand.Rand) uint32 { return rng.Uint32N(uint32(2 * len(s.entries))) }

// someFlow fills an entry with a flow in any state, and numbers that lie close together.
func someFlow(rng *rand.Rand, e *entry) {
	for d := range e.sides {
		e.sides[d] = side{key: someKey(rng), packets: rng.Uint64(), bytes: rng.Uint64N(1000), seen: rng.Uint32N(3) << 20}
		e.core.sent[d] = pair(somewhere(rng), someWindow(rng))
		e.core.heard[d] = pair(somewhere(rng), somewhere(rng))
		e.core.nextHop[d] = rng.Uint32()
	}
	states := []State{Established, Established, Established, BothWays, OneWay, State(rng.IntN(16))}
	e.core.state = rng.Uint64()&^uint64(stateMask|busy|dead) | uint64(states[rng.IntN(len(states))])
	if rng.IntN(8) == 0 {
		e.core.state |= uint64(busy|dead) & rng.Uint64()
	}
	e.core.verdict, e.core.stamp = rng.Uint64(), rng.Uint64()<<1
	if rng.IntN(8) == 0 {
		e.core.stamp |= 1
	}
}

// someKey is one of either family, often of one word in each half that others have as well.
func someKey(rng *rand.Rand) Key {
	word := func() uint64 { return rng.Uint64() >> (rng.IntN(3) * 30) & -rng.Uint64N(2) }
	return Key{SrcHi: word(), SrcLo: word(), DstHi: word(), DstLo: word(), Tail: word()}
}

// somewhere is a sequence number around one where all may wrap around.
func somewhere(rng *rand.Rand) uint32 {
	if rng.IntN(16) == 0 {
		return rng.Uint32()
	}
	return rng.Uint32N(1<<rng.IntN(18)) - 1<<rng.IntN(8)
}

func someWindow(rng *rand.Rand) uint32 { return rng.Uint32() >> rng.IntN(32) }

// somePacket makes one of a flow that is there, and sees to it that it is found, most times.
func (s *scene) somePacket(rng *rand.Rand, p *Packet) {
	*p = Packet{
		Key: someKey(rng), Seq: somewhere(rng), Ack: somewhere(rng), Length: rng.Uint32N(1 << rng.IntN(17)), Bytes: rng.Uint32(),
		Window: uint16(someWindow(rng)), Segments: uint16(rng.Uint32()), Flags: uint8(rng.Uint32()), Kind: Kind(rng.IntN(2)),
	}
	if rng.IntN(8) == 0 {
		p.Kind = Kind(rng.IntN(int(Unusable) + 1))
	}
	if rng.IntN(16) == 0 {
		return
	}
	ref := s.someRef(rng)
	side := &s.entries[ref>>1].sides[ref&1]
	p.Key = side.key
	if c := &s.entries[ref>>1].core; c.state&uint64(stateMask) == uint64(Established) && rng.IntN(4) != 0 {
		inWindow(rng, p, c, int(ref&1))
	}
	h := s.seed.hash(&p.Key)
	b, c := &s.index[h&uint64(len(s.index)-1)], rng.IntN(cells)
	b.tags, b.refs[c] = b.tags&^(255<<(8*c))|tagOf(h)<<(8*c), ref
	if words := []*uint64{&side.key.SrcHi, &side.key.SrcLo, &side.key.DstHi, &side.key.DstLo, &side.key.Tail}; rng.IntN(8) == 0 {
		*words[rng.IntN(len(words))] ^= 1 << rng.IntN(64) // the same tag, and another key
	}
}

// inWindow makes a segment of direction d of a packet, whose numbers are within all bounds or next to them.
func inWindow(rng *rand.Rand, p *Packet, c *core, d int) {
	near := func(of uint32) uint32 { return of - 2 + rng.Uint32N(1<<(2+rng.IntN(14))) }
	p.Kind = Steady
	p.Seq = 2*uint32(c.heard[d^1]) - near(uint32(c.heard[d^1]))
	p.Ack = 2*uint32(c.sent[d^1]>>32) - near(uint32(c.sent[d^1]>>32))
	c.sent[d] = pair(near(p.Seq), uint32(c.sent[d]))
	c.heard[d] = pair(near(p.Ack)-1<<rng.IntN(15), near(p.Ack+uint32(p.Window)))
}

// agree has both loops of each kind go over a scene, and says how many packets were steady.
func agree(t testing.TB, rng *rand.Rand, n int) (taken int) {
	s := someScene(rng, n)
	refs, want := make([]Ref, n), make([]Ref, n)
	locate(s.index, s.entries, &s.seed, s.packets, refs)
	locatePortable(s.index, s.entries, &s.seed, s.packets, want)
	if !slices.Equal(refs, want) {
		t.Fatalf("keys are located at %v, want %v", refs, want)
	}
	entries, now := slices.Clone(s.entries), Tick(rng.Uint32N(3)<<20)
	out := make([]Result, n+1)
	for i := range out {
		out[i] = Result{Ref: 7, Reason: BadAck, Generation: rng.Uint64()}
	}
	wantOut := slices.Clone(out)
	for at := 0; at < n; at++ { // on behind each that was not steady
		got := steady(s.entries, now, s.packets[at:], refs[at:], out[at:n])
		if want := steadyPortable(entries, now, s.packets[at:], refs[at:], wantOut[at:n]); got != want {
			t.Fatalf("from %d of %d on %d are steady, want %d: %+v of %+v", at, n, got, want, s.packets[at+min(got, want)], entries[refs[at+min(got, want)]>>1])
		}
		at += got
		taken += got
	}
	for i := range out {
		if out[i] != wantOut[i] {
			t.Fatalf("result %d of %d is %+v, want %+v", i, n, out[i], wantOut[i])
		}
	}
	for i := range entries {
		if !bytes.Equal(bytesOf(&entries[i]), bytesOf(&s.entries[i])) {
			t.Fatalf("flow %d has become %+v, want %+v", i, s.entries[i], entries[i])
		}
	}
	return taken
}

func bytesOf(e *entry) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e)) }

// TestLoopsAgree holds the loops in assembly against those in Go; elsewhere they are the same.
func TestLoopsAgree(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	rng := rand.New(rand.NewPCG(1, 2))
	taken, packets := 0, 0
	for range rounds {
		n := rng.IntN(stride + 1)
		taken += agree(t, rng, n)
		packets += n
	}
	if taken < packets/6 || taken > packets/2 {
		t.Errorf("%d of %d packets were steady: they show little", taken, packets)
	}
}

func FuzzLoopsAgree(f *testing.F) {
	f.Add(uint64(1), uint8(stride))
	f.Add(uint64(2), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		agree(t, rand.New(rand.NewPCG(seed, 3)), int(n)%(stride+1))
	})
}

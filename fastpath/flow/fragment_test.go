package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/internal/pkt"
)

// parts splits a datagram of n bytes of UDP into fragments of size bytes.
func parts(v6, n, size int) (frags [][]byte) {
	whole := udpPacket(port80(v6, 999)[0], port80(v6, 999)[1], n-8)
	return split(whole, v6, pkt.ProtoUDP, size)
}

func split(whole []byte, v6 int, proto uint8, size int) (frags [][]byte) {
	payload := whole[20+20*v6:]
	for from := 0; from < len(payload); from += size {
		to := min(from+size, len(payload))
		frags = append(frags, fragment(v6, proto, 77, from, to < len(payload), payload[from:to]))
	}
	return frags
}

// fragment is a piece of a datagram's payload.
func fragment(v6 int, proto uint8, id uint32, from int, more bool, b []byte) []byte {
	place := uint16(from)
	if v6 == 1 {
		if more {
			place |= 1
		}
		h := []byte{proto, 0, byte(place >> 8), byte(place)}
		return ipPacket(ends[1][0], ends[1][1], pkt.ProtoFragment, append(binary.BigEndian.AppendUint32(h, id), b...))
	}
	p := ipPacket(ends[0][0], ends[0][1], proto, b)
	place /= 8
	if more {
		place |= 0x2000
	}
	binary.BigEndian.PutUint16(p[4:], uint16(id))
	binary.BigEndian.PutUint16(p[6:], place)
	return p
}

// passFragment gives a fragment to the table as a node would.
func passFragment(t testing.TB, w *Worker, now Tick, b []byte) Reason {
	t.Helper()
	s := shapeOf(b)
	var part Part
	if !part.Read(b, s) {
		t.Fatal("no fragment")
	}
	if part.From > 0 {
		s.L4 = 0
	}
	var p Packet
	p.Read(b, s)
	if part.From == 0 {
		if r := passPacket(w, now, p); !passes(r) {
			return r.Reason
		}
		return w.First(now, &part, &p)
	}
	if p.Kind != Later {
		t.Fatalf("a later fragment is of kind %d", p.Kind)
	}
	if why := w.Follow(now, &part, &p); why != NoReason {
		return why
	}
	return passPacket(w, now, p).Reason
}

func TestFragments(t *testing.T) {
	piece := func(v6, from, to int, more bool) []byte {
		b := make([]byte, to-from)
		if from == 0 {
			copy(b, []byte{3, 231, 0, 80, 0, 100, 0, 0})
		}
		return fragment(v6, pkt.ProtoUDP, 5, from, more, b)
	}
	type step struct {
		from, to int
		more     bool
		want     Reason
	}
	for name, steps := range map[string][]step{
		"in order":                      {{0, 80, true, NoReason}, {80, 160, true, NoReason}, {160, 200, false, NoReason}},
		"any order behind the first":    {{0, 80, true, NoReason}, {160, 200, false, NoReason}, {80, 160, true, NoReason}},
		"the first not yet here":        {{80, 160, true, FragmentUnknown}, {0, 80, true, NoReason}},
		"once more":                     {{0, 80, true, NoReason}, {80, 160, true, NoReason}, {80, 160, true, FragmentRepeated}, {160, 168, false, NoReason}},
		"the first once more":           {{0, 80, true, NoReason}, {0, 80, true, FragmentRepeated}, {80, 160, false, NoReason}},
		"behind the last":               {{0, 80, true, NoReason}, {80, 88, false, NoReason}, {88, 96, true, FragmentUnknown}},
		"overlap":                       {{0, 80, true, NoReason}, {72, 160, true, FragmentOverlap}, {160, 200, false, FragmentOverlap}},
		"overlap of the later one":      {{0, 80, true, NoReason}, {160, 240, true, NoReason}, {80, 168, true, FragmentOverlap}, {80, 160, true, FragmentOverlap}},
		"overlap of the whole":          {{0, 80, true, NoReason}, {160, 240, true, NoReason}, {80, 400, true, FragmentOverlap}},
		"overlap by the first":          {{0, 80, true, NoReason}, {160, 200, false, NoReason}, {0, 96, true, FragmentOverlap}},
		"two ends":                      {{0, 80, true, NoReason}, {160, 200, false, NoReason}, {80, 120, false, FragmentOverlap}},
		"beyond the end":                {{0, 80, true, NoReason}, {160, 200, false, NoReason}, {200, 240, true, FragmentOverlap}},
		"an end before what was there":  {{0, 80, true, NoReason}, {160, 200, true, NoReason}, {80, 120, false, FragmentOverlap}},
		"in too many separate pieces":   {{0, 8, true, NoReason}, {16, 24, true, NoReason}, {32, 40, true, NoReason}, {48, 56, true, NoReason}, {64, 72, true, NoReason}, {80, 88, true, NoReason}, {96, 104, true, NoReason}, {112, 120, true, NoReason}, {128, 136, true, FragmentScatter}, {8, 16, true, NoReason}, {128, 136, true, NoReason}},
		"of one byte at the end":        {{0, 80, true, NoReason}, {80, 81, false, NoReason}},
		"complete, and then once again": {{0, 80, true, NoReason}, {80, 160, false, NoReason}, {80, 160, false, FragmentUnknown}},
	} {
		for v6 := range ends {
			table := newTable(t, nil)
			w := table.Worker(0)
			for i, s := range steps {
				if got := passFragment(t, w, 0, piece(v6, s.from, s.to, s.more)); got != s.want {
					t.Errorf("%s, %s: fragment %d is refused for %v, want %v", name, family(v6), i, got, s.want)
				}
			}
			drain(t, table, 0)
		}
	}
}

// TestFirstOfAnotherFlow: nobody knows whose the pieces are of two firsts that have one
// identification, so nothing more of either passes.
func TestFirstOfAnotherFlow(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		first := func(port byte) []byte {
			return fragment(v6, pkt.ProtoUDP, 5, 0, true, append([]byte{3, port, 0, 80, 0, 100, 0, 0}, make([]byte, 72)...))
		}
		for i, step := range []struct {
			piece []byte
			want  Reason
		}{
			{first(1), NoReason},
			{fragment(v6, pkt.ProtoUDP, 5, 80, true, make([]byte, 80)), NoReason},
			{first(2), FragmentOverlap},
			{fragment(v6, pkt.ProtoUDP, 5, 160, false, make([]byte, 40)), FragmentOverlap},
		} {
			if got := passFragment(t, w, 0, step.piece); got != step.want {
				t.Errorf("%s: fragment %d is refused for %v, want %v", family(v6), i, got, step.want)
			}
		}
		drain(t, table, 0)
	}
}

// TestFragmentsAreOfTheirFlow: a later fragment counts for its flow, whose first
// packet it needs; a whole IPv6 packet in a fragment header is none.
func TestFragmentsAreOfTheirFlow(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		for _, b := range parts(v6, 3000, 1480) {
			if why := passFragment(t, w, 0, b); why != NoReason {
				t.Errorf("%s: refused for %v", family(v6), why)
			}
		}
		for f := range table.All(0) {
			if src, dst := f.Key[0].Ports(); f.Packets[0] != 3 || src != 999 || dst != 80 {
				t.Errorf("%s: ports %d and %d, %d packets", family(v6), src, dst, f.Packets[0])
			}
		}
		if n := table.Stats().Partial; n != 0 {
			t.Errorf("%s: %d datagrams are awaited, and all is there", family(v6), n)
		}
	}
	atomicFragment := fragment(1, pkt.ProtoUDP, 1, 0, false, make([]byte, 20))
	if part := new(Part); part.Read(atomicFragment, shapeOf(atomicFragment)) {
		t.Error("an atomic fragment (RFC 6946) is taken for one of several")
	}
}

// TestSegmentInFragments: what a TCP segment's later fragments carry may be
// acknowledged, and its FIN counts.
func TestSegmentInFragments(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		at := port80(v6, 999)
		play := func(steps ...step) {
			for i, s := range steps {
				if got := pass(w, 0, s.seg.packet(at[s.from], at[1-s.from])); got.Outcome != s.want {
					t.Errorf("%s: segment %d is %v (%v), want %v", family(v6), i, got.Outcome, got.Reason, s.want)
				}
			}
		}
		play(opened()...)
		whole := l(Hit, FIN|ACK, 1, 1, 900).seg.packet(at[0], at[1])
		for i, b := range split(whole, v6, pkt.ProtoTCP, 304) {
			if why := passFragment(t, w, 0, b); why != NoReason {
				t.Errorf("%s: fragment %d is refused for %v", family(v6), i, why)
			}
		}
		play(r(Refused, ACK, 1, 903, 0), r(Hit, FIN|ACK, 1, 902, 0), l(Hit, ACK, 902, 2, 0))
		if s := stateOf(table); s != Closed {
			t.Errorf("%s: the flow is %v", family(v6), s)
		}
	}
}

// TestFragmentsAreBounded: datagrams that never become whole expire, and those of
// two hosts take no room from others.
func TestFragmentsAreBounded(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		first := func(id uint32) []byte {
			return fragment(v6, pkt.ProtoUDP, id, 0, true, []byte{3, 231, 0, 80, 1, 0, 0, 0})
		}
		for id := range uint32(100) {
			want := NoReason
			if id >= fragmentWays {
				want = FragmentFull
			}
			if got := passFragment(t, w, 0, first(id)); got != want {
				t.Fatalf("%s: datagram %d is refused for %v, want %v", family(v6), id, got, want)
			}
		}
		if n := table.Stats().Partial; n != fragmentWays {
			t.Errorf("%s: %d datagrams are awaited, want %d", family(v6), n, fragmentWays)
		}
		end := Tick(ticks(DefaultTimeouts().Fragment)) + 1
		rest := fragment(v6, pkt.ProtoUDP, 3, 8, false, make([]byte, 8))
		if got := passFragment(t, w, end, rest); got != FragmentUnknown {
			t.Errorf("%s: a fragment far too late is refused for %v", family(v6), got)
		}
		if got := passFragment(t, w, end, first(500)); got != NoReason {
			t.Errorf("%s: a datagram after others have expired is refused for %v", family(v6), got)
		}
	}
}

// FuzzFragments holds the pieces of one datagram against a map of its bytes.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 2, 4, 2, 2, 2}, uint64(1))
	f.Add([]byte{0, 2, 1, 2, 5, 1, 3, 9}, uint64(2))
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		w := newTable(t, nil).Worker(0)
		random := rand.New(rand.NewPCG(seed, 1))
		var d byteMap
		key := NewKey(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 17, 0, 0, 0)
		p := Packet{Key: NewKey(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 17, 5, 6, 0)}
		if len(script) > 100 {
			script = script[:100]
		}
		for i := 0; i+1 < len(script); i += 2 {
			part := Part{Key: key, From: uint32(script[i]) * 8, More: random.IntN(8) != 0}
			if i == 0 {
				part.From, part.More = 0, true
			}
			part.To = part.From + 8*(1+uint32(script[i+1])%32)
			var got Reason
			if part.From == 0 {
				got = w.First(0, &part, &p)
			} else {
				q := Packet{}
				got = w.Follow(0, &part, &q)
			}
			if got == FragmentScatter { // a limit that the map does not have
				return
			}
			if want := d.add(part); got != want {
				t.Fatalf("bytes %d to %d, more %t: refused for %v, want %v", part.From, part.To, part.More, got, want)
			}
			if d.whole() {
				return
			}
		}
	})
}

// byteMap is which bytes of a datagram have come.
type byteMap struct {
	has     [1 << 12]bool
	end     int // -1 at first
	known   bool
	spoiled bool
}

func (d *byteMap) add(p Part) Reason {
	all, some, behind := true, false, false
	for i := range d.has {
		switch inside := i >= int(p.From) && i < int(p.To); {
		case inside && d.has[i]:
			some = true
		case inside:
			all = false
		case i >= int(p.To) && d.has[i]:
			behind = true
		}
	}
	switch {
	case d.spoiled, d.known && (int(p.To) > d.end || !p.More && int(p.To) != d.end):
		d.spoiled = true
		return FragmentOverlap
	case !all && some, !p.More && behind:
		d.spoiled = true
		return FragmentOverlap
	case all:
		return FragmentRepeated
	}
	for i := p.From; i < p.To; i++ {
		d.has[i] = true
	}
	if !p.More {
		d.end, d.known = int(p.To), true
	}
	return NoReason
}

func (d *byteMap) whole() bool {
	for i := range d.end {
		if !d.has[i] {
			return false
		}
	}
	return d.known
}

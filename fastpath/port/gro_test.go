package port

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
)

// wire is a TUN queue whose device is a socket: what it writes can be read.
type wire struct {
	*tunQueue
	other int
}

func newWire(t testing.TB) *wire {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return &wire{newTunQueue(fds[0]), fds[1]}
}

// written reads what was written since the last call, vnet headers in front.
func (w *wire) written(t testing.TB) (all [][]byte) {
	t.Helper()
	for {
		b := make([]byte, 70_000)
		n, err := unix.Read(w.other, b)
		if err == unix.EAGAIN {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b[:n])
	}
}

// send transmits packets as one vector; all must be taken.
func (w *wire) send(t testing.TB, io *graph.IO, ms ...graph.Meta) [][]byte {
	t.Helper()
	v := graph.NewVector(ms...)
	if n := w.TxBurst(io, v); n != 0 {
		t.Fatalf("%d packets refused, reason of the first %v", n, v.Meta(0).Reason)
	}
	return w.written(t)
}

// parts undoes what was written: the wire packets that a superpacket stands for.
// It also checks that the vnet header tells the truth.
func parts(t testing.TB, b []byte) [][]byte {
	t.Helper()
	h, p := b[:vnetSize], b[vnetSize:]
	if h[1] == vnetNone {
		if h[0] != 0 {
			t.Fatalf("a packet with a whole checksum has the vnet header %x", h)
		}
		return [][]byte{p}
	}
	want := byte(vnetTCP4)
	if p[0]>>4 == 6 {
		want = vnetTCP6
	}
	l4 := int(binary.LittleEndian.Uint16(h[6:]))
	partial := plainFold(plainPseudo(p, len(p)-l4, false))
	if h[0] != vnetNeedsCsum || h[1] != want || binary.LittleEndian.Uint16(h[8:]) != tcpCheck ||
		int(binary.LittleEndian.Uint16(h[2:])) != l4+int(p[l4+12]>>4)*4 || binary.BigEndian.Uint16(p[l4+16:]) != partial {
		t.Fatalf("vnet header %x of %x", h, p[:60])
	}
	if want == vnetTCP4 && (int(binary.BigEndian.Uint16(p[2:])) != len(p) || plainFold(plainWords(p[:l4])) != 0xffff) ||
		want == vnetTCP6 && int(binary.BigEndian.Uint16(p[4:]))+40 != len(p) {
		t.Fatalf("length or checksum of %x is wrong", p[:60])
	}
	return plainSegments(p, l4, int(binary.LittleEndian.Uint16(h[4:])), false)
}

func TestGROUndoesSegmentation(t *testing.T) {
	for name, spec := range superpackets() {
		if spec.udp || spec.flags&(tcpFIN|tcpCWR) != 0 || spec.v6 && spec.extension != nil {
			continue // shapes that do not coalesce
		}
		for _, frames := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in frames %v", name, frames), func(t *testing.T) {
				io := testIO(t, 512, 64)
				spec.link = false
				p, m := spec.build()
				var ms []graph.Meta
				for _, b := range plainSegments(p, int(m.CsumStart), spec.gso, false) {
					ms = append(ms, place(t, io, b, graph.Meta{}, frames))
				}
				got := newWire(t).send(t, io, ms...)
				if len(got) != 1 {
					t.Fatalf("%d writes, want 1", len(got))
				}
				if !bytes.Equal(got[0][vnetSize:], p) {
					t.Errorf("coalesced to\n%x, want\n%x", got[0][vnetSize:][:80], p[:80])
				}
				if size := binary.LittleEndian.Uint16(got[0][4:]); int(size) != spec.gso {
					t.Errorf("segment size is %d, want %d", size, spec.gso)
				}
				parts(t, got[0])
			})
		}
	}
}

// train is n segments in order, of 100 bytes of payload each.
func trainOf(n int, base packetSpec) []packetSpec {
	all := make([]packetSpec, n)
	for i := range all {
		all[i] = base
		all[i].payload, all[i].whole, all[i].seed = 100, true, byte(i)
		all[i].seq += uint32(i) * 100
		all[i].id += uint16(i)
	}
	return all
}

func TestWhatMayCoalesce(t *testing.T) {
	mark := func(i int, change func(*packetSpec)) func([]packetSpec) []packetSpec {
		return func(s []packetSpec) []packetSpec {
			change(&s[i])
			return s
		}
	}
	tests := map[string]struct {
		change func([]packetSpec) []packetSpec
		want   string // packets of each write, in the order written
	}{
		"all in order":                    {nil, "[[0 1 2 3 4]]"},
		"wrong TCP checksum in the midst": {mark(2, func(s *packetSpec) { s.corrupt = true }), "[[0 1] [2] [3 4]]"},
		"wrong TCP checksum in front":     {mark(0, func(s *packetSpec) { s.corrupt = true }), "[[0] [1 2 3 4]]"},
		"wrong TCP checksum at the end":   {mark(4, func(s *packetSpec) { s.corrupt = true }), "[[0 1 2 3] [4]]"},
		"wrong IPv4 checksum":             {mark(2, func(s *packetSpec) { s.corrupt4 = true }), "[[0 1] [2] [3 4]]"},
		"a push ends a train":             {mark(2, func(s *packetSpec) { s.flags = tcpACK | tcpPSH }), "[[0 1 2] [3 4]]"},
		"a push in front stays alone":     {mark(0, func(s *packetSpec) { s.flags = tcpACK | tcpPSH }), "[[0] [1 2 3 4]]"},
		"FIN stays alone":                 {mark(4, func(s *packetSpec) { s.flags = tcpACK | tcpFIN }), "[[0 1 2 3] [4]]"},
		"SYN stays alone":                 {mark(0, func(s *packetSpec) { s.flags = tcpSYN }), "[[0] [1 2 3 4]]"},
		"RST stays alone":                 {mark(2, func(s *packetSpec) { s.flags = 4 | tcpACK }), "[[0 1] [2] [3 4]]"},
		"a smaller one ends a train":      {mark(4, func(s *packetSpec) { s.payload = 99 }), "[[0 1 2 3 4]]"},
		"a larger one begins a train":     {mark(3, func(s *packetSpec) { s.payload = 101 }), "[[0 1 2] [3] [4]]"},
		"a hole in the sequence":          {mark(2, func(s *packetSpec) { s.seq += 100 }), "[[0 1] [2] [3 4]]"},
		"another acknowledgement":         {mark(2, func(s *packetSpec) { s.ack++ }), "[[0 1] [2] [3 4]]"},
		"another window":                  {mark(2, func(s *packetSpec) { s.window++ }), "[[0 1] [2] [3 4]]"},
		"other options":                   {mark(2, func(s *packetSpec) { s.options = timestamps() }), "[[0 1] [2] [3 4]]"},
		"congestion was met":              {mark(2, func(s *packetSpec) { s.tos = 3 }), "[[0 1] [2] [3 4]]"},
		"another hop limit":               {mark(2, func(s *packetSpec) { s.ttl = 1 }), "[[0 1] [2] [3 4]]"},
		"no payload":                      {mark(2, func(s *packetSpec) { s.payload = 0 }), "[[0 1] [2] [3 4]]"},
		"UDP between does not disturb":    {mark(2, func(s *packetSpec) { s.udp = true }), "[[2] [0 1] [3 4]]"},
		"two flows interleaved": {func(s []packetSpec) []packetSpec {
			for i := range s {
				s[i].seq, s[i].id, s[i].sport = uint32(i/2)*100, uint16(i/2), uint16(i%2)
			}
			return s
		}, "[[0 2 4] [1 3]]"},
		"DF and one identification": {func(s []packetSpec) []packetSpec {
			for i := range s {
				s[i].id, s[i].dontFragment = 0, true
			}
			return s
		}, "[[0 1 2 3 4]]"},
	}
	for name, tt := range tests {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, v6 %v", name, v6), func(t *testing.T) {
				specs := trainOf(5, packetSpec{v6: v6})
				if tt.change != nil {
					specs = tt.change(specs)
				}
				want := tt.want
				if v6 && specs[2].corrupt4 {
					want = "[[0 1 2 3 4]]" // there is no such checksum
				}
				if got := fmt.Sprint(groups(t, specs)); got != want {
					t.Errorf("written as %s, want %s", got, want)
				}
			})
		}
	}
}

// groups sends specs as one vector and tells which packets each write carried.
// Every packet must come out as it went in.
func groups(t testing.TB, specs []packetSpec) (all [][]int) {
	t.Helper()
	io := testIO(t, 1024, 4)
	var ms []graph.Meta
	var in [][]byte
	for _, s := range specs {
		b, _ := s.build()
		in = append(in, b)
		ms = append(ms, place(t, io, b, graph.Meta{}, true))
	}
	taken := make([]bool, len(in))
	for _, b := range newWire(t).send(t, io, ms...) {
		var group []int
		for _, p := range parts(t, b) {
			i := slices.IndexFunc(in, func(q []byte) bool { return samePacket(p, q) })
			for i >= 0 && taken[i] { // equal packets are told apart by their order
				j := slices.IndexFunc(in[i+1:], func(q []byte) bool { return samePacket(p, q) })
				if i += j + 1; j < 0 {
					i = -1
				}
			}
			if i < 0 {
				t.Fatalf("wrote a packet that was not sent: %x", p)
			}
			taken[i] = true
			group = append(group, i)
		}
		all = append(all, group)
	}
	if i := slices.Index(taken, false); i >= 0 {
		t.Fatalf("packet %d was not written", i)
	}
	return all
}

// samePacket compares all but the identification of IPv4 packets with DF, and
// the checksum over it.
func samePacket(a, b []byte) bool {
	if len(a) != len(b) || a[0]>>4 != 4 || a[6]&0x40 == 0 {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:], b[12:])
}

// mayFollow is the rule of GRO, from the specification of each packet.
func mayFollow(train []packetSpec, s packetSpec) bool {
	a, z := train[0], train[len(train)-1]
	rightSums := func(p packetSpec) bool { return !p.corrupt && (p.v6 || !p.corrupt4) }
	ids := s.v6 || s.id == z.id+1
	if !s.v6 && s.dontFragment && s.id == z.id {
		ids = len(train) == 1 || train[1].id == a.id
	} else if !s.v6 && len(train) > 1 && train[1].id == a.id {
		ids = false
	}
	return startable(a) && startable(s) && s.seq == z.seq+uint32(z.payload) && ids &&
		s.ack == a.ack && s.window == a.window && bytes.Equal(s.options, a.options) && s.tos == a.tos && s.ttl == a.ttl &&
		s.dontFragment == a.dontFragment && s.payload <= a.payload && z.payload == a.payload &&
		z.flags&tcpPSH == 0 && rightSums(a) && rightSums(s)
}

// startable says whether a packet may be part of a train at all.
func startable(s packetSpec) bool {
	return s.payload > 0 && (s.flags|tcpACK)&^tcpPSH == tcpACK
}

// plainGroups is GRO as it is meant, by a walk over specifications.
func plainGroups(specs []packetSpec) (all [][]int) {
	open := map[[2]any]int{} // flow ► group that may go on
	for i, s := range specs {
		flow := [2]any{s.v6, s.sport}
		if g, ok := open[flow]; ok && !s.udp {
			var train []packetSpec
			for _, j := range all[g] {
				train = append(train, specs[j])
			}
			if mayFollow(train, s) {
				all[g] = append(all[g], i)
				continue
			}
		}
		all = append(all, []int{i})
		if !s.udp {
			open[flow] = len(all) - 1
		}
	}
	return all
}

// randomVector makes segments of up to five flows, most of them in order.
func randomVector(rng *rand.Rand, n int) (specs []packetSpec) {
	next := map[int]packetSpec{}
	for i := range n {
		f := rng.IntN(5)
		s, ok := next[f]
		if !ok {
			s = packetSpec{v6: f%2 == 1, sport: uint16(f), seq: rng.Uint32(), id: uint16(rng.Uint32()), payload: 1 + rng.IntN(300), dontFragment: f == 2, whole: true}
		}
		one := s
		one.seed = byte(i)
		twist(rng, &one)
		specs = append(specs, one)
		s.seq = one.seq + uint32(one.payload)
		s.id = one.id + 1
		if f == 2 && rng.IntN(2) == 0 {
			s.id = one.id
		}
		next[f] = s
	}
	return specs
}

// twist makes one packet in three differ from its train.
func twist(rng *rand.Rand, s *packetSpec) {
	switch rng.IntN(45) {
	case 0:
		s.corrupt = true
	case 1:
		s.corrupt4 = true
	case 2:
		s.flags = tcpACK | tcpPSH
	case 3:
		s.flags = tcpACK | tcpFIN
	case 4:
		s.flags = tcpSYN
	case 5:
		s.payload = 1 + rng.IntN(s.payload)
	case 6:
		s.payload += rng.IntN(3)
	case 7:
		s.payload = 0
	case 8:
		s.seq += uint32(rng.IntN(3)) - 1
	case 9:
		s.id += uint16(rng.IntN(3)) - 1
	case 10:
		s.ack++
	case 11:
		s.window++
	case 12:
		s.options = timestamps()
	case 13:
		s.tos = 3
	case 14:
		s.ttl = 1
	case 15:
		s.udp, s.corrupt = true, false
	}
}

func checkAgainstPlain(t testing.TB, specs []packetSpec) {
	t.Helper()
	got, want := groups(t, specs), plainGroups(specs)
	order := map[[3]any]int{}
	for _, g := range got { // within a flow nothing overtakes
		s := specs[g[0]]
		flow := [3]any{s.v6, s.sport, s.udp}
		if g[0] < order[flow] {
			t.Fatalf("packet %d was written after packet %d of its flow", g[0], order[flow])
		}
		order[flow] = g[len(g)-1]
	}
	byFirst := func(a, b []int) int { return a[0] - b[0] }
	slices.SortFunc(got, byFirst)
	slices.SortFunc(want, byFirst)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("written as %v, the plain rule says %v\n%+v", got, want, specs)
	}
}

func TestGROAgreesWithThePlainRule(t *testing.T) {
	for seed := range uint64(300) {
		checkAgainstPlain(t, randomVector(rand.New(rand.NewPCG(seed, 1)), 1+int(seed)%60))
	}
}

func FuzzGRO(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint8(40))
	f.Fuzz(func(t *testing.T, a, b uint64, n uint8) {
		checkAgainstPlain(t, randomVector(rand.New(rand.NewPCG(a, b)), 1+int(n)))
	})
}

func TestMoreFlowsThanTrains(t *testing.T) {
	var specs []packetSpec
	for round := range 3 {
		for f := range 40 {
			s := trainOf(1, packetSpec{sport: uint16(f), seq: uint32(round) * 100, id: uint16(round)})[0]
			s.seed = byte(f)
			specs = append(specs, s)
		}
	}
	last := map[uint16]int{}
	for _, g := range groups(t, specs) { // fails unless all come out as they went in
		for _, i := range g {
			if f := specs[i].sport; i < last[f] {
				t.Errorf("packet %d of flow %d came after %d", i, f, last[f])
			} else {
				last[f] = i
			}
		}
	}
}

func TestTrainsStayWithin64KiB(t *testing.T) {
	var specs []packetSpec
	for i := range 60 {
		specs = append(specs, packetSpec{payload: 1448, whole: true, seq: uint32(i) * 1448, id: uint16(i)})
	}
	got := groups(t, specs)
	if len(got) != 2 || len(got[0]) != (65535-40)/1448 {
		t.Errorf("trains of %d and more segments, want %d first", len(got[0]), (65535-40)/1448)
	}
}

func TestSuperpacketsOfTUNsGoWhole(t *testing.T) {
	for name, spec := range superpackets() {
		if spec.link {
			continue
		}
		io := testIO(t, 64, 4)
		p, m := spec.build()
		got := newWire(t).send(t, io, place(t, io, p, m, false))
		var back graph.Meta
		back.Len, back.Head, back.Bufs = m.Len, m.Head, 1
		if len(got) != 1 || !bytes.Equal(got[0][vnetSize:], p) {
			t.Fatalf("%s: %d writes", name, len(got))
		}
		back.Segments = 1
		if !readVnet((*[vnetSize]byte)(got[0]), p, &back) || back != m {
			t.Errorf("%s: vnet header %x reads as %+v, want %+v", name, got[0][:vnetSize], back, m)
		}
		if ecn := got[0][1]&vnetECN != 0; ecn != (spec.flags&tcpCWR != 0) {
			t.Errorf("%s: ECN bit is %v", name, ecn)
		}
	}
}

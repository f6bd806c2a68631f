package port

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
)

// options of TCP as Linux sends them: NOP, NOP, timestamps.
func timestamps() []byte { return []byte{1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7} }

// superpackets are the shapes that segmentation and GRO must know.
func superpackets() map[string]packetSpec {
	return map[string]packetSpec{
		"IPv4 TCP":                            {payload: 10_000, gso: 1448, options: timestamps(), id: 0xfffe, seq: 0xffff_f000},
		"IPv6 TCP":                            {v6: true, payload: 10_000, gso: 1428, options: timestamps(), seq: 7},
		"IPv4 TCP of the largest size":        {payload: 65_535 - 52, gso: 1448, options: timestamps()},
		"IPv6 TCP of the largest size":        {v6: true, payload: 65_535 - 60, gso: 1440},
		"IPv4 TCP, last segment full":         {payload: 4 * 1000, gso: 1000},
		"IPv4 TCP of odd segments":            {payload: 9_999, gso: 777, flags: tcpACK | tcpPSH},
		"IPv6 TCP of odd segments":            {v6: true, payload: 9_999, gso: 777, flags: tcpACK | tcpPSH},
		"IPv4 TCP that ends with FIN":         {payload: 5000, gso: 1448, flags: tcpACK | tcpFIN | tcpPSH},
		"IPv6 TCP that ends with FIN":         {v6: true, payload: 5000, gso: 1448, flags: tcpACK | tcpFIN},
		"IPv4 TCP that answers ECN":           {payload: 5000, gso: 1448, flags: tcpACK | tcpCWR, tos: 2},
		"IPv6 TCP that answers ECN":           {v6: true, payload: 5000, gso: 1448, flags: tcpACK | tcpCWR, tos: 2},
		"IPv4 TCP with IP options":            {payload: 5000, gso: 1400, extension: []byte{148, 4, 0, 0}},
		"IPv6 TCP behind extension header":    {v6: true, payload: 5000, gso: 1400, extension: []byte{0, 0, 1, 4, 0, 0, 0, 0}},
		"IPv4 TCP over Ethernet":              {link: true, payload: 20_000, gso: 1448, options: timestamps()},
		"IPv6 TCP over Ethernet":              {link: true, v6: true, payload: 20_000, gso: 1428},
		"IPv4 TCP of jumbo segments":          {payload: 60_000, gso: 8948, options: timestamps()},
		"IPv6 TCP of jumbo segments":          {v6: true, payload: 60_000, gso: 8928, options: timestamps()},
		"IPv4 UDP":                            {udp: true, payload: 10_000, gso: 1472, id: 9},
		"IPv6 UDP":                            {udp: true, v6: true, payload: 10_000, gso: 1452},
		"IPv4 UDP of odd segments":            {udp: true, payload: 6001, gso: 1201, link: true},
		"IPv6 UDP behind extension header":    {udp: true, v6: true, payload: 6001, gso: 1201, extension: []byte{0, 0, 1, 4, 0, 0, 0, 0}},
		"IPv4 TCP of two segments":            {payload: 2, gso: 1},
		"IPv4 TCP that may not be fragmented": {payload: 4000, gso: 1448, dontFragment: true, id: 77},
	}
}

// lowered sends one packet through a port without offload.
func lowered(t testing.TB, io *graph.IO, mtu int, m graph.Meta) ([][]byte, graph.Reason) {
	t.Helper()
	p, err := NewMemory(MemoryConfig{Name: "m", Queues: 1, MTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(nil)
	v := graph.NewVector(m)
	refused := p.queues[0].TxBurst(io, v)
	r := v.Meta(0).Reason
	if (refused == 1) != (r != graph.NoReason) {
		t.Errorf("%d refused, reason %v", refused, r)
	}
	if refused > 0 {
		io.Free(v.Meta(0))
	}
	var out [][]byte
	for _, o := range p.Collect(0) {
		out = append(out, o.Bytes)
	}
	return out, r
}

func TestSegmentsAreThoseOfThePlainOracle(t *testing.T) {
	for name, spec := range superpackets() {
		t.Run(name, func(t *testing.T) {
			io := testIO(t, 256, 4)
			p, m := spec.build()
			got, reason := lowered(t, io, 9000, place(t, io, p, m, false))
			if reason != graph.NoReason {
				t.Fatalf("refused: %v", reason)
			}
			want := plainSegments(p[m.L3:], int(m.CsumStart-m.L3), spec.gso, spec.udp)
			if len(got) != len(want) || len(got) != int(m.Segments) {
				t.Fatalf("%d segments, want %d", len(got), len(want))
			}
			for i := range got {
				if !bytes.Equal(got[i][:m.L3], p[:m.L3]) || !bytes.Equal(got[i][m.L3:], want[i]) {
					t.Fatalf("segment %d is\n%x, want\n%x", i, got[i], want[i])
				}
				decode(t, got[i][m.L3:])
			}
			checkFlags(t, spec, got, int(m.L3))
		})
	}
}

// checkFlags looks at FIN, PSH and CWR with gopacket's eyes.
func checkFlags(t *testing.T, spec packetSpec, got [][]byte, l3 int) {
	t.Helper()
	for i := range got {
		tcp, ok := decode(t, got[i][l3:]).TransportLayer().(*layers.TCP)
		if !ok {
			return
		}
		last := i == len(got)-1
		if tcp.FIN != (last && spec.flags&tcpFIN != 0) || tcp.PSH != (last && spec.flags&tcpPSH != 0) ||
			tcp.CWR != (i == 0 && spec.flags&tcpCWR != 0) || !tcp.ACK {
			t.Errorf("segment %d of %d has FIN %v, PSH %v, CWR %v, ACK %v", i, len(got), tcp.FIN, tcp.PSH, tcp.CWR, tcp.ACK)
		}
	}
}

func TestSuperpacketsThatCannotBeCut(t *testing.T) {
	spec := packetSpec{payload: 5000, gso: 1000}
	tests := map[string]struct {
		change func(p []byte, m *graph.Meta)
		mtu    int
		want   graph.Reason
	}{
		"segment size zero":            {func(_ []byte, m *graph.Meta) { m.GSOSize = 0 }, 1500, graph.TxOffload},
		"whole checksum":               {func(_ []byte, m *graph.Meta) { m.Flags = 0 }, 1500, graph.TxOffload},
		"transport header beyond":      {func(_ []byte, m *graph.Meta) { m.CsumStart = 60_000 }, 1500, graph.TxOffload},
		"transport header too early":   {func(_ []byte, m *graph.Meta) { m.CsumStart = 16 }, 1500, graph.TxOffload},
		"checksum field elsewhere":     {func(_ []byte, m *graph.Meta) { m.CsumOffset = 18 }, 1500, graph.TxOffload},
		"other family":                 {func(_ []byte, m *graph.Meta) { m.GSO = graph.GSOTCP6 }, 1500, graph.TxOffload},
		"other protocol":               {func(_ []byte, m *graph.Meta) { m.GSO = graph.GSOUDP }, 1500, graph.TxOffload},
		"fragment":                     {func(p []byte, _ *graph.Meta) { p[6] = 0x20 }, 1500, graph.TxOffload},
		"TCP header shorter than five": {func(p []byte, _ *graph.Meta) { p[32] = 0x40 }, 1500, graph.TxOffload},
		"TCP header beyond the packet": {func(p []byte, m *graph.Meta) { p[32] = 0xf0; m.Len, m.Head = 60, 60 }, 1500, graph.TxOffload},
		"version nine":                 {func(p []byte, _ *graph.Meta) { p[0] = 0x95 }, 1500, graph.TxOffload},
		"too many segments":            {func(_ []byte, m *graph.Meta) { m.GSOSize = 9 }, 1500, graph.TxOffload},
		"segments over the MTU":        {func(_ []byte, m *graph.Meta) {}, 1000, graph.TxOversize},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			io := testIO(t, 1024, 4)
			p, m := spec.build()
			tt.change(p, &m)
			k := m
			if _, ok := Wire(p[:k.Len], k); ok != (tt.want == graph.TxOversize) { // who looks on has no MTU
				t.Errorf("a wire carries it: %v", ok)
			}
			m = place(t, io, p, m, false)
			m.Len, m.Head = k.Len, k.Head
			out, r := lowered(t, io, tt.mtu, m)
			if r != tt.want || len(out) > 0 {
				t.Errorf("%d packets and reason %v, want %v", len(out), r, tt.want)
			}
		})
	}
}

func TestWireIsWhatAPortSends(t *testing.T) {
	specs := superpackets()
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, whole := range []bool{false, true} {
				specs[fmt.Sprintf("no superpacket, v6 %v, UDP %v, checksum complete %v", v6, udp, whole)] =
					packetSpec{v6: v6, udp: udp, whole: whole, payload: 1399, link: true}
			}
		}
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			io := testIO(t, 256, 4)
			p, m := spec.build()
			before := bytes.Clone(p)
			want, _ := lowered(t, io, 9000, place(t, io, p, m, false))
			got, ok := Wire(p, m)
			if !ok || !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("a wire has %d packets (%v) that are not the %d of a port", len(got), ok, len(want))
			}
			if !bytes.Equal(p, before) {
				t.Error("the packet has changed")
			}
		})
	}
}

func TestSegmentationWithoutFramesLosesNone(t *testing.T) {
	io := testIO(t, 64, 2)
	p, m := packetSpec{payload: 60_000, gso: 500}.build()
	if out, r := lowered(t, io, 1500, place(t, io, p, m, false)); r != graph.TxNoBuffer || len(out) > 0 {
		t.Errorf("%d packets and reason %v, want %v", len(out), r, graph.TxNoBuffer)
	}
}

func TestPartialChecksumsAreCompleted(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, size := range []int{1, 100, 1399, 1400, 7777, 8900} {
				for _, frames := range []bool{false, true} {
					io := testIO(t, 64, 2)
					p, m := packetSpec{v6: v6, udp: udp, payload: size, link: true}.build()
					out, r := lowered(t, io, 9000, place(t, io, p, m, frames))
					if r != graph.NoReason || len(out) != 1 {
						t.Fatalf("v6 %v, UDP %v, %d bytes: %d packets and reason %v", v6, udp, size, len(out), r)
					}
					decode(t, out[0][14:])
				}
			}
		}
	}
}

func TestUDPChecksumIsNeverWrittenAsZero(t *testing.T) {
	io := testIO(t, 64, 2)
	p, m := packetSpec{udp: true, payload: 2}.build()
	// Choose the payload so that the sum comes out as 0xffff, its complement as 0.
	at := len(p) - 2
	p[at], p[at+1] = 0, 0
	rest := ^plainFold(plainWords(p[20:]))
	p[at], p[at+1] = byte(rest>>8), byte(rest)
	out, _ := lowered(t, io, 1500, place(t, io, p, m, false))
	if sum := out[0][26:28]; !bytes.Equal(sum, []byte{0xff, 0xff}) {
		t.Errorf("checksum is %x, want ffff", sum)
	}
}

func FuzzSegment(f *testing.F) {
	for _, spec := range superpackets() {
		p, m := spec.build()
		f.Add(p[m.L3:min(len(p), int(m.L3)+600)], m.GSOSize, m.CsumStart-m.L3, m.CsumOffset, uint8(m.GSO))
	}
	f.Fuzz(func(t *testing.T, p []byte, size, start, offset uint16, kind uint8) {
		m := graph.Meta{
			Len: uint32(len(p)), Head: uint32(len(p)), Bufs: 1, Flags: graph.Partial,
			GSO: graph.GSOKind(kind%3 + 1), GSOSize: size, CsumStart: start, CsumOffset: offset,
		}
		Wire(p, m)
		whole := m
		whole.GSO = graph.GSONone
		Wire(p, whole)
		var s superpacket
		if len(p) > 1<<16 || !s.open(p, &m) || s.count() > 256 {
			return
		}
		// The oracle makes the pseudo-header sum anew: let the field agree with it.
		at := int(start) + int(offset)
		sum := plainFold(plainPseudo(p, len(p)-int(start), s.udp))
		p = bytes.Clone(p)
		p[at], p[at+1] = byte(sum>>8), byte(sum)
		s = superpacket{}
		if !s.open(p, &m) {
			t.Fatal("the checksum field decides whether a packet can be cut")
		}
		want := plainSegments(p, int(start), int(size), s.udp)
		if s.count() != len(want) {
			t.Fatalf("%d segments, want %d", s.count(), len(want))
		}
		for i := range want {
			head := make([]byte, len(s.head))
			got := append(head, s.segment(head, i)...)
			if !bytes.Equal(got, want[i]) {
				t.Fatalf("segment %d is\n%x, want\n%x", i, got, want[i])
			}
		}
	})
}

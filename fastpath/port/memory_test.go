package port

import (
	"bytes"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

func memoryPorts(t testing.TB, cfg MemoryConfig) (a, b *Memory) {
	t.Helper()
	cfg.Queues = 1
	var ports [2]*Memory
	for i := range ports {
		p, err := NewMemory(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(nil); err != nil {
				t.Error(err)
			}
		})
		ports[i] = p
	}
	return ports[0], ports[1]
}

func TestMemoryPortsThroughWorkers(t *testing.T) {
	a := newArena(t, 1024, 16)
	in, out := memoryPorts(t, MemoryConfig{Name: "memory", MTU: 9000})
	e := crossEngine(t, a, 1, in, out)
	time.Sleep(20 * time.Millisecond) // let the worker fall asleep: Inject wakes it
	var sent [][]byte
	for i := range 500 {
		sent = append(sent, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 20+i*8))
	}
	in.Inject(0, sent...)
	var got []Packet
	eventually(t, "all packets", func() bool {
		got = append(got, out.Collect(0)...)
		return len(got) >= len(sent)
	})
	for i := range got {
		if !bytes.Equal(got[i].Bytes, sent[i]) {
			t.Fatalf("packet %d has %d bytes, %d were sent", i, len(got[i].Bytes), len(sent[i]))
		}
	}
	e.Stop()
	if c := e.Total(); c.Rx != 500 || c.Tx != 500 {
		t.Errorf("received %d, transmitted %d, want 500", c.Rx, c.Tx)
	}
}

func TestMemoryPortWithOffloadTakesSuperpacketsWhole(t *testing.T) {
	io := testIO(t, 64, 4)
	in, out := memoryPorts(t, MemoryConfig{Name: "memory", MTU: 1500, Offload: true})
	for name, spec := range superpackets() {
		p, m := spec.build()
		in.InjectPackets(0, Packet{p, m})
		ms := make([]graph.Meta, 4)
		if n := in.Queues()[0].RxBurst(io, ms); n != 1 {
			t.Fatalf("%s: received %d packets", name, n)
		}
		if n := out.Queues()[0].TxBurst(io, graph.NewVector(ms[0])); n != 0 {
			t.Fatalf("%s: refused", name)
		}
		got := out.Collect(0)
		if len(got) != 1 || !bytes.Equal(got[0].Bytes, p) || got[0].Meta.GSO != m.GSO || got[0].Meta.Segments != m.Segments {
			t.Errorf("%s: %d packets came out", name, len(got))
		}
	}
}

func TestMemoryPortThatIsFull(t *testing.T) {
	for _, offload := range []bool{false, true} {
		io := testIO(t, 64, 4)
		p, _ := memoryPorts(t, MemoryConfig{Name: "memory", MTU: 1500, Limit: 2, Offload: offload})
		var ms []graph.Meta
		for range 3 {
			b, k := packetSpec{payload: 9, whole: true}.build()
			ms = append(ms, place(t, io, b, k, true))
		}
		v := graph.NewVector(ms...)
		if n := p.Queues()[0].TxBurst(io, v); n != 1 || v.Meta(2).Reason != graph.TxFull {
			t.Errorf("%d refused, the last for %v", n, v.Meta(2).Reason)
		}
		io.Free(v.Meta(2))
	}
}

// BenchmarkSegment cuts a superpacket of 64 KiB into frames.
func BenchmarkSegment(b *testing.B) {
	io := testIO(b, 1024, 4)
	p, m := packetSpec{payload: 65_000, gso: 1448, options: timestamps()}.build()
	base := place(b, io, p, m, false)
	var l lowering
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		m := base
		m.Buf, _ = io.Cache.Super()
		m.Off = io.Arena.Start(m.Buf) + 256
		copy(io.Mem[m.Off:m.Off+60], p) // headers; the payload is what it was
		l.n = 0
		if r := l.lower(io, &m, maxCut, 1500); r != graph.NoReason {
			b.Fatal(r)
		}
		for _, d := range l.out[:l.n] {
			io.Cache.Free(umem.FrameAt(d.Addr))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*45), "ns/segment")
	io.Free(&base)
}

// BenchmarkGRO sorts and verifies a vector of segments, without the write.
func BenchmarkGRO(b *testing.B) {
	io := testIO(b, 1024, 4)
	var ms []graph.Meta
	for i := range 44 {
		p, _ := packetSpec{payload: 1448, options: timestamps(), whole: true, seq: uint32(i) * 1448, id: uint16(i)}.build()
		ms = append(ms, place(b, io, p, graph.Meta{}, true))
	}
	v := graph.NewVector(ms...)
	var g groTable
	b.ReportAllocs()
	for b.Loop() {
		g.reset()
		var t *train
		for i := range ms {
			var s segment
			s.read(io, v.Meta(i))
			if t == nil {
				t = g.free()
				g.start(t, &s, i)
			} else if !g.extend(io, v, t, &s, i) {
				b.Fatal("not extended")
			}
		}
		t.count = 0
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*44), "ns/segment")
	for i := range ms {
		io.Free(&ms[i])
	}
}

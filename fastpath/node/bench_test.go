package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

// ringQueue hands the same frames out again and again.
type ringQueue struct {
	metas []graph.Meta
	at    int
	burst int
	sent  int
}

func (q *ringQueue) RxBurst(_ *graph.IO, ms []graph.Meta) int {
	n := min(q.burst, len(ms))
	for i := range ms[:n] {
		ms[i] = q.metas[(q.at+i)&(len(q.metas)-1)]
	}
	q.at += n
	return n
}

func (q *ringQueue) TxBurst(_ *graph.IO, v *graph.Vector) int { q.sent += v.Len(); return 0 }
func (q *ringQueue) Poll(*graph.IO) bool                      { return false }
func (q *ringQueue) FD() int                                  { return -1 }
func (q *ringQueue) InMemory() bool                           { return true }

type benchGraph struct {
	e     *graph.Engine
	arena *umem.Arena
	q     *ringQueue
	heads [][]byte
}

func newBenchGraph(b *testing.B, frames, burst int, ipv6 bool, color bool) *benchGraph {
	arena, err := umem.New(umem.Config{Frames: frames + 64, Caches: 2})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = arena.Close() })
	t := NewTables()
	g, err := graph.Build(Specs(t)...)
	if err != nil {
		b.Fatal(err)
	}
	e, err := graph.NewEngine(g, arena, graph.Config{Workers: 1, Burst: graph.VectorMax})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Stop)
	mac := MAC{2, 0, 0, 0, 0, 1}
	t.Publish(&State{HostPort: graph.NoPort, Ports: []Port{
		{Flags: L2, MTU: 1500, Main: 0, MAC: mac}, {Flags: L2, MTU: 1500, Main: 1, MAC: mac},
	}})
	a := fib.Adjacency{Kind: fib.Rewrite, Port: 1, MTU: 1500, HeaderLen: 14}
	copy(a.Header[:], mac[:]) // so that the frame may come in again
	copy(a.Header[6:], mac[:])
	a.Header[12], a.Header[13] = 8, 0
	if ipv6 {
		a.Header[12], a.Header[13] = 0x86, 0xdd
	}
	_ = t.FIB.SetAdjacency(1, a)
	_ = t.FIB.SetNextHop(1, []fib.Member{{Adjacency: 1, Weight: 1}})
	_ = t.FIB.SetRoute(netip.MustParsePrefix("20.0.0.0/8"), 1)
	_ = t.FIB.SetRoute(netip.MustParsePrefix("2001:db8::/32"), 1)
	bg := &benchGraph{e: e, arena: arena, q: &ringQueue{burst: burst}}
	bg.fill(frames, ipv6, color)
	for i := range 2 {
		q := graph.Queue(&ringQueue{})
		if i == 0 {
			q = bg.q
		}
		if i == 1 {
			q = bg.q2()
		}
		if err := e.AddPort(context.Background(), graph.Port{Index: uint16(i), Name: fmt.Sprint(i), Entry: EntryL2, Queues: []graph.Queue{q}}); err != nil {
			b.Fatal(err)
		}
	}
	return bg
}

// fill makes the frames that come in, each to a destination of its own. With
// color their headers do not all lie on the same cache sets.
func (bg *benchGraph) fill(frames int, ipv6, color bool) {
	mac, peer := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	for i := range frames {
		off := bg.arena.Start(umem.Buf(i)) + umem.Headroom
		if color {
			off += uint32(i%16) * 64
		}
		f := bg.arena.Bytes()[off : off+64]
		copy(f, mac[:])
		copy(f[6:], peer[:])
		if ipv6 {
			f[12], f[13] = 0x86, 0xdd
			src, dst := netip.MustParseAddr("2001:db8:1::1").As16(), netip.MustParseAddr("2001:db8:2::").As16()
			binary.BigEndian.PutUint32(dst[12:], uint32(i))
			putIPv6(f[14:], 17, 255, src[:], dst[:], 10)
			binary.BigEndian.PutUint16(f[58:], 10)
		} else {
			f[12], f[13] = 8, 0
			putIPv4(f[14:], 17, []byte{10, 0, 0, byte(i)}, []byte{20, byte(i >> 16), byte(i >> 8), byte(i)}, 30)
			f[22] = 255
			f[24], f[25] = 0, 0
			binary.BigEndian.PutUint16(f[24:], ^pkt.Fold(pkt.Sum(f[14:34])))
			binary.BigEndian.PutUint16(f[38:], 30)
		}
		bg.heads = append(bg.heads, append([]byte(nil), f...))
		bg.q.metas = append(bg.q.metas, graph.Meta{Off: off, Len: 64, Head: 64, Buf: umem.Buf(i), Bufs: 1, Segments: 1})
	}
}

func (bg *benchGraph) q2() graph.Queue {
	return &ringQueue{metas: bg.q.metas[:1]}
}

func (bg *benchGraph) restore() {
	for i, m := range bg.q.metas {
		copy(bg.arena.Bytes()[m.Off:], bg.heads[i])
	}
}

func BenchmarkForward(b *testing.B) {
	for _, ipv6 := range []bool{false, true} {
		for _, frames := range []int{1024, 16384} {
			for _, burst := range []int{1, 8, 32, 64, 128, 256} {
				for _, color := range []bool{false, true} {
					b.Run(fmt.Sprintf("ipv6=%v/frames=%d/vec=%d/color=%v", ipv6, frames, burst, color), func(b *testing.B) {
						bg := newBenchGraph(b, frames, burst, ipv6, color)
						rounds := 0
						b.ReportAllocs()
						bg.e.Step()
						if c := bg.e.Total(); c.Tx == 0 {
							b.Fatalf("%+v", c)
						}
						for b.Loop() {
							bg.e.Step()
							rounds++
							if rounds*burst >= 200*frames {
								b.StopTimer()
								bg.restore()
								rounds = 0
								b.StartTimer()
							}
						}
						c := bg.e.Total()
						if c.Dropped() != 0 {
							b.Fatalf("sent %d of %d: %+v", c.Tx, b.N*burst, c)
						}
						b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/pkt")
					})
				}
			}
		}
	}
}

package port

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// cross sends what came in by port 0 out by port 1, and the other way round.
type cross struct{}

func (cross) Process(_ *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		v.Meta(i).OutPort = 1 - v.Meta(i).InPort
		next[i] = 1
	}
}

// crossEngine runs workers that join two ports.
func crossEngine(t testing.TB, a *umem.Arena, workers int, ports ...Port) *graph.Engine {
	t.Helper()
	g, err := graph.Build(graph.Spec{Name: "cross", Edges: []string{graph.DropName, graph.TxName}, New: func(int) graph.Node { return cross{} }})
	if err != nil {
		t.Fatal(err)
	}
	e, err := graph.NewEngine(g, a, graph.Config{Workers: workers, Spin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	t.Cleanup(e.Stop)
	for i, p := range ports {
		if err := e.AddPort(context.Background(), graph.Port{Index: uint16(i), Name: p.Name(), Entry: "cross", Queues: p.Queues()}); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// cpuTime is what this process has used of all cores.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestWorkersCarryTrafficBetweenTUNs(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			a := newArena(t, 4096, 128)
			left, right, l, r := twoTUNs(t, a, 2, 1500)
			e := crossEngine(t, a, workers, l, r)
			for _, addr := range []string{"10.91.0.2", "fd91::2"} {
				left.exec("ping", "-c", "2", "-i", "0.05", "-W", "2", addr)
				iperf(t, left, right, addr, "-n", "30M", "-P", "4")
			}
			right.ip("link del mg0") // under the workers' feet
			_ = left.command("ping", "-c", "3", "-i", "0.05", "-W", "1", "10.91.0.2").Run()
			eventually(t, "the workers to sleep though a device is gone", func() bool {
				before := cpuTime(t)
				time.Sleep(100 * time.Millisecond)
				return cpuTime(t)-before < 20*time.Millisecond
			})
			e.Stop()
			c := e.Total()
			if c.In() != c.Out() || c.Tx < 30_000 {
				t.Errorf("%d in, %d out, %d transmitted", c.In(), c.Out(), c.Tx)
			}
			if c.Drops[graph.TxDown] == 0 {
				t.Errorf("nothing was refused by the device that is gone: %v", c.Drops)
			}
		})
	}
}

// BenchmarkTUNPair is TCP from pod to pod through workers, as iperf3 sees it,
// and what the forwarder pays for it.
func BenchmarkTUNPair(b *testing.B) {
	for _, streams := range []string{"1", "8"} {
		b.Run("streams="+streams, func(b *testing.B) {
			a := newArena(b, 4096, 256)
			left, right, l, r := twoTUNs(b, a, 1, 1500)
			crossEngine(b, a, 1, l, r)
			var rate float64
			start := cpuTime(b)
			for b.Loop() {
				rate += iperf(b, left, right, "10.91.0.2", "-n", "4G", "-P", streams)
			}
			b.ReportMetric(rate/float64(b.N)/1e9, "Gbit/s")
			b.ReportMetric((cpuTime(b)-start).Seconds()/float64(b.N)/4.3, "CPU-s/GB")
		})
	}
}

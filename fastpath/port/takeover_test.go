package port

import (
	"context"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// joint carries packets between a TUN port, 0, and an AF_XDP port, 1.
type joint struct{ lab *vethLab }

func (j joint) Process(_ *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		m.OutPort = 1 - m.InPort
		if next[i] = 1; m.InPort == 0 {
			j.lab.addLink(m)
		} else if !j.lab.dropLink(m) {
			m.Reason, next[i] = graph.EthType, graph.Drop
		}
	}
}

// successor is an engine over both ports that goes on from what was carried.
func successor(t testing.TB, a *umem.Arena, lab *vethLab, carried graph.Carried, ports ...Port) *graph.Engine {
	t.Helper()
	g, err := graph.Build(graph.Spec{Name: "joint", Edges: []string{graph.DropName, graph.TxName}, New: func(int) graph.Node { return joint{lab} }})
	if err != nil {
		t.Fatal(err)
	}
	e, err := graph.NewEngine(g, a, graph.Config{Workers: 1, Spin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	for i, p := range ports {
		if err := e.AddPort(context.Background(), graph.Port{Index: uint16(i), Name: p.Name(), Entry: "joint", Queues: p.Queues()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Adopt(carried); err != nil {
		t.Fatal(err)
	}
	return e
}

// Engines take over from each other while TCP runs through TUN and AF_XDP queues
// of the kernel. Nothing is lost in between, no frame is, and the last one's
// account is that of all of them:
//
//	pod 10.91.0.1 ── mg0 ┤ engines ├ XSK ═ eth0 ── 10.91.0.2 kernel
func TestEnginesTakeOverKernelQueues(t *testing.T) {
	needRoot(t)
	a := newArena(t, 8192, 64)
	l := newVethLab(t, a, 1500)
	pod := newNetns(t)
	tun := pod.openTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: 1500}, a)
	pod.up("mg0", "10.91.0.1/24", "fd91::1/64")
	e := successor(t, a, l, graph.Carried{Workers: make([]graph.CarriedWorker, 1)}, tun, l.port)
	e.Start()
	for _, addr := range []string{"10.91.0.2", "fd91::2"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			transfer(t, pod, l.kernel, addr, 8<<20)
		}()
		for running, turns := true, 0; running || turns < 20; turns++ {
			e = takeOver(t, e, func(c graph.Carried) *graph.Engine { return successor(t, a, l, c, tun, l.port) })
			select {
			case <-done:
				running = false
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	e.Stop()
	c := e.Total()
	if c.In() != c.Out() || c.Tx < 16<<20/1500 {
		t.Errorf("%d in, %d out, %d transmitted", c.In(), c.Out(), c.Tx)
	}
	for r, n := range c.Drops {
		if n > 0 && graph.Reason(r) != graph.EthType && graph.Reason(r) != graph.TxFull {
			t.Errorf("%d packets were dropped for %s", n, graph.Reason(r))
		}
	}
}

// takeOver halts e, and starts what next makes of what it carries.
func takeOver(t testing.TB, e *graph.Engine, next func(graph.Carried) *graph.Engine) *graph.Engine {
	t.Helper()
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, err := e.Carry()
	if err != nil {
		t.Fatal(err)
	}
	e.Stop()
	e = next(c)
	e.Start()
	return e
}

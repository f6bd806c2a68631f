// Package planetest runs a whole dataplane on ports in process, for tests of
// what stands around it.
package planetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Bench is a dataplane whose ports are all in memory, a queue for each worker.
type Bench struct {
	*plane.Plane
	t     testing.TB
	ports memory
	gen   uint64
}

// memory opens ports in process.
type memory struct{ byName sync.Map } // of *port.Memory

// New starts a dataplane that stops with the test. Where cfg says nothing, it
// has few frames and no log.
func New(t testing.TB, cfg plane.Config) *Bench {
	t.Helper()
	hostnettest.NeedRoot(t)
	b := &Bench{t: t}
	cfg.Frames, cfg.Supers, cfg.Log, cfg.Opener = max(cfg.Frames, 1024), max(cfg.Supers, 16), slog.New(slog.DiscardHandler), &b.ports
	var err error
	if b.Plane, err = plane.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Open makes a port in memory for the dataplane.
func (o *memory) Open(want *desired.Port, _ *hostnet.Host, workers int, _ plane.SteeringSource) (*plane.Device, error) {
	m, err := port.NewMemory(port.MemoryConfig{Name: want.Name, Queues: workers, MTU: 1500, Offload: true})
	if err != nil {
		return nil, err
	}
	o.byName.Store(want.Name, m)
	return &plane.Device{Port: m, GSO: true, Mode: "memory", Carrier: true}, nil
}

// Port is the other side of a port, which is to be there.
func (b *Bench) Port(name string) *port.Memory {
	b.t.Helper()
	m, ok := b.ports.byName.Load(name)
	if !ok {
		b.t.Fatalf("no port is called %s", name)
	}
	return m.(*port.Memory)
}

// Snapshot puts a whole state in force.
func (b *Bench) Snapshot(m *pb.Chunk) { b.t.Helper(); b.put(m, true) }

// Delta changes the state in force.
func (b *Bench) Delta(m *pb.Chunk) { b.t.Helper(); b.put(m, false) }

func (b *Bench) put(m *pb.Chunk, snapshot bool) {
	b.t.Helper()
	c := desired.NewChange()
	c.Add(m)
	b.gen++
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	faults, err := b.Apply(ctx, b.gen, c, snapshot)
	if faults != nil || err != nil {
		b.t.Fatalf("apply a state, or a change of it: %v, %v", faults, err)
	}
}

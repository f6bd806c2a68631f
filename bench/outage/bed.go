package outage

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/load"
)

const (
	topology = `
pools: [10.85.0.0/16, "fd85::/48"]
nodes: [{name: near}]
pods:
  - {name: a, node: near, addresses: [10.85.0.10, "fd85::10"]}
  - {name: b, node: near, port: xsk, addresses: [10.85.0.20, "fd85::20"]}
`
	node = "near"

	rate     = 2000       // datagrams a second on each of four paths
	size     = 200        // bytes of payload
	trickle  = 500 * 1000 // bytes a second of each connection
	noLimit  = 24 * time.Hour
	patience = 30 * time.Second
	settle   = 250 * time.Millisecond
	arrival  = 10 * time.Millisecond // for datagrams on their way, before they are counted to tell how it goes
	farewell = 10 * time.Second      // for what connections have on their way at the end
	sayEvery = 2 * time.Second

	// stillness is how long, in milliseconds, the control may deliver nothing: what
	// the kernel forwards waits then, and what a process forwards may be lost.
	stillness = 50
)

// bed is two pairs of pods.
type bed struct {
	lab       *lab.Lab
	routed    *stage.Routed
	forwarder string        // the program
	patience  time.Duration // until traffic flows again
}

func raise(ctx context.Context, forwarder string) (*bed, error) {
	l, err := stage.Raise(ctx, "outage", topology, forwarder)
	if err != nil {
		return nil, err
	}
	r, err := stage.Route(2)
	if err != nil {
		_ = l.Down() // a later run clears what is left
		return nil, fmt.Errorf("raise the control: %w", err)
	}
	return &bed{l, r, forwarder, patience}, nil
}

func (b *bed) close() {
	b.routed.Close()
	_ = b.lab.Down() // a later run clears what is left
}

// both are the paths between two places, there and back in both families.
func both(a, b *hostnet.Namespace, addr func(end int, six bool) netip.Addr) (out []load.Path) {
	for _, six := range []bool{false, true} {
		out = append(out, load.Path{From: a, To: b, Source: addr(0, six), Target: addr(1, six)},
			load.Path{From: b, To: a, Source: addr(1, six), Target: addr(0, six)})
	}
	return out
}

// ours are the paths by the forwarder.
func (b *bed) ours() ([]load.Path, error) {
	names := [2]string{"a", "b"}
	from, err := b.lab.Namespace(names[0])
	if err != nil {
		return nil, err
	}
	to, err := b.lab.Namespace(names[1])
	if err != nil {
		return nil, err
	}
	return both(from, to, func(end int, six bool) netip.Addr {
		addr, _ := b.lab.Topology().Pod(names[end]).Addr(six) // the topology above has both
		return addr
	}), nil
}

// traffic is the load of one pair of pods.
type traffic struct {
	datagrams   *load.Steady
	connections *load.Connections
	patience    time.Duration
}

func startTraffic(ctx context.Context, paths []load.Path, patience time.Duration) (t traffic, err error) {
	t.patience = patience
	if t.connections, err = load.StartConnections(ctx, paths, trickle); err != nil {
		return t, err
	}
	if t.datagrams, err = load.StartSteady(paths, rate, size); err != nil {
		t.connections.Stop(0)
	}
	return t, err
}

// flows waits until every path delivers again.
func (t traffic) flows(ctx context.Context) error {
	ctx, cancel := t.patiently(ctx)
	defer cancel()
	return t.datagrams.Await(ctx)
}

// resumes waits until every connection goes on.
func (t traffic) resumes(ctx context.Context) error {
	ctx, cancel := t.patiently(ctx)
	defer cancel()
	return t.connections.Await(ctx)
}

func (t traffic) patiently(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.patience, fmt.Errorf("not within %v", t.patience))
}

// stop ends it, and waits at most so long for what connections have on their way.
func (t traffic) stop(wait time.Duration) load.Lived {
	lived := t.connections.Stop(wait)
	t.datagrams.Stop()
	return lived
}

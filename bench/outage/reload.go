package outage

import (
	"context"
	"encoding/binary"
	"net/netip"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/internal/lab"
)

const (
	manyRoutes = 10_000
	firstHop   = 100 // ids of next hops that the lab does not use, from here
)

// Reload is reload.
func Reload() harness.Scenario {
	return scenario("reload", "what pods lose while the forwarder is sent its state again, 10,000 other routes, or other routes to these pods", 100, 10, reloads)
}

func reloads() []trial {
	none := map[string]float64{packetsLost: 0, resets: 0}
	return []trial{
		{"same-snapshot", none, sameSnapshot},
		{"other-routes=10000", none, otherRoutes},
		{"routes-in-use", none, routesInUse},
	}
}

// session is the client of this process, with the node's state in force.
func session(ctx context.Context, l *lab.Lab) (*dataplane.Stream, dataplane.State, error) {
	state, err := l.Desired(node)
	if err != nil {
		return nil, state, err
	}
	if l.Stream(node) == nil {
		err = l.Feed(ctx, node)
	}
	return l.Stream(node), state, err
}

// sameSnapshot sends the whole state again.
func sameSnapshot(ctx context.Context, b *bed) (func(context.Context, int) error, func(), error) {
	stream, state, err := session(ctx, b.lab)
	happen := func(ctx context.Context, _ int) error {
		_, err := stream.Apply(ctx, state)
		return err
	}
	return happen, func() {}, err
}

// change sends a delta and waits until it is in force.
func change(ctx context.Context, stream *dataplane.Stream, d dataplane.Delta) error {
	sent, err := stream.SendDelta(ctx, d)
	if err != nil {
		return err
	}
	return sent.Wait(ctx)
}

// otherRoutes adds routes that nobody uses, and removes them the next time.
func otherRoutes(ctx context.Context, b *bed) (func(context.Context, int) error, func(), error) {
	stream, state, err := session(ctx, b.lab)
	if err != nil {
		return nil, nil, err
	}
	add := dataplane.Delta{}
	add.Set.NextHops = []*v1.NextHop{forward(firstHop, state.Endpoints[0], "")}
	remove := dataplane.Delta{}
	for i := range uint32(manyRoutes / 2) {
		var four [4]byte
		six := [16]byte{0: 0xfd, 1: 0x86}
		binary.BigEndian.PutUint32(four[:], 0x0a60_0000+i*16) // 10.96.0.0 and on
		binary.BigEndian.PutUint32(six[4:], i)
		for _, p := range []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(four), 28), netip.PrefixFrom(netip.AddrFrom16(six), 64)} {
			add.Set.Routes = append(add.Set.Routes, dataplane.Route{Prefix: p, NextHop: firstHop})
			remove.RemovedRoutes = append(remove.RemovedRoutes, p)
		}
	}
	happen := func(ctx context.Context, i int) error {
		if i%2 == 0 {
			return change(ctx, stream, add)
		}
		return change(ctx, stream, remove)
	}
	return happen, restore(ctx, stream, state), nil
}

// forward is a next hop to an endpoint, by a gateway where one is needed.
func forward(id uint32, e *v1.Endpoint, gateway string) *v1.NextHop {
	m := &v1.NextHop_Member{Port: e.GetPort(), Gateway: gateway, Mac: e.GetMac()}
	return &v1.NextHop{Id: id, Kind: v1.NextHop_KIND_FORWARD, Members: []*v1.NextHop_Member{m}}
}

// restore makes the node's own state the one in force again.
func restore(ctx context.Context, stream *dataplane.Stream, state dataplane.State) func() {
	return func() { _, _ = stream.Apply(ctx, state) } // what breaks here breaks the next trial, which says so
}

// routesInUse changes the routes by which the pods' packets go, in turn: to one
// next hop, to another of the same effect, and away, so that the endpoint's wider
// prefix leads to the pod. A packet finds one of them at every moment.
func routesInUse(ctx context.Context, b *bed) (func(context.Context, int) error, func(), error) {
	stream, state, err := session(ctx, b.lab)
	if err != nil {
		return nil, nil, err
	}
	wide, err := b.lab.Desired(node)
	if err != nil {
		return nil, nil, err
	}
	var turns [3]dataplane.Delta
	id := uint32(firstHop)
	for _, e := range wide.Endpoints {
		for i, text := range e.Addresses {
			one, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, nil, err
			}
			e.Addresses[i] = netip.PrefixFrom(one.Addr(), one.Bits()-1).Masked().String()
			for n := range 2 {
				wide.NextHops = append(wide.NextHops, forward(id, e, one.Addr().String()))
				turns[n].Set.Routes = append(turns[n].Set.Routes, dataplane.Route{Prefix: one, NextHop: id})
				id++
			}
			turns[2].RemovedRoutes = append(turns[2].RemovedRoutes, one)
		}
	}
	if _, err := stream.Apply(ctx, wide); err != nil {
		return nil, nil, err
	}
	happen := func(ctx context.Context, i int) error { return change(ctx, stream, turns[i%len(turns)]) }
	return happen, restore(ctx, stream, state), nil
}

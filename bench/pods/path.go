package pods

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
)

// path is a way from a client's namespace to a server's.
type path struct {
	client, server *hostnet.Namespace
	addr           netip.Addr // of the server
	// cpu is what processes between the two have taken; nil where the kernel
	// does it all, in the time of those who send and receive.
	cpu   func() (time.Duration, error)
	close func()
}

// oursPath is a forwarder, the real process, between two pods.
func oursPath(ctx context.Context, forwarder string) (*path, error) {
	all, err := oursPairs(ctx, forwarder, 1, 1)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// topology is a node with pairs of pods, which talk by so many workers.
func topology(pairs, workers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pools: [10.78.0.0/16]\nnodes: [{name: near, workers: %d}]\npods:\n", workers)
	for i := range pairs {
		fmt.Fprintf(&b, "  - {name: a%d, node: near, addresses: [10.78.1.%d]}\n", i, i+1)
		fmt.Fprintf(&b, "  - {name: b%d, node: near, addresses: [10.78.2.%d]}\n", i, i+1)
	}
	return b.String()
}

// oursPairs is one forwarder between pairs of pods. Closing one path closes all.
func oursPairs(ctx context.Context, forwarder string, pairs, workers int) (all []*path, err error) {
	l, err := stage.Raise(ctx, "tcp", topology(pairs, workers), forwarder)
	if err != nil {
		return nil, err
	}
	down := func() { _ = l.Down() } // a later run clears what is left
	for i := range pairs {
		p := &path{addr: netip.AddrFrom4([4]byte{10, 78, 2, byte(i + 1)}), close: down}
		p.cpu = func() (time.Duration, error) { return stage.CPU(l.PID("near")) }
		if p.client, err = l.Namespace(fmt.Sprintf("a%d", i)); err == nil {
			p.server, err = l.Namespace(fmt.Sprintf("b%d", i))
		}
		if err != nil {
			down()
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// pumpPath is two TUN devices and nothing between them.
func pumpPath() (_ *path, err error) {
	var s stage.Spaces
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.Make(2); err != nil {
		return nil, err
	}
	pump, err := newPump(s[0], s[1])
	if err != nil {
		return nil, err
	}
	p := &path{client: s[0], server: s[1], addr: netip.MustParseAddr("10.9.0.2"), cpu: pump.cpu}
	p.close = func() { pump.close(); s.Close() }
	for i, addr := range []string{"10.9.0.1/24", "10.9.0.2/24"} {
		if err := stage.Settle(s[i], device, []netip.Prefix{netip.MustParsePrefix(addr)}); err != nil {
			pump.close()
			return nil, err
		}
	}
	return p, nil
}

// kernelPath is two veth pairs and a namespace that routes between them.
func kernelPath() (*path, error) {
	all, err := kernelPairs(1)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// kernelPairs is a namespace that routes between pairs of others, at the ends of
// veth pairs. Closing one path closes all.
func kernelPairs(pairs int) (all []*path, err error) {
	r, err := stage.Route(2 * pairs)
	if err != nil {
		return nil, err
	}
	for i := range pairs {
		all = append(all, &path{client: r.Ends[2*i], server: r.Ends[2*i+1], addr: r.Addr(2*i+1, false), close: r.Close})
	}
	return all, nil
}

package pods

import (
	"context"
	"fmt"
	"net/netip"

	"margay.dev/margay/bench/stage"
)

// oursPath is a forwarder, the real process, between two pods.
func oursPath(ctx context.Context, forwarder string) (*stage.Path, error) {
	return first(stage.OursPairs(ctx, "tcp", forwarder, 1, 1))
}

// kernelPath is two veth pairs and a namespace that routes between them.
func kernelPath(context.Context) (*stage.Path, error) { return first(stage.KernelPairs(1)) }

func first(all []*stage.Path, err error) (*stage.Path, error) {
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// pumpPath is two TUN devices and nothing between them.
func pumpPath(context.Context) (*stage.Path, error) {
	var s stage.Spaces
	if err := s.Make(2); err != nil {
		s.Close()
		return nil, err
	}
	pump, err := newPump(s[0], s[1])
	if err != nil {
		s.Close()
		return nil, err
	}
	p := &stage.Path{
		Client: s[0], Server: s[1], V4: netip.MustParseAddr("10.9.0.2"), V6: netip.MustParseAddr("fd09::2"),
		CPU: pump.cpu, Close: func() { pump.close(); s.Close() },
	}
	for i, ns := range s {
		err := stage.Settle(ns, stage.Device, []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.9.0.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd09::%d/64", i+1)),
		})
		if err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

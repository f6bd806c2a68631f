package plane

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/hostnet"
)

// devices opens real ones.
type devices struct {
	arena *umem.Arena
	cache *umem.Cache
	log   *slog.Logger
	xsk   xskMemory
}

const defaultMTU = 1500

// Open opens the device of a port in the namespace that host works in.
func (d *devices) Open(want *desired.Port, host *hostnet.Host, workers int, steering SteeringSource) (*Device, error) {
	if want.Kind == desired.TUN {
		t, err := openTUN(want, host, workers)
		if err != nil {
			return nil, err
		}
		return d.dress(t, want, host)
	}
	return d.openXSK(want, host, steering)
}

// openTUN makes or takes up the device, without addresses and down.
func openTUN(want *desired.Port, host *hostnet.Host, workers int) (*port.TUN, error) {
	mtu := want.MTU
	if mtu == 0 {
		mtu = defaultMTU
		if l, err := host.Link(want.Device); err == nil {
			mtu = l.MTU
		}
	}
	queues := want.Queues
	if queues == 0 {
		queues = workers
	}
	return port.OpenTUN(port.TUNConfig{
		Name: want.Device, Queues: queues, MTU: mtu, Inside: host.Namespace().Do, Persist: want.Keep,
	})
}

// dress gives an open TUN device its addresses and routes and brings it up.
func (d *devices) dress(t *port.TUN, want *desired.Port, host *hostnet.Host) (*Device, error) {
	if err := dressTUN(host, want, false); err != nil {
		return nil, errors.Join(err, t.Close(d.cache))
	}
	return deviceOf(t, host)
}

func deviceOf(t *port.TUN, host *hostnet.Host) (*Device, error) {
	l, err := host.Link(t.Name())
	if err != nil {
		return nil, err
	}
	mode := "offloads"
	if len(t.Fallbacks()) > 0 {
		mode = "fewer offloads"
	}
	return &Device{Port: t, Index: l.Index, GSO: true, Mode: mode, Remove: t.Remove, Carrier: l.Up}, nil
}

// dressTUN brings a TUN device's addresses, state and routes to what is wanted.
// What it does not want of those it does not touch: the namespace has other
// users. The host port's own are journalled elsewhere.
func dressTUN(host *hostnet.Host, want *desired.Port, isHost bool) error {
	if isHost {
		return host.SetUp(want.Device)
	}
	l, err := host.Link(want.Device)
	if err != nil {
		return fmt.Errorf("find device of port %s: %w", want.Name, err)
	}
	if want.MTU != 0 && l.MTU != want.MTU {
		if err := host.SetMTU(want.Device, want.MTU); err != nil {
			return err
		}
	}
	have, err := host.Addresses(want.Device)
	if err != nil {
		return err
	}
	there := map[netip.Prefix]bool{}
	for _, a := range have {
		there[a.Prefix] = true
	}
	for _, a := range want.Addresses {
		if !there[a] {
			if err := host.AddAddress(want.Device, a, hostnet.NoDAD); err != nil {
				return err
			}
		}
	}
	if !l.Up {
		if err := host.SetUp(want.Device); err != nil {
			return err
		}
	}
	for _, dst := range want.Routes {
		if err := host.ReplaceRoute(hostnet.Route{Dst: dst, Link: l.Index, Scope: hostnet.ScopeLink}); err != nil {
			return err
		}
	}
	return nil
}

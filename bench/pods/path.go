package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
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

const topology = `
pools: [10.78.0.0/16]
nodes: [{name: near}]
pods:
  - {name: a, node: near, addresses: [10.78.0.10]}
  - {name: b, node: near, addresses: [10.78.0.11]}
`

// oursPath is a forwarder, the real process, between two pods.
func oursPath(ctx context.Context, forwarder string) (*path, error) {
	l, err := stage.Raise(ctx, "tcp", topology, forwarder)
	if err != nil {
		return nil, err
	}
	p := &path{addr: netip.MustParseAddr("10.78.0.11"), close: func() { _ = l.Down() }} // a later run clears what is left
	p.cpu = func() (time.Duration, error) { return stage.CPU(l.PID("near")) }
	if p.client, err = l.Namespace("a"); err == nil {
		p.server, err = l.Namespace("b")
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// pumpPath is two TUN devices and nothing between them.
func pumpPath() (_ *path, err error) {
	var s spaces
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.make(2); err != nil {
		return nil, err
	}
	pump, err := newPump(s[0], s[1])
	if err != nil {
		return nil, err
	}
	p := &path{client: s[0], server: s[1], addr: netip.MustParseAddr("10.9.0.2"), cpu: pump.cpu}
	p.close = func() { pump.close(); s.close() }
	for i, addr := range []string{"10.9.0.1/24", "10.9.0.2/24"} {
		if err := settle(s[i], device, addr, ""); err != nil {
			pump.close()
			return nil, err
		}
	}
	return p, nil
}

// kernelPath is two veth pairs and a namespace that routes between them.
func kernelPath() (_ *path, err error) {
	var s spaces
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.make(3); err != nil {
		return nil, err
	}
	node, err := hostnet.NewHost(s[2])
	if err != nil {
		return nil, err
	}
	defer node.Close()
	for i, name := range []string{"a", "b"} {
		if err := node.AddVeth(hostnet.VethConfig{Name: name, Peer: device, PeerNS: s[i]}); err != nil {
			return nil, err
		}
		net := 1 + i
		err := errors.Join(settle(s[2], name, fmt.Sprintf("10.9.%d.1/24", net), ""),
			settle(s[i], device, fmt.Sprintf("10.9.%d.2/24", net), fmt.Sprintf("10.9.%d.1", net)))
		if err != nil {
			return nil, err
		}
	}
	if err := s[2].SetSysctl("net.ipv4.ip_forward", "1"); err != nil {
		return nil, err
	}
	return &path{client: s[0], server: s[1], addr: netip.MustParseAddr("10.9.2.2"), close: s.close}, nil
}

// spaces are namespaces that go when they are closed, and with this process.
type spaces []*hostnet.Namespace

func (s *spaces) make(n int) error {
	for i := range n {
		name := fmt.Sprintf("margay-bench-%d-%d", os.Getpid(), i)
		ns, err := hostnet.CreateNamespace(name)
		if err != nil {
			return err
		}
		*s = append(*s, ns)
		if err := hostnet.DeleteNamespace(name); err != nil { // the open file keeps it
			return err
		}
	}
	return nil
}

func (s spaces) close() {
	for _, ns := range s {
		ns.Close()
	}
}

// settle gives a link an address, and its namespace a default route by gateway.
func settle(ns *hostnet.Namespace, link, addr, gateway string) error {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := errors.Join(h.AddAddress(link, netip.MustParsePrefix(addr), 0), h.SetUp(link), h.SetUp("lo")); err != nil {
		return err
	}
	if gateway == "" {
		return nil
	}
	return h.ReplaceRoute(hostnet.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(gateway)})
}

package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
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
	var s spaces
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.make(2*pairs + 1); err != nil {
		return nil, err
	}
	router := s[2*pairs]
	node, err := hostnet.NewHost(router)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	for i, ns := range s[:2*pairs] {
		name := fmt.Sprintf("pod%d", i)
		if err := node.AddVeth(hostnet.VethConfig{Name: name, Peer: device, PeerNS: ns}); err != nil {
			return nil, err
		}
		err := errors.Join(settle(router, name, fmt.Sprintf("10.9.%d.1/24", i), ""),
			settle(ns, device, fmt.Sprintf("10.9.%d.2/24", i), fmt.Sprintf("10.9.%d.1", i)))
		if err != nil {
			return nil, err
		}
	}
	for i := range pairs {
		all = append(all, &path{client: s[2*i], server: s[2*i+1], addr: netip.AddrFrom4([4]byte{10, 9, byte(2*i + 1), 2}), close: s.close})
	}
	return all, router.SetSysctl("net.ipv4.ip_forward", "1")
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

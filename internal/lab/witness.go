package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
)

// KernelForwardsNothing checks that a node's kernel cannot have carried a pod's
// packet: forwarding is off in both families, and no route to a pod stands but
// to the host port and the blackholes behind it.
func (l *Lab) KernelForwardsNothing(node string) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"} {
		if v, err := ns.Sysctl(key); err != nil || v != "0" {
			errs = append(errs, fmt.Errorf("%s is %q on node %s, want 0: %w", key, v, node, errOr(err)))
		}
	}
	err = with(ns, func(h *hostnet.Host) error {
		host, err := h.Link(hostDevice)
		if err != nil {
			return err
		}
		routes, err := h.Routes(hostnet.RouteFilter{Table: hostnet.TableMain})
		if err != nil {
			return err
		}
		for _, r := range routes {
			if l.leadsToPods(r.Dst) && r.Kind != hostnet.Blackhole && r.Link != host.Index {
				errs = append(errs, fmt.Errorf("node %s has a route to %v that is not the host port's", node, r.Dst))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

var errValue = errors.New("the kernel could forward")

func errOr(err error) error {
	if err == nil {
		return errValue
	}
	return err
}

// leadsToPods tells whether a route says where some pod is.
func (l *Lab) leadsToPods(dst netip.Prefix) bool {
	for _, p := range l.Topology().Pods {
		for _, a := range p.Addresses {
			if dst.Contains(a.Addr) {
				return true
			}
		}
	}
	return false
}

// Counters are what a node's forwarder has counted.
type Counters struct {
	Nodes   map[string]uint64 `json:"nodes"` // packets by node of the graph
	Ports   map[string]Port   `json:"ports"`
	Drops   map[string]uint64 `json:"drops"`
	Account *v1.Account       `json:"account"`
}

// Port is the counts of a port, in wire segments.
type Port struct {
	Kind  string `json:"kind"`
	Mode  string `json:"mode"`
	State string `json:"state"`
	Rx    uint64 `json:"rx_packets"`
	Tx    uint64 `json:"tx_packets"`
	Drops uint64 `json:"tx_drops"`
}

// Counters asks a node's forwarder what it has counted.
func (l *Lab) Counters(ctx context.Context, node string) (Counters, error) {
	c := Counters{Nodes: map[string]uint64{}, Ports: map[string]Port{}, Drops: map[string]uint64{}}
	inspect, err := l.Inspect(node)
	if err != nil {
		return c, err
	}
	nodes, err := inspect.ListNodes(ctx, &v1.ListNodesRequest{})
	if err != nil {
		return c, fmt.Errorf("ask %s's forwarder for its nodes: %w", node, err)
	}
	ports, err := inspect.ListPorts(ctx, &v1.ListPortsRequest{})
	if err != nil {
		return c, fmt.Errorf("ask %s's forwarder for its ports: %w", node, err)
	}
	drops, err := inspect.ListDrops(ctx, &v1.ListDropsRequest{})
	if err != nil {
		return c, fmt.Errorf("ask %s's forwarder for its drops: %w", node, err)
	}
	for _, n := range nodes.GetNodes() {
		c.Nodes[n.GetName()] = n.GetPackets()
	}
	for _, p := range ports.GetPorts() {
		c.Ports[p.GetName()] = Port{p.GetKind(), p.GetMode(), p.GetState(), p.GetRxPackets(), p.GetTxPackets(), p.GetTxDrops()}
	}
	for _, d := range drops.GetDrops() {
		c.Drops[d.GetReason()] = d.GetPackets()
	}
	c.Account = drops.GetAccount()
	return c, nil
}

// Balance checks the account: every segment that came in or was made went
// somewhere, and is counted there. Traffic must be at rest.
func (c Counters) Balance() error {
	a := c.Account
	in, out := a.GetRx(), a.GetTx()+a.GetPunt()+a.GetDropped()+a.GetHeld()
	for _, n := range a.GetMade() {
		in += n
	}
	for _, n := range a.GetConsumed() {
		out += n
	}
	if in != out {
		return fmt.Errorf("%d segments came in or were made, %d are accounted for: %v", in, out, a)
	}
	return nil
}

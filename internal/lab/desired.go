package lab

import (
	"fmt"
	"net/netip"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/dataplane"
)

const (
	hostDevice = "margay0" // of every node
	podDevice  = "eth0"    // of every pod
	punt       = 1         // the next hop that leads to the node itself
)

// DesiredState is what the forwarder of a node shall do, but for policy: its pods
// send and receive nothing. paths tells where a pod's namespace is, macs the
// Ethernet address of an XSK pod's eth0.
func (t *Topology) DesiredState(node string, paths func(pod string) string, macs map[string][]byte) dataplane.State {
	s := dataplane.State{
		NextHops: []*v1.NextHop{{Id: punt, Kind: v1.NextHop_KIND_PUNT}},
		HostPort: t.hostPort(node),
		Steering: &v1.Steering{Prefixes: t.pools()},
	}
	for i := range t.Pods {
		if p := &t.Pods[i]; p.Node == node {
			s.Ports = append(s.Ports, p.port(paths(p.Name)))
			s.Endpoints = append(s.Endpoints, p.unjudged(macs[p.Name]))
		}
	}
	for i := range t.Links {
		t.Links[i].at(node, &s)
	}
	t.remote(node, &s)
	return s
}

func (t *Topology) pools() (out []string) {
	for _, p := range t.Pools {
		out = append(out, p.String())
	}
	return out
}

func (t *Topology) hostPort(node string) *v1.HostPort {
	h := &v1.HostPort{Name: hostDevice, Guarded: t.pools(), Routes: t.pools()}
	for _, a := range t.Node(node).Addresses {
		h.Addresses = append(h.Addresses, a.String())
	}
	return h
}

// PortName is the pod's port in the forwarder.
func (p *Pod) PortName() string { return "pod-" + p.Name }

// PortName is the link's port in the forwarders of both its nodes.
func (l *Link) PortName() string { return "link-" + l.Name }

func (p *Pod) port(netns string) *v1.Port {
	out := &v1.Port{Name: p.PortName(), Mtu: uint32(p.MTU), Queues: uint32(p.Queues)}
	if p.Port == XSK {
		out.Device = p.nodeDevice()
		out.Kind = &v1.Port_Xsk{Xsk: &v1.XskPort{Takeover: true}}
		return out
	}
	tun := &v1.TunPort{Keep: true, Addresses: singles(p.Addresses)}
	for _, a := range p.Addresses {
		tun.Routes = append(tun.Routes, anywhere(a.Is6()).String())
	}
	out.Device, out.Netns, out.Kind = podDevice, netns, &v1.Port_Tun{Tun: tun}
	return out
}

func (p *Pod) nodeDevice() string { return "p-" + p.Name }

// at adds the link as a port of the node, and its prefixes as routes: so pods
// reach the nodes' own addresses too.
func (l *Link) at(node string, s *dataplane.State) {
	for i, e := range l.Ends {
		if e.Node != node {
			continue
		}
		s.Ports = append(s.Ports, &v1.Port{
			Name: l.PortName(), Device: e.Device, Mtu: uint32(l.MTU), Queues: uint32(l.Queues), Kind: &v1.Port_Xsk{Xsk: &v1.XskPort{}},
		})
		for _, a := range e.Addresses {
			s.Routes = append(s.Routes, dataplane.Route{Prefix: single(a.Addr()), NextHop: punt})
		}
		for _, a := range l.Ends[1-i].Addresses {
			s.Routes = append(s.Routes, dataplane.Route{Prefix: single(a.Addr()), NextHop: hop(s, l, a.Addr())})
		}
	}
}

// remote adds routes to the pods and host ports of other nodes.
func (t *Topology) remote(node string, s *dataplane.State) {
	lead := func(to string, addrs []Addr) {
		link, at := t.towards(node, to)
		if link == nil {
			return
		}
		for _, a := range addrs {
			if gw, ok := gateway(link, at, a.Is6()); ok {
				s.Routes = append(s.Routes, dataplane.Route{Prefix: single(a.Addr), NextHop: hop(s, link, gw)})
			}
		}
	}
	for _, p := range t.Pods {
		lead(p.Node, p.Addresses)
	}
	for _, n := range t.Nodes {
		lead(n.Name, n.Addresses)
	}
}

// hop finds or makes the next hop to a gateway on a link.
func hop(s *dataplane.State, l *Link, gateway netip.Addr) uint32 {
	for _, h := range s.NextHops {
		for _, m := range h.Members {
			if m.Port == l.PortName() && m.Gateway == gateway.String() {
				return h.Id
			}
		}
	}
	id := uint32(len(s.NextHops) + 1)
	s.NextHops = append(s.NextHops, &v1.NextHop{
		Id: id, Kind: v1.NextHop_KIND_FORWARD, Members: []*v1.NextHop_Member{{Port: l.PortName(), Gateway: gateway.String()}},
	})
	return id
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func singles(list []Addr) (out []string) {
	for _, a := range list {
		out = append(out, fmt.Sprint(single(a.Addr)))
	}
	return out
}

func anywhere(six bool) netip.Prefix {
	if six {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

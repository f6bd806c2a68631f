package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"margay.dev/margay/internal/hostnet"
)

// gateways are what pods behind a veth route by, on every node the same, as
// Calico does; the forwarder answers for them.
var gateways = [2]netip.Addr{netip.AddrFrom4([4]byte{169, 254, 1, 1}), netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})}

// makeLinks joins the nodes and gives AF_XDP pods their veth pairs.
func (l *Lab) makeLinks(ctx context.Context) error {
	t := l.Topology()
	for i := range t.Links {
		var err error
		if k := &t.Links[i]; k.Impairment == nil {
			err = l.join(k)
		} else {
			err = l.joinImpaired(ctx, k)
		}
		if err != nil {
			return fmt.Errorf("make link %s: %w", t.Links[i].Name, err)
		}
	}
	for i := range t.Pods {
		if p := &t.Pods[i]; p.Port == XSK {
			if err := l.connectPod(p); err != nil {
				return fmt.Errorf("make the veth pair of pod %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// join makes a plain link: one veth pair.
func (l *Lab) join(k *Link) error {
	a, b := k.Ends[0], k.Ends[1]
	err := with(l.spaces[a.Node], func(h *hostnet.Host) error {
		return h.AddVeth(hostnet.VethConfig{
			Name: a.Device, Peer: b.Device, PeerNS: l.spaces[b.Node], MTU: k.MTU,
			RxQueues: k.Queues, TxQueues: k.Queues, PeerRxQueues: k.Queues, PeerTxQueues: k.Queues,
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(l.dress(&a), l.dress(&b))
}

// dress readies a node's end of a link. Nobody else does: to the node it is a
// NIC like any other.
func (l *Lab) dress(e *End) error {
	return with(l.spaces[e.Node], func(h *hostnet.Host) error {
		if err := plain(h, e.Device); err != nil {
			return err
		}
		for _, p := range e.Addresses {
			if err := h.AddAddress(e.Device, p.Prefix, hostnet.NoDAD); err != nil {
				return err
			}
		}
		return h.SetUp(e.Device)
	})
}

// plain makes a veth end send what AF_XDP at the other can take: whole packets
// with whole checksums, which it cannot see to be partial.
func plain(h *hostnet.Host, device string) error { return h.SetOffload(device, "tx", false) }

// joinImpaired makes a link of two veth pairs, whose far ends lie in the wire's
// namespace, where the pump is.
func (l *Lab) joinImpaired(ctx context.Context, k *Link) error {
	wire := l.spaces[k.Name]
	if err := wire.SetSysctl("net.ipv6.conf.default.disable_ipv6", "1"); err != nil { // it has nothing to say there
		return err
	}
	for i, e := range k.Ends {
		err := with(l.spaces[e.Node], func(h *hostnet.Host) error {
			return h.AddVeth(hostnet.VethConfig{
				Name: e.Device, Peer: wireEnd(i), PeerNS: wire, MTU: k.MTU, RxQueues: k.Queues, TxQueues: k.Queues,
			})
		})
		if err != nil {
			return err
		}
		err = with(wire, func(h *hostnet.Host) error {
			return errors.Join(plain(h, wireEnd(i)), h.SetUp(wireEnd(i)))
		})
		if err := errors.Join(err, l.dress(&e)); err != nil {
			return err
		}
	}
	return l.startPump(ctx, k)
}

// wireEnd is the device that the pump of an impaired link reads for an end.
func wireEnd(i int) string { return [...]string{"a", "b"}[i] }

// connectPod makes a pod's veth pair: eth0 there, p-NAME in the node.
func (l *Lab) connectPod(p *Pod) error {
	node, pod := l.spaces[p.Node], l.spaces[p.Name]
	err := with(node, func(h *hostnet.Host) error {
		err := h.AddVeth(hostnet.VethConfig{
			Name: p.nodeDevice(), Peer: podDevice, PeerNS: pod, MTU: p.MTU,
			RxQueues: p.Queues, TxQueues: p.Queues, PeerRxQueues: p.Queues, PeerTxQueues: p.Queues,
		})
		if err != nil {
			return err
		}
		// All frames there are the forwarder's: the node's kernel has no part in them.
		if err := node.SetSysctl("net/ipv6/conf/"+p.nodeDevice()+"/disable_ipv6", "1"); err != nil {
			return err
		}
		return errors.Join(plain(h, p.nodeDevice()), h.SetUp(p.nodeDevice()))
	})
	if err != nil {
		return err
	}
	return with(pod, func(h *hostnet.Host) error { return dressPod(h, p) })
}

func dressPod(h *hostnet.Host, p *Pod) error {
	if err := plain(h, podDevice); err != nil {
		return err
	}
	for _, a := range p.Addresses {
		if err := h.AddAddress(podDevice, single(a.Addr), hostnet.NoDAD); err != nil {
			return err
		}
	}
	if err := h.SetUp(podDevice); err != nil {
		return err
	}
	link, err := h.Link(podDevice)
	if err != nil {
		return err
	}
	for _, a := range p.Addresses {
		gw := gateways[0]
		if a.Is6() {
			gw = gateways[1]
		}
		err := h.ReplaceRoute(hostnet.Route{Dst: anywhere(a.Is6()), Link: link.Index, Gateway: gw, OnLink: true})
		if err != nil {
			return err
		}
	}
	return nil
}

// podMACs are the Ethernet addresses of a node's AF_XDP pods.
func (l *Lab) podMACs(node string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, p := range l.Topology().Pods {
		if p.Node != node || p.Port != XSK {
			continue
		}
		ns, err := l.Namespace(p.Name)
		if err != nil {
			return nil, err
		}
		err = with(ns, func(h *hostnet.Host) error {
			link, err := h.Link(podDevice)
			out[p.Name] = link.MAC[:]
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

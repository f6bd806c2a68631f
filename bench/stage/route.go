package stage

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"margay.dev/margay/internal/hostnet"
)

// Device is the one link of an end of a path, apart from lo.
const Device = "eth0"

// Spaces are namespaces that go when they are closed, and with this process.
type Spaces []*hostnet.Namespace

// Make adds n namespaces. Their kernels have no doubts about addresses: while one
// of a link is tentative, nobody is asked for behind it.
func (s *Spaces) Make(n int) error {
	for i := range n {
		name := fmt.Sprintf("margay-bench-%d-%d", os.Getpid(), i)
		ns, err := hostnet.CreateNamespace(name)
		if err != nil {
			return err
		}
		*s = append(*s, ns)
		err = errors.Join(
			hostnet.DeleteNamespace(name), // the open file keeps it
			ns.SetSysctl("net.ipv6.conf.all.accept_dad", "0"),
			ns.SetSysctl("net.ipv6.conf.default.accept_dad", "0"))
		if err != nil {
			return err
		}
	}
	return nil
}

// Close lets go of the namespaces.
func (s Spaces) Close() {
	for _, ns := range s {
		ns.Close()
	}
}

// Settle gives a link addresses and takes it up. By each gateway its namespace
// gets a default route.
func Settle(ns *hostnet.Namespace, link string, addrs []netip.Prefix, gateways ...netip.Addr) error {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for _, a := range addrs {
		errs = append(errs, h.AddAddress(link, a, hostnet.NoDAD))
	}
	errs = append(errs, h.SetUp(link), h.SetUp("lo"))
	for _, gw := range gateways {
		anywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			anywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		errs = append(errs, h.ReplaceRoute(hostnet.Route{Dst: anywhere, Gateway: gw}))
	}
	return errors.Join(errs...)
}

// Routed is namespaces at the ends of veth pairs, whose other ends are in one in
// which the kernel routes between them.
type Routed struct {
	Ends   []*hostnet.Namespace
	spaces Spaces
}

// Route makes a Routed of at most 200 ends.
func Route(ends int) (_ *Routed, err error) {
	r := &Routed{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if err := r.spaces.Make(ends + 1); err != nil {
		return nil, err
	}
	r.Ends = r.spaces[:ends]
	router := r.spaces[ends]
	node, err := hostnet.NewHost(router)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	for i, ns := range r.Ends {
		if err := attach(node, i, ns); err != nil {
			return nil, err
		}
	}
	return r, forward(router)
}

// forward lets a namespace's kernel route.
func forward(ns *hostnet.Namespace) error {
	return errors.Join(ns.SetSysctl("net.ipv4.ip_forward", "1"), ns.SetSysctl("net.ipv6.conf.all.forwarding", "1"))
}

// attach gives a router's node a link to an end, and the end a default route by it.
func attach(node *hostnet.Host, pair int, end *hostnet.Namespace) error {
	name := fmt.Sprintf("pod%d", pair)
	if err := node.AddVeth(hostnet.VethConfig{Name: name, Peer: Device, PeerNS: end}); err != nil {
		return err
	}
	near, far := routedAddrs(pair, 1), routedAddrs(pair, 2)
	return errors.Join(Settle(node.Namespace(), name, near), Settle(end, Device, far, near[0].Addr(), near[1].Addr()))
}

// routedAddrs are the addresses of a pair's two sides, 1 of the router.
func routedAddrs(pair, side int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(pair), byte(side)}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 7: byte(pair), 15: byte(side)}), 64),
	}
}

// Addr is an end's address.
func (r *Routed) Addr(end int, six bool) netip.Addr {
	if six {
		return routedAddrs(end, 2)[1].Addr()
	}
	return routedAddrs(end, 2)[0].Addr()
}

// Close takes it down.
func (r *Routed) Close() { r.spaces.Close() }

// Package nodes is about the machine that the agent is on: its interfaces, which of
// their addresses others shall reach it by, and the Node that says so in the store.
package nodes

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Interface is a network device of the node.
type Interface struct {
	Name      string
	Up        bool
	Addresses []netip.Prefix // its own, with the length of their network's prefix
}

// What may stand in the place of an address.
const (
	Autodetect = "autodetect" // find it by the method
	None       = "none"       // have none of the family
	Keep       = ""           // leave it as the Node says
)

// Method is a way to find the node's address: one of Calico's.
type Method struct {
	name  string // first-found, can-reach, interface, skip-interface, cidr, kubernetes-internal-ip
	dest  string
	names []*regexp.Regexp
	nets  []netip.Prefix
}

// FirstFound is the method where none is given.
const FirstFound = "first-found"

const internalIP = "kubernetes-internal-ip"

// ParseMethod reads a method as Calico writes it: first-found, can-reach=HOST,
// interface=REGEX,..., skip-interface=REGEX,..., cidr=CIDR,... or
// kubernetes-internal-ip.
func ParseMethod(text string) (Method, error) {
	name, value, given := strings.Cut(text, "=")
	m := Method{name: name}
	wantsValue := true
	switch name {
	case FirstFound, internalIP:
		wantsValue = false
	case "can-reach":
		m.dest = value
	case "interface", "skip-interface":
		for _, expr := range strings.Split(value, ",") {
			re, err := regexp.Compile(`^(?:` + strings.TrimSpace(expr) + `)$`)
			if err != nil {
				return m, fmt.Errorf("read method %q: %w", text, err)
			}
			m.names = append(m.names, re)
		}
	case "cidr":
		for _, net := range strings.Split(value, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(net))
			if err != nil {
				return m, fmt.Errorf("read method %q: %w", text, err)
			}
			m.nets = append(m.nets, p.Masked())
		}
	default:
		return m, fmt.Errorf("read method %q: want first-found, can-reach=HOST, interface=REGEX,..., skip-interface=REGEX,..., cidr=CIDR,... or kubernetes-internal-ip", text)
	}
	if wantsValue != given || wantsValue && value == "" {
		return m, fmt.Errorf("read method %q: want %s", text, map[bool]string{true: "a value behind =", false: "no value"}[wantsValue])
	}
	return m, nil
}

// notOurs are names of devices that are not a node's own, as Calico lists them.
var notOurs = []string{
	"docker", "cbr", "dummy", "podman", "virbr", "lxcbr", "veth", "lo", "br-", "cali", "tunl", "flannel", "kube-ipvs", "cni", "vxlan.calico", "vxlan-v6.calico",
	"wireguard.cali", "wg-v6.cali", "nodelocaldns", "margay",
}

// Detect finds the node's address of a family among its interfaces. internal are
// those that the Node in the store has for use within the cluster; route says from
// which address the kernel would reach a host (Route, but in tests).
func (m Method) Detect(six bool, all []Interface, internal []netip.Addr, route func(host string, six bool) (netip.Addr, error)) (netip.Prefix, error) {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[six]
	switch m.name {
	case "can-reach":
		a, err := route(m.dest, six)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("find the node's %s address: ask the way to %s: %w", family, m.dest, err)
		}
		return Learn(a, all), nil
	case internalIP:
		for _, a := range internal {
			if a.Is6() == six {
				return Learn(a, all), nil
			}
		}
		return netip.Prefix{}, fmt.Errorf("find the node's %s address: its Node in the store has none of type InternalIP", family)
	case "interface":
		for _, re := range m.names { // the first expression first
			if p, ok := first(six, all, func(i Interface) bool { return re.MatchString(i.Name) }, nil); ok {
				return p, nil
			}
		}
	default:
		wanted := func(i Interface) bool {
			return !slices.ContainsFunc(notOurs, func(n string) bool { return strings.HasPrefix(i.Name, n) }) &&
				!(m.name == "skip-interface" && slices.ContainsFunc(m.names, func(re *regexp.Regexp) bool { return re.MatchString(i.Name) }))
		}
		if p, ok := first(six, all, wanted, m.nets); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("find the node's %s address: no interface that is up has one that the method %s takes: choose another method, or write the address", family, m.name)
}

// first is the first address of a family that interfaces have, of some networks if
// any are given.
func first(six bool, all []Interface, wanted func(Interface) bool, nets []netip.Prefix) (netip.Prefix, bool) {
	for _, i := range all {
		if !i.Up || !wanted(i) {
			continue
		}
		for _, p := range i.Addresses {
			a := p.Addr()
			in := len(nets) == 0 || slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
			if a.Is6() == six && a.IsGlobalUnicast() && in {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// Learn is an address with the length of the prefix that its interface has for it,
// or with all its bits where none has it.
func Learn(a netip.Addr, all []Interface) netip.Prefix {
	for _, i := range all {
		for _, p := range i.Addresses {
			if p.Addr() == a {
				return p
			}
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// Route asks the kernel from which address it would reach a host. Nothing is sent
// but a question for the host's name, if it is one.
func Route(host string, six bool) (netip.Addr, error) {
	network := "udp4"
	if six {
		network = "udp6"
	}
	c, err := net.Dial(network, net.JoinHostPort(host, "80"))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // nothing was sent
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

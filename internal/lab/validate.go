package lab

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// shortName fits behind "p-" and "l-" into the name of a device.
var shortName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?$`)

// deviceName is narrower than the kernel's, which takes all but ".", "..", "/",
// ":" and spaces: a leading dash is an option to every tool.
var deviceName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$`)

// reserved are devices that a node has, or that settings of all devices go by.
var reserved = []string{"lo", hostDevice, "all", "default"}

// inspector gathers the faults of a topology.
type inspector struct {
	t      *Topology
	errs   []error
	spaces map[string]string     // names of nodes and pods, and what has them
	owners map[netip.Addr]string // addresses of pods and host ports
	device map[[2]string]string  // node and device
}

func (c *inspector) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// Validate reports every fault of a topology whose defaults are filled in.
func (t *Topology) Validate() error {
	c := &inspector{t: t, spaces: map[string]string{}, owners: map[netip.Addr]string{}, device: map[[2]string]string{}}
	if !shortName.MatchString(t.Name) {
		c.bad("name is %q, want up to 12 of a-z, 0-9 and -, with no - at either end", t.Name)
	}
	if len(t.Nodes) == 0 {
		c.bad("nodes is empty, want at least one")
	}
	for i, p := range t.Pools {
		if !p.IsValid() || p.Masked() != p.Prefix {
			c.bad("pools[%d] is %q, want a prefix without host bits", i, p.text)
		}
	}
	for i := range t.Nodes {
		c.node(i)
	}
	for i := range t.Links {
		c.link(i)
	}
	for i := range t.Pods {
		c.pod(i)
	}
	if len(c.errs) == 0 {
		c.reach()
	}
	c.policies()
	return errors.Join(c.errs...)
}

func (c *inspector) name(path, name string) {
	if !shortName.MatchString(name) {
		c.bad("%s.name is %q, want up to 12 of a-z, 0-9 and -, with no - at either end", path, name)
	}
	if other := c.spaces[name]; other != "" {
		c.bad("%s.name is %q, which %s has as well", path, name, other)
	}
	c.spaces[name] = path
}

func (c *inspector) between(path string, v, low, high int) {
	if v < low || v > high {
		c.bad("%s is %d, want %d to %d", path, v, low, high)
	}
}

func (c *inspector) node(i int) {
	n, path := &c.t.Nodes[i], fmt.Sprintf("nodes[%d]", i)
	c.name(path, n.Name)
	c.between(path+".workers", n.Workers, 1, 64)
	c.addresses(path, n.Addresses)
}

// addresses checks those that have to lie in a pool and be alone.
func (c *inspector) addresses(path string, list []Addr) {
	families := map[bool]int{}
	for j, a := range list {
		at := fmt.Sprintf("%s.addresses[%d]", path, j)
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			c.bad("%s is %q, want the address of one station, as 10.0.0.1 or fd00::1", at, a.text)
			continue
		}
		if families[a.Is6()]++; families[a.Is6()] > 1 {
			c.bad("%s is %v, want one address per family", at, a)
		}
		if other := c.owners[a.Addr]; other != "" {
			c.bad("%s is %v, which %s has as well", at, a, other)
		}
		c.owners[a.Addr] = path
		if !c.pooled(a.Addr) {
			c.bad("%s is %v, which no pool holds", at, a)
		}
	}
}

func (c *inspector) pooled(a netip.Addr) bool {
	for _, p := range c.t.Pools {
		if p.IsValid() && p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *inspector) link(i int) {
	l, path := &c.t.Links[i], fmt.Sprintf("links[%d]", i)
	c.name(path, l.Name)
	c.between(path+".mtu", l.MTU, 1280, 9000)
	c.between(path+".queues", l.Queues, 1, 64)
	if l.Impairment != nil {
		if err := l.Impairment.Validate(); err != nil {
			c.bad("%s.impairment: %w", path, err)
		}
	}
	if len(l.Ends) != 2 {
		c.bad("%s.ends are %d, want two", path, len(l.Ends))
		return
	}
	if l.Ends[0].Node == l.Ends[1].Node {
		c.bad("%s.ends are both at %q, want two nodes", path, l.Ends[0].Node)
	}
	for j := range l.Ends {
		c.end(fmt.Sprintf("%s.ends[%d]", path, j), &l.Ends[j], &l.Ends[1-j])
	}
}

func (c *inspector) end(path string, e, other *End) {
	c.onNode(path, e.Node)
	if !deviceName.MatchString(e.Device) || slices.Contains(reserved, e.Device) {
		c.bad("%s.device is %q, want up to 15 of a-z, A-Z, 0-9, _, . and -, begun by none of the last two, and none of %v", path, e.Device, reserved)
	}
	c.takes(path, e.Node, e.Device)
	for i, a := range e.Addresses {
		at := fmt.Sprintf("%s.addresses[%d]", path, i)
		if !a.IsValid() {
			c.bad("%s is %q, want an address with its prefix length, as 172.31.0.1/24", at, a.text)
			continue
		}
		if c.pooled(a.Addr()) {
			c.bad("%s is %v, which lies in a pool: links are the kernel's", at, a)
		}
		if other := c.owners[a.Addr()]; other != "" {
			c.bad("%s is %v, which %s has as well", at, a, other)
		}
		c.owners[a.Addr()] = path
		if _, ok := via(other, a.Prefix); !ok {
			c.bad("%s is %v, want an address at the other end in the same prefix", at, a)
		}
	}
}

// via is the address at e that is on link for one who has p.
func via(e *End, p netip.Prefix) (netip.Addr, bool) {
	for _, a := range e.Addresses {
		if a.IsValid() && a.Addr() != p.Addr() && a.Masked() == p.Masked() {
			return a.Addr(), true
		}
	}
	return netip.Addr{}, false
}

func (c *inspector) pod(i int) {
	p, path := &c.t.Pods[i], fmt.Sprintf("pods[%d]", i)
	c.name(path, p.Name)
	c.onNode(path, p.Node)
	c.takes(path, p.Node, "p-"+p.Name)
	if len(p.Addresses) == 0 {
		c.bad("%s.addresses is empty, want one per family", path)
	}
	c.addresses(path, p.Addresses)
	if p.Port != TUN && p.Port != XSK {
		c.bad("%s.port is %q, want tun or xsk", path, p.Port)
	}
	c.known(path, p)
	c.between(path+".mtu", p.MTU, 1280, 9000)
	if c.t.Node(p.Node) != nil {
		c.between(path+".queues", p.Queues, 1, 64)
	}
}

// policies finds what cannot be put in force.
func (c *inspector) policies() {
	m, err := c.t.manifests()
	if err == nil && len(c.errs) == 0 {
		err = c.t.calculate(m)
	}
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// known finds faults in what policy knows a pod by.
func (c *inspector) known(path string, p *Pod) {
	for _, fault := range validation.IsDNS1123Label(p.Namespace) {
		c.bad("%s.namespace is %q: %s", path, p.Namespace, fault)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		for _, fault := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(p.Labels[key])...) {
			c.bad("%s.labels: %s: %q: %s", path, key, p.Labels[key], fault)
		}
	}
}

func (c *inspector) onNode(path, node string) {
	if c.t.Node(node) == nil {
		c.bad("%s.node is %q, which is none of the nodes", path, node)
	}
}

func (c *inspector) takes(path, node, device string) {
	key := [2]string{node, device}
	if other := c.device[key]; other != "" {
		c.bad("%s.device is %q, which %s has as well", path, device, other)
	}
	c.device[key] = path
}

// reach finds pods whose family no link carries to another node that has a path.
func (c *inspector) reach() {
	for _, p := range c.t.Pods {
		for _, n := range c.t.Nodes {
			link, at := c.t.towards(n.Name, p.Node)
			if link == nil {
				continue // the same node, or no path at all, which is allowed
			}
			for _, a := range p.Addresses {
				if _, ok := gateway(link, at, a.Is6()); !ok {
					c.bad("link %s has no address for %v of pod %s: give both of its ends one", link.Name, a, p.Name)
				}
			}
		}
	}
}

// towards is the first link on a shortest path between two nodes, and which of
// its ends is at from; nil if there is none.
func (t *Topology) towards(from, to string) (*Link, int) {
	type step struct {
		link *Link
		end  int
	}
	first := map[string]step{from: {}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for i := range t.Links {
			l := &t.Links[i]
			for j, e := range l.Ends {
				next := l.Ends[1-j].Node
				if _, seen := first[next]; seen || e.Node != queue[0] {
					continue
				}
				if first[next] = first[queue[0]]; queue[0] == from {
					first[next] = step{l, j}
				}
				queue = append(queue, next)
			}
		}
	}
	s := first[to]
	return s.link, s.end
}

// gateway is the address of a family at the far end of a link.
func gateway(l *Link, at int, six bool) (netip.Addr, bool) {
	for _, a := range l.Ends[at].Addresses {
		if a.Addr().Is6() == six {
			return via(&l.Ends[1-at], a.Prefix)
		}
	}
	return netip.Addr{}, false
}

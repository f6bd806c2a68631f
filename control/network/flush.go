package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/dataplane"
)

// Changes are what one Flush found different from the one before.
type Changes struct {
	Delta dataplane.Delta
	// Placed is how attachments stand that were looked at: in force once the
	// dataplane has taken Delta and has no complaint about the port.
	Placed map[attach.Key]attach.Status
	// Faults are what is wrong with nodes and workloads that were looked at, by
	// "node NAME" and "workload NAMESPACE/NAME"; none is empty.
	Faults map[Object]string
}

// Object is a node, or a workload where Node is empty.
type Object struct {
	Node     string
	Workload attach.Key
}

// Flush brings everything up to date, and gives what differs from what the last
// one gave.
func (n *Network) Flush() Changes {
	f := flush{
		Network: n, touched: map[string]struct{}{}, gone: map[hopKey]uint32{},
		out: Changes{Placed: map[attach.Key]attach.Status{}, Faults: map[Object]string{}},
	}
	f.reach()
	for _, p := range slices.SortedFunc(maps.Keys(n.dirty.prefixes), netip.Prefix.Compare) {
		f.route(p)
	}
	f.dropWays()
	places := slices.SortedFunc(maps.Keys(n.dirty.places), attach.Key.Compare)
	for _, k := range places { // all leave before any comes: one may get the port of another
		if old, had := n.placed[k]; had {
			delete(n.placed, k)
			f.port(old, nil)
		}
	}
	if n.dirty.local {
		f.own()
	}
	for _, k := range places {
		f.place(k)
	}
	if n.dirty.local || n.dirty.hosts {
		f.host()
	}
	for _, name := range slices.Sorted(maps.Keys(f.touched)) {
		tell(n.doors, name, n.ports[name], &f.out.Delta.Set.Ports, &f.out.Delta.RemovedPorts)
	}
	n.dirty = clean()
	return f.out
}

// flush is one Flush.
type flush struct {
	*Network
	out     Changes
	touched map[string]struct{} // ports
	gone    map[hopKey]uint32   // ways that lead nowhere any more
}

// tell puts what is to be told of one object into a delta, and remembers it. What
// is nil is not there any more.
func tell[K comparable, M proto.Message](told map[K]M, key K, now M, set *[]M, removed *[]K) {
	old, had := told[key]
	switch there := now.ProtoReflect().IsValid(); {
	case !there && had:
		delete(told, key)
		*removed = append(*removed, key)
	case there && (!had || !proto.Equal(old, now)):
		told[key] = now
		*set = append(*set, now)
	}
}

// own brings what is the node's own up to date: uplinks, the host port, steering.
func (f *flush) own() {
	d := &f.out.Delta
	want := map[string]*v1.Port{}
	for _, u := range f.local.Uplinks {
		want[u.Port] = &v1.Port{Name: u.Port, Device: u.Device, Mtu: uint32(u.MTU), Queues: uint32(u.Queues), Kind: &v1.Port_Xsk{Xsk: &v1.XskPort{}}}
	}
	for _, name := range slices.Sorted(maps.Keys(f.uplinks)) {
		if want[name] == nil {
			delete(f.uplinks, name)
			f.port(name, nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		f.uplinks[name] = struct{}{}
		f.port(name, want[name])
	}
	way := &v1.NextHop{Id: punt, Kind: v1.NextHop_KIND_PUNT}
	tell(f.ways, punt, way, &d.Set.NextHops, &d.RemovedNextHops)
	host := &v1.HostPort{Name: f.local.HostDevice, Mtu: uint32(f.local.HostMTU), Guarded: texts(f.pools), Routes: texts(f.pools)}
	for _, a := range f.local.HostAddresses {
		host.Addresses = append(host.Addresses, a.String())
	}
	if !proto.Equal(host, f.hostPort) {
		f.hostPort, d.Set.HostPort = host, host
	}
	if steering := (&v1.Steering{Prefixes: texts(f.pools)}); !proto.Equal(steering, f.steering) {
		f.steering, d.Set.Steering = steering, steering
	}
}

// port makes a port what it is to be, nil for none.
func (f *flush) port(name string, p *v1.Port) {
	f.touched[name] = struct{}{}
	if p == nil {
		delete(f.ports, name)
	} else {
		f.ports[name] = p
	}
}

func texts[T fmt.Stringer](list []T) (out []string) {
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// reach brings the ways to nodes up to date, and has the routes looked at that are
// to lead there, or are no longer.
func (f *flush) reach() {
	for _, name := range slices.Sorted(maps.Keys(f.dirty.nodes)) {
		if name == f.name {
			continue
		}
		o := f.nodes[name]
		var missing []string
		for _, six := range []bool{false, true} {
			way := f.way(o, six)
			if way == nil && o != nil && o.wants(six, f.workloads) {
				missing = append(missing, fmt.Sprintf("IPv%d", family(six)))
			}
			f.lead(hopKey{name, six}, way, o)
		}
		f.out.Faults[Object{Node: name}] = ""
		if len(missing) > 0 {
			f.out.Faults[Object{Node: name}] = fmt.Sprintf("none of its addresses %v is on the link of an uplink of node %s by %v, so that nothing leads to its workloads from there: give it one, or give %s an uplink there",
				o.addresses, f.name, missing, f.name)
		}
	}
}

// wants reports whether workloads of the node have addresses of a family.
func (o *node) wants(six bool, workloads map[attach.Key]Workload) bool {
	for k := range o.workloads {
		for _, p := range workloads[k].Addresses {
			if p.Addr().Is6() == six {
				return true
			}
		}
	}
	return false
}

// way is by which port, and over which address of it, a node is reached; nil if it
// is on no link of ours.
func (f *flush) way(o *node, six bool) *v1.NextHop_Member {
	if o == nil {
		return nil
	}
	for _, a := range o.addresses {
		if a.Is6() != six {
			continue
		}
		if by, mine := f.owner(netip.PrefixFrom(a, a.BitLen())); mine && by.node == f.name {
			continue // two nodes say that they have it, and it is ours
		}
		for _, u := range f.local.Uplinks {
			if slices.ContainsFunc(u.Addresses, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return &v1.NextHop_Member{Port: u.Port, Gateway: a.String()}
			}
		}
	}
	return nil
}

// lead tells of the way to a node in one family. Where there is one now, or none
// any more, the routes that lead there are looked at.
func (f *flush) lead(k hopKey, by *v1.NextHop_Member, o *node) {
	d := &f.out.Delta
	id, had := f.numbers[k]
	switch {
	case by != nil:
		id = f.number(k)
		tell(f.ways, id, &v1.NextHop{Id: id, Kind: v1.NextHop_KIND_FORWARD, Members: []*v1.NextHop_Member{by}}, &d.Set.NextHops, &d.RemovedNextHops)
	case had:
		f.gone[k] = id
	}
	if had == (by != nil) || o == nil {
		return
	}
	look := func(p netip.Prefix) {
		if p.Addr().Is6() == k.six {
			f.dirty.prefixes[p] = struct{}{}
		}
	}
	for _, p := range hosts(o.addresses) {
		look(p)
	}
	for w := range o.workloads {
		for _, p := range f.workloads[w].Addresses {
			look(p)
		}
	}
}

// route tells where a prefix leads now.
func (f *flush) route(p netip.Prefix) {
	d := &f.out.Delta
	to := f.target(p)
	old := f.routes[p]
	switch {
	case to == old:
	case to == 0:
		delete(f.routes, p)
		d.RemovedRoutes = append(d.RemovedRoutes, p)
	default:
		f.routes[p] = to
		d.Set.Routes = append(d.Set.Routes, dataplane.Route{Prefix: p, NextHop: to})
	}
}

// target is the next hop that a prefix leads to; 0 for none: nobody has it, nothing
// leads to who has it, or an endpoint of this node does.
func (f *flush) target(p netip.Prefix) uint32 {
	by, claimed := f.owner(p)
	to := by.node
	if claimed && to == "" {
		if to = f.workloads[by.workload].Node; to == f.name {
			return 0
		}
	}
	switch {
	case !claimed:
		return 0
	case to == f.name:
		return punt
	}
	way := hopKey{to, p.Addr().Is6()}
	if _, gone := f.gone[way]; gone {
		return 0
	}
	return f.numbers[way]
}

// dropWays takes away ways that no route leads to any more.
func (f *flush) dropWays() {
	d := &f.out.Delta
	for k, id := range f.gone {
		f.unnumber(k)
		tell(f.ways, id, nil, &d.Set.NextHops, &d.RemovedNextHops)
	}
	slices.Sort(d.RemovedNextHops)
}

// place brings the port and endpoint of a workload up to date.
func (f *flush) place(k attach.Key) {
	a, attached := f.attached[k]
	w, known := f.workloads[k]
	mine, lost := f.addresses(k, w)
	f.out.Faults[Object{Workload: k}] = lost
	var endpoint *v1.Endpoint
	if attached && known && w.Node == f.name && f.taken(a) == "" {
		f.placed[k] = a.Port
		f.port(a.Port, portOf(a, mine))
		endpoint = f.endpointOf(k, a, w, mine)
	}
	d := &f.out.Delta
	tell(f.endpoints, k.String(), endpoint, &d.Set.Endpoints, &d.RemovedEndpoints)
	if attached {
		f.out.Placed[k] = f.status(k, a, w, known, mine, lost)
	}
}

// addresses are those of a workload that are its own, and what is wrong with the
// others.
func (f *flush) addresses(k attach.Key, w Workload) (mine []netip.Prefix, lost string) {
	for _, p := range w.Addresses {
		by, _ := f.owner(p)
		if by == (claim{workload: k}) {
			mine = append(mine, p)
			continue
		}
		whose := "workload " + by.workload.String()
		if by.node != "" {
			whose = "node " + by.node
		}
		lost = fmt.Sprintf("address %v is that of %s, too, which has it: give one of them another", p, whose)
	}
	return mine, lost
}

// status is how an attachment will stand.
func (f *flush) status(k attach.Key, a attach.Attachment, w Workload, known bool, mine []netip.Prefix, lost string) attach.Status {
	s := attach.Status{Addresses: texts(mine)}
	switch {
	case !known:
		s.Reason = fmt.Sprintf("there is no WorkloadEndpoint %v in the store: create it", k)
	case w.Node != f.name:
		s.Reason = fmt.Sprintf("WorkloadEndpoint %v is of node %q, and this is %q: mend its spec.node, or attach it there", k, w.Node, f.name)
	case f.taken(a) != "":
		s.Reason = f.taken(a)
	case lost != "":
		s.Reason = lost
	case f.stages[k] == nil:
		s.Reason = "nothing judges it yet: see the conditions of the WorkloadEndpoint"
	default:
		s.InForce = true
	}
	return s
}

// taken says why a workload cannot have its port: it is the node's own.
func (f *flush) taken(a attach.Attachment) string {
	for _, u := range f.local.Uplinks {
		if u.Port == a.Port {
			return fmt.Sprintf("port %q is an uplink's: name another", a.Port)
		}
		if a.Kind == attach.XSK && u.Device == a.Device {
			return fmt.Sprintf("device %q is an uplink: attach another", a.Device)
		}
	}
	if a.Kind == attach.XSK && a.Device == f.local.HostDevice {
		return fmt.Sprintf("device %q is the node's host port: attach another", a.Device)
	}
	return ""
}

// portOf is the port of an attachment, with the addresses that its workload has.
func portOf(a attach.Attachment, mine []netip.Prefix) *v1.Port {
	p := &v1.Port{Name: a.Port, Device: a.Device, Mtu: uint32(a.MTU), Queues: uint32(a.Queues)}
	if a.Kind == attach.XSK {
		p.Kind = &v1.Port_Xsk{Xsk: &v1.XskPort{Takeover: true}}
		return p
	}
	tun := &v1.TunPort{Keep: true, Addresses: texts(mine)}
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if slices.ContainsFunc(mine, func(p netip.Prefix) bool { return p.Addr().Is6() == all.Addr().Is6() }) {
			tun.Routes = append(tun.Routes, all.String())
		}
	}
	p.Netns, p.Kind = a.NetNS, &v1.Port_Tun{Tun: tun}
	return p
}

func (f *flush) endpointOf(k attach.Key, a attach.Attachment, w Workload, mine []netip.Prefix) *v1.Endpoint {
	e := &v1.Endpoint{Id: k.String(), Port: a.Port, Addresses: texts(mine), HostDenied: f.local.HostDenied}
	if a.Kind == attach.XSK {
		e.Mac = a.MAC
		if len(e.Mac) == 0 {
			e.Mac = w.MAC
		}
	}
	if s := f.stages[k]; s != nil {
		s.Judge(e)
	}
	return e
}

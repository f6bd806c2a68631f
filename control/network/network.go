// Package network makes of nodes, workloads and attachments what a forwarder needs
// to carry their packets, a change at a time:
//
//	attachments of this node ─┐
//	workload endpoints ───────┼──► ports, endpoints ──┐
//	judgements of policy ─────┘                       ├──► a delta of the dataplane
//	nodes, uplinks ───────────────► next hops, routes ┘
//
// The work follows the change: a workload touches the routes of its addresses and,
// if it is of this node, its port and endpoint; another node touches what is there.
//
// An address that several claim is the first one's alone, in the order of their
// keys, on every node the same; the others are told of, and do without it. So
// whatever objects say, what comes out contradicts nothing, and the dataplane takes it.
package network

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/guard"
)

// Uplink is a device of the node by which others are reached.
type Uplink struct {
	Port      string // its name in the forwarder
	Device    string
	MTU       int // of IP, in bytes; 0: the device's
	Queues    int // 0: all that it has
	Addresses []netip.Prefix
}

// Local is what no object tells: this node as it is. Who hands it over does not
// change it.
type Local struct {
	Uplinks       []Uplink
	HostDevice    string // the node's own way in and out
	HostMTU       int    // 0: 1500
	HostAddresses []netip.Addr
	HostDenied    bool // workloads may send nothing to the node itself
}

// Workload is what is known of a workload endpoint, of whichever node.
type Workload struct {
	Node      string
	Addresses []netip.Prefix
	MAC       []byte // where its attachment has none
}

// punt is the next hop that leads to the node itself; those of others are numbered
// above.
const punt = 1

// maxHop is the largest number of a next hop.
const maxHop = 1<<24 - 1

// Network holds all that matters of a cluster's nodes and workloads for one node,
// and what follows from it. It is for one goroutine. Make it with New.
type Network struct {
	name      string
	local     Local
	pools     []netip.Prefix
	nodes     map[string]*node
	workloads map[attach.Key]Workload
	attached  map[attach.Key]attach.Attachment
	stages    map[attach.Key]*guard.Stages
	claims    map[netip.Prefix][]claim // whose it is first
	numbers   map[hopKey]uint32        // of ways
	numbered  map[uint32]struct{}
	ports     map[string]*v1.Port   // as they are to be
	uplinks   map[string]struct{}   // those of ports that are uplinks
	placed    map[attach.Key]string // those that are workloads'

	hosts      map[string]string // names of host endpoints by device
	hostStages map[string]*guard.Stages

	// What the dataplane was told.
	hostPort  *v1.HostPort
	steering  *v1.Steering
	doors     map[string]*v1.Port
	endpoints map[string]*v1.Endpoint
	toldHosts map[string]*v1.Endpoint
	ways      map[uint32]*v1.NextHop
	routes    map[netip.Prefix]uint32

	dirty dirty
}

// node is another node, or this one.
type node struct {
	addresses []netip.Addr
	workloads map[attach.Key]struct{}
}

// dirty is what the next Flush has to look at.
type dirty struct {
	local    bool
	hosts    bool
	prefixes map[netip.Prefix]struct{}
	nodes    map[string]struct{}
	places   map[attach.Key]struct{}
}

func clean() dirty {
	return dirty{prefixes: map[netip.Prefix]struct{}{}, nodes: map[string]struct{}{}, places: map[attach.Key]struct{}{}}
}

// New makes what knows nothing but the node's name.
func New(name string) *Network {
	n := &Network{
		name: name, nodes: map[string]*node{}, workloads: map[attach.Key]Workload{},
		attached: map[attach.Key]attach.Attachment{}, stages: map[attach.Key]*guard.Stages{}, claims: map[netip.Prefix][]claim{},
		numbers: map[hopKey]uint32{}, numbered: map[uint32]struct{}{}, ports: map[string]*v1.Port{}, uplinks: map[string]struct{}{},
		placed: map[attach.Key]string{}, hostStages: map[string]*guard.Stages{}, toldHosts: map[string]*v1.Endpoint{}, doors: map[string]*v1.Port{}, endpoints: map[string]*v1.Endpoint{},
		ways: map[uint32]*v1.NextHop{}, routes: map[netip.Prefix]uint32{}, dirty: clean(),
	}
	n.dirty.local = true
	return n
}

// claim is who says that a prefix is its own: a workload, or, before all of those,
// a node.
type claim struct {
	node     string // of the claim of a node; else empty
	workload attach.Key
}

func (c claim) compare(o claim) int {
	if (c.node == "") != (o.node == "") {
		if c.node != "" {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(c.node, o.node), c.workload.Compare(o.workload))
}

// claim notes that somebody has a prefix, or has it no longer.
func (n *Network) claim(p netip.Prefix, by claim, has bool) {
	list := n.claims[p]
	before, _ := n.owner(p)
	i, found := slices.BinarySearchFunc(list, by, claim.compare)
	switch {
	case has && !found:
		list = slices.Insert(list, i, by)
	case !has && found:
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(n.claims, p)
	} else {
		n.claims[p] = list
	}
	n.dirty.prefixes[p] = struct{}{}
	if now, _ := n.owner(p); now == before {
		list = []claim{by} // the others have what they had, so that many may claim one prefix
	}
	for _, c := range list { // who gets it, and who does without it now
		if c.node == "" {
			n.dirty.places[c.workload] = struct{}{}
		}
	}
}

// owner is whose a prefix is.
func (n *Network) owner(p netip.Prefix) (claim, bool) {
	list := n.claims[p]
	if len(list) == 0 {
		return claim{}, false
	}
	return list[0], true
}

// PutWorkload says what a workload endpoint is.
func (n *Network) PutWorkload(k attach.Key, w Workload) {
	old, had := n.workloads[k]
	if had && old.Node == w.Node && slices.Equal(old.Addresses, w.Addresses) && slices.Equal(old.MAC, w.MAC) {
		return // only policy sees its labels
	}
	moved := !had || old.Node != w.Node
	if had && moved {
		n.leave(k, old.Node)
	}
	n.node(w.Node).workloads[k] = struct{}{}
	n.workloads[k] = w
	n.dirty.nodes[w.Node] = struct{}{} // nothing may lead there
	n.dirty.places[k] = struct{}{}
	n.exchange(claim{workload: k}, old.Addresses, w.Addresses, moved)
}

// RemoveWorkload says that there is no such workload endpoint any more.
func (n *Network) RemoveWorkload(k attach.Key) {
	w, had := n.workloads[k]
	if !had {
		return
	}
	n.leave(k, w.Node)
	delete(n.workloads, k)
	n.dirty.places[k] = struct{}{}
	n.exchange(claim{workload: k}, w.Addresses, nil, false)
}

// leave takes a workload away from its node.
func (n *Network) leave(k attach.Key, from string) {
	if o := n.nodes[from]; o != nil {
		delete(o.workloads, k)
		n.dirty.nodes[from] = struct{}{}
		n.forget(from)
	}
}

// exchange makes somebody's claims what they are now; all of them are looked at
// again where they lead elsewhere now.
func (n *Network) exchange(by claim, before, now []netip.Prefix, moved bool) {
	for _, p := range before {
		if !slices.Contains(now, p) {
			n.claim(p, by, false)
		}
	}
	for _, p := range now {
		if moved || !slices.Contains(before, p) {
			n.claim(p, by, true)
		}
	}
}

// node finds a node, or makes one of which nothing is known.
func (n *Network) node(name string) *node {
	o := n.nodes[name]
	if o == nil {
		o = &node{workloads: map[attach.Key]struct{}{}}
		n.nodes[name] = o
	}
	return o
}

// forget forgets a node of which nothing is known, and that nobody names.
func (n *Network) forget(name string) {
	if o := n.nodes[name]; o != nil && len(o.addresses) == 0 && len(o.workloads) == 0 {
		delete(n.nodes, name)
	}
}

// PutNode says which addresses a node has: first those by which it is best reached.
// What is said of this node itself is not heeded: Local knows better.
func (n *Network) PutNode(name string, addresses []netip.Addr) {
	if name == n.name || slices.Equal(n.node(name).addresses, addresses) {
		n.forget(name)
		return
	}
	o := n.node(name)
	before := o.addresses
	o.addresses = slices.Clone(addresses)
	n.exchange(claim{node: name}, hosts(before), hosts(addresses), false)
	n.dirty.nodes[name] = struct{}{}
	n.forget(name)
}

// RemoveNode says that there is no such node any more.
func (n *Network) RemoveNode(name string) { n.PutNode(name, nil) }

// hosts are addresses as the prefixes that hold one each.
func hosts(list []netip.Addr) (out []netip.Prefix) {
	for _, a := range list {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// SetPools says from which prefixes workloads have addresses: all of them are ours.
func (n *Network) SetPools(pools []netip.Prefix) {
	pools = slices.Clone(pools)
	slices.SortFunc(pools, netip.Prefix.Compare)
	n.pools, n.dirty.local = slices.Compact(pools), true
}

// SetLocal says what the node is like.
func (n *Network) SetLocal(l Local) {
	n.exchange(claim{node: n.name}, hosts(n.local.own()), hosts(l.own()), false)
	n.local, n.dirty.local = l, true
	for name := range n.nodes { // they may be reached otherwise now
		n.dirty.nodes[name] = struct{}{}
	}
	for k := range n.attached {
		n.dirty.places[k] = struct{}{}
	}
}

// own are the node's addresses.
func (l *Local) own() []netip.Addr {
	out := slices.Clone(l.HostAddresses)
	for _, u := range l.Uplinks {
		for _, p := range u.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}

// SetAttachments says where the devices of this node's workloads are.
func (n *Network) SetAttachments(all map[attach.Key]attach.Attachment) {
	for k, a := range all {
		if old, had := n.attached[k]; !had || !same(old, a) {
			n.attached[k] = a
			n.dirty.places[k] = struct{}{}
		}
	}
	for k := range n.attached {
		if _, still := all[k]; !still {
			delete(n.attached, k)
			n.dirty.places[k] = struct{}{}
		}
	}
}

func same(a, b attach.Attachment) bool {
	macs := slices.Equal(a.MAC, b.MAC)
	a.MAC, b.MAC = nil, nil
	return macs && a.Key == b.Key && a.Kind == b.Kind && a.NetNS == b.NetNS && a.Device == b.Device &&
		a.MTU == b.MTU && a.Queues == b.Queues && a.Port == b.Port
}

// Judge says what judges a workload's packets; nil: nothing, so that it forwards
// none.
func (n *Network) Judge(k attach.Key, by *guard.Stages) {
	if by == nil {
		delete(n.stages, k)
	} else {
		n.stages[k] = by
	}
	n.dirty.places[k] = struct{}{}
}

// hopKey names the way to a node in one family.
type hopKey struct {
	node string
	six  bool
}

// number is the number of a way: as far as it can be the same for every life of the
// agent, so that the routes of the life before go on to lead where they led while
// the new state takes their place.
func (n *Network) number(k hopKey) uint32 {
	if id, has := n.numbers[k]; has {
		return id
	}
	h := fnv.New32a()
	_, _ = h.Write(append([]byte(k.node), 0, byte(family(k.six)))) // does not fail
	id := punt + 1 + h.Sum32()%(maxHop-punt)
	for _, taken := n.numbered[id]; taken; _, taken = n.numbered[id] {
		id = punt + 1 + (id-punt)%(maxHop-punt)
	}
	n.numbers[k], n.numbered[id] = id, struct{}{}
	return id
}

// unnumber gives a number back.
func (n *Network) unnumber(k hopKey) {
	delete(n.numbered, n.numbers[k])
	delete(n.numbers, k)
}

func family(six bool) int {
	if six {
		return 6
	}
	return 4
}

// Nodes is how many nodes are known, Workloads how many workload endpoints.
func (n *Network) Nodes() int { return len(n.nodes) }

// Workloads is how many workload endpoints are known, of all nodes.
func (n *Network) Workloads() int { return len(n.workloads) }

// Endpoints is how many of them the dataplane was told of.
func (n *Network) Endpoints() int { return len(n.endpoints) }

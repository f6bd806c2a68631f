package network

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/forwarder/desired"
)

// world is all that a Network is told, as it is now.
type world struct {
	local     Local
	nodes     map[string][]netip.Addr
	workloads map[attach.Key]Workload
	attached  map[attach.Key]attach.Attachment
	stages    map[attach.Key]*guard.Stages
	hosts     map[string]string        // host endpoints of uplinks
	judged    map[string]*guard.Stages // of host endpoints
}

// owner is whose a prefix is: a node's, or else a workload's; nothing where it is
// nobody's.
func (w *world) owner(p netip.Prefix) (node string, k attach.Key) {
	var names []string
	for name, list := range w.nodes {
		if name != "n0" && slices.Contains(hosts(list), p) {
			names = append(names, name)
		}
	}
	if slices.Contains(hosts(w.local.own()), p) {
		names = append(names, "n0")
	}
	if len(names) > 0 {
		return slices.Min(names), k
	}
	for _, k := range slices.SortedFunc(maps.Keys(w.workloads), attach.Key.Compare) {
		if slices.Contains(w.workloads[k].Addresses, p) {
			return "", k
		}
	}
	return "", k
}

// way is where a node is reached.
func (w *world) way(node string, six bool) string {
	if node == "n0" {
		return "punt"
	}
	for _, a := range w.nodes[node] {
		if first, _ := w.owner(hosts([]netip.Addr{a})[0]); a.Is6() != six || first == "n0" {
			continue
		}
		for _, u := range w.local.Uplinks {
			for _, p := range u.Addresses {
				if p.Contains(a) {
					return u.Port + " " + a.String()
				}
			}
		}
	}
	return ""
}

// routes are what the world makes, in the plainest way. Ways are named by port and
// gateway, so that only where routes lead is compared.
func (w *world) routes() map[netip.Prefix]string {
	all := hosts(w.local.own())
	for _, list := range w.nodes {
		all = append(all, hosts(list)...)
	}
	for _, x := range w.workloads {
		all = append(all, x.Addresses...)
	}
	routes := map[netip.Prefix]string{}
	for _, p := range all {
		node, k := w.owner(p)
		if node == "" {
			if node = w.workloads[k].Node; node == "n0" || node == "" { // an endpoint's, or nobody's
				continue
			}
		}
		if to := w.way(node, p.Addr().Is6()); to != "" {
			routes[p] = to
		}
	}
	return routes
}

// places are the ports and endpoints that the world makes.
func (w *world) places() (ports map[string]*v1.Port, endpoints map[string]*v1.Endpoint) {
	ports, endpoints = map[string]*v1.Port{}, map[string]*v1.Endpoint{}
	for _, u := range w.local.Uplinks {
		ports[u.Port] = &v1.Port{Name: u.Port, Device: u.Device, Kind: &v1.Port_Xsk{Xsk: &v1.XskPort{}}}
		if name := w.hosts[u.Device]; name != "" {
			e := &v1.Endpoint{Id: "host/" + name + "/" + u.Port, Port: u.Port, Host: true}
			if s := w.judged[name]; s != nil {
				s.Judge(e)
			}
			endpoints[e.Id] = e
		}
	}
	for k, a := range w.attached {
		x, known := w.workloads[k]
		clash := slices.ContainsFunc(w.local.Uplinks, func(u Uplink) bool {
			return u.Port == a.Port || a.Kind == attach.XSK && u.Device == a.Device
		})
		if !known || x.Node != "n0" || clash {
			continue
		}
		var mine, all []string
		for _, p := range x.Addresses {
			if node, first := w.owner(p); node != "" || first != k {
				continue
			}
			mine = append(mine, p.String())
			all = append(all, map[bool]string{false: "0.0.0.0/0", true: "::/0"}[p.Addr().Is6()])
		}
		slices.Sort(all)
		p := &v1.Port{Name: a.Port, Device: a.Device, Netns: a.NetNS, Kind: &v1.Port_Tun{Tun: &v1.TunPort{Keep: true, Addresses: mine, Routes: all}}}
		if a.Kind == attach.XSK {
			p.Kind = &v1.Port_Xsk{Xsk: &v1.XskPort{Takeover: true}}
		}
		ports[a.Port] = p
		e := &v1.Endpoint{Id: k.String(), Port: a.Port, Addresses: mine, HostDenied: w.local.HostDenied}
		if s := w.stages[k]; s != nil {
			s.Judge(e)
		}
		endpoints[e.Id] = e
	}
	return ports, endpoints
}

// faulty are the nodes that have workloads which nothing leads to, and the workloads
// that do without an address.
func (w *world) faulty() map[Object]bool {
	out := map[Object]bool{}
	for k, x := range w.workloads {
		for _, p := range x.Addresses {
			if node, first := w.owner(p); node != "" || first != k {
				out[Object{Workload: k}] = true
			}
			if w.way(x.Node, p.Addr().Is6()) == "" {
				out[Object{Node: x.Node}] = true
			}
		}
	}
	return out
}

// mutate changes the world at random, and tells the network. Few names, so that
// things meet.
func (w *world) mutate(r *rand.Rand, n *Network) {
	address := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(1 + r.IntN(6))})
		}
		return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", r.IntN(2), 1+r.IntN(6)))
	}
	name := func() string { return fmt.Sprintf("n%d", r.IntN(4)) }
	k := attach.Key{Namespace: "a", Name: fmt.Sprintf("w%d", r.IntN(6))}
	switch r.IntN(10) {
	case 0, 1: // of each family at most one, to keep the oracle's routes plain
		x := Workload{Node: name()}
		for _, a := range []netip.Addr{address(), address()} {
			if len(x.Addresses) == 0 || x.Addresses[0].Addr().Is4() != a.Is4() {
				x.Addresses = append(x.Addresses, hosts([]netip.Addr{a})...)
			}
		}
		w.workloads[k] = x
		n.PutWorkload(k, x)
	case 2:
		delete(w.workloads, k)
		n.RemoveWorkload(k)
	case 3:
		node := name()
		w.nodes[node] = []netip.Addr{address(), address()}
		n.PutNode(node, w.nodes[node])
	case 4:
		node := name()
		delete(w.nodes, node)
		n.RemoveNode(node)
	case 5:
		w.attach(r, k)
	case 6:
		w.stages[k] = &guard.Stages{Egress: []*v1.Stage{{Program4: r.Uint32N(3), Name: "t"}}}
		if r.IntN(3) == 0 {
			delete(w.stages, k)
		}
		n.Judge(k, w.stages[k])
	case 8:
		w.hosts = map[string]string{}
		for i := range 2 {
			if r.IntN(2) == 0 {
				w.hosts[fmt.Sprintf("dp%d", i)] = fmt.Sprintf("h%d", r.IntN(2))
			}
		}
		n.SetHosts(w.hosts)
	case 9:
		name := fmt.Sprintf("h%d", r.IntN(2))
		w.judged[name] = &guard.Stages{Ingress: []*v1.Stage{{Program6: r.Uint32N(3), Name: "t"}}}
		if r.IntN(3) == 0 {
			delete(w.judged, name)
		}
		n.JudgeHost(name, w.judged[name])
	case 7:
		w.place(r, address)
		n.SetLocal(w.local)
	}
	n.SetAttachments(w.attached)
}

// attach attaches a workload somewhere, or nowhere.
func (w *world) attach(r *rand.Rand, k attach.Key) {
	if r.IntN(3) == 0 {
		delete(w.attached, k)
		return
	}
	a := attach.Attachment{Key: k, Kind: attach.TUN, Device: "eth0", NetNS: "/ns/" + k.Name, Port: fmt.Sprintf("p%d", r.IntN(8))}
	if r.IntN(3) == 0 {
		a.Kind, a.NetNS, a.Device = attach.XSK, "", "d"+a.Port
	}
	for o, other := range w.attached {
		if o != k && (other.Port == a.Port || other.NetNS == a.NetNS && other.Device == a.Device) {
			delete(w.attached, o) // a book would refuse it
		}
	}
	w.attached[k] = a
}

// place gives the node other uplinks.
func (w *world) place(r *rand.Rand, address func() netip.Addr) {
	w.local = Local{HostDevice: "margay0", HostDenied: r.IntN(2) == 0}
	for i := range r.IntN(3) {
		u := Uplink{Port: fmt.Sprintf("p%d", 2*i), Device: fmt.Sprintf("dp%d", i)}
		if a := address(); a.Is4() {
			u.Addresses = append(u.Addresses, netip.PrefixFrom(a, 24))
		}
		u.Addresses = append(u.Addresses, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:%d::9", i)), 64))
		w.local.Uplinks = append(w.local.Uplinks, u)
	}
}

// TestWhatComesOutIsWhatThePlainestCodeMakes also wants each change to be one that a
// dataplane takes.
func TestWhatComesOutIsWhatThePlainestCodeMakes(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := world{nodes: map[string][]netip.Addr{}, workloads: map[attach.Key]Workload{}, attached: map[attach.Key]attach.Attachment{}, stages: map[attach.Key]*guard.Stages{}, judged: map[string]*guard.Stages{}}
		n := New("n0")
		var told dataplane.State
		faults := map[Object]bool{}
		there := desired.Empty()
		for step := range 40 {
			for range 1 + r.IntN(4) {
				w.mutate(r, n)
			}
			out := n.Flush()
			told = told.With(out.Delta)
			var refusal []string
			if there, refusal = there.Apply(change(out.Delta), step == 0); refusal != nil {
				t.Fatalf("seed %d step %d: a dataplane refuses it: %s", seed, step, strings.Join(refusal, "\n"))
			}
			for o, text := range out.Faults {
				if delete(faults, o); text != "" {
					faults[o] = true
				}
			}
			if want := w.faulty(); !maps.Equal(faults, want) {
				t.Fatalf("seed %d step %d: faults are told of %v, want %v", seed, step, faults, want)
			}
			if diff := w.compare(&told); diff != "" {
				t.Fatalf("seed %d step %d: %s", seed, step, diff)
			}
			if again := n.Flush(); !empty(again.Delta) {
				t.Fatalf("seed %d step %d: nothing has changed, and yet it tells %+v", seed, step, again.Delta)
			}
		}
	}
}

func empty(d dataplane.Delta) bool {
	return len(d.Set.Ports)+len(d.Set.Endpoints)+len(d.Set.Routes)+len(d.Set.NextHops)+len(d.RemovedPorts)+len(d.RemovedEndpoints)+
		len(d.RemovedRoutes)+len(d.RemovedNextHops) == 0 && d.Set.HostPort == nil && d.Set.Steering == nil
}

// change is a delta as the dataplane reads it, without what only policy has.
func change(d dataplane.Delta) *desired.Change {
	c := &v1.Chunk{Ports: d.Set.Ports, RemovedPorts: d.RemovedPorts, NextHops: d.Set.NextHops, RemovedNextHops: d.RemovedNextHops,
		RemovedEndpoints: d.RemovedEndpoints, HostPort: d.Set.HostPort, Steering: d.Set.Steering, Routes: &v1.RouteColumns{}, RemovedRoutes: &v1.RouteColumns{}}
	for _, e := range d.Set.Endpoints {
		e = proto.CloneOf(e)
		e.Egress, e.Ingress = nil, nil // of programs that only a guard's delta has
		c.Endpoints = append(c.Endpoints, e)
	}
	add := func(to *v1.RouteColumns, p netip.Prefix, hop ...uint32) {
		if p.Addr().Is4() {
			to.Addresses4, to.Lengths4, to.NextHops4 = append(to.Addresses4, p.Addr().AsSlice()...), append(to.Lengths4, byte(p.Bits())), append(to.NextHops4, hop...)
		} else {
			to.Addresses6, to.Lengths6, to.NextHops6 = append(to.Addresses6, p.Addr().AsSlice()...), append(to.Lengths6, byte(p.Bits())), append(to.NextHops6, hop...)
		}
	}
	for _, r := range d.Set.Routes {
		add(c.Routes, r.Prefix, r.NextHop)
	}
	for _, p := range d.RemovedRoutes {
		add(c.RemovedRoutes, p)
	}
	out := desired.NewChange()
	out.Add(c)
	return out
}

// compare says how a state differs from what the oracle makes; nothing if it does
// not.
func (w *world) compare(s *dataplane.State) string {
	ports, endpoints := w.places()
	routes := w.routes()
	led := map[uint32]string{}
	for _, h := range s.NextHops {
		led[h.Id] = "punt"
		for _, m := range h.Members {
			led[h.Id] = m.Port + " " + m.Gateway
		}
	}
	got := map[netip.Prefix]string{}
	for _, r := range s.Routes {
		got[r.Prefix] = led[r.NextHop]
	}
	if !maps.Equal(got, routes) {
		return fmt.Sprintf("routes are\n%v\nwant\n%v", got, routes)
	}
	if len(led) > 1+2*len(w.nodes) {
		return fmt.Sprintf("%d ways for %d nodes", len(led), len(w.nodes))
	}
	for _, p := range s.Ports {
		if !proto.Equal(p, ports[p.Name]) {
			return fmt.Sprintf("port is\n%s\nwant\n%s", prototext.Format(p), prototext.Format(ports[p.Name]))
		}
	}
	for _, e := range s.Endpoints {
		if !proto.Equal(e, endpoints[e.Id]) {
			return fmt.Sprintf("endpoint is\n%s\nwant\n%s", prototext.Format(e), prototext.Format(endpoints[e.Id]))
		}
	}
	if len(s.Ports) != len(ports) || len(s.Endpoints) != len(endpoints) {
		return fmt.Sprintf("there are %d ports and %d endpoints, want %d and %d", len(s.Ports), len(s.Endpoints), len(ports), len(endpoints))
	}
	return ""
}

// Whoever comes behind the one that has an address changes nothing for the others.
func TestManyMayClaimOneAddress(t *testing.T) {
	for _, address := range []string{"10.0.0.1/32", "fd00::1/128"} {
		n := New("n0")
		shared := Workload{Node: "n1", Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
		key := func(i int) attach.Key { return attach.Key{Namespace: "a", Name: fmt.Sprintf("w%04d", i)} }
		for i := range 1000 {
			n.PutWorkload(key(i), shared)
		}
		n.Flush()
		n.PutWorkload(key(1000), shared)
		if looked := len(n.dirty.places); looked != 1 {
			t.Errorf("%s: one more claims it, and %d workloads are looked at", address, looked)
		}
		n.RemoveWorkload(key(500))
		n.Flush()
		n.RemoveWorkload(key(0))
		out := n.Flush()
		if fault, told := out.Faults[Object{Workload: key(1)}]; !told || fault != "" {
			t.Errorf("%s: the next has it now, and told is %q", address, fault)
		}
		if fault := out.Faults[Object{Workload: key(999)}]; !strings.Contains(fault, key(1).String()) {
			t.Errorf("%s: who has it now is told as %q", address, fault)
		}
	}
}

// A label is nothing that the network has.
func TestAWorkloadThatIsToldAgainIsNoWork(t *testing.T) {
	n := New("n0")
	k, w := attach.Key{Namespace: "a", Name: "w"}, Workload{Node: "n1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, MAC: []byte{2, 0, 0, 0, 0, 1}}
	n.PutWorkload(k, w)
	n.Flush()
	w.Addresses, w.MAC = slices.Clone(w.Addresses), slices.Clone(w.MAC)
	if n.PutWorkload(k, w); len(n.dirty.places)+len(n.dirty.nodes)+len(n.dirty.prefixes) > 0 {
		t.Errorf("it is as it was, and looked at are %+v", n.dirty)
	}
	w.MAC[5]++
	if n.PutWorkload(k, w); len(n.dirty.places) == 0 {
		t.Error("it has another MAC, and nothing is looked at")
	}
}

package dataplane

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// A Route leads a prefix to a next hop of the same state.
type Route struct {
	Prefix  netip.Prefix
	NextHop uint32
}

// A State is everything a dataplane shall do. Objects are handed over: a caller
// does not change them after it has sent them.
type State struct {
	Ports     []*v1.Port
	Addresses []*v1.Address
	NextHops  []*v1.NextHop
	Routes    []Route
	Endpoints []*v1.Endpoint
	HostPort  *v1.HostPort // nil: none, or in a Delta unchanged
	Steering  *v1.Steering // nil: none, or in a Delta unchanged
	Sets      []Set        // in a Delta: members that join
	Programs  []Program
	Rules     []*v1.RuleName
}

// A Set is addresses that programs know by a number.
type Set struct {
	ID      uint32
	Name    string // for people, as v1.Line makes it; empty: as it was
	Members []netip.Prefix
}

// A Program is a compiled rule list, as classifier.Load takes it. Another list
// takes another ID.
type Program struct {
	ID    uint32
	Image []byte
}

// A Delta changes the state before it: Set adds objects or replaces those of
// the same key, the rest names keys to remove.
type Delta struct {
	Set              State
	RemovedPorts     []string
	RemovedAddresses []*v1.Address
	RemovedNextHops  []uint32
	RemovedRoutes    []netip.Prefix
	RemovedEndpoints []string
	RemovedHostPort  bool
	Left             []Set // members that leave
	RemovedSets      []uint32
	RemovedPrograms  []uint32
	RemovedRules     []uint32
}

// With is the state that s becomes by d, in an order that does not change. It
// shares objects with both.
func (s State) With(d Delta) State {
	m := newMirror()
	m.set(&s)
	m.merge(&d)
	return *m.state()
}

// mirror is what the dataplane has accepted, by key.
type mirror struct {
	ports     map[string]*v1.Port
	addresses map[address]*v1.Address
	hops      map[uint32]*v1.NextHop
	routes    map[netip.Prefix]uint32
	endpoints map[string]*v1.Endpoint
	host      *v1.HostPort
	steering  *v1.Steering
	sets      map[uint32]map[netip.Prefix]struct{}
	setNames  map[uint32]string
	programs  map[uint32]Program
	rules     map[uint32]*v1.RuleName
}

// address is the key of a v1.Address, which is the whole of it.
type address struct{ port, prefix string }

func newMirror() *mirror {
	return &mirror{
		ports: map[string]*v1.Port{}, addresses: map[address]*v1.Address{}, hops: map[uint32]*v1.NextHop{},
		routes: map[netip.Prefix]uint32{}, endpoints: map[string]*v1.Endpoint{},
		sets: map[uint32]map[netip.Prefix]struct{}{}, setNames: map[uint32]string{}, programs: map[uint32]Program{}, rules: map[uint32]*v1.RuleName{},
	}
}

// merge makes the change that d is. What is both set and removed is removed.
func (m *mirror) merge(d *Delta) {
	m.set(&d.Set)
	remove(m.ports, d.RemovedPorts)
	remove(m.hops, d.RemovedNextHops)
	remove(m.routes, d.RemovedRoutes)
	remove(m.endpoints, d.RemovedEndpoints)
	for _, a := range d.RemovedAddresses {
		delete(m.addresses, address{a.GetPort(), a.GetPrefix()})
	}
	for _, s := range d.Left {
		for _, p := range s.Members {
			delete(m.sets[s.ID], p)
		}
	}
	remove(m.sets, d.RemovedSets)
	remove(m.setNames, d.RemovedSets)
	remove(m.programs, d.RemovedPrograms)
	remove(m.rules, d.RemovedRules)
	if d.RemovedHostPort {
		m.host = nil
	}
}

func (m *mirror) set(s *State) {
	for _, p := range s.Ports {
		m.ports[p.GetName()] = p
	}
	for _, a := range s.Addresses {
		m.addresses[address{a.GetPort(), a.GetPrefix()}] = a
	}
	for _, h := range s.NextHops {
		m.hops[h.GetId()] = h
	}
	for _, r := range s.Routes {
		m.routes[r.Prefix] = r.NextHop
	}
	for _, e := range s.Endpoints {
		m.endpoints[e.GetId()] = e
	}
	for _, x := range s.Sets {
		members, had := m.sets[x.ID]
		if !had {
			members = map[netip.Prefix]struct{}{}
			m.sets[x.ID] = members
		}
		if x.Name != "" {
			m.setNames[x.ID] = x.Name
		}
		for _, p := range x.Members {
			members[p] = struct{}{}
		}
	}
	for _, p := range s.Programs {
		m.programs[p.ID] = p
	}
	for _, r := range s.Rules {
		m.rules[r.GetId()] = r
	}
	m.host = cmp.Or(s.HostPort, m.host)
	m.steering = cmp.Or(s.Steering, m.steering)
}

func remove[K comparable, V any](from map[K]V, keys []K) {
	for _, k := range keys {
		delete(from, k)
	}
}

// state is the mirror as one snapshot, in an order that does not change.
func (m *mirror) state() *State {
	s := &State{
		Ports: sorted(m.ports), NextHops: sorted(m.hops), Endpoints: sorted(m.endpoints),
		HostPort: m.host, Steering: m.steering, Programs: sorted(m.programs), Rules: sorted(m.rules),
	}
	for _, id := range slices.Sorted(maps.Keys(m.sets)) {
		s.Sets = append(s.Sets, Set{id, m.setNames[id], slices.SortedFunc(maps.Keys(m.sets[id]), netip.Prefix.Compare)})
	}
	s.Routes = make([]Route, 0, len(m.routes))
	for p, id := range m.routes {
		s.Routes = append(s.Routes, Route{p, id})
	}
	slices.SortFunc(s.Routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	for _, k := range slices.SortedFunc(maps.Keys(m.addresses), func(a, b address) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.prefix, b.prefix))
	}) {
		s.Addresses = append(s.Addresses, m.addresses[k])
	}
	return s
}

func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

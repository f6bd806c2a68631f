package desired

import (
	"maps"
	"net/netip"
)

// Apply returns the state that s becomes by c: a new one for a snapshot, s
// itself, changed, for a delta. When anything is wrong it returns s untouched
// and every fault.
func (s *State) Apply(c *Change, snapshot bool) (*State, []string) {
	base := s
	if snapshot {
		base = Empty()
	}
	k := check{base: base, c: c, faults: &c.faults}
	if !c.faults.any() { // objects with faults of their own would only give more of them
		k.all()
	}
	if c.faults.any() {
		return s, c.faults.all()
	}
	base.merge(c)
	return base, nil
}

// check looks at what a state would be after a change, without making it.
type check struct {
	base *State
	c    *Change
	*faults
}

func (k check) all() {
	k.ports()
	k.nextHops()
	k.endpoints()
	for a, set := range k.c.addresses {
		if set {
			k.needPort("address/"+a.Port+"/"+a.Prefix.String(), a.Port)
			k.needOwned(a)
		}
	}
	k.policy()
	k.leftBehind()
	k.routes()
}

// port is the port of that name after the change, or nil.
func (k check) port(name string) *Port {
	if p, changed := k.c.ports[name]; changed {
		return p
	}
	return k.base.Ports[name]
}

func (k check) needPort(object, name string) bool {
	if k.port(name) == nil {
		k.say("%s: port is %.64q, want a port of this state", object, name)
		return false
	}
	return true
}

func (k check) needOwned(a Address) {
	if p := k.port(a.Port); p != nil && p.Kind == XSK && !p.Takeover {
		k.say("address/%s/%s: port is shared with the kernel, want one with takeover, or a TUN", a.Port, a.Prefix)
	}
}

func (k check) ports() {
	count := len(k.base.Ports)
	taken := map[device]string{}
	for name, p := range k.c.ports {
		_, was := k.base.Ports[name]
		switch {
		case p == nil && was:
			count--
		case p != nil && !was:
			count++
		}
		if p == nil {
			continue
		}
		if other, twice := taken[p.device()]; twice {
			k.say("port/%s: device is %q, which port %s has as well", name, p.Device, other)
		}
		taken[p.device()] = name
		other, had := k.base.devices[p.device()]
		if _, changed := k.c.ports[other]; had && other != name && !changed {
			k.say("port/%s: device is %q, which port %s has as well", name, p.Device, other)
		}
	}
	if count > MaxPorts {
		k.add("ports", "count", count, "at most 4000")
	}
	k.hostDevice(taken)
}

// hostDevice checks that no port has the host port's device.
func (k check) hostDevice(taken map[device]string) {
	host := k.base.Host
	if k.c.hostSet {
		host = k.c.host
	}
	if host == nil {
		return
	}
	at := device{"", host.Name}
	name, clash := taken[at]
	if old, had := k.base.devices[at]; had && !clash {
		_, changed := k.c.ports[old]
		name, clash = old, !changed
	}
	if clash {
		k.say("host-port: name is %q, which is the device of port %s", host.Name, name)
	}
}

func (k check) nextHops() {
	for id, h := range k.c.nextHops {
		if h == nil {
			continue
		}
		for _, m := range h.Members {
			k.needPort(hopName(id), m.Port)
		}
	}
}

func (k check) endpoints() {
	owners := map[netip.Prefix]string{}
	for id, e := range k.c.endpoints {
		if e == nil {
			continue
		}
		object := "endpoint/" + clip(id)
		k.needPort(object, e.Port)
		for _, p := range e.Addresses {
			if other, twice := owners[p]; twice {
				k.say("%s: address %s is named twice, here and by endpoint %s", object, p, clip(other))
			}
			owners[p] = id
			other, had := k.base.owners[p]
			if _, changed := k.c.endpoints[other]; had && !changed {
				k.say("%s: address %s is endpoint %s's", object, p, clip(other))
			}
		}
	}
}

// leftBehind finds what names a port that the change removes.
func (k check) leftBehind() {
	removed := false
	for _, p := range k.c.ports {
		removed = removed || p == nil || p.Kind == XSK && !p.Takeover
	}
	if !removed {
		return
	}
	for id, e := range k.base.Endpoints {
		if _, changed := k.c.endpoints[id]; !changed {
			k.needPort("endpoint/"+clip(id), e.Port)
		}
	}
	for id, h := range k.base.NextHops {
		if _, changed := k.c.nextHops[id]; changed {
			continue
		}
		for _, m := range h.Members {
			k.needPort(hopName(id), m.Port)
		}
	}
	for a := range k.base.Addresses {
		if _, changed := k.c.addresses[a]; !changed {
			k.needPort("address/"+a.Port+"/"+a.Prefix.String(), a.Port)
			k.needOwned(a)
		}
	}
}

// routes checks that each route's next hop is there, and that no removed next
// hop is still routed to.
func (k check) routes() {
	moved := map[uint32]int{} // change in the number of routes, by next hop
	for p, hop := range k.c.routes.All() {
		if was, had := k.base.Routes.Get(p); had {
			moved[was]--
		}
		if hop == 0 {
			continue
		}
		moved[hop]++
		h, changed := k.c.nextHops[hop]
		if !changed {
			h = k.base.NextHops[hop]
		}
		if h == nil {
			k.say("route/%v: next_hop is %d, want a next hop of this state", p, hop)
		}
	}
	for id, h := range k.c.nextHops {
		if h != nil {
			continue
		}
		if n := k.base.routed[id] + moved[id]; n > 0 && k.base.NextHops[id] != nil {
			k.say("%s: removed, but %d routes lead to it", hopName(id), n)
		}
	}
}

// merge makes the change, which was checked.
func (s *State) merge(c *Change) {
	s.mergePorts(c)
	for a, set := range c.addresses {
		if set {
			s.Addresses[a] = struct{}{}
		} else {
			delete(s.Addresses, a)
		}
	}
	mergeMap(s.NextHops, c.nextHops)
	s.mergeRoutes(c)
	s.mergePolicy(c)
	for id := range c.endpoints { // all old addresses first: they may move from one to another
		if old := s.Endpoints[id]; old != nil {
			for _, p := range old.Addresses {
				s.disown(p)
			}
		}
	}
	mergeMap(s.Endpoints, c.endpoints)
	for id, e := range c.endpoints {
		if e != nil {
			for _, p := range e.Addresses {
				s.own(p, id)
			}
		}
	}
	if c.hostSet {
		s.Host = c.host
	}
	if c.steering != nil {
		s.Steering = *c.steering
	}
}

func mergeMap[K comparable, V any](to, from map[K]*V) {
	for k, v := range from {
		if v == nil {
			delete(to, k)
		} else {
			to[k] = v
		}
	}
}

func (s *State) mergePorts(c *Change) {
	for name := range c.ports {
		if old := s.Ports[name]; old != nil {
			delete(s.devices, old.device())
		}
	}
	mergeMap(s.Ports, c.ports)
	for name, p := range c.ports {
		if p != nil {
			s.devices[p.device()] = name
		}
	}
}

func (s *State) mergeRoutes(c *Change) {
	if s.Routes.Len() == 0 { // a snapshot: take the maps over instead of copying a million entries
		maps.DeleteFunc(c.routes.v4, func(_ route4, hop uint32) bool { return hop == 0 })
		maps.DeleteFunc(c.routes.v6, func(_ route6, hop uint32) bool { return hop == 0 })
		s.Routes = c.routes
		for _, hop := range s.Routes.All() {
			s.routed[hop]++
		}
		return
	}
	for p, hop := range c.routes.All() {
		if was, had := s.Routes.Get(p); had {
			s.routed[was]--
			if s.routed[was] == 0 {
				delete(s.routed, was)
			}
		}
		if hop == 0 {
			s.Routes.remove(p)
		} else {
			s.Routes.set(p, hop)
			s.routed[hop]++
		}
	}
}

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/api/selector"
	"margay.dev/margay/classifier"
)

// source is what selectors of rules may pick: an endpoint or a network set.
type source struct {
	members []member // sorted
	ports   []namedPort
	domains []string // patterns of names of hosts, sorted
}

// pair is a protocol and a port of it.
type pair struct {
	protocol uint8
	port     uint16
}

func (p pair) compare(q pair) int {
	return cmp.Or(cmp.Compare(p.protocol, q.protocol), cmp.Compare(p.port, q.port))
}

type namedPort struct {
	name string
	pair
}

// gatheringKey is what a rule asks for: addresses that a selector picks, ports of
// a name of what a selector picks, addresses of a service, or its ports too.
type gatheringKey struct {
	selector  string // in canonical form
	port      string // the name; empty: the addresses
	service   Key    // or a service, without kind
	addresses bool   // of the service, without its ports
	domains   bool   // addresses of the names of hosts that the selector picks
}

// gathering is the sets of addresses that come of one such question: one, or one
// for each protocol and port that occurs.
type gathering struct {
	key   gatheringKey
	set   *memberSet          // nil where there are pairs, or no names of hosts
	picks int                 // of names of hosts: network sets that have some
	pairs map[pair]*memberSet // nil where there is a set
	users map[*body]struct{}
}

// String is what the gathering has, for people.
func (g *gathering) String() string {
	switch {
	case g.key.service.Name != "":
		return fmt.Sprintf("service %s/%s", g.key.service.Namespace, g.key.service.Name)
	case g.key.port != "":
		return fmt.Sprintf("port %q of %s", g.key.port, g.key.selector)
	case g.key.domains:
		return "names of hosts of " + g.key.selector
	}
	return g.key.selector
}

// live are the pairs that have an address, sorted.
func (g *gathering) live() []pair {
	var live []pair
	for p, set := range g.pairs {
		if set.live > 0 {
			live = append(live, p)
		}
	}
	slices.SortFunc(live, pair.compare)
	return live
}

// use finds a gathering for a rule of b, or makes it. The selector is nil for a
// service.
func (c *Calculation) use(b *body, key gatheringKey, sel *selector.Selector) *gathering {
	g, ok := c.gathered[key]
	if !ok {
		g = &gathering{key: key, users: make(map[*body]struct{})}
		c.gathered[key] = g
		switch {
		case key.domains: // its set is made when there is something to be in it
		case key.port == "" && (sel != nil || key.addresses):
			g.set = c.newSet(g.String())
		default:
			g.pairs = make(map[pair]*memberSet)
		}
	}
	g.users[b] = struct{}{}
	b.uses[g] = struct{}{}
	switch {
	case ok:
	case key.domains:
		c.named.SetSelector(g, sel)
	case sel != nil:
		c.picked.SetSelector(g, sel)
	default:
		c.bringBackends(g, c.services[key.service], true)
	}
	return g
}

// leave says that b does not use the gathering any more. It stays until the
// Flush ends, for others.
func (c *Calculation) leave(b *body, g *gathering) {
	delete(g.users, b)
	delete(b.uses, g)
	if len(g.users) == 0 {
		c.dirty.gatherings[g] = struct{}{}
	}
}

// newSet makes a set without members, which the next Flush tells of.
func (c *Calculation) newSet(name string) *memberSet {
	s := &memberSet{id: classifier.SetID(c.setIDs.take()), name: name, counts: make(map[member]uint32)}
	c.dirty.sets[s] = struct{}{}
	return s
}

// bringSource counts what a source has for a gathering.
func (c *Calculation) bringSource(g *gathering, s *source, more bool) {
	if g.set != nil {
		for _, m := range s.members {
			c.bring(g.set, m, more)
		}
		return
	}
	for _, p := range s.ports {
		if p.name == g.key.port {
			c.bringPair(g, p.pair, s.members, more)
		}
	}
}

// bringBackends counts what a service has for a gathering.
func (c *Calculation) bringBackends(g *gathering, backends []Backend, more bool) {
	for _, b := range backends {
		m := memberOf(netip.PrefixFrom(b.Address, b.Address.BitLen()))
		if g.set != nil {
			c.bring(g.set, m, more)
		} else {
			c.bringPair(g, pair{b.Protocol, b.Port}, []member{m}, more)
		}
	}
}

// bringPair counts members of one pair. Users must be rendered anew when a pair
// comes or goes.
func (c *Calculation) bringPair(g *gathering, p pair, members []member, more bool) {
	if g.pairs == nil || len(members) == 0 {
		return // it is being dropped, or there is nothing to count
	}
	set, ok := g.pairs[p]
	if !ok {
		set = c.newSet(fmt.Sprintf("%v: %d/%d", g, p.protocol, p.port))
		g.pairs[p] = set
	}
	was := set.live > 0
	for _, m := range members {
		c.bring(set, m, more)
	}
	if was == (set.live > 0) {
		return
	}
	c.dirty.gatherings[g] = struct{}{}
	for b := range g.users {
		b.ports = true
		c.dirty.bodies[b] = struct{}{}
	}
}

func (c *Calculation) bring(s *memberSet, m member, more bool) {
	s.bring(m, more)
	if len(s.changed) > 0 {
		c.dirty.sets[s] = struct{}{}
	}
}

// putSource gives a source other members, ports and labels.
func (c *Calculation) putSource(key Key, next *source, labels map[string]string, parents []string) {
	s, known := c.sources[key]
	if !known {
		s = &source{}
		c.sources[key] = s
	}
	if !slices.Equal(s.ports, next.ports) || !slices.Equal(s.members, next.members) {
		c.exchange(s, next)
	}
	c.picked.SetItem(s, labels, parents)
	c.putDomains(s, next.domains, labels, parents)
}

// exchange moves every gathering that picks s from what it has to what next has,
// by the difference.
func (c *Calculation) exchange(s, next *source) {
	var gone, come []member
	compareMembers(s.members, next.members,
		func(m member) { gone = append(gone, m) }, func(m member) { come = append(come, m) })
	for g := range c.picked.Owners(s) {
		if g.set == nil {
			c.bringSource(g, next, true)
			c.bringSource(g, s, false)
			continue
		}
		c.bringSource(g, &source{members: come}, true)
		c.bringSource(g, &source{members: gone}, false)
	}
	s.members, s.ports = next.members, next.ports
}

func (c *Calculation) removeSource(key Key) {
	if s, ok := c.sources[key]; ok {
		c.picked.RemoveItem(s)
		c.putDomains(s, nil, nil, nil)
		delete(c.sources, key)
	}
}

// Backend is one address and port behind a service.
type Backend struct {
	Address  netip.Addr
	Protocol uint8 // as in an IP header
	Port     uint16
}

// SetService says what is behind a service, in the place of what was; nothing is
// what a service has that is not there. Backends are those of every endpoint of
// the service, ready or not, after translation. One without a valid address is
// passed over.
func (c *Calculation) SetService(namespace, name string, backends []Backend) {
	key := Key{Namespace: namespace, Name: name}
	next := make([]Backend, 0, len(backends))
	for _, b := range backends {
		if b.Address.IsValid() {
			b.Address = b.Address.Unmap().WithZone("")
			next = append(next, b)
		}
	}
	for _, addresses := range []bool{true, false} {
		if g, ok := c.gathered[gatheringKey{service: key, addresses: addresses}]; ok {
			c.bringBackends(g, next, true)
			c.bringBackends(g, c.services[key], false)
		}
	}
	if c.services[key] = next; len(next) == 0 {
		delete(c.services, key)
	}
}

// tellSets gives what changed of sets, and drops those of gatherings and pairs
// that nobody needs.
func (c *Calculation) tellSets(out *Changes, f *freed) {
	gone := make(map[*memberSet]bool)
	for g := range c.dirty.gatherings {
		unused := len(g.users) == 0
		if g.key.domains && g.picks == 0 && g.set != nil {
			gone[g.set] = true
			g.set = nil
		}
		for p, set := range g.pairs {
			if unused || set.live == 0 {
				gone[set] = true
				delete(g.pairs, p)
			}
		}
		if unused {
			if g.set != nil {
				gone[g.set] = true
			}
			c.drop(g)
		}
	}
	for s := range gone {
		delete(c.dirty.sets, s)
		f.sets = append(f.sets, uint32(s.id))
		if s.told {
			out.Sets = append(out.Sets, SetChange{ID: s.id, Name: s.name, Left: s.all()})
			out.GoneSets = append(out.GoneSets, s.id)
		}
	}
	for s := range c.dirty.sets {
		joined, left := s.tell()
		if !s.told || len(joined)+len(left) > 0 {
			out.Sets = append(out.Sets, SetChange{s.id, s.name, joined, left})
		}
		s.told = true
	}
	slices.Sort(out.GoneSets)
	slices.Sort(f.sets)
	slices.SortFunc(out.Sets, func(a, b SetChange) int { return cmp.Compare(a.ID, b.ID) })
}

// drop forgets a gathering, and first that it has any members, so that nobody
// need count them down.
func (c *Calculation) drop(g *gathering) {
	delete(c.gathered, g.key)
	g.set, g.pairs = nil, nil
	c.picked.RemoveSelector(g)
	c.named.RemoveSelector(g)
}

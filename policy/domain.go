package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"margay.dev/margay/api/domain"
	"margay.dev/margay/classifier"
)

// Names of hosts that network sets have. Their addresses come from SetDomain, and
// are of sets of their own: those that an egress rule which allows asks for beside
// the set of its selector. So they have no part in what else the selector is for,
// and a selector that picks no names of hosts costs nothing but the question.

// resolved is what a pattern of names stands for.
type resolved struct {
	members map[member]struct{}
	sources map[*source]struct{} // network sets that have the pattern
	told    bool                 // that the pattern is wanted
}

// SetDomain says which addresses joined and left those that the names have which
// a pattern matches, as Changes tell patterns. It does nothing for a pattern that no
// network set has.
func (c *Calculation) SetDomain(pattern string, joined, left []netip.Addr) {
	h, ok := c.hosts[pattern]
	if !ok {
		return
	}
	for _, a := range joined {
		c.resolve(h, a, true)
	}
	for _, a := range left {
		c.resolve(h, a, false)
	}
}

// resolve has one address join or leave, if it has not.
func (c *Calculation) resolve(h *resolved, a netip.Addr, join bool) {
	if !a.IsValid() {
		return
	}
	a = a.Unmap().WithZone("")
	m := memberOf(netip.PrefixFrom(a, a.BitLen()))
	if _, has := h.members[m]; has == join {
		return
	}
	if join {
		h.members[m] = struct{}{}
	} else {
		delete(h.members, m)
	}
	for s := range h.sources {
		for g := range c.named.Owners(s) {
			c.bring(g.set, m, join)
		}
	}
}

// domains reads patterns, each once and sorted, and tells of those that cannot be
// read.
func domains(texts []string, tell func(fault string)) []string {
	var out []string
	for i, text := range texts {
		p, err := domain.Parse(text)
		if err != nil {
			tell(fmt.Sprintf("allowedEgressDomains[%d]: %v; it is left out", i, err))
			continue
		}
		out = append(out, p.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// putDomains gives a network set other patterns and labels.
func (c *Calculation) putDomains(s *source, next []string, labels map[string]string, parents []string) {
	if len(next) == 0 {
		c.named.RemoveItem(s)
	}
	for _, pattern := range next {
		if !slices.Contains(s.domains, pattern) {
			c.resolution(pattern).sources[s] = struct{}{}
			c.exchangeDomain(s, pattern, true)
		}
	}
	for _, pattern := range s.domains {
		if !slices.Contains(next, pattern) {
			c.exchangeDomain(s, pattern, false)
			delete(c.hosts[pattern].sources, s)
			c.dirty.hosts[pattern] = struct{}{}
		}
	}
	if s.domains = next; len(next) > 0 {
		c.named.SetItem(s, labels, parents)
	}
}

// resolution finds a pattern, or makes one whose names have no address yet.
func (c *Calculation) resolution(pattern string) *resolved {
	h, ok := c.hosts[pattern]
	if !ok {
		h = &resolved{members: make(map[member]struct{}), sources: make(map[*source]struct{})}
		c.hosts[pattern] = h
	}
	c.dirty.hosts[pattern] = struct{}{}
	return h
}

// exchangeDomain counts one pattern more, or one less, for all that pick s already.
func (c *Calculation) exchangeDomain(s *source, pattern string, more bool) {
	for g := range c.named.Owners(s) {
		for m := range c.hosts[pattern].members {
			c.bring(g.set, m, more)
		}
	}
}

// bringDomains counts what a network set has of names for a gathering. Users must
// be rendered anew when the first set with names comes, or the last one goes.
func (c *Calculation) bringDomains(g *gathering, s *source, more bool) {
	if c.gathered[g.key] != g {
		return // it is being dropped
	}
	if more {
		if g.picks++; g.picks == 1 && g.set == nil {
			g.set = c.newSet(g.String())
		}
	}
	for _, pattern := range s.domains {
		for m := range c.hosts[pattern].members {
			c.bring(g.set, m, more)
		}
	}
	if !more {
		g.picks--
	}
	if g.picks == 0 || more && g.picks == 1 {
		c.dirty.gatherings[g] = struct{}{}
		for b := range g.users {
			b.ports = true
			c.dirty.bodies[b] = struct{}{}
		}
	}
}

// withDomains is the sides that stand for a rule's destination: that of its
// selector, and that of the names of hosts which the selector picks.
func (p *peer) withDomains(side classifier.Side) []classifier.Side {
	if !p.domains.asked() || p.domains.answer.picks == 0 {
		return []classifier.Side{side}
	}
	named := side
	named.Sets = []classifier.SetID{p.domains.answer.set.id}
	return []classifier.Side{side, named}
}

// Domains are the patterns that the next Flush will tell as NewDomains and
// GoneDomains, as far as it is known yet: what SetDomain says of the new ones before
// it comes into force together with what asks for them.
func (c *Calculation) Domains() (fresh, gone []string) {
	for _, pattern := range slices.Sorted(maps.Keys(c.dirty.hosts)) {
		h := c.hosts[pattern]
		switch wanted := len(h.sources) > 0; {
		case wanted && !h.told:
			fresh = append(fresh, pattern)
		case !wanted && h.told:
			gone = append(gone, pattern)
		}
	}
	return fresh, gone
}

// tellHosts gives which patterns came to be wanted, and which are wanted no longer.
func (c *Calculation) tellHosts(out *Changes) {
	out.NewDomains, out.GoneDomains = c.Domains()
	for pattern := range c.dirty.hosts {
		if h := c.hosts[pattern]; len(h.sources) > 0 {
			h.told = true
		} else {
			delete(c.hosts, pattern)
		}
	}
}

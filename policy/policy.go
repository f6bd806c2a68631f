// Package policy calculates which rules judge which endpoint, from resources of
// api/v3, a change at a time.
//
//	Upsert, Delete, SetService ──► Calculation ──Flush──► Changes: members of sets, judgements of endpoints, conditions
//
// A call to Upsert or Delete notes what it touches; Flush brings that up to date
// and gives what came out differently. Where it ends does not depend on the order
// of events, and the work follows the change: package index asks few selectors,
// a rule becomes classifier rules once for all endpoints, and endpoints with the
// same policies share their lists.
//
//	labels ──index──► policies of an endpoint ─┐
//	labels ──index──► sources of a gathering ──┼─► members of its sets
//	tiers, orders, directions ─────────────────┴─► judgements
//
// What is not understood never opens anything. A rule that cannot be read denies
// everything if it would have denied or passed, and is left out if it would have
// allowed. A policy whose own selectors cannot be read applies to all that it
// might mean and denies everything. A profile that is missing denies. Each such
// fault is a Condition. (Validation, in api/v3, refuses such objects before they
// are stored; this is for those that come by other ways.)
package policy

import (
	"cmp"
	"maps"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/policy/index"
)

// Calculation holds all resources, and what follows from them. It is for one
// goroutine. Make it with New.
type Calculation struct {
	node string // endpoints of this node are judged; empty: of all

	tiers     map[string]tier
	policies  map[Key]*policy
	profiles  map[string]*profile
	endpoints map[Key]*endpoint // those that are judged
	sources   map[Key]*source   // what selectors of rules may pick
	services  map[Key][]Backend
	hosts     map[string]*resolved // names that network sets have, by pattern

	judged   *index.Index[*endpoint, *policy]  // whom policies pick
	picked   *index.Index[*source, *gathering] // what rules pick
	named    *index.Index[*source, *gathering] // the same, of sources that have names of hosts
	gathered map[gatheringKey]*gathering

	setIDs, ruleIDs ids
	rules           map[uint32]RuleRef
	gone            []freed            // by generation
	lists           map[string]*shared // by the revisions of their parts
	revisions       uint64             // of rendered rules
	generation      uint64             // of the last Flush
	faults          map[Key]*faults

	dirty dirty
}

// dirty is what the next Flush has to look at.
type dirty struct {
	bodies     map[*body]struct{}
	endpoints  map[*endpoint]struct{}
	removed    map[Key]struct{} // endpoints that were judged
	sets       map[*memberSet]struct{}
	gatherings map[*gathering]struct{} // that lost a user, or a pair, or got one
	faults     map[Key]struct{}
	rules      map[uint32]struct{} // that have another place than was told
	hosts      map[string]struct{} // that a network set more has, or one less
}

func clean() dirty {
	return dirty{
		bodies: make(map[*body]struct{}), endpoints: make(map[*endpoint]struct{}), removed: make(map[Key]struct{}),
		sets: make(map[*memberSet]struct{}), gatherings: make(map[*gathering]struct{}), faults: make(map[Key]struct{}),
		rules: make(map[uint32]struct{}), hosts: make(map[string]struct{}),
	}
}

// New makes a calculation that knows nothing but the tiers that are always there.
// It judges the endpoints of one node, or, where node is empty, of all. Selectors
// of rules pick among the endpoints of all nodes in any case.
func New(node string) *Calculation {
	c := &Calculation{
		node:  node,
		tiers: builtInTiers(), policies: make(map[Key]*policy), profiles: make(map[string]*profile),
		endpoints: make(map[Key]*endpoint), sources: make(map[Key]*source), services: make(map[Key][]Backend),
		hosts:    make(map[string]*resolved),
		gathered: make(map[gatheringKey]*gathering), rules: make(map[uint32]RuleRef), lists: make(map[string]*shared),
		faults: make(map[Key]*faults),
		setIDs: ids{most: uint32(classifier.AnonymousSet - 1)}, ruleIDs: ids{most: classifier.MaxRuleID},
		dirty: clean(),
	}
	c.judged = index.New(c.startJudging, c.stopJudging)
	c.picked = index.New(
		func(g *gathering, s *source) { c.bringSource(g, s, true) },
		func(g *gathering, s *source) { c.bringSource(g, s, false) },
	)
	c.named = index.New(
		func(g *gathering, s *source) { c.bringDomains(g, s, true) },
		func(g *gathering, s *source) { c.bringDomains(g, s, false) },
	)
	return c
}

func (c *Calculation) startJudging(p *policy, e *endpoint) {
	e.policies[p] = struct{}{}
	p.endpoints[e] = struct{}{}
	c.dirty.endpoints[e] = struct{}{}
	c.dirty.bodies[&p.body] = struct{}{}
}

func (c *Calculation) stopJudging(p *policy, e *endpoint) {
	delete(e.policies, p)
	delete(p.endpoints, e)
	c.dirty.endpoints[e] = struct{}{}
	c.dirty.bodies[&p.body] = struct{}{}
}

// Flush brings everything up to date, and gives what differs from what the last
// one gave.
func (c *Calculation) Flush() Changes {
	c.generation++
	out, gone := Changes{Generation: c.generation}, freed{generation: c.generation}
	for len(c.dirty.bodies) > 0 {
		bodies := slices.SortedFunc(maps.Keys(c.dirty.bodies), func(a, b *body) int { return a.ref.Object.compare(b.ref.Object) })
		clear(c.dirty.bodies)
		for _, b := range bodies {
			c.settle(b, &gone)
		}
		c.forgetProfiles(bodies)
	}
	for e := range c.dirty.endpoints {
		if c.endpoints[e.key] == e && c.judge(e) {
			out.Endpoints = append(out.Endpoints, e.told)
		}
	}
	for key := range c.dirty.removed {
		if _, ok := c.endpoints[key]; !ok {
			out.Endpoints = append(out.Endpoints, &Endpoint{Key: key})
		}
	}
	slices.SortFunc(out.Endpoints, func(a, b *Endpoint) int { return a.Key.compare(b.Key) })
	out.Rules = slices.Sorted(maps.Keys(c.dirty.rules))
	c.tellSets(&out, &gone)
	c.tellHosts(&out)
	c.tellFaults(&out)
	if len(gone.sets)+len(gone.rules) > 0 {
		c.gone = append(c.gone, gone)
	}
	c.dirty = clean()
	return out
}

// faults are what cannot be understood of an object, and of its use.
type faults struct{ read, used, told []string }

// note finds the faults of an object, to change them.
func (c *Calculation) note(key Key) *faults {
	f, ok := c.faults[key]
	if !ok {
		f = &faults{}
		c.faults[key] = f
	}
	c.dirty.faults[key] = struct{}{}
	return f
}

// tellFaults gives conditions that changed.
func (c *Calculation) tellFaults(out *Changes) {
	for key := range c.dirty.faults {
		f := c.faults[key]
		now := slices.Concat(f.read, f.used)
		if !slices.Equal(now, f.told) {
			out.Conditions = append(out.Conditions, Condition{key, now})
			f.told = now
		}
		if len(now) == 0 {
			delete(c.faults, key)
		}
	}
	slices.SortFunc(out.Conditions, func(a, b Condition) int { return a.Object.compare(b.Object) })
}

func (k Key) compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Kind, l.Kind), cmp.Compare(k.Namespace, l.Namespace), cmp.Compare(k.Name, l.Name))
}

package policy

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	v3 "margay.dev/margay/api/v3"
)

// subject is a policy of any kind.
type subject struct {
	key    Key
	spec   v3.GlobalNetworkPolicySpec
	staged bool
	action v3.StagedAction
}

// policy is a subject that was read.
type policy struct {
	body
	subject subject
	tier    string
	order   float64 // +Inf without
	name    string  // decides between equal orders
	governs [2]bool
	// What it is for; without any of these, for normal traffic alone.
	untracked, preDNAT, forward bool
}

// normal reports whether the policy judges normal traffic.
func (p *policy) normal() bool { return !p.untracked && !p.preDNAT }

// counts reports whether the policy's rules are judged, if only for reports.
func (s *subject) counts() bool {
	return !s.staged || s.action != v3.StagedActionDelete && s.action != v3.StagedActionIgnore
}

func (c *Calculation) putPolicy(s subject) {
	p, known := c.policies[s.key]
	switch {
	case !known:
		p = &policy{body: newBody(RuleRef{})}
		c.policies[s.key] = p
	case reflect.DeepEqual(p.subject, s):
		return
	}
	f := c.note(s.key)
	f.read = nil
	p.read(s, func(fault string) { f.read = append(f.read, fault) })
	selected, err := readSubject(&s.spec.NetworkPolicySpec, s.spec.NamespaceSelector, s.key.Namespace)
	if err == nil && p.untracked && p.preDNAT {
		p.untracked, p.preDNAT = false, false
		err = fmt.Errorf("doNotTrack and preDNAT are both set, and exclude each other")
	}
	if err != nil {
		f.read = append(f.read, fmt.Sprintf("%v; until that is mended it denies everything to all that it may mean", err))
		p.want = [2][]*rule{{denyAll(nil, -1)}, {denyAll(nil, -1)}}
	}
	p.stale = true
	c.dirty.bodies[&p.body] = struct{}{}
	for e := range p.endpoints {
		c.dirty.endpoints[e] = struct{}{}
	}
	c.touchTarget(p)
	if s.counts() {
		c.judged.SetSelector(p, selected)
	} else {
		c.judged.RemoveSelector(p)
	}
}

// read takes what a subject says, and tells what cannot be understood of it.
func (p *policy) read(s subject, tell func(string)) {
	spec := &s.spec
	p.subject = s
	p.tier, p.order = spec.Tier, math.Inf(1)
	if p.tier == "" {
		p.tier = v3.TierDefault
	}
	if spec.Order != nil {
		p.order = *spec.Order
	}
	if math.IsNaN(p.order) {
		tell("order is no number: the policy comes last")
		p.order = math.Inf(1)
	}
	p.name = s.key.Name + "/" + s.key.Namespace + "/" + s.key.Kind
	p.ref = RuleRef{Object: s.key, Tier: p.tier, Staged: s.staged}
	p.untracked, p.preDNAT, p.forward = spec.DoNotTrack, spec.PreDNAT, spec.ApplyOnForward
	p.governs = [2]bool{len(spec.Types) == 0, len(spec.Types) == 0}
	for _, t := range spec.Types {
		switch t {
		case v3.PolicyTypeIngress:
			p.governs[Ingress] = true
		case v3.PolicyTypeEgress:
			p.governs[Egress] = true
		default:
			tell(fmt.Sprintf("types has %.32q, want Ingress or Egress: the policy governs both", string(t)))
			p.governs = [2]bool{true, true}
		}
	}
	if p.preDNAT && len(spec.Egress) > 0 {
		tell("preDNAT is about what arrives: the egress rules are ignored")
	}
	switch s.action {
	case "", v3.StagedActionSet, v3.StagedActionDelete, v3.StagedActionLearn, v3.StagedActionIgnore:
	default:
		tell(fmt.Sprintf("stagedAction is %.32q, want Set, Delete, Learn or Ignore: it is taken as Set", string(s.action)))
	}
	p.want = [2][]*rule{
		readRules(spec.Ingress, Ingress, s.key.Namespace, tell),
		readRules(spec.Egress, Egress, s.key.Namespace, tell),
	}
}

func (c *Calculation) removePolicy(p *policy) {
	delete(c.policies, p.subject.key)
	c.judged.RemoveSelector(p)
	c.touchTarget(p)
}

// stagedKind is what the kind of a staged policy has before that of the policy
// that it would change.
const stagedKind = "Staged"

// touchTarget has the endpoints of the policy that p would change, if p is
// staged, judged anew.
func (c *Calculation) touchTarget(p *policy) {
	key := p.subject.key
	if !p.subject.staged {
		return
	}
	key.Kind = strings.TrimPrefix(key.Kind, stagedKind)
	if target, ok := c.policies[key]; ok {
		for e := range target.endpoints {
			c.dirty.endpoints[e] = struct{}{}
		}
	}
}

// changedBy reports whether a staged policy would change or delete p.
func (c *Calculation) changedBy(p *policy) bool {
	key := p.subject.key
	key.Kind = stagedKind + key.Kind
	s, ok := c.policies[key]
	return ok && s.subject.action != v3.StagedActionIgnore
}

// tier is what its object says of a tier.
type tier struct {
	order float64 // +Inf without
	pass  bool    // what its policies do not decide
}

// builtInTiers are those that are there without an object, whatever one says.
func builtInTiers() map[string]tier {
	return map[string]tier{
		v3.TierKubeAdmin:    {v3.KubeAdminTierOrder, true},
		v3.TierDefault:      {v3.DefaultTierOrder, false},
		v3.TierKubeBaseline: {v3.KubeBaselineTierOrder, true},
	}
}

func (c *Calculation) putTier(key Key, spec v3.TierSpec) {
	f := c.note(key)
	f.read = nil
	t := tier{order: math.Inf(1)}
	if spec.Order != nil {
		t.order = *spec.Order
	}
	if math.IsNaN(t.order) {
		f.read = append(f.read, "order is no number: the tier comes last")
		t.order = math.Inf(1)
	}
	if a := spec.DefaultAction; a != nil {
		t.pass = *a == v3.Pass
		if *a != v3.Pass && *a != v3.Deny {
			f.read = append(f.read, fmt.Sprintf("defaultAction is %.32q, want Deny or Pass: it is taken as Deny", string(*a)))
		}
	}
	if fixed, ok := builtInTiers()[key.Name]; ok {
		if t != fixed {
			f.read = append(f.read, "order and defaultAction of this tier are fixed: what is said of them is ignored")
		}
		return
	}
	if old, ok := c.tiers[key.Name]; !ok || old != t {
		c.tiers[key.Name] = t
		c.touchTier(key.Name)
	}
}

func (c *Calculation) removeTier(name string) {
	if _, fixed := builtInTiers()[name]; fixed {
		return
	}
	delete(c.tiers, name)
	c.touchTier(name)
}

// touchTier has the endpoints of a tier's policies judged anew.
func (c *Calculation) touchTier(name string) {
	for _, p := range c.policies {
		if p.tier != name {
			continue
		}
		for e := range p.endpoints {
			c.dirty.endpoints[e] = struct{}{}
		}
	}
}

// compare orders policies as they are asked: tiers that exist before those that
// are only named, then by the tier's order and name; in a tier by order, then by
// name/namespace/kind, byte by byte.
func (c *Calculation) compare(a, b *policy) int {
	if a.tier != b.tier {
		s, sGiven := c.tiers[a.tier]
		t, tGiven := c.tiers[b.tier]
		switch {
		case sGiven != tGiven && sGiven:
			return -1
		case sGiven != tGiven:
			return 1
		case s.order < t.order:
			return -1
		case s.order > t.order:
			return 1
		}
		return strings.Compare(a.tier, b.tier)
	}
	switch {
	case a.order < b.order:
		return -1
	case a.order > b.order:
		return 1
	}
	return strings.Compare(a.name, b.name)
}

// sorted are the policies that pick an endpoint, as they are asked.
func (c *Calculation) sorted(e *endpoint) []*policy {
	policies := make([]*policy, 0, len(e.policies))
	for p := range e.policies {
		policies = append(policies, p)
	}
	slices.SortFunc(policies, c.compare)
	return policies
}

// Package oracle says what Calico's policy makes of one packet, by reading every
// object anew, as slowly and plainly as it can be said. It is what the incremental
// calculation of package policy and the compiled tables are held against, and has
// nothing of theirs: only selectors are read by api/selector, which has an oracle
// of its own. It expects objects that validation accepts.
package oracle

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	v3 "margay.dev/margay/api/v3"
)

// World is all objects there are.
type World struct {
	Tiers     []*v3.Tier
	Policies  []Policy
	Profiles  []*v3.Profile
	Workloads []*v3.WorkloadEndpoint
	Hosts     []*v3.HostEndpoint
	Sets      []*v3.NetworkSet
	Global    []*v3.GlobalNetworkSet
	Services  map[string][]Backend    // by namespace/name
	Domains   map[string][]netip.Addr // of the names of hosts that an entry of allowedEgressDomains matches, by the entry
}

// Policy is one of any kind.
type Policy struct {
	Kind, Namespace, Name string
	Spec                  v3.GlobalNetworkPolicySpec
	Staged                bool
	Action                v3.StagedAction // of a staged one
}

// Backend is one address and port behind a service.
type Backend struct {
	Address  netip.Addr
	Protocol uint8
	Port     uint16
}

// Packet is what rules can ask of a packet. Type and Code are those of an ICMP or
// ICMPv6 message.
type Packet struct {
	Source, Destination         netip.Addr
	Protocol                    uint8
	SourcePort, DestinationPort uint16
	Type, Code                  uint8
}

// Traffic is which of an endpoint's judgements is asked for.
type Traffic uint8

// The judgements; workloads have the first alone.
const (
	Normal    Traffic = iota // of what the endpoint itself sends and gets
	Forward                  // of what a host forwards
	Untracked                // before connections are tracked
	PreDNAT                  // before destinations are translated
)

// Endpoint is whose packets are judged.
type Endpoint struct {
	Host      bool
	Namespace string
	Name      string
}

// Verdict is what became of a packet. Action is Allow, Deny, or Pass where a later
// judgement decides; By is the rule that decided, and Logged those with action Log
// that matched before, each as kind/namespace/name/index. A decision without a
// rule has the tier's name in By, or nothing at the very end.
type Verdict struct {
	Action v3.Action
	By     string
	Logged []string
}

// Judge follows a packet through the tiers and profiles of an endpoint. With
// staged, staged policies are taken as if they were in force. An endpoint that is
// not there denies everything.
func (w *World) Judge(who Endpoint, d v3.PolicyType, kind Traffic, staged bool, p Packet) Verdict {
	labels, profiles, known := w.endpoint(who)
	if !known {
		return Verdict{Action: v3.Deny}
	}
	var v Verdict
	policies := w.governing(labels, d, kind, staged, who)
	for i := 0; i < len(policies); {
		tier := policies[i].tier()
		passed := false
		for ; i < len(policies) && policies[i].tier() == tier; i++ {
			if passed {
				continue
			}
			switch w.walk(policies[i].rules(d), policies[i].id(), policies[i].Namespace, d, p, &v) {
			case v3.Allow, v3.Deny:
				return v
			case v3.Pass:
				passed = true
			}
		}
		drops := kind == Normal || kind == Forward
		if !passed && drops && w.tierOf(tier).action != v3.Pass {
			return Verdict{v3.Deny, tier, v.Logged}
		}
	}
	switch kind {
	case Forward:
		return Verdict{v3.Allow, "", v.Logged}
	case Untracked, PreDNAT:
		return Verdict{v3.Pass, "", v.Logged}
	}
	for _, name := range profiles {
		at := slices.IndexFunc(w.Profiles, func(p *v3.Profile) bool { return p.Name == name })
		if at < 0 {
			return Verdict{v3.Deny, "Profile//" + name + "/-1", v.Logged}
		}
		rules := w.Profiles[at].Spec.Ingress
		if d == v3.PolicyTypeEgress {
			rules = w.Profiles[at].Spec.Egress
		}
		switch w.walk(rules, "Profile//"+name, "", d, p, &v) {
		case v3.Allow, v3.Deny:
			return v
		}
	}
	return Verdict{v3.Deny, "", v.Logged}
}

// walk finds the first rule that decides; it gives nothing where none does.
func (w *World) walk(rules []v3.Rule, id, namespace string, d v3.PolicyType, p Packet, v *Verdict) v3.Action {
	for i := range rules {
		r := &rules[i]
		if !w.matches(r, namespace, d, p) {
			continue
		}
		name := id + "/" + number(i)
		if r.Action == v3.Log {
			v.Logged = append(v.Logged, name)
			continue
		}
		if r.Action != v3.Pass {
			v.Action, v.By = r.Action, name
		}
		return r.Action
	}
	return ""
}

func (p Policy) id() string { return p.Kind + "/" + p.Namespace + "/" + p.Name }

func (p Policy) tier() string {
	if p.Spec.Tier == "" {
		return "default"
	}
	return p.Spec.Tier
}

func (p Policy) rules(d v3.PolicyType) []v3.Rule {
	if d == v3.PolicyTypeIngress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

// tierFacts is what is known of a tier, also of one that is only named.
type tierFacts struct {
	exists bool
	order  float64
	action v3.Action
}

func (w *World) tierOf(name string) tierFacts {
	switch name {
	case "kube-admin":
		return tierFacts{true, 1000, v3.Pass}
	case "default":
		return tierFacts{true, 1000000, v3.Deny}
	case "kube-baseline":
		return tierFacts{true, 10000000, v3.Pass}
	}
	for _, t := range w.Tiers {
		if t.Name != name {
			continue
		}
		f := tierFacts{true, math.Inf(1), v3.Deny}
		if t.Spec.Order != nil {
			f.order = *t.Spec.Order
		}
		if t.Spec.DefaultAction != nil {
			f.action = *t.Spec.DefaultAction
		}
		return f
	}
	return tierFacts{action: v3.Deny}
}

// governing are the policies that have a say, in the order in which they have it.
func (w *World) governing(labels map[string]string, d v3.PolicyType, kind Traffic, staged bool, who Endpoint) []Policy {
	var out []Policy
	for _, p := range w.Policies {
		switch {
		case len(p.Spec.Types) > 0 && !slices.Contains(p.Spec.Types, d):
		case !w.selects(p, labels):
		case kind == Normal && (p.Spec.DoNotTrack || p.Spec.PreDNAT):
		case kind == Forward && (p.Spec.DoNotTrack || p.Spec.PreDNAT || !p.Spec.ApplyOnForward):
		case kind == Untracked && (!p.Spec.DoNotTrack || w.allInterfaces(who)):
		case kind == PreDNAT && (!p.Spec.PreDNAT || d == v3.PolicyTypeEgress):
		case p.Staged && (!staged || p.Action == v3.StagedActionDelete || p.Action == v3.StagedActionIgnore):
		case staged && !p.Staged && w.wouldChange(p):
		default:
			out = append(out, p)
		}
	}
	slices.SortFunc(out, w.before)
	return out
}

// wouldChange reports whether a staged policy is meant to take the place of p.
func (w *World) wouldChange(p Policy) bool {
	return slices.ContainsFunc(w.Policies, func(s Policy) bool {
		return s.Kind == "Staged"+p.Kind && s.Namespace == p.Namespace && s.Name == p.Name && s.Action != v3.StagedActionIgnore
	})
}

func (w *World) before(a, b Policy) int {
	if a.tier() != b.tier() {
		s, t := w.tierOf(a.tier()), w.tierOf(b.tier())
		if s.exists != t.exists {
			if s.exists {
				return -1
			}
			return 1
		}
		if s.order != t.order {
			if s.order < t.order {
				return -1
			}
			return 1
		}
		return strings.Compare(a.tier(), b.tier())
	}
	orderA, orderB := math.Inf(1), math.Inf(1)
	if a.Spec.Order != nil {
		orderA = *a.Spec.Order
	}
	if b.Spec.Order != nil {
		orderB = *b.Spec.Order
	}
	if orderA != orderB {
		if orderA < orderB {
			return -1
		}
		return 1
	}
	return strings.Compare(a.Name+"/"+a.Namespace+"/"+a.Kind, b.Name+"/"+b.Namespace+"/"+b.Kind)
}

package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// thing is what selectors may pick: an endpoint or a set of addresses.
type thing struct {
	labels selector.Map // with those that it inherits
	nets   []netip.Prefix
	spec   v3.WorkloadEndpointSpec // of an endpoint
}

func (x *thing) has(a netip.Addr) bool {
	return slices.ContainsFunc(x.nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// converted is a cluster as resources of api/v3, with things beside that no
// selector of Kubernetes may pick. Its methods judge as Calico says, plainly.
type converted struct {
	things   []*thing
	pods     []*thing // those that have policy
	profiles map[string]*v3.Profile
	tiers    [3][]judged // kube-admin, default, kube-baseline; policies in order
	parsed   map[string]*selector.Selector
}

// judged is a policy of any kind.
type judged struct {
	kind, name, namespace string
	spec                  *v3.NetworkPolicySpec
	namespaceSelector     string
}

// convert turns a cluster; it counts warnings.
func convert(c *cluster) (out *converted, warned int, err error) {
	out = &converted{profiles: map[string]*v3.Profile{}, parsed: map[string]*selector.Selector{}}
	for _, ns := range c.namespaces {
		p := NamespaceProfile(ns)
		out.profiles[p.Name] = p
	}
	for _, pod := range c.pods {
		wep, warnings, err := WorkloadEndpoint(pod)
		if err != nil || warnings != nil {
			return nil, 0, fmt.Errorf("%v %v", err, warnings)
		}
		if wep != nil {
			out.addPod(wep)
		}
	}
	for _, np := range c.policies {
		p, warnings, err := NetworkPolicy(np)
		if err != nil {
			return nil, 0, err
		}
		warned += len(warnings)
		out.tiers[1] = append(out.tiers[1], judged{p.Kind, p.Name, p.Namespace, &p.Spec, ""})
	}
	for _, cnp := range c.global {
		p, warnings, err := ClusterNetworkPolicy(cnp)
		if err != nil {
			return nil, 0, err
		}
		warned += len(warnings)
		tier := slices.Index([]string{v3.TierKubeAdmin, v3.TierDefault, v3.TierKubeBaseline}, p.Spec.Tier)
		out.tiers[tier] = append(out.tiers[tier], judged{p.Kind, p.Name, "", &p.Spec.NetworkPolicySpec, p.Spec.NamespaceSelector})
	}
	for _, tier := range out.tiers {
		slices.SortFunc(tier, func(a, b judged) int {
			id := func(p judged) string { return p.name + "/" + p.namespace + "/" + p.kind }
			return cmp.Or(cmp.Compare(*a.spec.Order, *b.spec.Order), strings.Compare(id(a), id(b)))
		})
	}
	return out, warned, nil
}

// addPod adds an endpoint with the labels that it has and inherits.
func (c *converted) addPod(wep *v3.WorkloadEndpoint) {
	x := &thing{labels: maps.Clone(wep.Labels), spec: wep.Spec}
	for _, name := range wep.Spec.Profiles {
		if p := c.profiles[name]; p != nil {
			for k, v := range p.Spec.LabelsToApply {
				if _, own := x.labels[k]; !own {
					x.labels[k] = v
				}
			}
		}
	}
	for _, text := range wep.Spec.IPNetworks {
		x.nets = append(x.nets, netip.MustParsePrefix(text))
	}
	c.pods, c.things = append(c.pods, x), append(c.things, x)
}

// addSet adds addresses with labels that are no pod's; namespace "" is none.
func (c *converted) addSet(namespace string, labels selector.Map, nets ...string) {
	x := &thing{labels: maps.Clone(labels)}
	if p := c.profiles[v3.ProfileNamespacePrefix+namespace]; p != nil {
		maps.Copy(x.labels, p.Spec.LabelsToApply)
		x.labels[selector.NamespaceLabel] = namespace
	}
	for _, text := range nets {
		x.nets = append(x.nets, netip.MustParsePrefix(text))
	}
	c.things = append(c.things, x)
}

func (c *converted) allows(p packet) bool {
	for _, x := range c.pods {
		if x.has(p.src) && !c.judge(x, p, v3.PolicyTypeEgress) || x.has(p.dst) && !c.judge(x, p, v3.PolicyTypeIngress) {
			return false
		}
	}
	return true
}

// judge asks tier by tier; the second denies what it does not decide. Then the
// namespace's profile allows.
func (c *converted) judge(x *thing, p packet, direction v3.PolicyType) bool {
	for i, tier := range c.tiers {
		governed := false
		action := v3.Action("")
		for _, policy := range tier {
			if action != "" || !slices.Contains(policy.spec.Types, direction) || !c.picksEndpoint(policy, x) {
				continue
			}
			governed = true
			action = c.first(policy, p, direction)
		}
		switch {
		case action == v3.Allow:
			return true
		case action == v3.Deny, action == "" && governed && i == 1:
			return false
		}
	}
	return slices.ContainsFunc(x.spec.Profiles, func(name string) bool {
		p := c.profiles[name]
		return p != nil && len(p.Spec.Ingress) == 1 && p.Spec.Ingress[0].Action == v3.Allow && len(p.Spec.Egress) == 1
	})
}

func (c *converted) picksEndpoint(p judged, x *thing) bool {
	return (p.namespace == "" || x.labels[selector.NamespaceLabel] == p.namespace) &&
		c.parse(p.spec.Selector).Evaluate(x.labels) &&
		(p.namespaceSelector == "" || c.parse(p.namespaceSelector).ForNamespaces().Evaluate(x.labels))
}

// first is the action of the first rule that matches.
func (c *converted) first(p judged, k packet, direction v3.PolicyType) v3.Action {
	rules := p.spec.Ingress
	if direction == v3.PolicyTypeEgress {
		rules = p.spec.Egress
	}
	for _, r := range rules {
		if r.Protocol != nil && r.Protocol.Name != string(k.protocol) {
			continue
		}
		if c.isEntity(r.Source, p, k, k.src) && c.isEntity(r.Destination, p, k, k.dst) {
			return r.Action
		}
	}
	return ""
}

// isEntity reports whether one end is what a rule says, of the parts that a
// conversion uses. A list of nets that is of the other family alone takes the rule
// away.
func (c *converted) isEntity(e v3.EntityRule, p judged, k packet, a netip.Addr) bool {
	if in, _ := within(e.Nets, a); e.Nets != nil && !in {
		return false
	}
	if in, some := within(e.NotNets, a); e.NotNets != nil && (in || !some) {
		return false
	}
	candidates := c.things
	if e.Selector != "" || e.NamespaceSelector != "" {
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(x *thing) bool { return !c.isPicked(e, p, x) })
		if !slices.ContainsFunc(candidates, func(x *thing) bool { return x.has(a) }) {
			return false
		}
	}
	return e.Ports == nil || slices.ContainsFunc(e.Ports, func(port v3.Port) bool {
		if port.PortName == "" {
			return int32(port.MinPort) <= k.port && k.port <= int32(port.MaxPort)
		}
		return slices.ContainsFunc(candidates, func(x *thing) bool {
			return x.has(a) && slices.ContainsFunc(x.spec.Ports, func(d v3.WorkloadEndpointPort) bool {
				return d.Name == port.PortName && d.Protocol.Name == string(k.protocol) && int32(d.Port) == k.port
			})
		})
	})
}

// isPicked scopes an entity's selectors: a policy of a namespace looks there unless
// it says where.
func (c *converted) isPicked(e v3.EntityRule, p judged, x *thing) bool {
	if e.NamespaceSelector == "" && p.namespace != "" && x.labels[selector.NamespaceLabel] != p.namespace {
		return false
	}
	return c.parse(e.Selector).Evaluate(x.labels) &&
		(e.NamespaceSelector == "" || c.parse(e.NamespaceSelector).ForNamespaces().Evaluate(x.labels))
}

// within reports whether one of nets has the address, and whether one is of its
// family.
func within(nets []string, a netip.Addr) (in, some bool) {
	for _, text := range nets {
		n := netip.MustParsePrefix(text)
		in = in || n.Contains(a)
		some = some || n.Addr().Is4() == a.Is4()
	}
	return in, some
}

func (c *converted) parse(text string) *selector.Selector {
	s := c.parsed[text]
	if s == nil {
		var err error
		if s, err = selector.Parse(text); err != nil {
			panic(err)
		}
		c.parsed[text] = s
	}
	return s
}

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// KeyOf is the key of an object. Its kind is what the TypeMeta of a policy says, or
// else that of its Go type. It fails for objects that have no part in policy, and
// where a namespace is missing or too much: nobody knows then whom it is about.
func KeyOf(o metav1.Object) (Key, error) {
	key := Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	spaced := false
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		key.Kind, spaced = cmp.Or(o.Kind, v3.KindNetworkPolicy), true
	case *v3.StagedNetworkPolicy:
		key.Kind, spaced = cmp.Or(o.Kind, v3.KindStagedNetworkPolicy), true
	case *v3.GlobalNetworkPolicy:
		key.Kind = cmp.Or(o.Kind, v3.KindGlobalNetworkPolicy)
	case *v3.StagedGlobalNetworkPolicy:
		key.Kind = cmp.Or(o.Kind, v3.KindStagedGlobalNetworkPolicy)
	case *v3.NetworkSet:
		key.Kind, spaced = v3.KindNetworkSet, true
	case *v3.WorkloadEndpoint:
		key.Kind, spaced = v3.KindWorkloadEndpoint, true
	case *v3.GlobalNetworkSet:
		key.Kind = v3.KindGlobalNetworkSet
	case *v3.HostEndpoint:
		key.Kind = v3.KindHostEndpoint
	case *v3.Profile:
		key.Kind = v3.KindProfile
	case *v3.Tier:
		key.Kind = v3.KindTier
	default:
		return Key{}, fmt.Errorf("name an object: %T has no part in policy; policies of Kubernetes, staged ones too, must be converted first", o)
	}
	switch {
	case spaced && key.Namespace == "":
		return Key{}, fmt.Errorf("name an object: %v has no namespace, which its kind needs: give it one", key)
	case !spaced && key.Namespace != "":
		return Key{}, fmt.Errorf("name an object: %v has a namespace, which its kind has not: take it away", key)
	}
	return key, nil
}

// Upsert adds an object, or puts it in the place of the one with its key. The
// calculation keeps parts of it, so nobody may change it from then on. It fails
// as KeyOf does, and then nothing changed.
func (c *Calculation) Upsert(o metav1.Object) error {
	key, err := KeyOf(o)
	if err != nil {
		return err
	}
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		c.putPolicy(subject{key: key, spec: v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec}})
	case *v3.GlobalNetworkPolicy:
		c.putPolicy(subject{key: key, spec: o.Spec})
	case *v3.StagedNetworkPolicy:
		c.putPolicy(subject{key, v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec.NetworkPolicySpec}, true, o.Spec.StagedAction})
	case *v3.StagedGlobalNetworkPolicy:
		c.putPolicy(subject{key, o.Spec.GlobalNetworkPolicySpec, true, o.Spec.StagedAction})
	case *v3.Tier:
		c.putTier(key, o.Spec)
	case *v3.Profile:
		c.putProfile(key, &o.Spec)
	case *v3.NetworkSet:
		c.note(key).read = nil
		labels := labelled(o.Labels, selector.NamespaceLabel, o.Namespace)
		c.putSet(key, o.Spec.Nets, o.Spec.AllowedEgressDomains, labels, []string{v3.ProfileNamespacePrefix + o.Namespace})
	case *v3.GlobalNetworkSet:
		c.putSet(key, o.Spec.Nets, o.Spec.AllowedEgressDomains, c.worldly(key, o.Labels), nil)
	case *v3.HostEndpoint:
		c.putHost(key, o)
	case *v3.WorkloadEndpoint:
		c.putWorkload(key, o)
	}
	return nil
}

// Delete takes away the object with the key; one that is not there is gone
// already.
func (c *Calculation) Delete(key Key) {
	if p, ok := c.policies[key]; ok {
		c.removePolicy(p)
	}
	if key.Kind == v3.KindTier {
		c.removeTier(key.Name)
	}
	if key.Kind == v3.KindProfile {
		c.removeProfile(key.Name)
	}
	c.removeEndpoint(key)
	c.removeSource(key)
	if _, ok := c.faults[key]; ok {
		c.note(key).read = nil
	}
}

// putSet puts a network set.
func (c *Calculation) putSet(key Key, nets, names []string, labels map[string]string, parents []string) {
	f := c.note(key)
	tell := func(fault string) { f.read = append(f.read, fault) }
	s := &source{members: members(nets, "nets", tell), domains: domains(names, tell)}
	c.putSource(key, s, labels, parents)
}

// worldly are the labels of what has no namespace: should it say that it has
// one, namespaced policies would pick it, so that is not believed.
func (c *Calculation) worldly(key Key, labels map[string]string) map[string]string {
	f := c.note(key)
	f.read = nil
	if _, ok := labels[selector.NamespaceLabel]; !ok {
		return labels
	}
	f.read = append(f.read, "label "+selector.NamespaceLabel+" is for what has a namespace: it is ignored, take it away")
	labels = maps.Clone(labels)
	delete(labels, selector.NamespaceLabel)
	return labels
}

// labelled is labels with one more, in a copy.
func labelled(labels map[string]string, name, value string) map[string]string {
	out := make(map[string]string, len(labels)+3)
	maps.Copy(out, labels)
	out[name] = value
	return out
}

// maxServiceAccount is from how many bytes on the name of a service account is
// in no label, since it would be too long for one.
const maxServiceAccount = 63

func (c *Calculation) putWorkload(key Key, o *v3.WorkloadEndpoint) {
	labels := labelled(o.Labels, selector.NamespaceLabel, o.Namespace)
	if name := o.Spec.ServiceAccountName; name != "" {
		delete(labels, selector.ServiceAccountLabel)
		if len(name) < maxServiceAccount {
			labels[selector.ServiceAccountLabel] = name
		}
	}
	if o.Spec.Orchestrator != "" {
		labels[orchestratorLabel] = o.Spec.Orchestrator
	}
	c.note(key).read = nil
	ports := make([]v3.EndpointPort, 0, len(o.Spec.Ports))
	for _, p := range o.Spec.Ports {
		ports = append(ports, v3.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	c.putEndpoint(endpoint{key: key, profiles: o.Spec.Profiles}, o.Spec.Node, labels, c.readSource(key, "ipNetworks", o.Spec.IPNetworks, ports))
}

// orchestratorLabel is the label that says who made a workload.
const orchestratorLabel = "projectcalico.org/orchestrator"

func (c *Calculation) putHost(key Key, o *v3.HostEndpoint) {
	labels := c.worldly(key, o.Labels)
	e := endpoint{key: key, host: true, wildcard: o.Spec.InterfaceName == "*", profiles: o.Spec.Profiles}
	c.putEndpoint(e, o.Spec.Node, labels, c.readSource(key, "expectedIPs", o.Spec.ExpectedIPs, o.Spec.Ports))
}

// readSource reads an endpoint's addresses and names of ports, and tells what it
// cannot read.
func (c *Calculation) readSource(key Key, field string, addresses []string, ports []v3.EndpointPort) *source {
	f := c.note(key)
	tell := func(fault string) { f.read = append(f.read, fault) }
	s := &source{members: members(addresses, field, tell)}
	for i, p := range ports {
		number, _ := p.Protocol.IP()
		switch {
		case p.Name == "": // it is for a port of the host
		case !p.Protocol.HasPorts():
			tell(fmt.Sprintf("ports[%d]: protocol is %.32q, want TCP, UDP or SCTP; it is left out", i, p.Protocol.String()))
		case !slices.Contains(s.ports, namedPort{p.Name, pair{number, p.Port}}):
			s.ports = append(s.ports, namedPort{p.Name, pair{number, p.Port}})
		}
	}
	return s
}

// putEndpoint puts an endpoint, which is judged if it is of our node.
func (c *Calculation) putEndpoint(next endpoint, node string, labels map[string]string, s *source) {
	c.putSource(next.key, s, labels, next.profiles)
	if c.node != "" && c.node != node {
		c.removeEndpoint(next.key)
		return
	}
	e, known := c.endpoints[next.key]
	if !known {
		e = &endpoint{policies: make(map[*policy]struct{})}
		c.endpoints[next.key] = e
	}
	if !known || e.wildcard != next.wildcard || !slices.Equal(e.profiles, next.profiles) {
		c.dirty.endpoints[e] = struct{}{}
		c.leaveProfiles(e)
		e.key, e.host, e.wildcard, e.profiles = next.key, next.host, next.wildcard, slices.Clone(next.profiles)
		for _, name := range e.profiles {
			p := c.profile(name)
			p.endpoints[e] = struct{}{}
			c.dirty.bodies[&p.body] = struct{}{}
		}
	}
	c.judged.SetItem(e, labels, e.profiles)
}

func (c *Calculation) removeEndpoint(key Key) {
	e, ok := c.endpoints[key]
	if !ok {
		return
	}
	c.judged.RemoveItem(e)
	c.leaveProfiles(e)
	c.release(e.lists)
	delete(c.endpoints, key)
	if _, ok := c.faults[key]; ok {
		c.note(key).used = nil
	}
	if e.told != nil {
		c.dirty.removed[key] = struct{}{}
	}
}

func (c *Calculation) leaveProfiles(e *endpoint) {
	for _, name := range e.profiles {
		p := c.profile(name)
		delete(p.endpoints, e)
		c.dirty.bodies[&p.body] = struct{}{}
	}
}

// profile is rules and labels that endpoints name, or a name that they say and
// nobody has.
type profile struct {
	body
	given bool
	spec  *v3.ProfileSpec
}

// profile finds a profile, or makes one that is missing.
func (c *Calculation) profile(name string) *profile {
	p, ok := c.profiles[name]
	if !ok {
		p = &profile{body: newBody(RuleRef{Object: Key{Kind: v3.KindProfile, Name: name}})}
		p.lack()
		c.profiles[name] = p
	}
	return p
}

// lack has a profile that is missing deny.
func (p *profile) lack() {
	p.spec, p.stale = nil, true
	for d := range p.want {
		p.want[d] = []*rule{denyAll(nil, -1)}
	}
}

// give notes whether a profile is there, which its endpoints' conditions tell.
func (c *Calculation) give(p *profile, given bool) {
	if p.given != given {
		for e := range p.endpoints {
			c.dirty.endpoints[e] = struct{}{}
		}
	}
	p.given = given
}

func (c *Calculation) putProfile(key Key, spec *v3.ProfileSpec) {
	p := c.profile(key.Name)
	if p.given && reflect.DeepEqual(p.spec, spec) {
		return
	}
	if !p.given || !reflect.DeepEqual(p.spec.Ingress, spec.Ingress) || !reflect.DeepEqual(p.spec.Egress, spec.Egress) {
		f := c.note(key)
		f.read = nil
		tell := func(fault string) { f.read = append(f.read, fault) }
		p.want = [2][]*rule{readRules(spec.Ingress, Ingress, "", tell), readRules(spec.Egress, Egress, "", tell)}
		p.stale = true
		c.dirty.bodies[&p.body] = struct{}{}
	}
	c.give(p, true)
	p.spec = spec
	c.judged.SetParent(key.Name, spec.LabelsToApply)
	c.picked.SetParent(key.Name, spec.LabelsToApply)
	c.named.SetParent(key.Name, spec.LabelsToApply)
}

func (c *Calculation) removeProfile(name string) {
	p := c.profile(name)
	p.lack()
	c.give(p, false)
	c.dirty.bodies[&p.body] = struct{}{}
	c.judged.SetParent(name, nil)
	c.picked.SetParent(name, nil)
	c.named.SetParent(name, nil)
}

// forgetProfiles forgets those of the bodies that are profiles which nobody has
// and nobody names.
func (c *Calculation) forgetProfiles(bodies []*body) {
	for _, b := range bodies {
		if p, ok := c.profiles[b.ref.Object.Name]; ok && &p.body == b && !p.given && len(p.endpoints) == 0 {
			delete(c.profiles, b.ref.Object.Name)
		}
	}
}

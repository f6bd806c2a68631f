package v3

import networkingv1 "k8s.io/api/networking/v1"

// TypesBy is what tells the directions of a policy that names none: Ingress if it
// has no egress rules, Egress if it has nothing else, or both. Calico's programs
// differ in what having means, and so in an empty list beside egress rules.
type TypesBy uint8

// What having rules means.
const (
	ByLength   TypesBy = iota // a rule at least, as Calico's own tools have it: ingress [] is as good as none
	ByPresence                // the field, as its admission to a cluster has it: ingress [] is Ingress, which denies all
)

// has reports whether a policy has a list of rules.
func has[T any](by TypesBy, rules []T) bool {
	if by == ByPresence {
		return rules != nil
	}
	return len(rules) > 0
}

// namespace is where an object belongs whose manifest does not say it.
func namespace(name *string) {
	if *name == "" {
		*name = "default"
	}
}

// Default puts the policy into the namespace default and the tier default, and
// names its directions, where it says nothing of them.
func (p *NetworkPolicy) Default(by TypesBy) {
	namespace(&p.Namespace)
	p.Spec.fill(by)
}

// Default puts the policy into the tier default and names its directions, where
// it says nothing of them.
func (p *GlobalNetworkPolicy) Default(by TypesBy) { p.Spec.fill(by) }

// Default is that of a NetworkPolicy, with the action Set; what is to delete a
// policy has no directions.
func (p *StagedNetworkPolicy) Default(by TypesBy) {
	namespace(&p.Namespace)
	p.Spec.stage(&p.Spec.StagedAction, by)
}

// Default is that of a GlobalNetworkPolicy, with the action Set; what is to delete
// a policy has no directions.
func (p *StagedGlobalNetworkPolicy) Default(by TypesBy) {
	p.Spec.stage(&p.Spec.StagedAction, by)
}

// stage fills in what a staged policy does not say.
func (s *NetworkPolicySpec) stage(action *StagedAction, by TypesBy) {
	s.inTier()
	if set(action) {
		s.fill(by)
	}
}

// set makes Set of no action, and reports whether there is a policy to set.
func set(action *StagedAction) bool {
	if *action == "" {
		*action = StagedActionSet
	}
	return *action != StagedActionDelete
}

// fill fills in what a policy does not say.
func (s *NetworkPolicySpec) fill(by TypesBy) {
	s.inTier()
	if len(s.Types) > 0 {
		return
	}
	ingress, egress := has(by, s.Ingress), has(by, s.Egress)
	if ingress || !egress {
		s.Types = append(s.Types, PolicyTypeIngress)
	}
	if egress {
		s.Types = append(s.Types, PolicyTypeEgress)
	}
}

func (s *NetworkPolicySpec) inTier() {
	if s.Tier == "" {
		s.Tier = TierDefault
	}
}

// Default puts the policy into the namespace default, makes its action Set, and
// names its directions as Kubernetes does, where it says nothing of them: Ingress
// always, Egress if there is such a rule.
func (p *StagedKubernetesNetworkPolicy) Default(TypesBy) {
	namespace(&p.Namespace)
	s := &p.Spec
	if !set(&s.StagedAction) || len(s.PolicyTypes) > 0 {
		return
	}
	s.PolicyTypes = append(s.PolicyTypes, networkingv1.PolicyTypeIngress)
	if len(s.Egress) > 0 {
		s.PolicyTypes = append(s.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
}

// builtIn gives what is fixed of a tier that is always there.
func builtIn(tier string) (order float64, action Action, ok bool) {
	switch tier {
	case TierKubeAdmin:
		return KubeAdminTierOrder, Pass, true
	case TierDefault:
		return DefaultTierOrder, Deny, true
	case TierKubeBaseline:
		return KubeBaselineTierOrder, Pass, true
	}
	return 0, Deny, false
}

// Default makes the action Deny, or what is fixed for a built-in tier, whose
// order is fixed too.
func (t *Tier) Default(TypesBy) {
	order, action, ok := builtIn(t.Name)
	if t.Spec.DefaultAction == nil {
		t.Spec.DefaultAction = &action
	}
	if ok && t.Spec.Order == nil {
		t.Spec.Order = &order
	}
}

// Default puts the set into the namespace default, where it says nothing of it.
func (s *NetworkSet) Default(TypesBy) { namespace(&s.Namespace) }

// Default has nothing to do.
func (s *GlobalNetworkSet) Default(TypesBy) {}

// Default has nothing to do.
func (p *Profile) Default(TypesBy) {}

// Default has nothing to do.
func (h *HostEndpoint) Default(TypesBy) {}

// Default puts the endpoint into the namespace default, where it says nothing of
// it.
func (w *WorkloadEndpoint) Default(TypesBy) { namespace(&w.Namespace) }

// Default has nothing to do.
func (n *Node) Default(TypesBy) {}

// Default fills in what a pool does not say.
func (p *IPPool) Default(TypesBy) { p.Spec.Default() }

// Default has nothing to do.
func (c *FelixConfiguration) Default(TypesBy) {}

// Default has nothing to do.
func (c *ClusterInformation) Default(TypesBy) {}

// Default has nothing to do.
func (c *PendingChange) Default(TypesBy) {}

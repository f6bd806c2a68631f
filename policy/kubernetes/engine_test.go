package kubernetes

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/policy"
	"margay.dev/margay/policy/oracle"
)

// engine is a cluster as package policy has it: calculated, and beside that as its
// oracle reads it. Nothing may be added once something was judged.
type engine struct {
	t         *testing.T
	warned    int
	world     oracle.World
	calc      *policy.Calculation
	sets      map[classifier.SetID][]netip.Prefix
	endpoints map[policy.Key]*policy.Endpoint // nil: not calculated yet
}

func newEngine(t *testing.T) *engine { return &engine{t: t, calc: policy.New("")} }

// add takes up objects, converted where they are of Kubernetes.
func (e *engine) add(objects ...any) {
	e.t.Helper()
	for _, o := range objects {
		object, warnings, err := converted(o)
		if err != nil {
			e.t.Fatal(err)
		}
		e.warned += len(warnings)
		if object == nil {
			continue
		}
		if err := e.calc.Upsert(object); err != nil {
			e.t.Fatal(err)
		}
		e.tell(object)
	}
}

// converted is an object as policy takes it; nil for a pod that is no endpoint.
func converted(object any) (metav1.Object, []Warning, error) {
	switch o := object.(type) {
	case *corev1.Namespace:
		return NamespaceProfile(o), nil, nil
	case *corev1.ServiceAccount:
		return ServiceAccountProfile(o), nil, nil
	case *corev1.Pod:
		wep, warnings, err := WorkloadEndpoint(o)
		if wep == nil {
			return nil, warnings, err
		}
		return wep, warnings, err
	case *networkingv1.NetworkPolicy:
		return NetworkPolicy(o)
	case *clusterv1alpha2.ClusterNetworkPolicy:
		return ClusterNetworkPolicy(o)
	case *v3.StagedKubernetesNetworkPolicy:
		return StagedNetworkPolicy(o)
	}
	return object.(metav1.Object), nil, nil
}

// tell tells the oracle.
func (e *engine) tell(object metav1.Object) {
	w := &e.world
	switch o := object.(type) {
	case *v3.Profile:
		w.Profiles = append(w.Profiles, o)
	case *v3.WorkloadEndpoint:
		w.Workloads = append(w.Workloads, o)
	case *v3.HostEndpoint:
		w.Hosts = append(w.Hosts, o)
	case *v3.NetworkSet:
		w.Sets = append(w.Sets, o)
	case *v3.GlobalNetworkSet:
		w.Global = append(w.Global, o)
	case *v3.NetworkPolicy:
		spec := v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec}
		w.Policies = append(w.Policies, oracle.Policy{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Spec: spec})
	case *v3.GlobalNetworkPolicy:
		w.Policies = append(w.Policies, oracle.Policy{Kind: o.Kind, Name: o.Name, Spec: o.Spec})
	case *v3.StagedNetworkPolicy:
		spec := v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec.NetworkPolicySpec}
		w.Policies = append(w.Policies, oracle.Policy{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Spec: spec, Staged: true})
	default:
		e.t.Fatalf("the oracle knows no %T", object)
	}
}

// start calculates. What comes of a conversion must be understood, all of it.
func (e *engine) start() {
	e.sets, e.endpoints = map[classifier.SetID][]netip.Prefix{}, map[policy.Key]*policy.Endpoint{}
	changes := e.calc.Flush()
	if len(changes.Conditions) > 0 {
		e.t.Fatalf("not understood: %v", changes.Conditions)
	}
	for _, s := range changes.Sets {
		e.sets[s.ID] = s.Joined
	}
	for _, ep := range changes.Endpoints {
		e.endpoints[ep.Key] = ep
	}
}

// judge asks the source's end, and if that allows the destination's.
func (e *engine) judge(p oracle.Packet) oracle.Verdict {
	e.t.Helper()
	if e.endpoints == nil {
		e.start()
	}
	v := e.ask(p.Source, policy.Egress, p)
	if v.Action == v3.Allow && e.at(p.Destination) != nil {
		v = e.ask(p.Destination, policy.Ingress, p)
	}
	return v
}

// at is who has an address.
func (e *engine) at(a netip.Addr) *v3.WorkloadEndpoint {
	for _, wep := range e.world.Workloads {
		if slices.Contains(wep.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String()) {
			return wep
		}
	}
	return nil
}

// ask asks one end twice, and allows where there is none.
func (e *engine) ask(end netip.Addr, d policy.Direction, p oracle.Packet) oracle.Verdict {
	e.t.Helper()
	wep := e.at(end)
	if wep == nil {
		return oracle.Verdict{Action: v3.Allow}
	}
	want := e.world.Judge(oracle.Endpoint{Namespace: wep.Namespace, Name: wep.Name}, v3.PolicyType(d.String()), oracle.Normal, false, p)
	j := e.endpoints[policy.Key{Kind: v3.KindWorkloadEndpoint, Namespace: wep.Namespace, Name: wep.Name}].Normal[d]
	if got := e.walk(j, p); got != string(want.Action)+" "+want.By {
		e.t.Errorf("%v, %v: calculated is %s, the oracle says %s %s", p, d, got, want.Action, want.By)
	}
	return want
}

// walk is the action of the first rule that matches, and the rule, or else the
// tier that ended.
func (e *engine) walk(j *policy.Judgement, p oracle.Packet) string {
	for _, tier := range j.Tiers {
		switch r := e.first(tier.Rules, p); {
		case r == nil && tier.End == classifier.Deny:
			return "Deny " + tier.Name
		case r != nil && r.Action != classifier.Pass:
			return e.name(r)
		}
	}
	for _, l := range j.Profiles {
		if r := e.first(l, p); r != nil {
			return e.name(r)
		}
	}
	return "Deny "
}

func (e *engine) name(r *classifier.Rule) string {
	ref, ok := e.calc.Rule(r.ID)
	if !ok {
		return fmt.Sprintf("rule %d, which nobody knows", r.ID)
	}
	action := map[classifier.Action]v3.Action{classifier.Allow: v3.Allow, classifier.Deny: v3.Deny}[r.Action]
	return fmt.Sprintf("%s %s/%s/%s/%d", action, ref.Object.Kind, ref.Object.Namespace, ref.Object.Name, ref.Index)
}

func (e *engine) first(l *policy.List, p oracle.Packet) *classifier.Rule {
	rules := l.V6
	if p.Source.Is4() {
		rules = l.V4
	}
	i := slices.IndexFunc(rules, func(r classifier.Rule) bool {
		return among(r.Protocols, uint16(p.Protocol)) && e.on(&r.Source, p.Source, p.SourcePort) && e.on(&r.Destination, p.Destination, p.DestinationPort)
	})
	if i < 0 {
		return nil
	}
	return &rules[i]
}

func (e *engine) on(s *classifier.Side, a netip.Addr, port uint16) bool {
	covers := func(n netip.Prefix) bool { return n.Contains(a) }
	member := func(id classifier.SetID) bool { return slices.ContainsFunc(e.sets[id], covers) }
	stranger := func(id classifier.SetID) bool { return !member(id) }
	return among(s.Ports, port) && (len(s.Nets) == 0 || slices.ContainsFunc(s.Nets, covers)) && !slices.ContainsFunc(s.NotNets, covers) &&
		!slices.ContainsFunc(s.Sets, stranger) && !slices.ContainsFunc(s.NotSets, member)
}

func among(ranges []classifier.Range, n uint16) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(r classifier.Range) bool { return r.First <= n && n <= r.Last })
}

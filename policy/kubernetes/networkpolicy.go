package kubernetes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v3 "margay.dev/margay/api/v3"
)

// NetworkPolicy converts a NetworkPolicy of networking.k8s.io/v1. It refuses one
// that does not say whom it is for: without a namespace, or with a podSelector that
// Kubernetes would refuse. A rule that cannot be converted is left out, all of it,
// and the others stay. What no rule allows is denied, in the directions that
// policyTypes names; where it names none, in direction Ingress, even if there are
// egress rules (an API server fills policyTypes in before anyone sees it).
func NetworkPolicy(np *networkingv1.NetworkPolicy) (*v3.NetworkPolicy, []Warning, error) {
	spec, warnings, err := policySpec(&np.Spec, np.Namespace)
	if err != nil {
		return nil, nil, fmt.Errorf("convert NetworkPolicy %q of namespace %q: %w", np.Name, np.Namespace, err)
	}
	return &v3.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{Kind: KindNetworkPolicy},
		ObjectMeta: derivedMeta(&np.ObjectMeta, np.Name),
		Spec:       *spec,
	}, warnings, nil
}

// StagedNetworkPolicy converts a StagedKubernetesNetworkPolicy as NetworkPolicy
// does a policy in force, but that policyTypes, where it names none, is Ingress, and
// Egress if there are egress rules.
func StagedNetworkPolicy(np *v3.StagedKubernetesNetworkPolicy) (*v3.StagedNetworkPolicy, []Warning, error) {
	in := networkingv1.NetworkPolicySpec{
		PodSelector: np.Spec.PodSelector, Ingress: np.Spec.Ingress, Egress: np.Spec.Egress, PolicyTypes: np.Spec.PolicyTypes,
	}
	if len(in.PolicyTypes) == 0 && len(in.Egress) > 0 {
		in.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	spec, warnings, err := policySpec(&in, np.Namespace)
	if err != nil {
		return nil, nil, fmt.Errorf("convert StagedKubernetesNetworkPolicy %q of namespace %q: %w", np.Name, np.Namespace, err)
	}
	return &v3.StagedNetworkPolicy{
		TypeMeta:   metav1.TypeMeta{Kind: v3.KindStagedKubernetesNetworkPolicy},
		ObjectMeta: derivedMeta(&np.ObjectMeta, np.Name),
		Spec:       v3.StagedNetworkPolicySpec{StagedAction: np.Spec.StagedAction, NetworkPolicySpec: *spec},
	}, warnings, nil
}

// policySpec converts what a policy says.
func policySpec(in *networkingv1.NetworkPolicySpec, namespace string) (*v3.NetworkPolicySpec, []Warning, error) {
	if namespace == "" {
		return nil, nil, errors.New("it has no namespace, so nobody knows whose pods it is for: give it one")
	}
	pods, err := podSelector(&in.PodSelector)
	if err != nil {
		return nil, nil, fmt.Errorf("podSelector: %w", err)
	}
	order := Order
	out := &v3.NetworkPolicySpec{Tier: v3.TierDefault, Order: &order, Selector: pods}
	var warnings []Warning
	for i, r := range in.Ingress {
		rules, err := policyRules(r.From, r.Ports, v3.PolicyTypeIngress)
		if err != nil {
			warnings = append(warnings, Warning{fmt.Sprintf("spec.ingress[%d]", i), leftOut, err})
		}
		out.Ingress = append(out.Ingress, rules...)
	}
	for i, r := range in.Egress {
		rules, err := policyRules(r.To, r.Ports, v3.PolicyTypeEgress)
		if err != nil {
			warnings = append(warnings, Warning{fmt.Sprintf("spec.egress[%d]", i), leftOut, err})
		}
		out.Egress = append(out.Egress, rules...)
	}
	var more []Warning
	out.Types, more = policyTypes(in.PolicyTypes)
	return out, append(warnings, more...), nil
}

// policyTypes converts the directions that a policy governs.
func policyTypes(in []networkingv1.PolicyType) (out []v3.PolicyType, warnings []Warning) {
	for i, t := range in {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			cause := fmt.Errorf("it is %.40q, want Ingress or Egress", t)
			warnings = append(warnings, Warning{fmt.Sprintf("spec.policyTypes[%d]", i), leftOut, cause})
		}
	}
	if slices.Contains(in, networkingv1.PolicyTypeIngress) {
		out = append(out, v3.PolicyTypeIngress)
	}
	if slices.Contains(in, networkingv1.PolicyTypeEgress) {
		out = append(out, v3.PolicyTypeEgress)
	}
	if out == nil {
		out = []v3.PolicyType{v3.PolicyTypeIngress}
	}
	return out, warnings
}

// policyRules are the rules that one of Kubernetes comes to: one for each protocol
// and peer.
func policyRules(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, direction v3.PolicyType) ([]v3.Rule, error) {
	lists := portLists{}
	for i, p := range ports {
		if err := addPort(lists, p); err != nil {
			return nil, fmt.Errorf("convert ports[%d]: %w", i, err)
		}
	}
	entities := []v3.EntityRule{{}}
	if len(peers) > 0 {
		entities = nil
	}
	for i, p := range peers {
		entity, err := policyPeer(p)
		if err != nil {
			return nil, fmt.Errorf("convert peer %d: %w", i, err)
		}
		entities = append(entities, entity)
	}
	return combine(v3.Rule{Action: v3.Allow}, lists.matches(), entities, direction), nil
}

// combine makes a rule as like is of each match and peer.
func combine(like v3.Rule, matches []portMatch, peers []v3.EntityRule, direction v3.PolicyType) []v3.Rule {
	out := make([]v3.Rule, 0, len(matches)*len(peers))
	for _, m := range matches {
		for _, peer := range peers {
			r := like
			r.Protocol = m.protocol
			if direction == v3.PolicyTypeIngress {
				r.Source = peer
			} else {
				r.Destination = peer
			}
			r.Destination.Ports = m.ports
			out = append(out, r)
		}
	}
	return out
}

// addPort takes up one entry of a list of ports. What says no protocol means TCP.
func addPort(lists portLists, p networkingv1.NetworkPolicyPort) error {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	switch protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		return fmt.Errorf("protocol is %.40q, want TCP, UDP or SCTP", protocol)
	}
	switch {
	case p.Port == nil && p.EndPort != nil:
		return errors.New("endPort is without a port: say where the range begins")
	case p.Port == nil:
		lists.add(string(protocol))
		return nil
	case p.Port.Type == intstr.String && p.EndPort != nil:
		return errors.New("endPort is with a port that is a name: give the number")
	}
	port, err := policyPort(*p.Port, p.EndPort)
	if err == nil {
		lists.add(string(protocol), port)
	}
	return err
}

// policyPort converts a port, or where it has an end a range.
func policyPort(port intstr.IntOrString, end *int32) (v3.Port, error) {
	if port.Type == intstr.String {
		return namedPort(port.StrVal)
	}
	last := port.IntVal
	if end != nil {
		last = *end
	}
	return numberedPorts(port.IntVal, last)
}

// policyPeer converts a peer. Pods of the policy's own namespace are those that no
// namespaceSelector is given for.
func policyPeer(p networkingv1.NetworkPolicyPeer) (out v3.EntityRule, err error) {
	switch {
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		return out, errors.New("ipBlock is with a selector: make two peers of it")
	case p.IPBlock != nil:
		return ipBlock(p.IPBlock)
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		return out, errors.New("it is empty, or says what nobody knew when this was built: give it podSelector, namespaceSelector or ipBlock")
	}
	if out.Selector, err = podSelector(p.PodSelector); err != nil {
		return out, fmt.Errorf("podSelector: %w", err)
	}
	if p.NamespaceSelector == nil {
		return out, nil
	}
	if out.NamespaceSelector, err = namespaceSelector(p.NamespaceSelector); err != nil {
		return out, fmt.Errorf("namespaceSelector: %w", err)
	}
	return out, nil
}

// ipBlock converts a prefix with exceptions. An exception of the other family takes
// nothing away, and would take the whole rule: a rule is for those families alone
// that all of its lists of nets speak of.
func ipBlock(b *networkingv1.IPBlock) (out v3.EntityRule, err error) {
	net, err := parseCIDR(b.CIDR)
	if err != nil {
		return out, fmt.Errorf("ipBlock.cidr: %w", err)
	}
	out.Nets = []string{net.String()}
	for i, text := range b.Except {
		except, err := parseCIDR(text)
		if err != nil {
			return v3.EntityRule{}, fmt.Errorf("ipBlock.except[%d]: %w", i, err)
		}
		if except.Addr().Is4() == net.Addr().Is4() {
			out.NotNets = append(out.NotNets, except.String())
		}
	}
	return out, nil
}

// parseCIDR reads a prefix and takes away what it has beyond its length. One of
// IPv4 addresses mapped to IPv6 is one of IPv4.
func parseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("it is %.60q, want an address and a length, as 10.0.0.0/8 or fd00::/8", text)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

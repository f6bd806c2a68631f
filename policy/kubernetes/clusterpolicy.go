package kubernetes

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v3 "margay.dev/margay/api/v3"
)

// RuleNameAnnotation is what the metadata of rules of a ClusterNetworkPolicy call
// the name that it gives them.
const RuleNameAnnotation = "name"

// ClusterNetworkPolicy converts a ClusterNetworkPolicy of policy.networking.k8s.io
// v1alpha2. It refuses one that does not say whom it is for or in which tier. Of a
// rule that cannot be converted nobody knows what it would have matched: where it
// accepts it is left out, and else it denies everything. Types are the directions
// that have rules then; a policy of no rules at all is of no types, which governs
// both, and its tier passes on what it does not decide.
func ClusterNetworkPolicy(cnp *clusterv1alpha2.ClusterNetworkPolicy) (*v3.GlobalNetworkPolicy, []Warning, error) {
	spec, warnings, err := clusterSpec(&cnp.Spec)
	if err != nil {
		return nil, nil, fmt.Errorf("convert ClusterNetworkPolicy %q: %w", cnp.Name, err)
	}
	out := &v3.GlobalNetworkPolicy{
		TypeMeta:   metav1.TypeMeta{Kind: KindClusterNetworkPolicy},
		ObjectMeta: derivedMeta(&cnp.ObjectMeta, cnp.Name),
		Spec:       *spec,
	}
	out.Namespace = ""
	return out, warnings, nil
}

// clusterSpec converts what a policy says.
func clusterSpec(in *clusterv1alpha2.ClusterNetworkPolicySpec) (*v3.GlobalNetworkPolicySpec, []Warning, error) {
	out := &v3.GlobalNetworkPolicySpec{}
	switch in.Tier {
	case clusterv1alpha2.AdminTier:
		out.Tier = v3.TierKubeAdmin
	case clusterv1alpha2.BaselineTier:
		out.Tier = v3.TierKubeBaseline
	default:
		return nil, nil, fmt.Errorf("tier is %.40q, want Admin or Baseline", in.Tier)
	}
	order := float64(in.Priority)
	out.Order = &order
	pods, err := clusterPods(in.Subject.Namespaces, in.Subject.Pods)
	if err != nil {
		return nil, nil, fmt.Errorf("subject: %w", err)
	}
	out.Selector, out.NamespaceSelector = pods.Selector, pods.NamespaceSelector
	var warnings []Warning
	for i := range in.Ingress {
		rules, bad := clusterRule(mirror(&in.Ingress[i]), fmt.Sprintf("spec.ingress[%d]", i), v3.PolicyTypeIngress)
		out.Ingress, warnings = append(out.Ingress, rules...), append(warnings, bad...)
	}
	for i := range in.Egress {
		rules, bad := clusterRule(&in.Egress[i], fmt.Sprintf("spec.egress[%d]", i), v3.PolicyTypeEgress)
		out.Egress, warnings = append(out.Egress, rules...), append(warnings, bad...)
	}
	if len(out.Ingress) > 0 {
		out.Types = append(out.Types, v3.PolicyTypeIngress)
	}
	if len(out.Egress) > 0 {
		out.Types = append(out.Types, v3.PolicyTypeEgress)
	}
	return out, warnings, nil
}

// mirror is an ingress rule as if it were one of egress, which can say all that the
// other can.
func mirror(r *clusterv1alpha2.ClusterNetworkPolicyIngressRule) *clusterv1alpha2.ClusterNetworkPolicyEgressRule {
	out := &clusterv1alpha2.ClusterNetworkPolicyEgressRule{Name: r.Name, Action: r.Action, Protocols: r.Protocols}
	for _, p := range r.From {
		out.To = append(out.To, clusterv1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
	}
	return out
}

// clusterRule gives the rules that one comes to, or what is in their place and a
// warning. An action that nobody knows is none that accepts.
func clusterRule(r *clusterv1alpha2.ClusterNetworkPolicyEgressRule, path string, direction v3.PolicyType) ([]v3.Rule, []Warning) {
	like := v3.Rule{}
	if r.Name != "" {
		like.Metadata = &v3.RuleMetadata{Annotations: map[string]string{RuleNameAnnotation: r.Name}}
	}
	rules, err := clusterMatches(r, like, direction)
	if err == nil {
		return rules, nil
	}
	if r.Action == clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept {
		return nil, []Warning{{path, leftOut, err}}
	}
	like.Action = v3.Deny
	return []v3.Rule{like}, []Warning{{path, deniesAll, err}}
}

// clusterMatches gives a rule as like is for each protocol and peer of r.
func clusterMatches(r *clusterv1alpha2.ClusterNetworkPolicyEgressRule, like v3.Rule, direction v3.PolicyType) ([]v3.Rule, error) {
	switch r.Action {
	case clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept:
		like.Action = v3.Allow
	case clusterv1alpha2.ClusterNetworkPolicyRuleActionDeny:
		like.Action = v3.Deny
	case clusterv1alpha2.ClusterNetworkPolicyRuleActionPass:
		like.Action = v3.Pass
	default:
		return nil, fmt.Errorf("action is %.40q, want Accept, Deny or Pass", r.Action)
	}
	lists := portLists{}
	for i, p := range r.Protocols {
		if err := addProtocol(lists, p); err != nil {
			return nil, fmt.Errorf("convert protocols[%d]: %w", i, err)
		}
	}
	var peers []v3.EntityRule
	for i, p := range r.To {
		peer, err := clusterPeer(p)
		if err == nil && len(p.Networks) > 0 && len(lists[""]) > 0 {
			err = errors.New("networks are with a destinationNamedPort, and have no names for ports: make two rules of it")
		}
		if err != nil {
			return nil, fmt.Errorf("convert peer %d: %w", i, err)
		}
		peers = append(peers, peer)
	}
	if len(peers) == 0 {
		return nil, errors.New("it has no peers, want at least one; namespaces: {} is all pods")
	}
	return combine(like, lists.matches(), peers, direction), nil
}

// addProtocol takes up one entry of a list of protocols. A port's name is of
// whatever protocol the container gives it.
func addProtocol(lists portLists, p clusterv1alpha2.ClusterNetworkPolicyProtocol) error {
	var protocol corev1.Protocol
	var port *clusterv1alpha2.Port
	said := 0
	if p.TCP != nil {
		protocol, port, said = corev1.ProtocolTCP, p.TCP.DestinationPort, said+1
	}
	if p.UDP != nil {
		protocol, port, said = corev1.ProtocolUDP, p.UDP.DestinationPort, said+1
	}
	if p.SCTP != nil {
		protocol, port, said = corev1.ProtocolSCTP, p.SCTP.DestinationPort, said+1
	}
	if p.DestinationNamedPort != "" {
		said++
	}
	if said != 1 {
		return fmt.Errorf("it says %d things that are known, want one of tcp, udp, sctp and destinationNamedPort", said)
	}
	if protocol != "" && port == nil {
		lists.add(string(protocol))
		return nil
	}
	out, err := clusterPort(port, p.DestinationNamedPort)
	if err == nil {
		lists.add(string(protocol), out)
	}
	return err
}

// clusterPort converts a number, a range, or where there is neither a name.
func clusterPort(p *clusterv1alpha2.Port, name string) (v3.Port, error) {
	switch {
	case p == nil:
		return namedPort(name)
	case p.Range == nil:
		return numberedPorts(p.Number, p.Number)
	case p.Number != 0:
		return v3.Port{}, errors.New("destinationPort has number and range, want one of them")
	}
	return numberedPorts(p.Range.Start, p.Range.End)
}

// clusterPeer converts a peer. Nodes and names of domains are none that we know.
func clusterPeer(p clusterv1alpha2.ClusterNetworkPolicyEgressPeer) (out v3.EntityRule, err error) {
	if p.Nodes != nil || len(p.DomainNames) > 0 {
		return out, errors.New("it says nodes or domainNames, want namespaces, pods or networks")
	}
	if len(p.Networks) == 0 {
		return clusterPods(p.Namespaces, p.Pods)
	}
	if p.Namespaces != nil || p.Pods != nil {
		return out, errors.New("networks are with namespaces or pods: make two peers of it")
	}
	for i, text := range p.Networks {
		net, err := parseCIDR(string(text))
		if err != nil {
			return v3.EntityRule{}, fmt.Errorf("networks[%d]: %w", i, err)
		}
		out.Nets = append(out.Nets, net.String())
	}
	return out, nil
}

// clusterPods converts what picks pods: all those of some namespaces, or some of
// them.
func clusterPods(namespaces *metav1.LabelSelector, some *clusterv1alpha2.NamespacedPod) (out v3.EntityRule, err error) {
	var pods *metav1.LabelSelector
	switch {
	case namespaces != nil && some != nil:
		return out, errors.New("it has namespaces and pods, want one of them")
	case some != nil:
		namespaces, pods = &some.NamespaceSelector, &some.PodSelector
	case namespaces == nil:
		return out, errors.New("it is empty, or says what nobody knew when this was built: give it namespaces or pods")
	}
	if out.NamespaceSelector, err = namespaceSelector(namespaces); err != nil {
		return v3.EntityRule{}, fmt.Errorf("selector of namespaces: %w", err)
	}
	if out.Selector, err = podSelector(pods); err != nil {
		return v3.EntityRule{}, fmt.Errorf("selector of pods: %w", err)
	}
	return out, nil
}

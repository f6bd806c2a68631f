package v3

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate is as Object says. The rules are judged as Kubernetes judges those of a
// NetworkPolicy.
func (p *StagedKubernetesNetworkPolicy) Validate() field.ErrorList {
	f, spec, s := &faults{}, field.NewPath("spec"), &p.Spec
	f.meta(&p.ObjectMeta, true, validation.IsDNS1123Subdomain)
	bare := StagedKubernetesNetworkPolicySpec{StagedAction: StagedActionDelete}
	if !f.staged(spec, s.StagedAction, equality.Semantic.DeepEqual(*s, bare)) {
		return f.all()
	}
	f.labelSelector(spec.Child("podSelector"), &s.PodSelector)
	someOf(f, spec.Child("policyTypes"), s.PolicyTypes, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	for i, r := range s.Ingress {
		rule := spec.Child("ingress").Index(i)
		f.kubernetesPorts(rule.Child("ports"), r.Ports)
		f.peers(rule.Child("from"), r.From)
	}
	for i, r := range s.Egress {
		rule := spec.Child("egress").Index(i)
		f.kubernetesPorts(rule.Child("ports"), r.Ports)
		f.peers(rule.Child("to"), r.To)
	}
	return f.all()
}

// labelSelector wants what Kubernetes wants of one; none is none.
func (f *faults) labelSelector(p *field.Path, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	f.labels(p.Child("matchLabels"), s.MatchLabels)
	for i, r := range s.MatchExpressions {
		e := metavalidation.ValidateLabelSelectorRequirement(r, metavalidation.LabelSelectorValidationOptions{}, p.Child("matchExpressions").Index(i))
		for _, fault := range e {
			f.add(fault)
		}
	}
}

// peers wants a block of addresses, or selectors.
func (f *faults) peers(p *field.Path, peers []networkingv1.NetworkPolicyPeer) {
	for i, peer := range peers {
		at := p.Index(i)
		selects := peer.PodSelector != nil || peer.NamespaceSelector != nil
		if selects == (peer.IPBlock != nil) {
			f.forbidden(at, "want podSelector, namespaceSelector or both, or else ipBlock")
		}
		f.labelSelector(at.Child("podSelector"), peer.PodSelector)
		f.labelSelector(at.Child("namespaceSelector"), peer.NamespaceSelector)
		if peer.IPBlock != nil {
			f.ipBlock(at.Child("ipBlock"), peer.IPBlock)
		}
	}
}

// ipBlock wants a CIDR, and smaller ones within it.
func (f *faults) ipBlock(p *field.Path, b *networkingv1.IPBlock) {
	all, err := ParseNet(b.CIDR)
	if err != nil {
		f.invalid(p.Child("cidr"), b.CIDR, err.Error())
	}
	for i, text := range b.Except {
		part, partErr := ParseNet(text)
		switch at := p.Child("except").Index(i); {
		case partErr != nil:
			f.invalid(at, text, partErr.Error())
		case err == nil && (!all.Contains(part.Addr()) || part.Bits() <= all.Bits()):
			f.invalid(at, text, "want a part of cidr")
		}
	}
}

// kubernetesPorts wants numbers, ranges and names of ports.
func (f *faults) kubernetesPorts(p *field.Path, ports []networkingv1.NetworkPolicyPort) {
	for i, port := range ports {
		at := p.Index(i)
		if port.Protocol != nil {
			oneOf(f, at.Child("protocol"), *port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		}
		switch n := port.Port; {
		case n == nil:
		case n.Type == intstr.Int:
			f.messages(at.Child("port"), n.String(), validation.IsValidPortNum(n.IntValue()))
		default:
			f.messages(at.Child("port"), n.StrVal, validation.IsValidPortName(n.StrVal))
		}
		end := port.EndPort
		switch {
		case end == nil:
		case port.Port == nil || port.Port.Type != intstr.Int:
			f.forbidden(at.Child("endPort"), "it needs a port that is a number: set that, or take it out")
		case *end < port.Port.IntVal || *end > 65535:
			f.invalid(at.Child("endPort"), *end, "want a port no lower than port")
		}
	}
}

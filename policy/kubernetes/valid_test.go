package kubernetes

import (
	"net"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// validRule says what an API server would of the rules that the generator makes.
func validRule(r networkingv1.NetworkPolicyIngressRule) bool {
	for _, p := range r.Ports {
		named := p.Port != nil && p.Port.Type == intstr.String
		if p.EndPort != nil && (p.Port == nil || named || *p.EndPort < p.Port.IntVal || *p.EndPort > 65535) {
			return false
		}
		if p.Port != nil && !named && (p.Port.IntVal < 1 || p.Port.IntVal > 65535) {
			return false
		}
	}
	for _, p := range r.From {
		if p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil {
			return false
		}
		if p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil || !validCIDRs(append(p.IPBlock.Except, p.IPBlock.CIDR)...)) {
			return false
		}
		if !validSelectors(p.PodSelector, p.NamespaceSelector) {
			return false
		}
	}
	return true
}

// validGlobalRule says what the schema of a ClusterNetworkPolicy does.
func validGlobalRule(r clusterv1alpha2.ClusterNetworkPolicyEgressRule) bool {
	named := false
	for _, p := range r.Protocols {
		var ports []*clusterv1alpha2.Port
		if p.TCP != nil {
			ports = append(ports, p.TCP.DestinationPort)
		}
		if p.UDP != nil {
			ports = append(ports, p.UDP.DestinationPort)
		}
		if p.SCTP != nil {
			ports = append(ports, p.SCTP.DestinationPort)
		}
		if p.DestinationNamedPort != "" {
			ports, named = append(ports, nil), true
		}
		if len(ports) != 1 {
			return false
		}
		if d := ports[0]; d != nil && (d.Number != 0) == (d.Range != nil) {
			return false
		} else if d != nil && d.Range != nil && d.Range.Start > d.Range.End {
			return false
		}
	}
	for _, p := range r.To {
		said := 0
		for _, is := range []bool{p.Namespaces != nil, p.Pods != nil, p.Networks != nil, p.Nodes != nil, p.DomainNames != nil} {
			if is {
				said++
			}
		}
		if said != 1 || p.Nodes != nil || p.DomainNames != nil || named && p.Networks != nil || !validSelectors(p.Namespaces) {
			return false
		}
		if p.Pods != nil && !validSelectors(&p.Pods.NamespaceSelector, &p.Pods.PodSelector) {
			return false
		}
		for _, n := range p.Networks {
			if !validCIDRs(string(n)) {
				return false
			}
		}
	}
	return len(r.To) > 0
}

func validSelectors(selectors ...*metav1.LabelSelector) bool {
	for _, s := range selectors {
		if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
			return false
		}
	}
	return true
}

func validCIDRs(texts ...string) bool {
	for _, text := range texts {
		if _, _, err := net.ParseCIDR(text); err != nil {
			return false
		}
	}
	return true
}

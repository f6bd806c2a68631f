package kubernetes

import (
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// packet is the first one of a conversation.
type packet struct {
	src, dst netip.Addr
	protocol corev1.Protocol // or ICMP, which has no ports
	port     int32           // of the destination
}

// cluster is what Kubernetes knows. Its methods say who may reach whom, as the
// documentation of the two APIs has it, and nothing of how that is done.
type cluster struct {
	namespaces map[string]*corev1.Namespace
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
	global     []*clusterv1alpha2.ClusterNetworkPolicy // by priority, which no two share
}

// allows judges both ends; what is no pod has no policy.
func (c *cluster) allows(p packet) bool {
	from, to := c.podAt(p.src), c.podAt(p.dst)
	return (from == nil || c.judge(from, p, true)) && (to == nil || c.judge(to, p, false))
}

// podAt is the pod with the address, none for a pod of the host's network.
func (c *cluster) podAt(a netip.Addr) *corev1.Pod {
	for _, pod := range c.pods {
		at := func(ip corev1.PodIP) bool { return ip.IP == a.String() }
		if !pod.Spec.HostNetwork && slices.ContainsFunc(pod.Status.PodIPs, at) {
			return pod
		}
	}
	return nil
}

// judge asks the tiers: Admin, NetworkPolicy, Baseline; then all is allowed.
func (c *cluster) judge(pod *corev1.Pod, p packet, egress bool) bool {
	if verdict := c.globalVerdict(clusterv1alpha2.AdminTier, pod, p, egress); verdict != "" {
		return verdict == clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept
	}
	isolated := false
	for _, np := range c.policies {
		governs, allows := c.policyVerdict(np, pod, p, egress)
		if governs && allows {
			return true
		}
		isolated = isolated || governs
	}
	if isolated {
		return false
	}
	verdict := c.globalVerdict(clusterv1alpha2.BaselineTier, pod, p, egress)
	return verdict == "" || verdict == clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept
}

func (c *cluster) policyVerdict(np *networkingv1.NetworkPolicy, pod *corev1.Pod, p packet, egress bool) (governs, allows bool) {
	direction, peer := networkingv1.PolicyTypeIngress, p.src
	rules := np.Spec.Ingress
	if egress {
		direction, peer, rules = networkingv1.PolicyTypeEgress, p.dst, nil
		for _, r := range np.Spec.Egress {
			rules = append(rules, networkingv1.NetworkPolicyIngressRule{From: r.To, Ports: r.Ports})
		}
	}
	if np.Namespace != pod.Namespace || !slices.Contains(np.Spec.PolicyTypes, direction) || !picks(&np.Spec.PodSelector, pod.Labels) {
		return false, false
	}
	for _, r := range rules {
		ports := len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(port networkingv1.NetworkPolicyPort) bool { return c.isPort(port, p) })
		peers := len(r.From) == 0 || slices.ContainsFunc(r.From, func(from networkingv1.NetworkPolicyPeer) bool { return c.isPeer(from, np.Namespace, peer) })
		if ports && peers && validRule(r) {
			return true, true
		}
	}
	return true, false
}

func (c *cluster) isPort(port networkingv1.NetworkPolicyPort, p packet) bool {
	protocol := corev1.ProtocolTCP
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	switch {
	case protocol != p.protocol:
		return false
	case port.Port == nil:
		return true
	case port.Port.Type == intstr.String:
		return c.declares(p, port.Port.StrVal)
	case port.EndPort != nil:
		return port.Port.IntVal <= p.port && p.port <= *port.EndPort
	}
	return port.Port.IntVal == p.port
}

// declares reports whether a container of the destination names the port so.
func (c *cluster) declares(p packet, name string) bool {
	to := c.podAt(p.dst)
	return to != nil && slices.ContainsFunc(to.Spec.Containers, func(container corev1.Container) bool {
		return slices.ContainsFunc(container.Ports, func(port corev1.ContainerPort) bool {
			return port.Name == name && port.Protocol == p.protocol && port.ContainerPort == p.port
		})
	})
}

func (c *cluster) isPeer(peer networkingv1.NetworkPolicyPeer, namespace string, a netip.Addr) bool {
	if peer.IPBlock != nil {
		return contains(peer.IPBlock.CIDR, a) && !slices.ContainsFunc(peer.IPBlock.Except, func(except string) bool { return contains(except, a) })
	}
	pod := c.podAt(a)
	switch {
	case pod == nil, peer.PodSelector != nil && !picks(peer.PodSelector, pod.Labels):
		return false
	case peer.NamespaceSelector != nil:
		return picks(peer.NamespaceSelector, c.namespaces[pod.Namespace].Labels)
	}
	return pod.Namespace == namespace
}

// globalVerdict is that of the first rule of a tier that matches, empty for Pass
// and for none.
func (c *cluster) globalVerdict(tier clusterv1alpha2.Tier, pod *corev1.Pod, p packet, egress bool) clusterv1alpha2.ClusterNetworkPolicyRuleAction {
	for _, cnp := range c.global {
		rules, peer := cnp.Spec.Egress, p.dst
		if !egress {
			rules, peer = nil, p.src
			for _, r := range cnp.Spec.Ingress {
				rules = append(rules, *mirror(&r))
			}
		}
		subject := clusterv1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: cnp.Spec.Subject.Namespaces, Pods: cnp.Spec.Subject.Pods}
		if cnp.Spec.Tier != tier || !c.isGlobalPeer(subject, pod, netip.Addr{}) {
			continue
		}
		for _, r := range rules {
			accepts := r.Action == clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept
			switch valid := validGlobalRule(r); {
			case !valid && !accepts:
				return clusterv1alpha2.ClusterNetworkPolicyRuleActionDeny
			case !valid || !c.matches(r, p, peer):
			case r.Action == clusterv1alpha2.ClusterNetworkPolicyRuleActionPass:
				return ""
			default:
				return r.Action
			}
		}
	}
	return ""
}

func (c *cluster) matches(r clusterv1alpha2.ClusterNetworkPolicyEgressRule, p packet, peer netip.Addr) bool {
	protocols := len(r.Protocols) == 0 || slices.ContainsFunc(r.Protocols, func(s clusterv1alpha2.ClusterNetworkPolicyProtocol) bool {
		switch {
		case s.TCP != nil:
			return p.protocol == corev1.ProtocolTCP && isNumber(s.TCP.DestinationPort, p.port)
		case s.UDP != nil:
			return p.protocol == corev1.ProtocolUDP && isNumber(s.UDP.DestinationPort, p.port)
		case s.SCTP != nil:
			return p.protocol == corev1.ProtocolSCTP && isNumber(s.SCTP.DestinationPort, p.port)
		}
		return c.declares(p, s.DestinationNamedPort)
	})
	return protocols && slices.ContainsFunc(r.To, func(to clusterv1alpha2.ClusterNetworkPolicyEgressPeer) bool {
		return c.isGlobalPeer(to, c.podAt(peer), peer)
	})
}

func isNumber(p *clusterv1alpha2.Port, port int32) bool {
	return p == nil || p.Number == port || p.Range != nil && p.Range.Start <= port && port <= p.Range.End
}

func (c *cluster) isGlobalPeer(peer clusterv1alpha2.ClusterNetworkPolicyEgressPeer, pod *corev1.Pod, a netip.Addr) bool {
	switch {
	case len(peer.Networks) > 0:
		return slices.ContainsFunc(peer.Networks, func(n clusterv1alpha2.CIDR) bool { return contains(string(n), a) })
	case pod == nil:
		return false
	case peer.Namespaces != nil:
		return picks(peer.Namespaces, c.namespaces[pod.Namespace].Labels)
	}
	return picks(&peer.Pods.NamespaceSelector, c.namespaces[pod.Namespace].Labels) && picks(&peer.Pods.PodSelector, pod.Labels)
}

// picks asks Kubernetes' own code; a selector that it refuses picks nothing.
func picks(s *metav1.LabelSelector, of map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && parsed.Matches(labels.Set(of))
}

func contains(cidr string, a netip.Addr) bool {
	_, n, err := net.ParseCIDR(cidr)
	return err == nil && n.Contains(a.AsSlice())
}

package kubernetes

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/oracle"
)

// dice throws what a cluster is made of, out of so little that policies, pods and
// packets meet.
type dice struct{ *rand.Rand }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// some gives up to most of what throw gives.
func some[T any](d dice, most int, throw func() T) (out []T) {
	for range d.IntN(most + 1) {
		out = append(out, throw())
	}
	return out
}

// The addresses of pods are 10.0.N.P and fd00::N:P, of the node 192.0.2.1 and
// 2001:db8::1. What else there is no pod has.
var (
	strangers4 = []string{"192.0.2.1", "192.0.2.9", "203.0.113.5", "198.51.100.7"}
	strangers6 = []string{"2001:db8::1", "2001:db8::9", "2001:db8:1::5", "2001:db8:2::7"}
	prefixes   = []string{
		"10.0.0.0/16", "10.0.1.0/24", "10.0.1.1/32", "10.0.2.7/24", "192.0.2.0/24", "203.0.113.0/24", "0.0.0.0/0", "::ffff:10.0.1.0/120",
		"fd00::/16", "fd00::1:0/112", "fd00::1:1/128", "fd00::2:7/112", "2001:db8::/32", "2001:db8:1::/48", "::/0",
	}
)

func (d dice) cluster() *cluster {
	c := &cluster{namespaces: map[string]*corev1.Namespace{}}
	for i, name := range []string{"red", "green", "blue"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}}}
		if env := one(d, "", "a", "b"); env != "" {
			ns.Labels["env"] = env
		}
		c.namespaces[name] = ns
		for j := range 3 {
			c.pods = append(c.pods, d.pod(name, i+1, j+1))
		}
	}
	c.pods[0].Spec.HostNetwork = true
	c.pods[0].Status.PodIPs = []corev1.PodIP{{IP: strangers4[0]}, {IP: strangers6[0]}}
	c.policies = some(d, 5, d.policy)
	for i, np := range c.policies {
		np.Name = one(d, "a", "a-b", "b") + strconv.Itoa(i)
	}
	c.global = some(d, 3, d.globalPolicy)
	for i, cnp := range c.global {
		cnp.Name, cnp.Spec.Priority = fmt.Sprintf("p%d", 9-i), int32(100*i)
	}
	return c
}

func (d dice) pod(namespace string, n, p int) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", namespace, p), Namespace: namespace, Labels: map[string]string{}}}
	if app := one(d, "", "x", "y", "z"); app != "" {
		pod.Labels["app"] = app
	}
	if d.IntN(4) == 0 { // would be a forgery
		pod.Labels["pcns.env"], pod.Labels["projectcalico.org/namespace"] = "a", "red"
	}
	pod.Spec.NodeName, pod.Spec.ServiceAccountName = "n", one(d, "", "robot")
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{
		{Name: "web", Protocol: corev1.ProtocolTCP, ContainerPort: one[int32](d, 80, 81)},
		{Name: one(d, "dns", "web"), Protocol: corev1.ProtocolUDP, ContainerPort: 82},
	}}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%d", n, p)}, {IP: fmt.Sprintf("fd00::%d:%d", n, p)}}
	return pod
}

// selector is of labels that pods or namespaces have; one in 50 is refused.
func (d dice) selector(key string, values ...string) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if d.IntN(3) == 0 {
		s.MatchLabels = map[string]string{key: one(d, values...)}
	}
	for range d.IntN(3) * d.IntN(2) {
		e := metav1.LabelSelectorRequirement{Key: one(d, key, key, "other"), Operator: one(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = []string{one(d, values...), one(d, values...)}[:1+d.IntN(2)]
		}
		if d.IntN(25) == 0 {
			e.Operator = "Gt"
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (d dice) podSelector() *metav1.LabelSelector { return d.selector("app", "x", "y", "z") }

func (d dice) namespaceSelector() *metav1.LabelSelector {
	if d.IntN(4) == 0 {
		return d.selector("kubernetes.io/metadata.name", "red", "blue")
	}
	return d.selector("env", "a", "b")
}

// subject is a selector that is not refused.
func (d dice) subject(throw func() *metav1.LabelSelector) metav1.LabelSelector {
	for {
		if s := throw(); validSelectors(s) {
			return *s
		}
	}
}

func (d dice) policy() *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: one(d, "red", "green", "blue")}}
	np.Spec.PodSelector = d.subject(d.podSelector)
	np.Spec.PolicyTypes = one(d, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	np.Spec.Ingress = some(d, 3, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: some(d, 2, d.peer), Ports: some(d, 4, d.port)}
	})
	np.Spec.Egress = some(d, 3, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: some(d, 2, d.peer), Ports: some(d, 4, d.port)}
	})
	return np
}

func (d dice) peer() (p networkingv1.NetworkPolicyPeer) {
	switch d.IntN(12) {
	case 0, 1, 2:
		p.PodSelector = d.podSelector()
	case 3, 4, 5:
		p.NamespaceSelector = d.namespaceSelector()
	case 6, 7, 8:
		p.PodSelector, p.NamespaceSelector = d.podSelector(), d.namespaceSelector()
	default:
		p.IPBlock = &networkingv1.IPBlock{CIDR: one(d, prefixes...), Except: some(d, 2, func() string { return one(d, prefixes...) })}
		switch d.IntN(20) {
		case 0:
			p.IPBlock.CIDR = "10.0.0.1"
		case 1:
			p.IPBlock = nil
		case 2:
			p.PodSelector = d.podSelector()
		}
	}
	return p
}

func (d dice) number() int32 {
	if d.IntN(40) == 0 {
		return one[int32](d, 0, -1, 65616)
	}
	return one[int32](d, 1, 79, 80, 81, 82, 83, 65535)
}

func (d dice) port() (p networkingv1.NetworkPolicyPort) {
	if d.IntN(2) == 0 {
		p.Protocol = new(one(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP))
	}
	switch d.IntN(5) {
	case 0:
	case 1:
		p.Port = new(intstr.FromString(one(d, "web", "dns")))
	default:
		p.Port = new(intstr.FromInt32(d.number()))
	}
	if d.IntN(6) == 0 && (p.Port != nil && p.Port.Type == intstr.Int || d.IntN(10) == 0) {
		p.EndPort = new(d.number())
	}
	return p
}

func (d dice) globalPolicy() *clusterv1alpha2.ClusterNetworkPolicy {
	cnp := &clusterv1alpha2.ClusterNetworkPolicy{}
	cnp.Spec.Tier = one(d, clusterv1alpha2.AdminTier, clusterv1alpha2.BaselineTier)
	if d.IntN(2) == 0 {
		cnp.Spec.Subject.Namespaces = new(d.subject(d.namespaceSelector))
	} else {
		cnp.Spec.Subject.Pods = &clusterv1alpha2.NamespacedPod{NamespaceSelector: d.subject(d.namespaceSelector), PodSelector: d.subject(d.podSelector)}
	}
	cnp.Spec.Ingress = some(d, 2, func() clusterv1alpha2.ClusterNetworkPolicyIngressRule {
		return clusterv1alpha2.ClusterNetworkPolicyIngressRule{Action: d.action(), Protocols: some(d, 2, d.protocol), From: some(d, 3, func() clusterv1alpha2.ClusterNetworkPolicyIngressPeer {
			p := d.globalPeer()
			return clusterv1alpha2.ClusterNetworkPolicyIngressPeer{Namespaces: p.Namespaces, Pods: p.Pods}
		})}
	})
	cnp.Spec.Egress = some(d, 2, func() clusterv1alpha2.ClusterNetworkPolicyEgressRule {
		return clusterv1alpha2.ClusterNetworkPolicyEgressRule{Action: d.action(), Protocols: some(d, 2, d.protocol), To: some(d, 3, d.globalPeer)}
	})
	return cnp
}

func (d dice) action() clusterv1alpha2.ClusterNetworkPolicyRuleAction {
	return one(d, clusterv1alpha2.ClusterNetworkPolicyRuleActionAccept, clusterv1alpha2.ClusterNetworkPolicyRuleActionDeny, clusterv1alpha2.ClusterNetworkPolicyRuleActionPass)
}

func (d dice) globalPeer() (p clusterv1alpha2.ClusterNetworkPolicyEgressPeer) {
	switch d.IntN(8) {
	case 0, 1, 2:
		p.Namespaces = d.namespaceSelector()
	case 3, 4, 5:
		p.Pods = &clusterv1alpha2.NamespacedPod{NamespaceSelector: *d.namespaceSelector(), PodSelector: *d.podSelector()}
	default:
		for range 1 + d.IntN(2) {
			p.Networks = append(p.Networks, clusterv1alpha2.CIDR(one(d, prefixes...)))
		}
	}
	switch d.IntN(60) {
	case 0:
		p.Nodes = d.podSelector()
	case 1:
		p.DomainNames = []clusterv1alpha2.DomainName{"example.com"}
	case 2:
		p.Namespaces = d.namespaceSelector()
	}
	return p
}

func (d dice) protocol() (p clusterv1alpha2.ClusterNetworkPolicyProtocol) {
	port := &clusterv1alpha2.Port{Number: one[int32](d, 1, 79, 80, 81, 82, 83, 65535)}
	switch d.IntN(4) {
	case 0:
		port = nil
	case 1:
		port = &clusterv1alpha2.Port{Range: &clusterv1alpha2.PortRange{Start: 79 + d.Int32N(3), End: 80 + d.Int32N(4)}}
	}
	switch d.IntN(5) {
	case 0, 1:
		p.TCP = &clusterv1alpha2.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
	case 2:
		p.UDP = &clusterv1alpha2.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
	case 3:
		p.SCTP = &clusterv1alpha2.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
	default:
		p.DestinationNamedPort = one(d, "web", "dns")
	}
	if d.IntN(60) == 0 {
		p.SCTP = &clusterv1alpha2.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
	}
	return p
}

// packet is of one family, between pods, more often than not, and strangers.
func (d dice) packet(c *cluster) packet {
	strangers, family := strangers4, 0
	if d.IntN(2) == 0 {
		strangers, family = strangers6, 1
	}
	addr := func() netip.Addr {
		if d.IntN(4) == 0 {
			return netip.MustParseAddr(one(d, strangers...))
		}
		return netip.MustParseAddr(one(d, c.pods...).Status.PodIPs[family].IP)
	}
	p := packet{src: addr(), dst: addr(), protocol: one(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "ICMP")}
	if p.protocol != "ICMP" {
		p.port = one[int32](d, 1, 78, 79, 80, 81, 82, 83, 84, 443, 65534, 65535)
	}
	return p
}

// decoys are what no selector of Kubernetes may pick, whatever labels it has.
func decoys(t *testing.T) (out []any) {
	for _, doc := range []string{
		`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s, labels: {app: x, env: a, pcns.env: a}}, spec: {nets: [203.0.113.0/24, '2001:db8:1::/48']}}`,
		`{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s, namespace: red, labels: {app: x}}, spec: {nets: [198.51.100.0/24, 10.0.2.0/24, '2001:db8:2::/48', 'fd00::2:0/112']}}`,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h, labels: {app: x, env: a}}, spec: {node: n, expectedIPs: [192.0.2.9, '2001:db8::9']}}`,
	} {
		out = append(out, decode(t, doc))
	}
	return out
}

// tally is what a test of meaning saw.
type tally struct{ clusters, packets, allowed, warned int }

// checkMeaning holds a cluster's conversion against the cluster.
func (n *tally) checkMeaning(t *testing.T, seed uint64) {
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	c := d.cluster()
	e := newEngine(t)
	for _, ns := range c.namespaces {
		e.add(ns)
		e.add(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "robot"}})
	}
	for _, pod := range c.pods {
		e.add(pod)
	}
	for _, np := range c.policies {
		e.add(np)
	}
	for _, cnp := range c.global {
		e.add(cnp)
	}
	e.add(decoys(t)...)
	n.clusters, n.warned = n.clusters+1, n.warned+e.warned
	for range 150 {
		p := d.packet(c)
		want := c.allows(p)
		n.packets++
		if want {
			n.allowed++
		}
		number := map[corev1.Protocol]uint8{"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}[p.protocol]
		got := e.judge(oracle.Packet{Source: p.src, Destination: p.dst, Protocol: number, DestinationPort: uint16(p.port)})
		if (got.Action == v3.Allow) != want || t.Failed() {
			t.Fatalf("seed %d: %v: it is %s by %s, Kubernetes allows it is %v\n%s", seed, p, got.Action, got.By, want, show(c))
		}
	}
}

func show(c *cluster) string {
	text, err := yaml.Marshal([]any{c.namespaces, c.pods, c.policies, c.global})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

var clusters = flag.Uint64("clusters", 60, "how many random clusters TestConversionMeansWhatKubernetesSays looks at")

// TestConversionMeansWhatKubernetesSays compares verdicts: of the documentation,
// of what is calculated from conversions, and of the oracle of that.
func TestConversionMeansWhatKubernetesSays(t *testing.T) {
	var n tally
	for seed := range *clusters {
		n.checkMeaning(t, seed)
	}
	t.Logf("%d clusters, %d packets, %d allowed, %d warnings", n.clusters, n.packets, n.allowed, n.warned)
	if n.allowed*5 < n.packets || n.allowed*5 > 4*n.packets || n.warned == 0 {
		t.Error("the clusters are too much alike to tell anything")
	}
}

func FuzzConversionMeansWhatKubernetesSays(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) { new(tally).checkMeaning(t, seed) })
}

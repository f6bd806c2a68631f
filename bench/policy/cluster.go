package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/guard"
)

// The cluster whose policy is calculated: namespaces with as many apps each, a policy for
// each app of a namespace that lets another app of it in, and pods of all.
const (
	namespaces  = 100
	apps        = 10
	clusterPods = 10_000
	nodes       = 100
)

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

// newCluster is a guard that has heard of a cluster and judges the endpoints of one node, of
// all where that is empty.
func newCluster(node string, pods int) (*guard.Guard, error) {
	g := guard.New(node)
	for n := range namespaces {
		if err := g.Upsert(namespaceProfile(n)); err != nil {
			return nil, err
		}
		for app := range apps {
			if err := g.Upsert(appPolicy(n, app)); err != nil {
				return nil, err
			}
		}
	}
	for i := range pods {
		if err := g.Upsert(pod(i, i/namespaces%apps)); err != nil {
			return nil, err
		}
	}
	u := g.Flush()
	for _, c := range u.Conditions {
		if len(c.Faults) > 0 {
			return nil, fmt.Errorf("%v: %s", c.Object, c.Faults[0])
		}
	}
	g.Settled(u.Generation)
	rest(g)
	return g, nil
}

// rest waits until nothing is compiled in the background any more.
func rest(g *guard.Guard) {
	for g.Folding() != nil {
		<-g.Folding()
		g.Settled(g.Flush().Generation)
	}
}

func namespaceProfile(n int) *v3.Profile {
	allow := []v3.Rule{{Action: v3.Allow}}
	return &v3.Profile{ObjectMeta: named(fmt.Sprint("kns.n", n)), Spec: v3.ProfileSpec{
		Ingress: allow, Egress: allow,
		LabelsToApply: map[string]string{"pcns.projectcalico.org/name": fmt.Sprint("n", n), "pcns.team": fmt.Sprint(n % 10)}}}
}

// appPolicy lets the next app of a namespace in to an app by one port, and those
// who watch over it.
func appPolicy(n, app int) *v3.NetworkPolicy {
	p := &v3.NetworkPolicy{ObjectMeta: named(fmt.Sprint("app", app))}
	p.Namespace = fmt.Sprint("n", n)
	p.Spec.Selector = fmt.Sprintf("app == 'a%d'", app)
	p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress}
	p.Spec.Ingress = []v3.Rule{
		{Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP)), Source: v3.EntityRule{Selector: fmt.Sprintf("app == 'a%d'", (app+1)%apps)},
			Destination: v3.EntityRule{Ports: []v3.Port{v3.SinglePort(80)}}},
		{Action: v3.Allow, Source: v3.EntityRule{NamespaceSelector: fmt.Sprintf("team == '%d'", n%10), Selector: "app == 'monitor'"}},
		{Action: v3.Deny, Source: v3.EntityRule{Nets: []string{"192.0.2.0/24"}}},
	}
	return p
}

// pod is the i-th, of an app of its namespace.
func pod(i, app int) *v3.WorkloadEndpoint {
	e := &v3.WorkloadEndpoint{ObjectMeta: named(fmt.Sprint("pod", i))}
	e.Namespace = fmt.Sprint("n", i%namespaces)
	e.Labels = map[string]string{"app": fmt.Sprint("a", app), "pod": fmt.Sprint(i)}
	e.Spec.Node, e.Spec.Orchestrator, e.Spec.ServiceAccountName = nodeName(i/namespaces%nodes), "k8s", "default"
	e.Spec.Profiles = []string{"kns." + e.Namespace}
	four := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i))))
	six := [16]byte{0: 0xfd}
	binary.BigEndian.PutUint32(six[12:], uint32(i))
	e.Spec.IPNetworks = []string{netip.PrefixFrom(four, 32).String(), netip.PrefixFrom(netip.AddrFrom16(six), 128).String()}
	return e
}

func nodeName(n int) string { return fmt.Sprint("node", n) }

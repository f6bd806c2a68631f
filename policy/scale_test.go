package policy

import (
	"fmt"
	"net/netip"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// large is a cluster with as many pods and policies: a hundred namespaces, in each
// the pods of some apps, and for each app of a namespace a policy that lets
// another app of it in, beside a few global ones.
func large(t testing.TB, node string, pods, policies int) *Calculation {
	t.Helper()
	c := New(node)
	for n := range 100 {
		upsert(t, c, &v3.Profile{ObjectMeta: named(fmt.Sprint("kns.n", n)), Spec: v3.ProfileSpec{
			Ingress: []v3.Rule{{Action: v3.Allow}}, Egress: []v3.Rule{{Action: v3.Allow}},
			LabelsToApply: map[string]string{"pcns.projectcalico.org/name": fmt.Sprint("n", n), "pcns.team": fmt.Sprint(n % 10)}}})
	}
	for i := range policies {
		p := &v3.NetworkPolicy{ObjectMeta: named(fmt.Sprint("p", i))}
		p.Namespace = fmt.Sprint("n", i%100)
		p.Spec.Selector = fmt.Sprintf("app == 'a%d'", i/100)
		p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress}
		p.Spec.Ingress = []v3.Rule{
			{Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP)), Source: v3.EntityRule{Selector: fmt.Sprintf("app == 'a%d'", i/100+1)}, Destination: v3.EntityRule{Ports: []v3.Port{v3.SinglePort(80)}}},
			{Action: v3.Allow, Source: v3.EntityRule{NamespaceSelector: fmt.Sprintf("team == '%d'", i%10), Selector: "app == 'monitor'"}},
			{Action: v3.Deny, Source: v3.EntityRule{Nets: []string{"192.0.2.0/24"}}},
		}
		upsert(t, c, p)
	}
	for i := range pods {
		upsert(t, c, largePod(i, i/100%11))
	}
	c.Flush()
	return c
}

// largePod is a pod of one of a hundred namespaces, of an app.
func largePod(i, app int) *v3.WorkloadEndpoint {
	e := workload(fmt.Sprint("e", i), map[string]string{"app": fmt.Sprint("a", app), "pod": fmt.Sprint(i)},
		netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(),
		netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}).String())
	namespace := fmt.Sprint("n", i%100)
	e.Namespace = namespace
	e.Spec.Orchestrator, e.Spec.ServiceAccountName, e.Spec.Profiles = "k8s", "default", []string{"kns." + namespace}
	return e
}

// TestLabelChangeIsLittleWork counts what is asked when one of many pods gets
// another label.
func TestLabelChangeIsLittleWork(t *testing.T) {
	pods, policies := 10_000, 1_000
	if testing.Short() {
		pods, policies = 1_000, 1_000
	}
	c := large(t, "", pods, policies)
	for app := range 5 {
		before := c.judged.Evaluations() + c.picked.Evaluations()
		upsert(t, c, largePod(7, app))
		changes := c.Flush()
		if n := c.judged.Evaluations() + c.picked.Evaluations() - before; n > 60 {
			t.Errorf("%d evaluations for one label of one pod, want a few: its namespace has %d policies", n, policies/100)
		}
		if len(changes.Endpoints) > 1 || len(changes.Sets) > 4 {
			t.Errorf("%d endpoints and %d sets change", len(changes.Endpoints), len(changes.Sets))
		}
		if len(c.dirty.endpoints)+len(c.dirty.bodies) > 0 {
			t.Error("something is left to do")
		}
	}
}

// BenchmarkLabelChange is one pod of 10,000, under 1,000 policies, that gets
// another label: from the event to the changes.
func BenchmarkLabelChange(b *testing.B) {
	c := large(b, "", 10_000, 1_000)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		upsert(b, c, largePod(i%10_000, (i+1)%10))
		if i++; len(c.Flush().Sets) > 10 {
			b.Fatal("one label changes more than ten sets")
		}
	}
}

// BenchmarkStart is 10,000 pods and 1,000 policies from nothing.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		large(b, "", 10_000, 1_000)
	}
}

// BenchmarkRuleChange is one of 12,500 rules of an endpoint that changes.
func BenchmarkRuleChange(b *testing.B) {
	c := New("")
	for i := range 12 {
		upsert(b, c, globalPolicy(fmt.Sprintf("p%02d", i), "all()", 1024))
	}
	upsert(b, c, workload("a", nil, "10.0.0.1"))
	c.Flush()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		p := globalPolicy("p05", "all()", 1024)
		p.Spec.Ingress[500].Source.Nets[0] = fmt.Sprintf("172.16.%d.0/24", i%256)
		upsert(b, c, p)
		if len(c.Flush().Endpoints) != 1 {
			b.Fatal("the endpoint does not change")
		}
	}
}

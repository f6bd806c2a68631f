package policy

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
)

// Whoever asks for sets gets what was told of them, change by change.
func TestSetsAreWhatWasTold(t *testing.T) {
	c, r := New(""), newReceiver(t)
	objects, services := parse(t, `
kind: GlobalNetworkPolicy
metadata: {name: p}
spec:
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, source: {selector: a == '1'}}
  - {action: Allow, source: {notSelector: b == '1'}}
  - {action: Allow, destination: {ports: [web]}}
  egress:
  - {action: Allow, destination: {services: {name: s, namespace: ns}}}
---
service ns/s 10.9.0.1:80/tcp [2001:db8::9]:81/udp
---
kind: HostEndpoint
metadata: {name: h, labels: {a: "1"}}
spec: {node: node1, interfaceName: e, expectedIPs: [10.0.0.1, "2001:db8::1"], ports: [{name: web, protocol: TCP, port: 80}]}
`)
	for _, o := range objects {
		if err := c.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
	c.SetService("ns", "s", services["ns/s"])
	w := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		set := &v3.GlobalNetworkSet{}
		set.Name, set.Labels = []string{"x", "y"}[w.IntN(2)], map[string]string{[]string{"a", "b"}[w.IntN(2)]: "1"}
		for range w.IntN(4) {
			set.Spec.Nets = append(set.Spec.Nets, []string{"10.1.0.0/16", "10.1.0.0/24", "2001:db8::/64", "10.2.0.1/32"}[w.IntN(4)])
		}
		if err := c.Upsert(set); err != nil {
			t.Fatal(err)
		}
		if w.IntN(4) == 0 {
			c.Delete(Key{Kind: v3.KindGlobalNetworkSet, Name: "x"})
		}
		r.take(c.Flush())
		got := map[classifier.SetID]bool{}
		for _, s := range c.Sets(func(classifier.SetID) bool { return true }) {
			got[s.ID] = true
			h := r.sets[s.ID]
			if h == nil || h.name != s.Name || !slices.Equal(s.Joined, slices.SortedFunc(maps.Keys(h.members), func(a, b netip.Prefix) int { return memberOf(a).compare(memberOf(b)) })) {
				t.Fatalf("set %d is %+v, and was told as %+v", s.ID, s, h)
			}
		}
		if len(got) != len(r.sets) || len(got) < 4 {
			t.Fatalf("there are %d sets, and %d were told", len(got), len(r.sets))
		}
		one := c.Sets(func(id classifier.SetID) bool { return id == 1 })
		if len(one) != 1 || one[0].ID != 1 {
			t.Fatalf("set 1 alone is %+v", one)
		}
	}
}

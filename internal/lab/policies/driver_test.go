package policies

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/dataplane"
)

// lab is two nodes with two pods each.
func lab(t *testing.T) (*Driver, []Pod) {
	t.Helper()
	var pods []Pod
	for i, name := range []string{"a", "b", "c", "d"} {
		pods = append(pods, Pod{
			Endpoint: "pod/" + name, Node: []string{"n", "s"}[i/2], Namespace: "default", Name: name,
			Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)), netip.MustParseAddr(fmt.Sprintf("fd00::%d", i))},
		})
	}
	d, err := New([]string{"n", "s"}, pods)
	if err != nil {
		t.Fatal(err)
	}
	return d, pods
}

// bare are a node's endpoints without policy.
func bare(pods []Pod, node string) (out []*v1.Endpoint) {
	for _, p := range pods {
		if p.Node == node {
			out = append(out, &v1.Endpoint{Id: p.Endpoint, Port: p.Name})
		}
	}
	return out
}

// sound wants all that a state names to be in it.
func sound(t *testing.T, s dataplane.State) {
	t.Helper()
	programs := map[uint32]bool{0: true}
	for _, p := range s.Programs {
		programs[p.ID] = true
	}
	for _, e := range s.Endpoints {
		if e.GetPolicy() != v1.Endpoint_POLICY_ENFORCED || len(e.GetEgress()) == 0 || len(e.GetIngress()) == 0 {
			t.Errorf("endpoint is %v", e)
		}
		for _, stage := range append(e.GetEgress(), e.GetIngress()...) {
			if !programs[stage.GetProgram4()] || !programs[stage.GetProgram6()] {
				t.Errorf("%s is judged by %v, of programs %v", e.GetId(), stage, programs)
			}
		}
	}
}

// Whatever was applied before, what is sent as changes and what is sent whole are
// the same, and every pod has policy at every moment.
func TestChangesAddUp(t *testing.T) {
	texts := []string{
		"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny}, spec: {}}",
		"{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: x, namespace: default}, spec: {selector: pod == 'a', ingress: [{action: Allow, source: {selector: \"pod in {'b', 'c'}\"}}]}}",
		"{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: x, namespace: default}, spec: {selector: all(), egress: [{action: Deny, destination: {nets: [10.0.0.0/24]}}, {action: Deny, destination: {nets: ['fd00::/64']}}]}}",
		"{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {q: r}}}",
		"{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: other, labels: {pod: a}}, spec: {nodeName: 'n'}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}",
		"{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: other, labels: {pod: a}}, spec: {nodeName: 'n'}, status: {podIPs: [{ip: 10.0.0.0}]}}",
	}
	r := rand.New(rand.NewPCG(1, 2))
	d, pods := lab(t)
	sent := map[string]dataplane.State{"n": {Endpoints: bare(pods, "n")}, "s": {Endpoints: bare(pods, "s")}}
	for range 200 {
		var m Manifests
		for _, text := range texts {
			if r.IntN(2) == 0 {
				m = m.With(all(t, text))
			}
		}
		updates, err := d.Change(m)
		if err != nil {
			t.Fatal(err)
		}
		for node, steps := range updates {
			for _, u := range steps {
				sent[node] = sent[node].With(u.Whole(bare(pods, node)))
				sound(t, sent[node])
			}
			whole := dataplane.State{Endpoints: bare(pods, node)}
			d.Police(node, &whole)
			whole = whole.With(dataplane.Delta{}) // in the same order
			sound(t, whole)
			if got, want := fmt.Sprint(sent[node]), fmt.Sprint(whole); got != want {
				t.Fatalf("by changes node %s has\n%s\nand whole\n%s", node, got, want)
			}
			d.Settled(node, steps[len(steps)-1].Generation)
		}
	}
}

package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/policies"
)

// shop is a server and who may or may not ask it, on one node and across.
const shop = `
name: shop
pools: [10.8.0.0/16, "fd08::/48"]
nodes: [{name: w}, {name: e}]
links:
  - name: wire
    ends: [{node: w, addresses: [172.31.8.1/24, "fd31:8::1/64"]}, {node: e, addresses: [172.31.8.2/24, "fd31:8::2/64"]}]
pods:
  - {name: web, node: w, namespace: shop, labels: {role: server}, addresses: [10.8.1.1, "fd08::1:1"]}
  - {name: near, node: w, namespace: shop, labels: {role: client}, addresses: [10.8.1.2, "fd08::1:2"]}
  - {name: far, node: e, namespace: shop, labels: {role: client}, addresses: [10.8.2.1, "fd08::2:1"], port: xsk}
  - {name: guest, node: e, addresses: [10.8.2.2, "fd08::2:2"]}
`

// Policies of the shop: nobody may anything; and pods of a role may ping servers.
const (
	deny  = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny}, spec: {selector: all(), types: [Ingress, Egress]}}"
	allow = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ROLE}
spec:
  order: 10
  selector: role == 'ROLE'
  egress:
    - {action: Allow, protocol: ICMP, destination: {selector: role == 'server'}}
    - {action: Allow, protocol: ICMPv6, destination: {selector: role == 'server'}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {role: server}}
  ingress: [{from: [{podSelector: {matchLabels: {role: ROLE}}}]}]
`
)

func manifests(t *testing.T, texts ...string) (out policies.Manifests) {
	t.Helper()
	for _, text := range texts {
		m, err := policies.Read([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		out = out.With(m)
	}
	return out
}

// allowed is the policy that lets a role ping servers.
func allowed(role string) string { return strings.ReplaceAll(allow, "ROLE", role) }

// police makes the manifests those in force.
func police(t *testing.T, l *Lab, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := manifests(t, texts...)
	if err := l.Police(ctx, func(policies.Manifests) (policies.Manifests, error) { return m, nil }); err != nil {
		t.Fatal(err)
	}
}

// reach wants exactly these pods to reach the server.
func reach(t *testing.T, l *Lab, when string, who ...string) {
	t.Helper()
	for _, from := range []string{"near", "far", "guest"} {
		want := strings.Contains(strings.Join(who, " "), from)
		for _, six := range []bool{false, true} {
			var got load.Pinged
			var err error
			for range 20 { // who may has patience; who may not is asked once
				if got, err = l.Ping(t.Context(), from, "web", six, load.Ping{Count: 1, Timeout: 250 * time.Millisecond}); got.OK() || !want {
					break
				}
			}
			if got.OK() != want {
				t.Errorf("%s %s reaches the server (IPv6 %v): %v, want %v; %v", when, from, six, got.OK(), want, errors.Join(err, got.Last))
			}
		}
	}
}

func TestPolicyOfATopology(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"deny.yaml": deny, "more/role.yml": allowed("client"), "more/README": "no manifest"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "lab.yaml")
	text := shop + "policies: [deny.yaml, more, {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {a: b}}}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	topo, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	l := raiseTopology(t, topo, false)
	reach(t, l, "after up", "near", "far")
	if m, err := l.Policies(); err != nil || len(m) != 4 {
		t.Errorf("in force are %v, %v", m, err)
	}
	s, err := l.Desired("e")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.Endpoints {
		if e.GetPolicy() != v1.Endpoint_POLICY_ENFORCED {
			t.Errorf("endpoint %s has policy %v", e.GetId(), e.GetPolicy())
		}
	}
	police(t, l)
	reach(t, l, "without policies", "near", "far", "guest")
}

// Who starts, upgrades or feeds a forwarder, and whichever process does so, policy
// is what was applied last.
func TestPolicyOutlivesForwardersAndWhoSentIt(t *testing.T) {
	l := raise(t, shop)
	reach(t, l, "after up", "near", "far", "guest")
	police(t, l, deny, allowed("client"))
	reach(t, l, "after a policy", "near", "far")
	again := func() *Lab { // as another process finds it
		o, err := Open(l.base, l.Topology().Name)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	happenings := map[string]func(o *Lab) error{
		"after stop and start": func(o *Lab) error {
			return errors.Join(o.StopForwarder("w", false), o.StartForwarder(t.Context(), "w"))
		},
		"after a kill": func(o *Lab) error { return errors.Join(o.StopForwarder("w", true), o.StartForwarder(t.Context(), "w")) },
		"started without state": func(o *Lab) error {
			return errors.Join(o.StopForwarder("w", true), o.Launch("w"), o.AwaitPorts(t.Context(), "w"))
		},
		"after an upgrade":   func(o *Lab) error { return o.TakeOver(t.Context(), "w") },
		"after a new client": func(o *Lab) error { return o.Feed(t.Context(), "w") },
	}
	for name, happen := range happenings {
		if testing.Short() && name == "after a kill" {
			continue // another happening has the kill, and another the start
		}
		o := again()
		if err := happen(o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		reach(t, o, name, "near", "far")
		o.Close()
	}
	// What another process applies has other numbers for other things, or the same.
	o := again()
	defer o.Close()
	police(t, o, deny)
	reach(t, o, "with a denial alone")
	next := again()
	defer next.Close()
	police(t, next, allowed("nobody"), deny, allowed("client"))
	reach(t, next, "by a third process", "near", "far")
	if err := next.StopForwarder("w", true); err != nil {
		t.Fatal(err)
	}
	police(t, next, deny) // one node does not hear of it
	if err := next.StartForwarder(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	reach(t, next, "applied while one forwarder was away")
}

func TestWrongPolicyChangesNothing(t *testing.T) {
	l := raise(t, shop)
	police(t, l, deny, allowed("client"))
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"a host":          {"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: w, interfaceName: eth0}}", []string{"HostEndpoint h"}},
		"no pod's":        {pod("w", "10.8.1.77"), []string{"Pod shop/other", "10.8.1.77"}},
		"two pods'":       {pod("w", "10.8.1.1", "fd08::1:2"), []string{"Pod shop/other", "web and near"}},
		"another node's":  {pod("e", "10.8.1.1"), []string{`node is "e"`, `web`}},
		"two faults":      {pod("e", "10.8.1.77") + "\n---\n{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: w, interfaceName: eth0}}", []string{"HostEndpoint h", "Pod shop/other"}},
		"a lost profile":  {strings.Replace(pod("w", "10.8.1.1"), "spec: {", "spec: {serviceAccountName: gone, ", 1), []string{"gone"}},
		"too many stages": {tiers(31), []string{"want at most 32", "use fewer tiers"}},
	} {
		t.Run(name, func(t *testing.T) {
			more := manifests(t, tt.text)
			err := l.Police(t.Context(), func(m policies.Manifests) (policies.Manifests, error) { return m.With(more), nil })
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want %q in it", err, want)
				}
			}
		})
	}
	reach(t, l, "after refusals", "near", "far")
	if m, err := l.Policies(); err != nil || len(m) != 3 {
		t.Errorf("in force are %v, %v", m, err)
	}
	// A manifest of a pod stands for the pod with its addresses.
	relabelled := strings.Replace(pod("e", "10.8.2.2", "fd08::2:2"), "name: other", "name: other, labels: {role: client}", 1)
	police(t, l, deny, allowed("client"), relabelled)
	reach(t, l, "with other labels", "near", "far", "guest")
	police(t, l, deny, allowed("client"))
	reach(t, l, "with its own labels", "near", "far")
}

// pod is a manifest of a pod.
func pod(node string, addrs ...string) string {
	return "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: other}, spec: {nodeName: " + node +
		`}, status: {phase: Running, podIPs: [{ip: "` + strings.Join(addrs, `"}, {ip: "`) + `"}]}}`
}

// tiers are so many, with a policy for everybody each.
func tiers(n int) string {
	var out []string
	for i := range n {
		name := "t" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		out = append(out, "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: "+name+"}, spec: {order: 1}}",
			"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: "+name+".x}, spec: {tier: "+name+", ingress: [{action: Pass}]}}")
	}
	return strings.Join(out, "\n---\n")
}

// Connections are known from their first packet on, so that a policy which comes
// later, and allows them, breaks none; and one that denies them ends them.
func TestConnectionsOutliveTheFirstPolicy(t *testing.T) {
	l := raise(t, shop)
	everybody(t, l)
	var paths []load.Path
	for _, from := range []string{"near", "far"} {
		for _, six := range []bool{false, true} {
			e, err := l.between(from, "web", six)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, load.Path{From: e.from, To: e.to, Source: e.src, Target: e.dst})
		}
	}
	c, err := load.StartConnections(t.Context(), paths, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop(0)
	goOn := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return c.Await(ctx)
	}
	if err := goOn(time.Minute); err != nil {
		t.Fatal(err)
	}
	police(t, l, strings.ReplaceAll(strings.ReplaceAll(allowed("client"), "ICMPv6", "TCP"), "ICMP", "UDP"), deny)
	reach(t, l, "by ping") // the policy is in force
	if err := goOn(time.Minute); err != nil {
		t.Errorf("a policy that allows connections breaks them: %v", err)
	}
	police(t, l, deny)
	if err := goOn(500 * time.Millisecond); err == nil {
		t.Error("connections go on that nothing allows any more")
	}
	police(t, l) // they end sooner when they can
}

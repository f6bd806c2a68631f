package policy

import (
	"fmt"
	"strings"
	"testing"
)

// Documents that most scenes need: pod and netset take labels as "a: x, b: y".
func pod(namespace, name, address, labels string) string {
	return fmt.Sprintf(`---
kind: WorkloadEndpoint
metadata: {namespace: %s, name: %s, labels: {%s}}
spec: {node: n1, orchestrator: k8s, serviceAccountName: sa-%s, ipNetworks: [%s], profiles: [kns.%s], ports: [{name: web, protocol: TCP, port: 8080}, {name: dns, protocol: UDP, port: 53}]}
`, namespace, name, labels, name, address, namespace)
}

func namespace(name, labels string) string {
	return fmt.Sprintf(`---
kind: Profile
metadata: {name: kns.%s}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.projectcalico.org/name: %s, %s}}
`, name, name, labels)
}

func tierDoc(name, spec string) string {
	return fmt.Sprintf("---\nkind: Tier\nmetadata: {name: %s}\nspec: {%s}\n", name, spec)
}

// policyDoc is of the kind: np namespace/name, gnp name, snp, sgnp, knp.
func policyDoc(kind, name, spec string) string {
	kinds := map[string]string{"np": "NetworkPolicy", "gnp": "GlobalNetworkPolicy", "snp": "StagedNetworkPolicy", "sgnp": "StagedGlobalNetworkPolicy", "knp": "KubernetesNetworkPolicy"}
	namespace, bare, namespaced := strings.Cut(name, "/")
	if !namespaced {
		return fmt.Sprintf("---\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kinds[kind], name, spec)
	}
	return fmt.Sprintf("---\nkind: %s\nmetadata: {namespace: %s, name: %s}\nspec: {%s}\n", kinds[kind], namespace, bare, spec)
}

func set(kind, name, labels, nets string) string {
	namespace, bare, namespaced := strings.Cut(name, "/")
	if !namespaced {
		namespace, bare = "", name
	}
	return fmt.Sprintf("---\nkind: %s\nmetadata: {namespace: %q, name: %s, labels: {%s}}\nspec: {nets: [%s]}\n", kind, namespace, bare, labels, nets)
}

func host(name, labels, spec string) string {
	return fmt.Sprintf("---\nkind: HostEndpoint\nmetadata: {name: %s, labels: {%s}}\nspec: {node: n1, %s}\n", name, labels, spec)
}

// cluster is two namespaces with pods x/client, x/server, w/client.
func cluster() string {
	return namespace("x", "pcns.team: red") + namespace("w", "pcns.team: blue") +
		pod("x", "client", "10.1.0.1", "app: client") + pod("x", "server", "10.1.0.2", "app: server") +
		pod("w", "client", "10.2.0.1", "app: client")
}

func play6(t *testing.T, scenes map[string]scene) {
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Run("IPv4", s.test)
			if !strings.Contains(s.manifest+s.questions, "::") { // it has both families already
				t.Run("IPv6", scene{toIPv6(s.manifest), toIPv6(s.questions)}.test)
			}
		})
	}
}

const toServer = "x/server ingress tcp 10.1.0.1 > 10.1.0.2@80"

func TestOrder(t *testing.T) {
	allow, deny := "ingress: [{action: Allow}]", "ingress: [{action: Deny}]"
	play6(t, map[string]scene{
		"tiers by order, without one last, ties by name": {cluster() +
			tierDoc("c", "order: 5") + tierDoc("b", "order: 5") + tierDoc("z", "order: -1") + tierDoc("a", "") + tierDoc("later", "order: 2000000") +
			policyDoc("gnp", "p1", "tier: c, "+allow) + policyDoc("gnp", "p2", "tier: b, ingress: [{action: Log}, {action: Pass}]") +
			policyDoc("gnp", "p3", "tier: z, ingress: [{action: Log}, {action: Pass}]") + policyDoc("gnp", "p4", "tier: a, "+deny) + policyDoc("gnp", "p5", "tier: later, "+deny),
			toServer + " = Allow GlobalNetworkPolicy//p1/0 after [GlobalNetworkPolicy//p3/0 GlobalNetworkPolicy//p2/0]"},
		"the tier without an order comes after all with one": {cluster() + tierDoc("a", "") + tierDoc("later", "order: 2000000") +
			policyDoc("gnp", "p4", "tier: a, "+deny) + policyDoc("gnp", "p5", "tier: later, "+allow), toServer + " = Allow GlobalNetworkPolicy//p5/0"},
		"a phantom tier comes after all real ones, also those without an order": {cluster() + tierDoc("z", "") +
			policyDoc("gnp", "p1", "tier: aaa, "+deny) + policyDoc("gnp", "p2", "tier: z, "+allow), toServer + " = Allow GlobalNetworkPolicy//p2/0"},
		"a phantom tier is enforced, and denies": {cluster() + policyDoc("gnp", "p1", "tier: nowhere, ingress: [{action: Allow, protocol: UDP}]"),
			toServer + " = Deny nowhere\nx/server ingress udp 10.1.0.1 > 10.1.0.2@80 = Allow GlobalNetworkPolicy//p1/0"},
		"tiers that are built in need no object": {cluster() +
			policyDoc("gnp", "p1", "tier: kube-baseline, "+deny) + policyDoc("gnp", "p2", "tier: kube-admin, ingress: [{action: Deny, protocol: UDP}]") +
			policyDoc("gnp", "p3", "ingress: [{action: Pass, protocol: TCP}]"),
			toServer + " = Deny GlobalNetworkPolicy//p1/0\nx/server ingress udp 10.1.0.1 > 10.1.0.2 = Deny GlobalNetworkPolicy//p2/0\nx/server ingress sctp 10.1.0.1 > 10.1.0.2 = Deny default"},
		"policies by order, without one last": {cluster() + policyDoc("gnp", "a", deny) + policyDoc("gnp", "b", "order: 9, "+allow), toServer + " = Allow GlobalNetworkPolicy//b/0"},
		"a-b comes before a":                  {cluster() + policyDoc("gnp", "a", deny) + policyDoc("gnp", "a-b", allow), toServer + " = Allow GlobalNetworkPolicy//a-b/0"},
		"a.b comes before a":                  {cluster() + policyDoc("gnp", "a", deny) + policyDoc("gnp", "a.b", allow), toServer + " = Allow GlobalNetworkPolicy//a.b/0"},
		"a0 comes behind a":                   {cluster() + policyDoc("gnp", "a", allow) + policyDoc("gnp", "a0", deny), toServer + " = Allow GlobalNetworkPolicy//a/0"},
		"equal names by namespace, none first": {cluster() + policyDoc("np", "x/a", deny) + policyDoc("gnp", "a", allow),
			toServer + " = Allow GlobalNetworkPolicy//a/0"},
		"equal names and namespaces by kind": {cluster() + policyDoc("np", "x/a", "order: 1000, "+deny) + policyDoc("knp", "x/a", "order: 1000, "+allow),
			toServer + " = Allow KubernetesNetworkPolicy/x/a/0"},
		"policies of Kubernetes lie between those of order 999 and 1001": {cluster() + policyDoc("np", "x/z", "order: 999, ingress: [{action: Log}]") +
			policyDoc("knp", "x/a", "order: 1000, "+allow) + policyDoc("np", "x/a", "order: 1001, "+deny),
			toServer + " = Allow KubernetesNetworkPolicy/x/a/0 after [NetworkPolicy/x/z/0]"},
	})
}

func TestEvaluation(t *testing.T) {
	udp := "ingress: [{action: Allow, protocol: UDP}]"
	back := "\nx/server egress tcp 10.1.0.2 > 10.1.0.1@80"
	play6(t, map[string]scene{
		"no policy: the profile decides": {cluster(), toServer + " = Allow Profile//kns.x/0" + back + " = Allow Profile//kns.x/0"},
		"a policy hides the profiles, in its direction alone": {cluster() + policyDoc("np", "x/p", "types: [Ingress], "+udp),
			toServer + " = Deny default" + back + " = Allow Profile//kns.x/0"},
		"no types: both directions are governed": {cluster() + policyDoc("np", "x/p", udp), toServer + " = Deny default" + back + " = Deny default"},
		"empty lists allow nothing":              {cluster() + policyDoc("np", "x/p", "types: [Ingress, Egress]"), toServer + " = Deny default" + back + " = Deny default"},
		"egress rules without type Egress say nothing": {cluster() + policyDoc("np", "x/p", "types: [Ingress], egress: [{action: Deny}], ingress: [{action: Allow}]"),
			toServer + " = Allow NetworkPolicy/x/p/0" + back + " = Allow Profile//kns.x/0"},
		"a tier is invisible in the direction that its policies do not govern": {cluster() + tierDoc("first", "order: 1") +
			policyDoc("gnp", "p", "tier: first, types: [Egress]"), toServer + " = Allow Profile//kns.x/0" + back + " = Deny first"},
		"pass skips the rest of the tier": {cluster() + tierDoc("first", "order: 1") + policyDoc("gnp", "p", "tier: first, ingress: [{action: Pass}]") +
			policyDoc("gnp", "q", "tier: first, ingress: [{action: Deny}]"), toServer + " = Allow Profile//kns.x/0"},
		"pass from the last tier goes to the profiles": {cluster() + policyDoc("np", "x/p", "ingress: [{action: Pass, protocol: TCP}]"),
			toServer + " = Allow Profile//kns.x/0\nx/server ingress udp 10.1.0.1 > 10.1.0.2 = Deny default"},
		"a tier that passes by default": {cluster() + tierDoc("first", "order: 1, defaultAction: Pass") + policyDoc("gnp", "p", "tier: first, "+udp),
			toServer + " = Allow Profile//kns.x/0\nx/server ingress udp 10.1.0.1 > 10.1.0.2 = Allow GlobalNetworkPolicy//p/0"},
		"log is not final": {cluster() + policyDoc("np", "x/p", "ingress: [{action: Log}, {action: Log, protocol: UDP}, {action: Allow}]"),
			toServer + " = Allow NetworkPolicy/x/p/2 after [NetworkPolicy/x/p/0]"},
		"log alone decides nothing":          {cluster() + policyDoc("np", "x/p", "ingress: [{action: Log}]"), toServer + " = Deny default after [NetworkPolicy/x/p/0]"},
		"the selector picks whom it is for":  {cluster() + policyDoc("np", "x/p", "selector: app == 'client', "+udp), toServer + " = Allow Profile//kns.x/0"},
		"another namespace's policy is not":  {cluster() + policyDoc("np", "w/p", udp), toServer + " = Allow Profile//kns.x/0"},
		"http is ignored: the rule is wider": {cluster() + policyDoc("np", "x/p", "ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}}]"), toServer + " = Allow NetworkPolicy/x/p/0"},
		"an endpoint that is not there":      {cluster(), "x/nobody ingress tcp 10.1.0.1 > 10.1.0.9@80 = Deny"},
		"metadata changes nothing":           {cluster() + policyDoc("np", "x/p", "ingress: [{action: Allow, metadata: {annotations: {a: b}}}]"), toServer + " = Allow NetworkPolicy/x/p/0"},
		"a policy selects by namespace, account and label": {cluster() + policyDoc("gnp", "p", "selector: app == 'server', namespaceSelector: team == 'red', serviceAccountSelector: all(), types: [Ingress]") +
			policyDoc("gnp", "q", "namespaceSelector: team == 'blue', types: [Ingress]"), toServer + " = Deny default\nw/client ingress tcp 10.1.0.1 > 10.2.0.1 = Deny default\nx/client ingress tcp 10.1.0.2 > 10.1.0.1 = Allow Profile//kns.x/0"},
	})
}

func TestProfiles(t *testing.T) {
	of := func(profiles, more string) string {
		return "---\nkind: WorkloadEndpoint\nmetadata: {namespace: x, name: server, labels: {own: mine}}\nspec: {ipNetworks: [10.1.0.2], profiles: [" + profiles + "]}\n" + more
	}
	prof := func(name, spec string) string {
		return "---\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	}
	play6(t, map[string]scene{
		"none denies":                                {of("", ""), toServer + " = Deny"},
		"a missing one denies":                       {of("gone", ""), toServer + " = Deny Profile//gone/-1\ntold WorkloadEndpoint x/server = profile \"gone\" is missing"},
		"a missing one denies before a later one":    {of("gone, here", prof("here", "ingress: [{action: Allow}]")), toServer + " = Deny Profile//gone/-1\ntold WorkloadEndpoint x/server = profile \"gone\" is missing"},
		"an earlier one allows before a missing one": {of("here, gone", prof("here", "ingress: [{action: Allow, protocol: TCP}]")), toServer + " = Allow Profile//here/0\nx/server ingress udp 10.1.0.1 > 10.1.0.2 = Deny Profile//gone/-1\ntold WorkloadEndpoint x/server = profile \"gone\" is missing"},
		"one without rules leaves it to the next":    {of("empty, here", prof("empty", "")+prof("here", "ingress: [{action: Allow}]")), toServer + " = Allow Profile//here/0"},
		"the end denies":                             {of("here", prof("here", "ingress: [{action: Allow, protocol: UDP}]")), toServer + " = Deny"},
		"pass leaves that profile alone": {of("a, b", prof("a", "ingress: [{action: Pass, protocol: TCP}, {action: Deny}]")+prof("b", "ingress: [{action: Allow}]")),
			toServer + " = Allow Profile//b/0\nx/server ingress udp 10.1.0.1 > 10.1.0.2 = Deny Profile//a/1"},
		"pass from the last one denies": {of("a", prof("a", "ingress: [{action: Pass}]")), toServer + " = Deny"},
		"labels are inherited, the first profile wins, the endpoint's own before": {of("a, b", prof("a", "labelsToApply: {p: first, own: theirs}")+prof("b", "labelsToApply: {p: second, q: third}, ingress: [{action: Allow}]")) +
			policyDoc("gnp", "p1", "selector: p == 'second' || own == 'theirs', ingress: [{action: Deny}]") +
			policyDoc("gnp", "p2", "selector: p == 'first' && own == 'mine' && q == 'third', ingress: [{action: Pass}]"), toServer + " = Allow Profile//b/0"},
		"inherited labels are picked by rules too": {of("a", prof("a", "labelsToApply: {p: first}")) + namespace("w", "pcns.team: blue") + pod("w", "client", "10.2.0.1", "app: client") +
			policyDoc("np", "w/p", "egress: [{action: Allow, destination: {selector: p == 'first', namespaceSelector: all()}}], types: [Egress]"),
			"w/client egress tcp 10.2.0.1 > 10.1.0.2@80 = Allow NetworkPolicy/w/p/0\nw/client egress tcp 10.2.0.1 > 10.1.0.1@80 = Deny default"},
	})
}

func TestStaged(t *testing.T) {
	staged := strings.Replace(toServer, "x/server", "x/server:staged", 1)
	play6(t, map[string]scene{
		"never decides": {cluster() + policyDoc("snp", "x/p", "ingress: [{action: Deny}]"),
			toServer + " = Allow Profile//kns.x/0\n" + staged + " = Deny StagedNetworkPolicy/x/p/0"},
		"a tier of staged policies alone has no end": {cluster() + tierDoc("first", "order: 1") + policyDoc("sgnp", "p", "tier: first, ingress: [{action: Allow, protocol: UDP}]"),
			toServer + " = Allow Profile//kns.x/0\n" + staged + " = Deny first"},
		"beside an enforced one": {cluster() + policyDoc("snp", "x/p", "order: 1, ingress: [{action: Allow}]") + policyDoc("np", "x/q", "ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/q/0\n" + staged + " = Allow StagedNetworkPolicy/x/p/0"},
		"set takes the place of the policy of its name": {cluster() + policyDoc("snp", "x/p", "stagedAction: Set, ingress: [{action: Allow}]") + policyDoc("np", "x/p", "order: 1, ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/p/0\n" + staged + " = Allow StagedNetworkPolicy/x/p/0"},
		"set that no longer selects the endpoint": {cluster() + policyDoc("snp", "x/p", "selector: app == 'client'") + policyDoc("np", "x/p", "ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/p/0\n" + staged + " = Allow Profile//kns.x/0"},
		"delete takes the policy away, and its tier's end with it": {cluster() + policyDoc("snp", "x/p", "stagedAction: Delete") + policyDoc("np", "x/p", "ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/p/0\n" + staged + " = Allow Profile//kns.x/0"},
		"delete of what is not there": {cluster() + policyDoc("snp", "x/p", "stagedAction: Delete"), toServer + " = Allow Profile//kns.x/0\n" + staged + " = Allow Profile//kns.x/0"},
		"ignore changes nothing": {cluster() + policyDoc("snp", "x/p", "stagedAction: Ignore, ingress: [{action: Allow}]") + policyDoc("np", "x/p", "ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/p/0\n" + staged + " = Deny NetworkPolicy/x/p/0"},
		"a global one does not touch a namespaced policy": {cluster() + policyDoc("sgnp", "p", "stagedAction: Delete") + policyDoc("np", "x/p", "ingress: [{action: Deny}]"),
			toServer + " = Deny NetworkPolicy/x/p/0\n" + staged + " = Deny NetworkPolicy/x/p/0"},
	})
}

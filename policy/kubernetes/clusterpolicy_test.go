package kubernetes

import (
	"fmt"
	"strings"
	"testing"

	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v3 "margay.dev/margay/api/v3"
)

// clusterPolicy is a policy for all pods with what a table of tests says.
func clusterPolicy(t *testing.T, spec string) *clusterv1alpha2.ClusterNetworkPolicy {
	t.Helper()
	cnp := &clusterv1alpha2.ClusterNetworkPolicy{Spec: *read[clusterv1alpha2.ClusterNetworkPolicySpec](t, spec)}
	cnp.Name, cnp.Spec.Tier = "all", clusterv1alpha2.AdminTier
	cnp.Spec.Subject = *read[clusterv1alpha2.ClusterNetworkPolicySubject](t, `{namespaces: {}}`)
	return cnp
}

// What a ClusterNetworkPolicy's rules come to, ingress before egress.
func TestClusterNetworkPolicyRules(t *testing.T) {
	tests := map[string]struct {
		spec  string
		want  []string
		types string
	}{
		"a policy without rules has no types": {spec: `{}`, types: "[]"},
		"types are the directions that have rules": {
			spec: `{egress: [{action: Deny, to: [{namespaces: {}}]}]}`, want: []string{"Deny > k8s of all()"}, types: "[Egress]"},
		"Accept allows, Deny denies, Pass passes, in the order of the rules": {
			spec: `{ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}`,
			want: []string{"Pass < k8s of all()", "Allow < k8s of all()", "Deny < k8s of all()"}, types: "[Ingress]"},
		"namespaces are their pods, and nothing else that is there": {
			spec: `{ingress: [{action: Accept, from: [{namespaces: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}}]}]}`,
			want: []string{`Allow < k8s of env not in {"prod"}`}, types: "[Ingress]"},
		"pods are by both selectors, and an empty one of namespaces is all of them": {
			spec: `{ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}},
			         {pods: {namespaceSelector: {}, podSelector: {}}}]}],
			        egress: [{action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]}`,
			want: []string{`Allow < (k8s && app == "web") of env == "prod"`, "Allow < k8s of all()", `Allow > (k8s && app == "web") of all()`}, types: "[Ingress Egress]"},
		"networks are nets, of both families in one rule": {
			spec: `{egress: [{action: Deny, to: [{networks: [10.1.2.3/8, 'fd00::/8']}]}]}`,
			want: []string{"Deny > [10.0.0.0/8 fd00::/8]"}, types: "[Egress]"},
		"no protocols are no protocol at all": {
			spec: `{egress: [{action: Deny, protocols: [], to: [{networks: [0.0.0.0/0]}]}]}`,
			want: []string{"Deny > [0.0.0.0/0]"}, types: "[Egress]"},
		"numbers and ranges merge, by protocol, for each peer": {
			spec: `{egress: [{action: Accept, to: [{namespaces: {}}, {networks: ['fd00::/8']}], protocols: [
			         {udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {range: {start: 80, end: 90}}}},
			         {tcp: {destinationPort: {number: 91}}}, {sctp: {destinationPort: {number: 7}}}]}]}`,
			want: []string{
				"Allow SCTP > k8s of all() ports[7]", "Allow SCTP > [fd00::/8] ports[7]",
				"Allow TCP > k8s of all() ports[80:91]", "Allow TCP > [fd00::/8] ports[80:91]",
				"Allow UDP > k8s of all() ports[53]", "Allow UDP > [fd00::/8] ports[53]",
			}, types: "[Egress]"},
		"a protocol without port is all of it, and wins over other ports of it": {
			spec: `{ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}, {tcp: {}}, {udp: {}}, {udp: {destinationPort: {number: 53}}}]}]}`,
			want: []string{"Deny TCP < k8s of all()", "Deny UDP < k8s of all()"}, types: "[Ingress]"},
		"a port's name is of any protocol": {
			spec: `{ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: web}, {tcp: {destinationPort: {number: 80}}}, {destinationNamedPort: admin}]}],
			        egress: [{action: Pass, to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]}]}`,
			want: []string{"Allow < k8s of all() > ports[admin web]", "Allow TCP < k8s of all() > ports[80]", "Pass > k8s of all() ports[web]"}, types: "[Ingress Egress]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, warnings, err := ClusterNetworkPolicy(clusterPolicy(t, tt.spec))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "rules", append(ruleTexts(got.Spec.Ingress), ruleTexts(got.Spec.Egress)...), tt.want)
			checkWarnings(t, warnings, nil)
			if types := fmt.Sprint(got.Spec.Types); types != tt.types {
				t.Errorf("types are %s, want %s", types, tt.types)
			}
		})
	}
}

// What makes a rule a broken one; what a rule has beside is in peers and protocols.
// One that accepts is left out, any other denies everything, in its place.
func TestClusterNetworkPolicyRulesBroken(t *testing.T) {
	tests := map[string]struct{ rule, cause string }{
		"no peers":                     {`{to: []}`, "it has no peers"},
		"an empty peer":                {`{to: [{namespaces: {}}, {}]}`, "convert peer 1: it is empty"},
		"two things in a peer":         {`{to: [{namespaces: {}, pods: {podSelector: {}}}]}`, "namespaces and pods, want one"},
		"networks with pods":           {`{to: [{networks: [10.0.0.0/8], pods: {podSelector: {}}}]}`, "networks are with namespaces or pods"},
		"networks with namespaces":     {`{to: [{networks: [10.0.0.0/8], namespaces: {}}]}`, "networks are with namespaces or pods"},
		"nodes":                        {`{to: [{nodes: {}}]}`, "it says nodes or domainNames"},
		"names of domains":             {`{to: [{networks: [10.0.0.0/8]}, {domainNames: [example.com]}]}`, "convert peer 1: it says nodes or domainNames"},
		"nodes with networks":          {`{to: [{networks: [10.0.0.0/8], nodes: {}}]}`, "it says nodes or domainNames"},
		"no CIDR":                      {`{to: [{networks: ['fd00::/8', 10.0.0.1]}]}`, `networks[1]: it is "10.0.0.1"`},
		"a length that none has":       {`{to: [{networks: ['fd00::/129']}]}`, `networks[0]: it is "fd00::/129"`},
		"a selector of namespaces":     {`{to: [{namespaces: {matchExpressions: [{key: a, operator: In}]}}]}`, "selector of namespaces: convert matchExpressions[0]"},
		"a selector of pods":           {`{to: [{pods: {podSelector: {matchExpressions: [{key: a, operator: Gt}]}}}]}`, "selector of pods: convert matchExpressions[0]"},
		"an empty protocol":            {`{to: [{namespaces: {}}], protocols: [{tcp: {}}, {}]}`, "protocols[1]: it says 0 things"},
		"two protocols in one":         {`{to: [{namespaces: {}}], protocols: [{tcp: {}, udp: {}}]}`, "it says 2 things"},
		"all protocols in one":         {`{to: [{namespaces: {}}], protocols: [{tcp: {}, udp: {}, sctp: {}, destinationNamedPort: web}]}`, "it says 4 things"},
		"an empty port":                {`{to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {}}}]}`, "port is 0"},
		"a port of more than 16 bits":  {`{to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 65616}}}]}`, "port is 65616"},
		"a port below none":            {`{to: [{namespaces: {}}], protocols: [{sctp: {destinationPort: {number: -1}}}]}`, "port is -1"},
		"a range backwards":            {`{to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 90, end: 80}}}}]}`, "last port is 80, want at least the first, 90"},
		"a range beyond":               {`{to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 90, end: 65536}}}}]}`, "last port is 65536"},
		"an empty range":               {`{to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {}}}}]}`, "port is 0"},
		"a number with a range":        {`{to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80, range: {start: 80, end: 90}}}}]}`, "number and range, want one"},
		"a number for a name":          {`{to: [{namespaces: {}}], protocols: [{destinationNamedPort: '80'}]}`, `port is "80"`},
		"a port's name, of networks":   {`{to: [{namespaces: {}}, {networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]}`, "peer 1: networks are with a destinationNamedPort"},
		"an action that nobody knows":  {`{action: Reject, to: [{namespaces: {}}]}`, `action is "Reject"`},
		"the action of the API before": {`{action: Allow, to: [{namespaces: {}}]}`, `action is "Allow"`},
		"no action":                    {`{action: '', to: [{namespaces: {}}]}`, `action is ""`},
	}
	for name, tt := range tests {
		for action, want := range map[clusterv1alpha2.ClusterNetworkPolicyRuleAction][]string{"Accept": nil, "Deny": {"Deny"}, "Pass": {"Deny"}} {
			rule := read[clusterv1alpha2.ClusterNetworkPolicyEgressRule](t, tt.rule)
			rule.Name = "broken"
			instead := leftOut
			if strings.Contains(tt.rule, "action") {
				action, want = rule.Action, []string{"Deny"}
			}
			if want != nil {
				instead = deniesAll
			}
			rule.Action = action
			cnp := clusterPolicy(t, `{egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}]}, {action: Accept, to: [{networks: ['fd00::/8']}]}]}`)
			cnp.Spec.Egress = []clusterv1alpha2.ClusterNetworkPolicyEgressRule{cnp.Spec.Egress[0], *rule, cnp.Spec.Egress[1]}
			got, warnings, err := ClusterNetworkPolicy(cnp)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, fmt.Sprintf("%s, %s", name, action), ruleTexts(got.Spec.Egress),
				append(append([]string{"Pass > [10.0.0.0/8]"}, want...), "Allow > [fd00::/8]"))
			checkWarnings(t, warnings, []string{"spec.egress[1] " + instead + ": "})
			checkWarnings(t, warnings, []string{tt.cause})
			if want != nil && got.Spec.Egress[1].Metadata.Annotations[RuleNameAnnotation] != "broken" {
				t.Errorf("%s: what denies in the place of the rule does not have its name", name)
			}
		}
	}
}

// Ingress rules break in the same ways, and what is left of a policy is in force.
func TestClusterNetworkPolicyIngressRulesBroken(t *testing.T) {
	got, warnings, err := ClusterNetworkPolicy(clusterPolicy(t, `{ingress: [
		{action: Accept, from: [{}]}, {action: Deny, from: []}, {action: Pass, from: [{namespaces: {}}], protocols: [{}]}, {action: Accept, from: [{namespaces: {}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "rules", ruleTexts(got.Spec.Ingress), []string{"Deny", "Deny", "Allow < k8s of all()"})
	checkWarnings(t, warnings, []string{"spec.ingress[0] is left out", "spec.ingress[1] denies everything", "spec.ingress[2]"})

	got, _, err = ClusterNetworkPolicy(clusterPolicy(t, `{ingress: [{action: Accept, from: [{}]}]}`))
	if err != nil || got.Spec.Types != nil || got.Spec.Ingress != nil {
		t.Errorf("of a broken rule that accepts there came types %v, rules %v and %v, want none of it", got.Spec.Types, got.Spec.Ingress, err)
	}
}

func TestClusterNetworkPolicyItself(t *testing.T) {
	tests := map[string]struct{ object, want string }{
		"of namespaces, in tier Admin": {`
metadata: {name: a-b, uid: 30316465-6365-4463-ad63-3564622d3638}
spec: {tier: Admin, priority: 0, subject: {namespaces: {}}}`,
			`a-b cfce9b9a-9c9a-4b9c-a29c-ca9b9dd2c9c7 kube-admin 0 k8s of all()`},
		"of some namespaces": {`
metadata: {name: some, namespace: odd}
spec: {tier: Admin, priority: 1000, subject: {namespaces: {matchLabels: {env: prod}}}}`,
			`some  kube-admin 1000 k8s of env == "prod"`},
		"of pods, in tier Baseline": {`
metadata: {name: base}
spec: {tier: Baseline, priority: 5, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}}`,
			`base  kube-baseline 5 (k8s && app == "web") of all()`},
	}
	for name, tt := range tests {
		got, warnings, err := ClusterNetworkPolicy(read[clusterv1alpha2.ClusterNetworkPolicy](t, tt.object))
		if err != nil || warnings != nil {
			t.Fatalf("%s: %v, %v", name, err, warnings)
		}
		text := fmt.Sprintf("%s %s %s %v%s", got.Name, got.UID, got.Spec.Tier, *got.Spec.Order,
			entityText("", v3.EntityRule{Selector: got.Spec.Selector, NamespaceSelector: got.Spec.NamespaceSelector}))
		if text != tt.want || got.Kind != "KubernetesClusterNetworkPolicy" || got.Namespace != "" {
			t.Errorf("%s: got %s %s, want %s", name, got.Kind, text, tt.want)
		}
	}
}

func TestClusterNetworkPolicyRuleNamesAreMetadata(t *testing.T) {
	got, _, err := ClusterNetworkPolicy(clusterPolicy(t, `{egress: [{name: dns, action: Accept, to: [{namespaces: {}}]}, {action: Deny, to: [{namespaces: {}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if m := got.Spec.Egress[0].Metadata; m == nil || m.Annotations["name"] != "dns" {
		t.Errorf("metadata of the rule with a name is %v", m)
	}
	if m := got.Spec.Egress[1].Metadata; m != nil {
		t.Errorf("metadata of the rule without is %v", m)
	}
}

func TestBrokenClusterNetworkPolicyIsRefused(t *testing.T) {
	tests := map[string]string{
		`{tier: admin, subject: {namespaces: {}}}`:                                                                        `convert ClusterNetworkPolicy "all": tier is "admin", want Admin or Baseline`,
		`{subject: {namespaces: {}}}`:                                                                                     `tier is ""`,
		`{tier: Admin, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`:                                              `subject: it is empty`,
		`{tier: Admin, subject: {namespaces: {}, pods: {podSelector: {}}}}`:                                               `subject: it has namespaces and pods`,
		`{tier: Admin, subject: {namespaces: {matchExpressions: [{key: a, operator: NotIn}]}}}`:                           `subject: selector of namespaces`,
		`{tier: Baseline, subject: {pods: {podSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}}}}`: `subject: selector of pods`,
	}
	for spec, want := range tests {
		cnp := &clusterv1alpha2.ClusterNetworkPolicy{Spec: *read[clusterv1alpha2.ClusterNetworkPolicySpec](t, spec)}
		cnp.Name = "all"
		got, _, err := ClusterNetworkPolicy(cnp)
		if err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v and %v, want %q", spec, got, err, want)
		}
	}
}

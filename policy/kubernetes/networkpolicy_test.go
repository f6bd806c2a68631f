package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v3 "margay.dev/margay/api/v3"
)

// What a NetworkPolicy's rules come to: the spec's, as YAML, ingress before egress.
func TestNetworkPolicyRules(t *testing.T) {
	tests := map[string]struct {
		spec     string
		want     []string
		warnings []string
	}{
		"no rules": {spec: `{ingress: [], egress: []}`},
		"a rule that says nothing is any peer and any protocol": {
			spec: `{ingress: [{}], egress: [{}]}`, want: []string{"Allow", "Allow"}},
		"empty from and to are any peer": {
			spec: `{ingress: [{from: []}], egress: [{to: []}]}`, want: []string{"Allow", "Allow"}},
		"an empty list of ports is no protocol at all": {
			spec: `{ingress: [{ports: []}]}`, want: []string{"Allow"}},
		"ports are the destination's in both directions": {
			spec: `{ingress: [{ports: [{protocol: UDP, port: 53}], from: [{podSelector: {}}]}],
			         egress: [{ports: [{protocol: UDP, port: 53}], to: [{podSelector: {}}]}]}`,
			want: []string{"Allow UDP < k8s > ports[53]", "Allow UDP > k8s ports[53]"}},
		"an entry without protocol is TCP": {
			spec: `{ingress: [{ports: [{port: 80}]}]}`, want: []string{"Allow TCP > ports[80]"}},
		"an entry without anything is the whole of TCP": {
			spec: `{ingress: [{ports: [{}]}]}`, want: []string{"Allow TCP"}},
		"an entry without port is the whole protocol": {
			spec: `{ingress: [{ports: [{protocol: SCTP}]}]}`, want: []string{"Allow SCTP"}},
		"an entry without port wins over other ports of it, before them": {
			spec: `{ingress: [{ports: [{protocol: UDP}, {protocol: UDP, port: 53}, {protocol: UDP, port: dns}]}]}`, want: []string{"Allow UDP"}},
		"an entry without port wins over other ports of it, behind them, and over no other protocol": {
			spec: `{ingress: [{ports: [{protocol: UDP, port: 53}, {port: 53}, {protocol: UDP}]}]}`,
			want: []string{"Allow TCP > ports[53]", "Allow UDP"}},
		"one rule for each protocol and peer, the protocols sorted": {
			spec: `{egress: [{ports: [{protocol: UDP, port: 1}, {protocol: TCP, port: 2}, {protocol: SCTP, port: 3}],
			         to: [{podSelector: {}}, {ipBlock: {cidr: fd00::/8}}]}]}`,
			want: []string{
				"Allow SCTP > k8s ports[3]", "Allow SCTP > [fd00::/8] ports[3]",
				"Allow TCP > k8s ports[2]", "Allow TCP > [fd00::/8] ports[2]",
				"Allow UDP > k8s ports[1]", "Allow UDP > [fd00::/8] ports[1]",
			}},
		"numbers of one protocol merge into the fewest ranges": {
			spec: `{ingress: [{ports: [{port: 82}, {port: 80}, {port: 9090}, {port: 81}, {port: 80}, {protocol: UDP, port: 83}]}]}`,
			want: []string{"Allow TCP > ports[80:82 9090]", "Allow UDP > ports[83]"}},
		"endPort is the end of a range, and ranges merge too": {
			spec: `{ingress: [{ports: [{port: 100, endPort: 200}, {port: 150, endPort: 160}, {port: 201}, {port: 203, endPort: 203}, {port: 65535}, {port: 65000, endPort: 65534}]}]}`,
			want: []string{"Allow TCP > ports[100:201 203 65000:65535]"}},
		"named ports are kept, behind the numbers, each once": {
			spec: `{ingress: [{ports: [{port: web}, {port: 80}, {port: admin}, {port: web}, {protocol: UDP, port: web}]}]}`,
			want: []string{"Allow TCP > ports[80 admin web]", "Allow UDP > ports[web]"}},

		"podSelector alone is pods of the own namespace": {
			spec: `{ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`,
			want: []string{`Allow < (k8s && app == "web")`}},
		"an empty podSelector is every pod of the own namespace": {
			spec: `{egress: [{to: [{podSelector: {}}]}]}`, want: []string{"Allow > k8s"}},
		"an empty namespaceSelector is all()": {
			spec: `{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`,
			want: []string{`Allow < (k8s && app == "web") of all()`}},
		"namespaceSelector alone is any pod there, and nothing else that is there": {
			spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {env: prod}}}, {namespaceSelector: {}}]}]}`,
			want: []string{`Allow > k8s of env == "prod"`, "Allow > k8s of all()"}},
		"labels are by name, and then expressions as they come": {
			spec: `{ingress: [{from: [{podSelector: {matchLabels: {b: x, a: ''}, matchExpressions: [
			         {key: d, operator: NotIn, values: [z, x, z]}, {key: c, operator: In, values: [w]},
			         {key: e.org/f, operator: Exists}, {key: e, operator: DoesNotExist}]}}]}]}`,
			want: []string{`Allow < (k8s && a == "" && b == "x" && d not in {"x", "z"} && c in {"w"} && has(e.org/f) && !has(e))`}},
		"ipBlock is nets, and its exceptions are notNets": {
			spec: `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]}],
			         egress: [{to: [{ipBlock: {cidr: fd00::/8, except: [fd01::/16]}}]}]}`,
			want: []string{"Allow < [10.0.0.0/8] not[10.1.0.0/16 10.2.0.0/16]", "Allow > [fd00::/8] not[fd01::/16]"}},
		"a prefix loses what it has beyond its length, and one of mapped addresses is of IPv4": {
			spec: `{ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.2.3/16]}}, {ipBlock: {cidr: 'fd00::1/8'}}, {ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}]}`,
			want: []string{"Allow < [10.0.0.0/8] not[10.1.0.0/16]", "Allow < [fd00::/8]", "Allow < [10.0.0.0/8]"}},
		"an exception outside of the prefix stays, one of the other family goes and the rule does not": {
			spec: `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16, fd00::/8]}}, {ipBlock: {cidr: fd00::/8, except: [10.0.0.0/8]}}]}]}`,
			want: []string{"Allow < [10.0.0.0/8] not[192.168.0.0/16]", "Allow < [fd00::/8]"}},
		"an exception of everything stays": {
			spec: `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}]}]}`,
			want: []string{"Allow < [10.0.0.0/8] not[0.0.0.0/0]"}},

		"a rule that cannot be converted is left out, all of it, and the rest stays": {
			spec: `{ingress: [{ports: [{port: 80}]}, {ports: [{port: 80}, {port: 90, endPort: 80}], from: [{podSelector: {}}]}, {ports: [{port: 81}]}],
			         egress: [{to: [{podSelector: {}}, {}]}, {}]}`,
			want:     []string{"Allow TCP > ports[80]", "Allow TCP > ports[81]", "Allow"},
			warnings: []string{"spec.ingress[1] is left out: convert ports[1]: last port is 80, want at least the first, 90", "spec.egress[0] is left out: convert peer 1: it is empty"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			np := &networkingv1.NetworkPolicy{Spec: *read[networkingv1.NetworkPolicySpec](t, tt.spec)}
			np.Namespace = "shop"
			got, warnings, err := NetworkPolicy(np)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "rules", append(ruleTexts(got.Spec.Ingress), ruleTexts(got.Spec.Egress)...), tt.want)
			checkWarnings(t, warnings, tt.warnings)
		})
	}
}

// What makes a rule one that cannot be converted. Each is beside a rule that can.
func TestNetworkPolicyRulesRefused(t *testing.T) {
	tests := map[string]string{
		`{ports: [{protocol: ICMP}]}`:                                                                    `protocol is "ICMP", want TCP, UDP or SCTP`,
		`{ports: [{protocol: tcp, port: 80}]}`:                                                           `protocol is "tcp"`,
		`{ports: [{protocol: '', port: 80}]}`:                                                            `protocol is ""`,
		`{ports: [{port: 0}]}`:                                                                           `port is 0, want 1 to 65535`,
		`{ports: [{port: -1}]}`:                                                                          `port is -1`,
		`{ports: [{port: 65536}]}`:                                                                       `port is 65536`,
		`{ports: [{port: 65616}]}`:                                                                       `port is 65616`, // 80 in 16 bits
		`{ports: [{port: 80, endPort: 79}]}`:                                                             `last port is 79, want at least the first, 80`,
		`{ports: [{port: 80, endPort: 65536}]}`:                                                          `last port is 65536`,
		`{ports: [{port: 80, endPort: -1}]}`:                                                             `last port is -1`,
		`{ports: [{endPort: 80}]}`:                                                                       `endPort is without a port`,
		`{ports: [{port: web, endPort: 80}]}`:                                                            `endPort is with a port that is a name`,
		`{ports: [{port: ''}]}`:                                                                          `port is "", want a number`,
		`{ports: [{port: '80'}]}`:                                                                        `port is "80", want a number without quotes`,
		`{ports: [{port: '80:90'}]}`:                                                                     `port is "80:90"`,
		`{ports: [{port: 'a b'}]}`:                                                                       `port is "a b"`,
		`{ports: [{port: 80}], from: [{}]}`:                                                              `convert peer 0: it is empty`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}`:                                       `ipBlock is with a selector`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]}`:                                 `ipBlock is with a selector`,
		`{from: [{ipBlock: {}}]}`:                                                                        `ipBlock.cidr: it is ""`,
		`{from: [{ipBlock: {cidr: 10.0.0.1}}]}`:                                                          `ipBlock.cidr: it is "10.0.0.1"`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}`:                                                       `ipBlock.cidr: it is "10.0.0.0/33"`,
		`{from: [{ipBlock: {cidr: 'fd00::/129'}}]}`:                                                      `ipBlock.cidr: it is "fd00::/129"`,
		`{from: [{ipBlock: {cidr: 'fe80::%eth0/64'}}]}`:                                                  `ipBlock.cidr: it is "fe80::%eth0/64"`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/-1}}]}`:                                                       `ipBlock.cidr: it is`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, x]}}]}`:                               `ipBlock.except[1]: it is "x"`,
		`{from: [{podSelector: {matchLabels: {'a b': x}}}]}`:                                             `podSelector: convert matchLabels: make selector: "a b" is no label`,
		`{from: [{podSelector: {matchLabels: {a: "'\""}}}]}`:                                             `quotes of both kinds`,
		`{from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}`:                          `matchExpressions[0]: operator In has no values`,
		`{from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}]}`:                       `operator NotIn has no values`,
		`{from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}}]}`:         `operator "Exists" has 1 values, want none`,
		`{from: [{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}]}`:           `operator "Gt" has 1 values`,
		`{from: [{podSelector: {matchExpressions: [{key: a, operator: ''}]}}]}`:                          `operator is ""`,
		`{from: [{namespaceSelector: {matchExpressions: [{key: '', operator: DoesNotExist}]}}]}`:         `namespaceSelector: convert matchExpressions[0]: make selector: "" is no label`,
		`{from: [{podSelector: {}, namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}]}`: `operator is "Near", want In, NotIn, Exists or DoesNotExist`,
		fmt.Sprintf(`{from: [{podSelector: {matchExpressions: [{key: a, operator: In, values: [%s]}]}}]}`, wide()): `bytes in Calico's language, want at most 65536`,
	}
	for text, want := range tests {
		rule := read[networkingv1.NetworkPolicyIngressRule](t, text)
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{*rule, {}}
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: rule.From, Ports: rule.Ports}, {}}
		got, warnings, err := NetworkPolicy(np)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, text, append(ruleTexts(got.Spec.Ingress), ruleTexts(got.Spec.Egress)...), []string{"Allow", "Allow"})
		checkWarnings(t, warnings, []string{want, want})
	}
}

// wide is a list of values that no selector of ours can hold.
func wide() string {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "value-%d, ", i)
	}
	return b.String()
}

func TestNetworkPolicyTypes(t *testing.T) {
	tests := map[string]struct {
		spec     string
		types    string
		staged   string
		warnings []string
	}{
		"copied":                       {`{policyTypes: [Egress]}`, "[Egress]", "[Egress]", nil},
		"both, in any order":           {`{policyTypes: [Egress, Ingress]}`, "[Ingress Egress]", "[Ingress Egress]", nil},
		"said twice":                   {`{policyTypes: [Ingress, Ingress]}`, "[Ingress]", "[Ingress]", nil},
		"Egress, and ingress rules":    {`{policyTypes: [Egress], ingress: [{}]}`, "[Egress]", "[Egress]", nil},
		"none is Ingress":              {`{}`, "[Ingress]", "[Ingress]", nil},
		"none and both kinds of rules": {`{ingress: [{}], egress: [{}]}`, "[Ingress]", "[Ingress Egress]", nil},
		"none is Ingress, even for a policy of egress rules": {`{egress: [{}]}`, "[Ingress]", "[Ingress Egress]", nil},
		"one that nobody knows":                              {`{policyTypes: [Egress, Forward]}`, "[Egress]", "[Egress]", []string{`spec.policyTypes[1] is left out: it is "Forward"`}},
		"only one that nobody knows":                         {`{policyTypes: [Forward], egress: [{}]}`, "[Ingress]", "[Ingress]", []string{`"Forward"`}},
	}
	for name, tt := range tests {
		np := &networkingv1.NetworkPolicy{Spec: *read[networkingv1.NetworkPolicySpec](t, tt.spec)}
		np.Namespace = "shop"
		got, warnings, err := NetworkPolicy(np)
		if err != nil {
			t.Fatal(err)
		}
		if types := fmt.Sprint(got.Spec.Types); types != tt.types {
			t.Errorf("%s: types are %s, want %s", name, types, tt.types)
		}
		checkWarnings(t, warnings, tt.warnings)
		snp := &v3.StagedKubernetesNetworkPolicy{Spec: *read[v3.StagedKubernetesNetworkPolicySpec](t, tt.spec)}
		snp.Namespace = "shop"
		staged, warnings, err := StagedNetworkPolicy(snp)
		if err != nil {
			t.Fatal(err)
		}
		if types := fmt.Sprint(staged.Spec.Types); types != tt.staged {
			t.Errorf("%s: staged, types are %s, want %s", name, types, tt.staged)
		}
		checkWarnings(t, warnings, tt.warnings)
	}
}

// A policy comes out with its own name, order 1000 and a kind by which it is told
// from others of the name; rules that govern nothing stay.
func TestNetworkPolicyItself(t *testing.T) {
	made := metav1.NewTime(time.Unix(1_700_000_000, 0))
	np := read[networkingv1.NetworkPolicy](t, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a-b, namespace: shop, uid: 30316465-6365-4463-ad63-3564622d3638, resourceVersion: "7", labels: {team: red}}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  egress: [{}]
`)
	np.CreationTimestamp = made
	got, warnings, err := NetworkPolicy(np)
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	id := fmt.Sprintf("%s %s/%s %s %s %v", got.Kind, got.Namespace, got.Name, got.UID, got.ResourceVersion, got.CreationTimestamp.Equal(&made))
	if want := "KubernetesNetworkPolicy shop/a-b cfce9b9a-9c9a-4b9c-a29c-ca9b9dd2c9c7 7 true"; id != want {
		t.Errorf("it is %s, want %s", id, want)
	}
	spec := fmt.Sprint(got.Spec.Tier, " ", *got.Spec.Order, " ", got.Spec.Selector, " ", got.Spec.Types, ruleTexts(got.Spec.Egress))
	if want := `default 1000 (projectcalico.org/orchestrator == "k8s" && app == "web") [Ingress] [Allow]`; spec != want {
		t.Errorf("it says %s, want %s", spec, want)
	}
}

func TestStagedNetworkPolicyItself(t *testing.T) {
	got, warnings, err := StagedNetworkPolicy(read[v3.StagedKubernetesNetworkPolicy](t, `
metadata: {name: a-b, namespace: shop}
spec: {stagedAction: Set, ingress: [{ports: [{port: 0}]}, {from: [{podSelector: {}}]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	checkWarnings(t, warnings, []string{"spec.ingress[0] is left out"})
	text := fmt.Sprint(got.Kind, " ", got.Namespace, "/", got.Name, " ", got.Spec.StagedAction, " ", *got.Spec.Order, " ", got.Spec.Selector, ruleTexts(got.Spec.Ingress))
	want := `StagedKubernetesNetworkPolicy shop/a-b Set 1000 projectcalico.org/orchestrator == "k8s"[Allow < k8s]`
	if text != want {
		t.Errorf("it is %s, want %s", text, want)
	}
}

func TestNetworkPolicyForNobodyIsRefused(t *testing.T) {
	tests := map[string]string{
		`{metadata: {name: a}}`: `convert NetworkPolicy "a" of namespace "": it has no namespace`,
		`{metadata: {name: a, namespace: b}, spec: {podSelector: {matchExpressions: [{key: a, operator: In}]}}}`: `podSelector: convert matchExpressions[0]`,
	}
	for text, want := range tests {
		got, _, err := NetworkPolicy(read[networkingv1.NetworkPolicy](t, text))
		if err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v and %v, want %q", text, got, err, want)
		}
		staged, _, err := StagedNetworkPolicy(read[v3.StagedKubernetesNetworkPolicy](t, text))
		if err == nil || staged != nil {
			t.Errorf("%s, staged: got %v and %v, want an error", text, staged, err)
		}
	}
}

// Thousands of peers and ports come to as many rules, not to as many copies of the
// ports, and a peer that is wrong among them costs the rule, not more.
func TestNetworkPolicyOfThousands(t *testing.T) {
	var rule networkingv1.NetworkPolicyIngressRule
	for i := range 5_000 {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)}})
		port, udp := intstr.FromInt32(int32(2*i+1)), corev1.ProtocolUDP
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: &port}, networkingv1.NetworkPolicyPort{Port: &port, Protocol: &udp})
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{rule}
	got, warnings, err := NetworkPolicy(np)
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	rules := got.Spec.Ingress
	if len(rules) != 10_000 || len(rules[0].Destination.Ports) != 5_000 {
		t.Fatalf("got %d rules of %d ports, want 10000 of 5000", len(rules), len(rules[0].Destination.Ports))
	}
	if &rules[0].Destination.Ports[0] != &rules[4_999].Destination.Ports[0] {
		t.Error("rules have ports of their own, want the same")
	}
	rule.From[2_500].IPBlock = nil
	got, warnings, err = NetworkPolicy(np)
	if err != nil || len(warnings) != 1 || len(got.Spec.Ingress) != 0 {
		t.Errorf("got %d rules, %d warnings and %v, want none, one and no error", len(got.Spec.Ingress), len(warnings), err)
	}
	if cause := errors.Unwrap(warnings[0]); cause == nil || !strings.Contains(cause.Error(), "peer 2500") {
		t.Errorf("warned of %v, want of peer 2500", cause)
	}
}

package v3_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
)

// The trap: an empty list of ingress rules beside egress rules is Egress for who
// counts rules, and both for who looks whether the field is there.
func TestTypesFollowFromRules(t *testing.T) {
	const rule = "[{action: Allow}]"
	tests := map[string]struct{ spec, byLength, byPresence string }{
		"no rules":                               {"", "[Ingress]", "[Ingress]"},
		"ingress rules":                          {"ingress: " + rule, "[Ingress]", "[Ingress]"},
		"egress rules":                           {"egress: " + rule, "[Egress]", "[Egress]"},
		"rules of both":                          {"ingress: " + rule + ", egress: " + rule, "[Ingress Egress]", "[Ingress Egress]"},
		"an empty list of ingress, egress rules": {"ingress: [], egress: " + rule, "[Egress]", "[Ingress Egress]"},
		"ingress rules, an empty list of egress": {"ingress: " + rule + ", egress: []", "[Ingress]", "[Ingress Egress]"},
		"an empty list of ingress":               {"ingress: []", "[Ingress]", "[Ingress]"},
		"an empty list of egress":                {"egress: []", "[Ingress]", "[Egress]"},
		"empty lists of both":                    {"ingress: [], egress: []", "[Ingress]", "[Ingress Egress]"},
		"null is no list":                        {"ingress: null, egress: " + rule, "[Egress]", "[Egress]"},
		"types that are said":                    {"types: [Egress], ingress: " + rule, "[Egress]", "[Egress]"},
		"an empty list of types":                 {"types: [], egress: " + rule, "[Egress]", "[Egress]"},
		"what is to be deleted":                  {"stagedAction: Delete", "[]", "[]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
				if strings.HasPrefix(tt.spec, "staged") && !strings.HasPrefix(kind, "Staged") {
					continue
				}
				for by, want := range map[v3.TypesBy]string{v3.ByLength: tt.byLength, v3.ByPresence: tt.byPresence} {
					if got := fmt.Sprint(types(t, kind, tt.spec, by)); got != want {
						t.Errorf("%s {%s} by %d governs %s, want %s", kind, tt.spec, by, got, want)
					}
				}
			}
		})
	}
}

// types are the directions that a policy has after defaulting; what a default said
// once stays when it is said again.
func types(t *testing.T, kind, spec string, by v3.TypesBy) []v3.PolicyType {
	o, err := v3.Decode([]byte(group + "kind: " + kind + "\nmetadata: {name: a}\nspec: {" + spec + "}"))
	if err != nil {
		t.Fatal(err)
	}
	// Written down and read again, what was empty is still there.
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if o, err = v3.Decode(text); err != nil {
		t.Fatal(err)
	}
	o.Default(by)
	o.Default(v3.ByLength)
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		return o.Spec.Types
	case *v3.GlobalNetworkPolicy:
		return o.Spec.Types
	case *v3.StagedNetworkPolicy:
		return o.Spec.Types
	case *v3.StagedGlobalNetworkPolicy:
		return o.Spec.Types
	}
	t.Fatalf("%s has no types", kind)
	return nil
}

func TestDefaults(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"a policy is of namespace and tier default": {"{kind: NetworkPolicy}", `{metadata: {namespace: default}, spec: {tier: default, types: [Ingress]}}`},
		"what is said stays":                        {"{kind: NetworkPolicy, metadata: {namespace: a}, spec: {tier: b}}", `{metadata: {namespace: a}, spec: {tier: b, types: [Ingress]}}`},
		"a global policy is of tier default":        {"{kind: GlobalNetworkPolicy}", `{spec: {tier: default, types: [Ingress]}}`},
		"a staged policy is to be set":              {"{kind: StagedNetworkPolicy}", `{metadata: {namespace: default}, spec: {stagedAction: Set, tier: default, types: [Ingress]}}`},
		"a staged global policy is to be set":       {"{kind: StagedGlobalNetworkPolicy}", `{spec: {stagedAction: Set, tier: default, types: [Ingress]}}`},
		"what is to be deleted is in a tier":        {"{kind: StagedNetworkPolicy, spec: {stagedAction: Delete}}", `{metadata: {namespace: default}, spec: {stagedAction: Delete, tier: default}}`},
		"Kubernetes governs ingress":                {"{kind: StagedKubernetesNetworkPolicy}", `{metadata: {namespace: default}, spec: {stagedAction: Set, policyTypes: [Ingress]}}`},
		"Kubernetes governs ingress beside egress":  {"{kind: StagedKubernetesNetworkPolicy, spec: {egress: [{}]}}", `{metadata: {namespace: default}, spec: {stagedAction: Set, egress: [{}], policyTypes: [Ingress, Egress]}}`},
		"Kubernetes with an empty list of egress":   {"{kind: StagedKubernetesNetworkPolicy, spec: {egress: []}}", `{metadata: {namespace: default}, spec: {stagedAction: Set, egress: [], policyTypes: [Ingress]}}`},
		"Kubernetes as it is said":                  {"{kind: StagedKubernetesNetworkPolicy, spec: {egress: [{}], policyTypes: [Egress]}}", `{metadata: {namespace: default}, spec: {stagedAction: Set, egress: [{}], policyTypes: [Egress]}}`},
		"Kubernetes to be deleted":                  {"{kind: StagedKubernetesNetworkPolicy, spec: {stagedAction: Delete}}", `{metadata: {namespace: default}, spec: {stagedAction: Delete}}`},
		"a tier denies, and comes last":             {"{kind: Tier, metadata: {name: a}}", `{metadata: {name: a}, spec: {defaultAction: Deny}}`},
		"a tier that passes":                        {"{kind: Tier, spec: {defaultAction: Pass}}", `{spec: {defaultAction: Pass}}`},
		"the tier default":                          {"{kind: Tier, metadata: {name: default}}", `{metadata: {name: default}, spec: {order: 1000000, defaultAction: Deny}}`},
		"the tier kube-admin":                       {"{kind: Tier, metadata: {name: kube-admin}}", `{metadata: {name: kube-admin}, spec: {order: 1000, defaultAction: Pass}}`},
		"the tier kube-baseline":                    {"{kind: Tier, metadata: {name: kube-baseline}}", `{metadata: {name: kube-baseline}, spec: {order: 10000000, defaultAction: Pass}}`},
		"a set is of namespace default":             {"{kind: NetworkSet}", `{metadata: {namespace: default}}`},
		"a workload is of namespace default":        {"{kind: WorkloadEndpoint}", `{metadata: {namespace: default}}`},
		"a global set has no default":               {"{kind: GlobalNetworkSet}", `{}`},
		"a profile has no default":                  {"{kind: Profile}", `{}`},
		"a host endpoint has no default":            {"{kind: HostEndpoint, spec: {node: a}}", `{spec: {node: a}}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			read := func(text string) v3.Object {
				o, err := v3.Decode([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				return o
			}
			kind, _, _ := strings.Cut(strings.TrimPrefix(tt.in, "{kind: "), "}")
			kind, _, _ = strings.Cut(kind, ",")
			got := read("{apiVersion: projectcalico.org/v3, " + tt.in[1:])
			got.Default(v3.ByLength)
			want := read("{apiVersion: projectcalico.org/v3, kind: " + kind + ", " + tt.want[1:])
			a, _ := yaml.Marshal(got)
			b, _ := yaml.Marshal(want)
			if string(a) != string(b) {
				t.Errorf("became\n%s\nwant\n%s", a, b)
			}
		})
	}
}

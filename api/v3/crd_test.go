package v3_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
)

// schema is what a CRD says of a value, as far as the test reads it: not the
// rules in CEL.
type schema struct {
	Type                 string
	Properties           map[string]*schema
	AdditionalProperties *schema
	Items                *schema
	Required             []string
	Enum                 []any
	Pattern              string
	Minimum, Maximum     *float64
	MaxItems, MaxLength  *int
	IntOrString          bool `json:"x-kubernetes-int-or-string"`
}

// crds reads deploy/crds: the schema of each kind.
func crds(t *testing.T) map[string]*schema {
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]*schema)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []struct {
					Schema struct{ OpenAPIV3Schema *schema }
				}
			}
		}
		if err := yaml.Unmarshal(text, &crd); err != nil || len(crd.Spec.Versions) != 1 {
			t.Fatalf("%s has %d versions: %v", name, len(crd.Spec.Versions), err)
		}
		kinds[crd.Spec.Names.Kind] = crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return kinds
}

// faults are what a value has against a schema.
func (s *schema) faults(at string, v any) (all []string) {
	bad := func(format string, args ...any) { all = append(all, at+": "+fmt.Sprintf(format, args...)) }
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		bad("%v is none of %v", v, s.Enum)
	}
	kind := s.Type
	switch v := v.(type) {
	case map[string]any:
		if kind != "object" {
			bad("an object is no %s", kind)
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				bad("%s is missing", name)
			}
		}
		all = append(all, s.fieldFaults(at, v)...)
	case []any:
		if kind != "array" || s.MaxItems != nil && len(v) > *s.MaxItems {
			bad("%d values for %s", len(v), kind)
		}
		for i, item := range v {
			all = append(all, s.Items.faults(fmt.Sprintf("%s[%d]", at, i), item)...)
		}
	case string:
		long := s.MaxLength != nil && utf8.RuneCountInString(v) > *s.MaxLength
		if kind != "string" && !s.IntOrString || long || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			bad("%.40q is no %s, or too long, or not as %s", v, kind, s.Pattern)
		}
	case float64:
		if kind != "number" && v != float64(int64(v)) || kind == "string" || kind == "boolean" ||
			s.Minimum != nil && v < *s.Minimum || s.Maximum != nil && v > *s.Maximum {
			bad("%v is no %s, or out of range", v, kind)
		}
	case bool:
		if kind != "boolean" {
			bad("truth is no %s", kind)
		}
	}
	return all
}

// fieldFaults are what the fields of an object have against its schema; what a
// schema says nothing of is pruned by a cluster, which is a fault here.
func (s *schema) fieldFaults(at string, object map[string]any) (all []string) {
	for name, value := range object {
		switch field := s.Properties[name]; {
		case field != nil:
			all = append(all, field.faults(at+"."+name, value)...)
		case s.AdditionalProperties != nil:
			all = append(all, s.AdditionalProperties.faults(at+"."+name, value)...)
		case s.Properties != nil || at != ".metadata":
			all = append(all, at+"."+name+": is unknown")
		}
	}
	return all
}

// What validation accepts, a cluster stores, and without a field lost.
func TestSchemasAcceptWhatIsValid(t *testing.T) {
	kinds := crds(t)
	objects, documents := examples(t)
	for i, o := range objects {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		s := kinds[kind]
		if s == nil {
			if kind != v3.KindWorkloadEndpoint && kind != v3.KindNode { // follow from pods and nodes of Kubernetes, and are stored nowhere
				t.Errorf("%s has no CRD", kind)
			}
			continue
		}
		o.Default(v3.ByPresence)
		after, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{documents[i], after} {
			var v any
			if err := json.Unmarshal(text, &v); err != nil {
				t.Fatal(err)
			}
			if faults := s.faults("", v); len(faults) > 0 {
				t.Errorf("the schema refuses %s\n%s", text, strings.Join(faults, "\n"))
			}
		}
	}
	if kinds[v3.KindWorkloadEndpoint] != nil {
		t.Error("WorkloadEndpoint has a CRD: it is stored nowhere")
	}
}

// The limits that a schema can say are the same in both.
func TestSchemasRefuseWhatIsBeyondLimits(t *testing.T) {
	kinds := crds(t)
	tests := map[string]string{
		"too many rules":          "NetworkPolicy\nspec: {ingress: " + times(v3.MaxRules+1, "{action: Deny}") + "}",
		"too many nets":           "NetworkPolicy\nspec: {ingress: [{action: Deny, source: {nets: " + times(v3.MaxNets+1, "10.0.0.0/8") + "}}]}",
		"too many notNets":        "NetworkPolicy\nspec: {ingress: [{action: Deny, source: {notNets: " + times(v3.MaxNets+1, "10.0.0.0/8") + "}}]}",
		"too many ports":          "GlobalNetworkPolicy\nspec: {ingress: [{action: Deny, source: {ports: " + times(v3.MaxPorts+1, "a") + "}}]}",
		"too many notPorts":       "Profile\nspec: {ingress: [{action: Deny, source: {notPorts: " + times(v3.MaxPorts+1, "a") + "}}]}",
		"too many methods":        "StagedNetworkPolicy\nspec: {ingress: [{action: Allow, http: {methods: " + times(v3.MaxHTTP+1, "GET") + "}}]}",
		"too many paths":          "StagedNetworkPolicy\nspec: {ingress: [{action: Allow, http: {paths: " + times(v3.MaxHTTP+1, "{exact: /}") + "}}]}",
		"a selector too long":     "StagedGlobalNetworkPolicy\nspec: {namespaceSelector: has(" + strings.Repeat("a", 1020) + ")}",
		"a name of a port":        "NetworkPolicy\nspec: {ingress: [{action: Deny, source: {ports: [a b]}}]}",
		"a protocol":              "NetworkPolicy\nspec: {ingress: [{action: Deny, protocol: tcp}]}",
		"a version":               "NetworkPolicy\nspec: {ingress: [{action: Deny, ipVersion: 5}]}",
		"an action of rules":      "NetworkPolicy\nspec: {ingress: [{action: Drop}]}",
		"an action of tiers":      "Tier\nspec: {defaultAction: Allow}",
		"a staged action":         "StagedKubernetesNetworkPolicy\nspec: {stagedAction: Sett}",
		"a type":                  "NetworkPolicy\nspec: {types: [ingress]}",
		"a type of ICMP":          "NetworkPolicy\nspec: {ingress: [{action: Deny, protocol: ICMP, icmp: {type: 255}}]}",
		"a port of a host of 0":   "HostEndpoint\nspec: {node: a, interfaceName: b, ports: [{name: a, protocol: TCP, port: 0}]}",
		"a host endpoint of none": "HostEndpoint\nspec: {interfaceName: b}",
	}
	for name, document := range tests {
		document = group + "metadata: {name: a}\nkind: " + document
		var v any
		if err := yaml.Unmarshal([]byte(document), &v); err != nil {
			t.Fatal(err)
		}
		kind := v.(map[string]any)["kind"].(string)
		if kinds[kind].faults("", v) == nil {
			t.Errorf("%s: the schema of %s accepts it", name, kind)
		}
		if faultsOf(t, document) == nil {
			t.Errorf("%s: validation accepts it", name)
		}
	}
}

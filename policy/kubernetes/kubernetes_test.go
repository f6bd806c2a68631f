package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
)

// read takes an object from YAML; a field that there is none of is a fault of the
// test.
func read[T any](t *testing.T, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatalf("read %T: %v\n%s", out, err, text)
	}
	return out
}

// compare reports how two texts differ, in lines.
func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

// ruleTexts are rules as a table of tests writes them: what they do, the protocol,
// and behind < and > the source and the destination, without what is empty. In a
// selector, k8s stands for the label that all pods have.
func ruleTexts(rules []v3.Rule) []string {
	var out []string
	for _, r := range rules {
		text := string(r.Action)
		if r.Protocol != nil {
			text += " " + r.Protocol.String()
		}
		out = append(out, text+entityText(" <", r.Source)+entityText(" >", r.Destination))
	}
	return out
}

func entityText(sign string, e v3.EntityRule) string {
	var parts []string
	if e.Selector != "" {
		parts = append(parts, shortSelector(e.Selector))
	}
	if e.NamespaceSelector != "" {
		parts = append(parts, "of "+shortSelector(e.NamespaceSelector))
	}
	if e.Nets != nil {
		parts = append(parts, fmt.Sprint(e.Nets))
	}
	if e.NotNets != nil {
		parts = append(parts, fmt.Sprint("not", e.NotNets))
	}
	if e.Ports != nil {
		parts = append(parts, fmt.Sprint("ports", e.Ports))
	}
	if parts == nil {
		return ""
	}
	return sign + " " + strings.Join(parts, " ")
}

func shortSelector(text string) string {
	return strings.ReplaceAll(text, `projectcalico.org/orchestrator == "k8s"`, "k8s")
}

// checkWarnings wants a text in each warning.
func checkWarnings(t *testing.T, got []Warning, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("warned %v, want %q", got, want)
	}
	for i, w := range got {
		if !strings.Contains(w.Error(), want[i]) || w.Unwrap() == nil {
			t.Errorf("warned %q, want %q in it", w, want[i])
		}
	}
}

func TestUIDIsAnotherAndComesBack(t *testing.T) {
	tests := map[types.UID]types.UID{
		"30316465-6365-4463-ad63-3564622d3638": "cfce9b9a-9c9a-4b9c-a29c-ca9b9dd2c9c7",
		"00000000-0000-4000-8000-000000000000": "ffffffff-ffff-4fff-8fff-ffffffffffff",
		"ABCDEFAB-0000-4000-8000-000000000000": "54321054-ffff-4fff-8fff-ffffffffffff",
		"":                                     "", "knp": "",
		"30316465-6365-4463-ad63-3564622d363":   "",
		"30316465-6365-4463-ad63-3564622d363g":  "",
		"303164656-365-4463-ad63-3564622d3638":  "",
		"30316465-6365-4463-ad63-3564622d36388": "",
	}
	for uid, want := range tests {
		got := derivedUID(uid)
		if got != want {
			t.Errorf("of %q comes %q, want %q", uid, got, want)
		}
		if back := derivedUID(got); got != "" && !strings.EqualFold(string(back), string(uid)) {
			t.Errorf("of %q, from %q, comes %q", got, uid, back)
		}
	}
}

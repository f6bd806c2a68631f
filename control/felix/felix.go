// Package felix finds which settings hold on a node, of all that FelixConfigurations
// say: in Calico's precedence, field by field. docs/AGENT.md has what each field
// means to Margay.
package felix

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/felix"
)

// nodePrefix stands before a node's name in the name of its own configuration.
const nodePrefix = "node."

// Settings are those that hold on a node with some labels: what is said on the node
// first, then those of the node's own configuration, of the oldest one whose selector
// picks the node, and of the default. Where none says anything, or what is said on the
// node cannot be used, a field is zero, and the built-in value holds.
func Settings(node string, labels map[string]string, local Local, all []*v3.FelixConfiguration) felix.Settings {
	var own, picked, fallback *v3.FelixConfiguration
	for _, c := range all {
		switch {
		case c.Name == nodePrefix+node:
			own = c
		case c.Name == v3.Default:
			fallback = c
		case !strings.HasPrefix(c.Name, nodePrefix) && picks(c.Spec.NodeSelector, labels) && (picked == nil || older(c, picked)):
			picked = c
		}
	}
	out := local.Settings
	for _, c := range []*v3.FelixConfiguration{own, picked, fallback} {
		if c != nil {
			fill(reflect.ValueOf(&out).Elem(), reflect.ValueOf(&c.Spec).Elem(), local.Refused)
		}
	}
	out.NodeSelector = "" // it says whom settings are for, and is none
	return out
}

// picks reports whether a selector picks a node; one that says nothing picks none.
func picks(text string, labels map[string]string) bool {
	if text == "" {
		return false
	}
	s, err := selector.Parse(text)
	return err == nil && s.Evaluate(selector.Map(labels))
}

// older reports whether a was there before b.
func older(a, b *v3.FelixConfiguration) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name)) < 0
}

// fill puts what from says into what to leaves out, but for fields that are refused.
// An empty list says that there is none.
func fill(to, from reflect.Value, refused map[string]bool) {
	for i := range to.NumField() {
		t, f, field := to.Field(i), from.Field(i), to.Type().Field(i)
		if field.Anonymous {
			fill(t, f, refused)
		} else if t.IsZero() && !refused[nameOf(field)] {
			t.Set(f)
		}
	}
}

// Word is a setting that is a choice, as written by its table, or the built-in value
// where nothing is said: words may be written in any case.
func Word(said string, words ...string) string {
	i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, said) })
	return words[max(i, 0)]
}

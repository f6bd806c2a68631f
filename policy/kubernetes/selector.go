package kubernetes

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/selector"
)

// OrchestratorLabel is a label that the system gives to workloads, and Orchestrator
// is its value for pods: it tells them from host endpoints and network sets.
const (
	OrchestratorLabel = "projectcalico.org/orchestrator"
	Orchestrator      = "k8s"
)

// podSelector turns a selector of pods into one of endpoints: of those that are
// pods, also where nothing more is asked of them.
func podSelector(s *metav1.LabelSelector) (string, error) {
	pods, err := selector.Equal(OrchestratorLabel, Orchestrator)
	if err != nil {
		return "", err
	}
	return join(s, pods)
}

// namespaceSelector turns a selector of namespaces into the same of api/v3, which
// says all() where nothing is asked: empty would be no selector.
func namespaceSelector(s *metav1.LabelSelector) (string, error) { return join(s) }

// join is the selector of what all terms and s pick, in canonical form: s's labels
// by name, then its expressions as they come.
func join(s *metav1.LabelSelector, terms ...*selector.Selector) (string, error) {
	if s != nil {
		for _, label := range slices.Sorted(maps.Keys(s.MatchLabels)) {
			term, err := selector.Equal(label, s.MatchLabels[label])
			if err != nil {
				return "", fmt.Errorf("convert matchLabels: %w", err)
			}
			terms = append(terms, term)
		}
		for i, e := range s.MatchExpressions {
			term, err := expression(e)
			if err != nil {
				return "", fmt.Errorf("convert matchExpressions[%d]: %w", i, err)
			}
			terms = append(terms, term)
		}
	}
	text := selector.And(terms...).String()
	if len(text) > selector.MaxBytes {
		return "", fmt.Errorf("the selector is of %d bytes in Calico's language, want at most %d: give what it picks one label", len(text), selector.MaxBytes)
	}
	return text, nil
}

// expression turns one requirement. Both languages hold a label that is missing to
// be in no set and not in any.
func expression(e metav1.LabelSelectorRequirement) (*selector.Selector, error) {
	sets := e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn
	if sets && len(e.Values) == 0 {
		return nil, fmt.Errorf("operator %s has no values, want at least one", e.Operator)
	}
	if !sets && len(e.Values) > 0 {
		return nil, fmt.Errorf("operator %.40q has %d values, want none", e.Operator, len(e.Values))
	}
	switch e.Operator {
	case metav1.LabelSelectorOpIn:
		return selector.In(e.Key, e.Values...)
	case metav1.LabelSelectorOpNotIn:
		return selector.NotIn(e.Key, e.Values...)
	case metav1.LabelSelectorOpExists:
		return selector.Has(e.Key)
	case metav1.LabelSelectorOpDoesNotExist:
		has, err := selector.Has(e.Key)
		if err != nil {
			return nil, err
		}
		return selector.Not(has), nil
	}
	return nil, fmt.Errorf("operator is %.40q, want In, NotIn, Exists or DoesNotExist", e.Operator)
}

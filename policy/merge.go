package policy

import (
	"fmt"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// reading collects the parts of a selector, and the first fault of them.
type reading struct {
	parts []*selector.Selector
	err   error
}

// field adds what a field says, if it says anything, as scope turns it.
func (r *reading) field(name, text string, scope func(*selector.Selector) *selector.Selector) {
	if text == "" {
		return
	}
	s, err := selector.Parse(text)
	if err != nil {
		r.fault(name, err)
		return
	}
	r.parts = append(r.parts, scope(s))
}

// label adds that a label has one of some values.
func (r *reading) label(field, name string, values ...string) {
	s, err := selector.In(name, values...)
	if len(values) == 1 && err == nil {
		s, err = selector.Equal(name, values[0])
	}
	if err != nil {
		r.fault(field, err)
		return
	}
	r.parts = append(r.parts, s)
}

func (r *reading) fault(field string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", field, err)
	}
}

func unscoped(s *selector.Selector) *selector.Selector { return s }

// readSelectors merges what a rule's end says of whom it means. positive is whom
// it must be and negative whom it must not; nil says nothing of it. A namespaced
// policy that says anything means its own namespace, unless it says which: also
// where it says only whom it does not mean, which is then whom of the namespace.
func readSelectors(e *v3.EntityRule, namespace string) (positive, negative *selector.Selector, err error) {
	var r reading
	accounts := e.ServiceAccounts
	switch {
	case e.NamespaceSelector != "":
		r.field("namespaceSelector", e.NamespaceSelector, (*selector.Selector).ForNamespaces)
	case namespace != "" && (e.Selector != "" || e.NotSelector != "" || accounts != nil):
		r.label("namespace", selector.NamespaceLabel, namespace)
	}
	r.field("selector", e.Selector, unscoped)
	if accounts != nil && len(accounts.Names) > 0 {
		r.label("serviceAccounts.names", selector.ServiceAccountLabel, accounts.Names...)
	}
	if accounts != nil {
		r.field("serviceAccounts.selector", accounts.Selector, (*selector.Selector).ForServiceAccounts)
	}
	alone := len(r.parts) == 0
	r.field("notSelector", e.NotSelector, selector.Not)
	switch {
	case r.err != nil:
		return nil, nil, r.err
	case len(r.parts) == 0:
		return nil, nil, nil
	case alone:
		return nil, selector.Not(r.parts[0]), nil
	}
	return selector.And(r.parts...), nil, nil
}

// readSubject merges what a policy says of whom it applies to. What cannot be
// read narrows nothing: err says so, and the selector picks all whom the policy
// might mean.
func readSubject(spec *v3.NetworkPolicySpec, namespaceSelector, namespace string) (*selector.Selector, error) {
	var r reading
	r.field("selector", spec.Selector, unscoped)
	if namespace != "" {
		r.label("namespace", selector.NamespaceLabel, namespace)
	}
	r.field("namespaceSelector", namespaceSelector, (*selector.Selector).ForNamespaces)
	r.field("serviceAccountSelector", spec.ServiceAccountSelector, (*selector.Selector).ForServiceAccounts)
	return selector.And(r.parts...), r.err
}

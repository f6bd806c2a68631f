package selector

import "slices"

// Labels that the system gives to what has a namespace and a service account,
// and what stands before the names of labels that the namespace or the service
// account itself has, where an endpoint or a network set inherits them.
const (
	NamespaceLabel       = "projectcalico.org/namespace"
	ServiceAccountLabel  = "projectcalico.org/serviceaccount"
	NamespacePrefix      = "pcns."
	ServiceAccountPrefix = "pcsa."
)

// ForNamespaces turns a namespaceSelector, which speaks of a namespace's labels,
// into a selector of what is in such namespaces: a is pcns.a, all() is "has a
// namespace", and global() is "has none".
func (s *Selector) ForNamespaces() *Selector {
	has := &node{question: question{op: opHas, label: NamespaceLabel}}
	return wrap(s.tree().rewrite(NamespacePrefix, has, not(has)))
}

// ForServiceAccounts turns a selector of service accounts, which speaks of their
// labels, into a selector of what runs under such accounts: a is pcsa.a, and
// all() is "has a service account".
func (s *Selector) ForServiceAccounts() *Selector {
	has := &node{question: question{op: opHas, label: ServiceAccountLabel}}
	return wrap(s.tree().rewrite(ServiceAccountPrefix, has, &node{question: question{op: opGlobal}}))
}

// rewrite is a copy of n with prefix before every label's name, and all and
// global in the place of the two calls.
func (n *node) rewrite(prefix string, all, global *node) *node {
	switch n.op {
	case opAll:
		return all
	case opGlobal:
		return global
	case opNot:
		return not(n.kids[0].rewrite(prefix, all, global))
	case opAnd, opOr:
		out := &node{question: n.question}
		for _, kid := range n.kids {
			out.kids = append(out.kids, kid.rewrite(prefix, all, global))
		}
		return out
	}
	out := &node{question: n.question}
	out.label = prefix + n.label
	return out
}

// AsksGlobal reports whether global() stands anywhere in s. Alone, its String is
// global().
func (s *Selector) AsksGlobal() bool { return s.tree().asksGlobal() }

func (n *node) asksGlobal() bool {
	return n.op == opGlobal || slices.ContainsFunc(n.kids, (*node).asksGlobal)
}

// Package selector is Project Calico's selector language: expressions over
// labels that pick endpoints, network sets and nodes.
//
//	all()   global()   has(a)
//	a == 'x'   a != "x"   a in {'x', 'y'}   a not in {'x', 'y'}
//	a contains 'x'   a starts with 'x'   a ends with 'x'
//	!s   s && t   s || t   (s)
//
// && binds closer than ||, and ! negates the comparison, group or call behind
// it. Blanks and tabs may stand between words and signs. notin, startswith and
// endswith may be written as one word. A label's name is of letters, digits and
// _ . / -, and a value is what stands between two quotes of one kind: there are
// no escapes, so it may hold one kind of quote, not both.
//
// Where a label is missing, != and not in are true, and every other comparison
// is false. global() picks everything, as all() does: what sets it apart is a
// field that picks namespaces ([Selector.ForNamespaces]).
//
// An expression is read once. What comes of it never changes, has one text
// (String) by which it is told from others, and is a flat program that is asked
// for each thing with labels:
//
//	Parse(text) ► Selector.Evaluate(labels)
//
// Restrictions says beforehand which things need not be asked at all.
package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// What a selector may be at most, since anyone who may write a policy sends one.
const (
	MaxChars   = 1024    // characters in a field of a resource
	MaxBytes   = 1 << 16 // bytes of any text: a field's in canonical form, and what is made of several
	MaxNesting = 1024    // parentheses that are open at once
	MaxLabel   = 512     // bytes of a label's name
)

// Selector is an expression that was understood. It does not change; the zero
// Selector is all().
type Selector struct {
	root  *node // nil: all()
	text  string
	steps []step
	start target
}

// wrap takes a tree, which nobody changes from then on.
func wrap(root *node) *Selector {
	s := &Selector{root: root, text: string(root.print(nil))}
	s.start = s.place(root, accept, refuse)
	return s
}

// tree is the selector's syntax.
func (s *Selector) tree() *node {
	if s.root == nil {
		return &node{}
	}
	return s.root
}

// String is the selector in canonical form, the one that Calico prints: double
// quotes where the value has none, sets sorted, no parentheses but around what
// && and || join. Selectors of equal text are equal, and Parse of the text, so
// long as it is within Parse's limits, gives the selector again.
func (s *Selector) String() string {
	if s.text == "" {
		return "all()"
	}
	return s.text
}

// ID is a name of 40 characters for the selector, the one that Calico gives it:
// equal for equal text, on every machine.
func (s *Selector) ID() string {
	sum := sha256.Sum224([]byte("s:" + s.String()))
	return "s:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// All picks everything, as all() does.
func All() *Selector { return wrap(&node{}) }

// Has picks what has the label. It refuses a name that cannot be written.
func Has(label string) (*Selector, error) { return compare(opHas, label) }

// Equal picks what has the label with the value. It refuses a name or a value
// that cannot be written.
func Equal(label, value string) (*Selector, error) { return compare(opEqual, label, value) }

// In picks what has the label with one of the values, nothing if there are none.
// It refuses a name or a value that cannot be written.
func In(label string, values ...string) (*Selector, error) { return compare(opIn, label, values...) }

// NotIn picks what In does not: also what lacks the label. It refuses a name or
// a value that cannot be written.
func NotIn(label string, values ...string) (*Selector, error) {
	return compare(opNotIn, label, values...)
}

// compare makes a selector of one comparison.
func compare(o op, label string, values ...string) (*Selector, error) {
	if label == "" || len(label) > MaxLabel || wordSize(label) < len(label) {
		return nil, fmt.Errorf("make selector: %q is no label: want 1 to %d of A-Z, a-z, 0-9, _ . / -", cut(label), MaxLabel)
	}
	for _, v := range values {
		if strings.Contains(v, `"`) && strings.Contains(v, "'") {
			return nil, fmt.Errorf("make selector: value %q of label %q has quotes of both kinds: no selector can hold it, so take one away", cut(v), label)
		}
	}
	q := question{op: o, label: label}
	if o == opEqual {
		q.value = values[0]
	} else {
		q.set = sorted(slices.Clone(values))
	}
	return wrap(&node{question: q}), nil
}

// sorted sorts values in place, drops those that it has twice, and gives nil for
// none.
func sorted(values []string) []string {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// And picks what all of the selectors pick, and everything if there are none.
// A rule's selector and notSelector are And(selector, Not(notSelector)).
func And(selectors ...*Selector) *Selector {
	switch len(selectors) {
	case 0:
		return All()
	case 1:
		return selectors[0]
	}
	n := &node{question: question{op: opAnd}}
	for _, s := range selectors {
		n.kids = append(n.kids, s.tree())
	}
	return wrap(n)
}

// Not picks what s does not. What is negated twice is s.
func Not(s *Selector) *Selector { return wrap(not(s.tree())) }

package selector

import (
	"slices"
	"strings"
)

// Labels are what a selector is asked about. Get gives the value of the label
// with this name, and whether there is one: an empty value is a value.
type Labels interface {
	Get(name string) (value string, ok bool)
}

// Map is labels as a resource has them.
type Map map[string]string

// Get looks one up.
func (m Map) Get(name string) (value string, ok bool) {
	value, ok = m[name]
	return value, ok
}

// target is where a step leads: accept, refuse, or a step of lower number, to
// which firstStep is added. So a program ends, whatever it is asked about.
type target int32

const (
	accept target = iota
	refuse
	firstStep
)

// step asks one question. What !, && and || say is in where the answers lead.
type step struct {
	question
	yes, no target
}

// place appends the steps that ask n, leading to yes and no, and says where they
// begin.
func (s *Selector) place(n *node, yes, no target) target {
	switch {
	case n.op == opAll, n.op == opGlobal, n.op == opNotIn && n.set == nil:
		return yes
	case n.op == opIn && n.set == nil:
		return no
	case n.op == opNot:
		return s.place(n.kids[0], no, yes)
	case n.op == opAnd:
		for _, kid := range slices.Backward(n.kids) {
			yes = s.place(kid, yes, no)
		}
		return yes
	case n.op == opOr:
		for _, kid := range slices.Backward(n.kids) {
			no = s.place(kid, yes, no)
		}
		return no
	}
	s.steps = append(s.steps, step{n.question, yes, no})
	return firstStep + target(len(s.steps)-1)
}

// Evaluate reports whether s picks a thing with these labels. It allocates
// nothing, and asks for each label at most as often as s names it.
func (s *Selector) Evaluate(labels Labels) bool {
	at := s.start
	for at >= firstStep {
		if st := &s.steps[at-firstStep]; st.holds(labels) {
			at = st.yes
		} else {
			at = st.no
		}
	}
	return at == accept
}

// holds answers the question. Only two comparisons hold where the label is missing.
func (q *question) holds(labels Labels) bool {
	v, ok := labels.Get(q.label)
	if !ok {
		return q.op == opNotEqual || q.op == opNotIn
	}
	switch q.op {
	case opEqual:
		return v == q.value
	case opNotEqual:
		return v != q.value
	case opContains:
		return strings.Contains(v, q.value)
	case opStarts:
		return strings.HasPrefix(v, q.value)
	case opEnds:
		return strings.HasSuffix(v, q.value)
	case opIn:
		return q.has(v)
	case opNotIn:
		return !q.has(v)
	}
	return true // opHas
}

func (q *question) has(v string) bool {
	_, found := slices.BinarySearch(q.set, v)
	return found
}

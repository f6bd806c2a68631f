package selector

import (
	"maps"
	"slices"
	"strings"
)

// Need is what a label must be.
type Need uint8

// The needs of a label.
const (
	Present Need = iota // it must be there
	Absent              // it must not be there
	OneOf               // it must be there with one of some values
)

// Restriction is what a label must be on whatever a selector picks.
type Restriction struct {
	Label  string
	Need   Need
	Values []string // of OneOf, sorted, at least one; the caller's to keep
}

// Restrictions say what must be true of whatever s picks, at most one of each
// label, sorted by its name: an index looks at what fulfils one of them, and
// asks Evaluate about nothing else. possible is false where s picks nothing at
// all. They may ask for less than s does, never for more.
func (s *Selector) Restrictions() (restrictions []Restriction, possible bool) {
	domains, possible := s.tree().domains(false)
	for _, label := range slices.Sorted(maps.Keys(domains)) {
		d := domains[label]
		switch {
		case !d.absent && d.any:
			restrictions = append(restrictions, Restriction{Label: label, Need: Present})
		case !d.absent:
			restrictions = append(restrictions, Restriction{label, OneOf, slices.Clone(d.values)})
		case !d.any && len(d.values) == 0:
			restrictions = append(restrictions, Restriction{Label: label, Need: Absent})
		}
	}
	return restrictions, possible
}

// maxUnited is how many values || may bring together before they count as any:
// else each of many || would copy those of all before it. A set may have more.
const maxUnited = 256

// domain is what a label may be: absent, any value, or else one of some values.
type domain struct {
	absent, any bool
	values      []string // sorted; shared with the tree
}

// domains gives what each label may be, for whatever n picks, or does not pick if
// negated; a label without a domain may be anything. possible is false where
// nothing is picked.
func (n *node) domains(negated bool) (domains map[string]domain, possible bool) {
	switch n.op {
	case opNot:
		return n.kids[0].domains(!negated)
	case opAll, opGlobal:
		return nil, !negated
	case opAnd, opOr:
		if (n.op == opAnd) != negated {
			return n.every(negated)
		}
		return n.either(negated)
	}
	d, known := n.domain(negated)
	if !known {
		return nil, true
	}
	return map[string]domain{n.label: d}, !d.empty()
}

// domain is what the label of a question may be; known is false where that is
// anything, or nothing that a domain can say.
func (q *question) domain(negated bool) (d domain, known bool) {
	switch o := q.op; {
	case o == opHas && negated:
		return domain{absent: true}, true
	case o == opEqual && !negated, o == opNotEqual && negated:
		return domain{values: []string{q.value}}, true
	case o == opIn && !negated, o == opNotIn && negated:
		return domain{values: q.set}, true
	case o == opNotEqual, o == opNotIn, negated:
		return domain{}, false
	}
	return domain{any: true}, true
}

// every intersects what n's kids allow. What is smaller is worked into what is
// larger, so that deep nesting costs no more than a long row.
func (n *node) every(negated bool) (domains map[string]domain, possible bool) {
	for _, kid := range n.kids {
		more, ok := kid.domains(negated)
		if !ok {
			return nil, false
		}
		if len(more) > len(domains) {
			domains, more = more, domains
		}
		for label, b := range more {
			if a, both := domains[label]; both {
				b = a.and(b)
			}
			if b.empty() {
				return nil, false
			}
			domains[label] = b
		}
	}
	return domains, true
}

// either unites what n's kids allow, where all that are possible say something.
func (n *node) either(negated bool) (domains map[string]domain, possible bool) {
	for _, kid := range n.kids {
		more, ok := kid.domains(negated)
		switch {
		case !ok:
		case !possible:
			domains, possible = more, true
		default:
			domains = unite(domains, more)
		}
	}
	return domains, possible
}

// unite keeps the labels of both, each with what either allows.
func unite(x, y map[string]domain) map[string]domain {
	if len(x) > len(y) {
		x, y = y, x
	}
	for label, a := range x {
		if b, both := y[label]; both {
			x[label] = a.or(b)
		} else {
			delete(x, label)
		}
	}
	return x
}

func (d domain) empty() bool { return !d.absent && !d.any && len(d.values) == 0 }

func (d domain) and(e domain) domain {
	out := domain{absent: d.absent && e.absent, any: d.any && e.any}
	switch {
	case d.any:
		out.values = e.values
	case e.any:
		out.values = d.values
	default:
		out.values = merge(d.values, e.values, false)
	}
	return out
}

func (d domain) or(e domain) domain {
	out := domain{absent: d.absent || e.absent, any: d.any || e.any}
	if !out.any {
		out.values = merge(d.values, e.values, true)
	}
	if len(out.values) > maxUnited {
		out.any, out.values = true, nil
	}
	return out
}

// merge gives the values of both sorted lists, or of either, sorted.
func merge(x, y []string, either bool) []string {
	var out []string
	for len(x) > 0 && len(y) > 0 {
		order := strings.Compare(x[0], y[0])
		least := x[0]
		if order > 0 {
			least = y[0]
		}
		if order == 0 || either {
			out = append(out, least)
		}
		if order <= 0 {
			x = x[1:]
		}
		if order >= 0 {
			y = y[1:]
		}
	}
	if either {
		out = append(append(out, x...), y...)
	}
	return out
}

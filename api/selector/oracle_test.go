package selector

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// oracle is the language, said once more and plainly: the value of n for labels.
func oracle(n *node, labels map[string]string) bool {
	v, ok := labels[n.label]
	switch n.op {
	case opAll, opGlobal:
		return true
	case opHas:
		return ok
	case opEqual:
		return ok && v == n.value
	case opNotEqual:
		return !(ok && v == n.value)
	case opContains:
		return ok && strings.Contains(v, n.value)
	case opStarts:
		return ok && strings.HasPrefix(v, n.value)
	case opEnds:
		return ok && strings.HasSuffix(v, n.value)
	case opIn:
		return ok && slices.Contains(n.set, v)
	case opNotIn:
		return !(ok && slices.Contains(n.set, v))
	case opNot:
		return !oracle(n.kids[0], labels)
	case opAnd:
		for _, kid := range n.kids {
			if !oracle(kid, labels) {
				return false
			}
		}
		return true
	case opOr:
		for _, kid := range n.kids {
			if oracle(kid, labels) {
				return true
			}
		}
		return false
	}
	panic("no such node")
}

// A universe so small that all of it can be looked at.
var (
	someLabels = []string{"a", "in", "has"}
	someValues = []string{"", "x", "y", "xy", `"`}
)

// universe is every thing that someLabels and someValues can make.
func universe() []Map {
	all := []Map{{}}
	for _, label := range someLabels {
		for _, m := range all {
			for _, value := range someValues {
				more := Map{label: value}
				for k, v := range m {
					more[k] = v
				}
				all = append(all, more)
			}
		}
	}
	return all
}

// grow makes a tree at random, as Parse would, of at most this depth.
func grow(r *rand.Rand, depth int) *node {
	o := op(r.IntN(int(opOr) + 1))
	if depth == 0 {
		o = op(r.IntN(int(opNot)))
	}
	n := &node{question: question{op: o}}
	switch {
	case o == opNot:
		return not(grow(r, depth-1))
	case o == opAnd, o == opOr:
		for range 2 + r.IntN(2) {
			n.kids = append(n.kids, grow(r, depth-1))
		}
	case o >= opHas:
		n.label = pick(r, someLabels)
	}
	switch {
	case o >= opEqual && o <= opEnds:
		n.value = pick(r, someValues)
	case o == opIn, o == opNotIn:
		for range r.IntN(4) {
			n.set = append(n.set, pick(r, someValues))
		}
		n.set = sorted(n.set)
	}
	return n
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// spell writes a tree as people may, in one of many ways.
func spell(r *rand.Rand, n *node) string {
	blank := func() string { return pick(r, []string{"", "", " ", "\t "}) }
	quote := func(v string) string {
		if q := pick(r, []string{`"`, "'"}); !strings.Contains(v, q) {
			return q + v + q
		}
		return "'" + v + "'" // someValues has only the other quote
	}
	var s string
	switch n.op {
	case opAll:
		s = "all(" + blank() + ")"
	case opGlobal:
		s = "global(" + blank() + ")"
	case opHas:
		s = "has(" + blank() + n.label + blank() + ")"
	case opNot:
		s = pick(r, []string{"!", "! ", "!!!"}) + spell(r, n.kids[0])
	case opAnd, opOr:
		parts := make([]string, len(n.kids))
		for i, kid := range n.kids {
			parts[i] = spell(r, kid)
		}
		sep := map[op]string{opAnd: "&&", opOr: "||"}[n.op]
		s = "(" + strings.Join(parts, blank()+sep+blank()) + ")"
	case opIn, opNotIn:
		set := slices.Clone(n.set)
		r.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
		for i, v := range set {
			set[i] = blank() + quote(v) + blank() + ","
		}
		word := pick(r, map[op][]string{opIn: {"in"}, opNotIn: {"not in", "notin", "not\tin"}}[n.op])
		s = n.label + " " + word + blank() + "{" + strings.Join(set, "") + blank() + "}"
	case opEqual, opNotEqual:
		s = n.label + blank() + sign[n.op] + blank() + quote(n.value)
	default:
		word := pick(r, []string{sign[n.op], strings.ReplaceAll(sign[n.op], " ", "")})
		s = n.label + " " + word + blank() + quote(n.value)
	}
	if r.IntN(4) == 0 {
		s = "(" + blank() + s + ")"
	}
	return blank() + s + blank()
}

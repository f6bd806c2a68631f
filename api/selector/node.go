package selector

import "strings"

// op is what a node of the tree is.
type op uint8

const (
	opAll op = iota
	opGlobal
	opHas
	opEqual // of a value, like the next four
	opNotEqual
	opContains
	opStarts
	opEnds
	opIn // of a set, like the next
	opNotIn
	opNot // one kid, not an opNot
	opAnd // two kids or more
	opOr  // two kids or more
)

// sign is how a comparison is written between label and value or set.
var sign = [...]string{
	opEqual: "==", opNotEqual: "!=", opContains: "contains", opStarts: "starts with", opEnds: "ends with",
	opIn: "in", opNotIn: "not in",
}

// question is what is asked of one label.
type question struct {
	op    op
	label string
	value string
	set   []string // sorted, each once; nil when empty
}

// node is a part of the tree. It is as its text has it: (a && b) && c is another
// tree than a && b && c, as Calico has it.
type node struct {
	question
	kids []*node
}

// not negates n. Two negations are none: they could not be read back as written.
func not(n *node) *node {
	if n.op == opNot {
		return n.kids[0]
	}
	return &node{question: question{op: opNot}, kids: []*node{n}}
}

// print appends the node in canonical form.
func (n *node) print(b []byte) []byte {
	switch n.op {
	case opAll:
		return append(b, "all()"...)
	case opGlobal:
		return append(b, "global()"...)
	case opHas:
		return append(append(append(b, "has("...), n.label...), ')')
	case opNot:
		return n.kids[0].print(append(b, '!'))
	case opAnd:
		return n.printKids(b, " && ")
	case opOr:
		return n.printKids(b, " || ")
	}
	b = append(append(append(append(b, n.label...), ' '), sign[n.op]...), ' ')
	if n.op == opIn || n.op == opNotIn {
		return printSet(b, n.set)
	}
	return printValue(b, n.value)
}

func (n *node) printKids(b []byte, sep string) []byte {
	b = append(b, '(')
	for i, kid := range n.kids {
		if i > 0 {
			b = append(b, sep...)
		}
		b = kid.print(b)
	}
	return append(b, ')')
}

func printSet(b []byte, set []string) []byte {
	b = append(b, '{')
	for i, v := range set {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = printValue(b, v)
	}
	return append(b, '}')
}

// printValue appends a value in quotes that it does not have itself.
func printValue(b []byte, v string) []byte {
	quote := byte('"')
	if strings.IndexByte(v, quote) >= 0 {
		quote = '\''
	}
	return append(append(append(b, quote), v...), quote)
}

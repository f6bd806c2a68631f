package selector

import (
	"fmt"
	"unicode/utf8"
)

// ParseField reads a selector that stands in a field of a resource: it is Parse
// of at most MaxChars characters.
func ParseField(text string) (*Selector, error) {
	if n := utf8.RuneCountInString(text); n > MaxChars {
		return nil, tooLong(n, MaxChars, "characters")
	}
	return Parse(text)
}

// Parse reads a selector; blanks alone are all(). What it refuses, it refuses by
// an *Error. (An empty field of a rule is no selector: it also stands for
// addresses that nobody knows, so its reader asks for that first.)
func Parse(text string) (*Selector, error) {
	if len(text) > MaxBytes {
		return nil, tooLong(len(text), MaxBytes, "bytes")
	}
	p := &parser{src: text}
	p.next()
	if p.tok.kind == tokEnd {
		return All(), nil
	}
	n := p.disjunction(0)
	if p.tok.kind != tokEnd {
		p.fail(p.tok, "&&, || or the end", "has(a) && b == 'x'")
	}
	if p.err != nil {
		return nil, p.err
	}
	return wrap(n), nil
}

func tooLong(n, most int, unit string) *Error {
	return &Error{
		Pos: most, Found: fmt.Sprintf("%d %s in all", n, unit),
		Want: fmt.Sprintf("at most %d: several policies, or one label for what they pick", most), Example: "group == 'x'",
	}
}

// parser reads by recursive descent. Its first fault stays in err and puts it at
// the end of the text, where every rule stops by itself.
type parser struct {
	src string
	at  int // bytes of src behind tok
	tok token
	err error // an *Error
}

// next moves on by one token.
func (p *parser) next() {
	for p.at < len(p.src) && (p.src[p.at] == ' ' || p.src[p.at] == '\t') {
		p.at++
	}
	p.tok = scan(p.src[p.at:])
	p.tok.at = p.at
	p.at += len(p.tok.text)
}

// take moves on and returns the token passed.
func (p *parser) take() token {
	t := p.tok
	p.next()
	return t
}

// skip moves on if the next token is this sign.
func (p *parser) skip(sign string) bool {
	if !p.tok.is(tokSign, sign) {
		return false
	}
	p.next()
	return true
}

// fail notes the first fault and ends the reading.
func (p *parser) fail(t token, want, example string) *node {
	return p.failAs(t, t.found(), want, example)
}

func (p *parser) failAs(t token, found, want, example string) *node {
	if p.err == nil {
		if t.kind == tokOpen {
			want, example = "a quote that closes the value", "a == 'x'"
		}
		p.err = &Error{Pos: t.at, Found: found, Want: want, Example: example}
	}
	p.at, p.tok = len(p.src), token{at: len(p.src)}
	return &node{}
}

// disjunction reads parts joined by ||, the weakest. depth is how many
// parentheses are open.
func (p *parser) disjunction(depth int) *node {
	return p.row("||", opOr, depth, p.conjunction)
}

// conjunction reads parts joined by &&.
func (p *parser) conjunction(depth int) *node {
	return p.row("&&", opAnd, depth, p.factor)
}

// row reads one part or more, with sep between them.
func (p *parser) row(sep string, o op, depth int, part func(int) *node) *node {
	first := part(depth)
	if !p.tok.is(tokSign, sep) {
		return first
	}
	n := &node{question: question{op: o}, kids: []*node{first}}
	for p.skip(sep) {
		n.kids = append(n.kids, part(depth))
	}
	return n
}

// factor reads a call, a comparison or a group, with the ! before it.
func (p *parser) factor(depth int) *node {
	negated := false
	for p.skip("!") {
		negated = !negated
	}
	n := p.primary(depth)
	if negated {
		return not(n)
	}
	return n
}

// primary reads a call, a comparison or a group.
func (p *parser) primary(depth int) *node {
	t := p.take()
	switch {
	case t.kind == tokWord && len(t.text) > MaxLabel:
		return p.fail(t, fmt.Sprintf("a label of at most %d bytes", MaxLabel), "example.com/app == 'x'")
	case p.calls(t):
		return p.call(t)
	case t.kind == tokWord:
		return p.comparison(t)
	case !t.is(tokSign, "("):
		return p.fail(t, "a label's name, has(...), all(), global(), ! or (", "a == 'x' && !has(b)")
	case depth == MaxNesting:
		return p.failAs(t, fmt.Sprintf("more than %d parentheses open", MaxNesting), "fewer", "!(has(a) || has(b))")
	}
	n := p.disjunction(depth + 1)
	if !p.tok.is(tokSign, ")") {
		return p.fail(p.tok, "&&, || or )", "(has(a) || has(b)) && has(c)")
	}
	p.next()
	return n
}

// callOp is what the name of a call stands for.
func callOp(name string) (o op, ok bool) {
	switch name {
	case "all":
		return opAll, true
	case "global":
		return opGlobal, true
	case "has":
		return opHas, true
	}
	return 0, false
}

// calls reports whether t is the name of a call, with the ( right behind it.
func (p *parser) calls(t token) bool {
	_, ok := callOp(t.text)
	return ok && p.tok.is(tokSign, "(") && p.tok.at == t.at+len(t.text)
}

// call reads what stands behind a call's name.
func (p *parser) call(name token) *node {
	p.next()
	n := &node{}
	if n.op, _ = callOp(name.text); n.op == opHas {
		label := p.take()
		if label.kind != tokWord || len(label.text) > MaxLabel {
			return p.fail(label, fmt.Sprintf("a label's name of 1 to %d bytes, without quotes", MaxLabel), "has(a)")
		}
		n.label = label.text
	}
	if !p.tok.is(tokSign, ")") {
		return p.fail(p.tok, ")", "has(a) && all()")
	}
	p.next()
	return n
}

// comparison reads what stands behind a label's name.
func (p *parser) comparison(label token) *node {
	n := &node{question: question{op: p.operator(label), label: label.text}}
	if n.op == opIn || n.op == opNotIn {
		n.set = p.set()
	} else {
		n.value = p.value("a value in quotes", "a == 'x'")
	}
	return n
}

// operator reads a comparison's sign or word.
func (p *parser) operator(label token) op {
	t := p.take()
	_, call := callOp(label.text)
	switch {
	case t.is(tokSign, "=="):
		return opEqual
	case t.is(tokSign, "!="):
		return opNotEqual
	case t.is(tokWord, "contains"):
		return opContains
	case t.is(tokWord, "in"):
		return opIn
	case t.is(tokWord, "notin"), t.is(tokWord, "not") && p.word("in"):
		return opNotIn
	case t.is(tokWord, "startswith"), t.is(tokWord, "starts") && p.word("with"):
		return opStarts
	case t.is(tokWord, "endswith"), t.is(tokWord, "ends") && p.word("with"):
		return opEnds
	case call && t.is(tokSign, "("):
		p.fail(t, "no blank before (", "has(a) && all()")
	}
	p.fail(t, "==, !=, in, not in, contains, starts with or ends with behind a label", "a == 'x' || has(a)")
	return opEqual
}

// word reads the second word of an operator, and nothing else may stand there.
func (p *parser) word(text string) bool {
	if t := p.take(); !t.is(tokWord, text) {
		p.fail(t, text, "a not in {'x'} || a starts with 'x'")
	}
	return true
}

// value reads a value.
func (p *parser) value(want, example string) string {
	t := p.take()
	if t.kind != tokQuoted {
		p.fail(t, want, example)
		return ""
	}
	return t.text[1 : len(t.text)-1]
}

// set reads values in braces. A comma may stand behind the last one.
func (p *parser) set() []string {
	const example = "a in {'x', 'y'}"
	if !p.skip("{") {
		p.fail(p.tok, "{", example)
		return nil
	}
	var values []string
	for !p.skip("}") && p.err == nil {
		values = append(values, p.value("a value in quotes or }", example))
		if !p.skip(",") && !p.tok.is(tokSign, "}") {
			p.fail(p.tok, "a comma or }", example)
		}
	}
	return sorted(values)
}

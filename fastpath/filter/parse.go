package filter

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"margay.dev/margay/internal/pkt"
)

// Parse reads an expression; "" matches every packet. What it refuses, it
// refuses by an *Error.
func Parse(expr string) (*Filter, error) {
	if len(expr) > MaxBytes {
		return nil, tooLong(MaxBytes, len(expr), "bytes")
	}
	p := &parser{src: expr}
	p.next()
	if p.tok.kind == tokEnd {
		return &Filter{}, nil
	}
	f := &Filter{root: p.disjunction(0)}
	if p.tok.kind != tokEnd {
		p.fail(p.tok, "and, or, or the end", "tcp and port 80")
	}
	if p.err != nil {
		return nil, p.err
	}
	if n := len(f.String()); n > MaxBytes {
		return nil, tooLong(len(expr), n, "bytes in normal form")
	}
	return f, nil
}

func tooLong(pos, n int, unit string) *Error {
	return &Error{Pos: pos, Found: fmt.Sprintf("%d %s", n, unit), Want: fmt.Sprintf("at most %d", MaxBytes), Example: "net 10.0.0.0/8"}
}

// parser reads by recursive descent. Its first fault stays in err and puts it at
// the end of the expression, where every rule stops by itself.
type parser struct {
	src   string
	at    int // bytes of src behind tok
	tok   token
	terms int
	err   error // an *Error
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokWord
	tokQuoted
	tokOpen
	tokClose
	tokAnd
	tokOr
	tokNot
	tokBad
)

// token is the next thing that stands in the expression.
type token struct {
	kind tokenKind
	at   int    // bytes before it
	text string // as written
}

// next moves on by one token.
func (p *parser) next() {
	for p.at < len(p.src) && isBlank(p.src[p.at]) {
		p.at++
	}
	p.tok = scan(p.src[p.at:])
	p.tok.at = p.at
	p.at += len(p.tok.text)
}

// scan reads the token that s begins with.
func scan(s string) token {
	switch {
	case s == "":
		return token{}
	case s[0] == '(':
		return token{kind: tokOpen, text: s[:1]}
	case s[0] == ')':
		return token{kind: tokClose, text: s[:1]}
	case s[0] == '!':
		return token{kind: tokNot, text: s[:1]}
	case strings.HasPrefix(s, "&&"):
		return token{kind: tokAnd, text: s[:2]}
	case strings.HasPrefix(s, "||"):
		return token{kind: tokOr, text: s[:2]}
	case s[0] == '"':
		if q, err := strconv.QuotedPrefix(s); err == nil {
			return token{kind: tokQuoted, text: q}
		}
		return token{kind: tokBad, text: s}
	}
	switch n := wordSize(s); s[:n] {
	case "": // a single & or |
		return token{kind: tokBad, text: s[:1]}
	case "and":
		return token{kind: tokAnd, text: s[:n]}
	case "or":
		return token{kind: tokOr, text: s[:n]}
	case "not":
		return token{kind: tokNot, text: s[:n]}
	default:
		return token{kind: tokWord, text: s[:n]}
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// wordSize is the bytes of the word that s begins with.
func wordSize(s string) int {
	if i := strings.IndexAny(s, " \t\n\r()!&|\""); i >= 0 {
		return i
	}
	return len(s)
}

// isOperator reports whether a word joins terms.
func isOperator(word string) bool { return word == "and" || word == "or" || word == "not" }

// found is the token in an error: quoted, and cut where it is long.
func (t token) found() string {
	switch {
	case t.kind == tokEnd:
		return "the end"
	case len(t.text) > 2*MaxName:
		return fmt.Sprintf("%q...", t.text[:2*MaxName])
	}
	return strconv.Quote(t.text)
}

// fail notes the first fault and ends the reading.
func (p *parser) fail(t token, want, example string) *node {
	return p.failAs(t, t.found(), want, example)
}

func (p *parser) failAs(t token, found, want, example string) *node {
	if p.err == nil {
		p.err = &Error{Pos: t.at, Found: found, Want: want, Example: example}
	}
	p.at, p.tok = len(p.src), token{at: len(p.src)}
	return &node{}
}

// disjunction reads terms joined by or, the weakest. depth is how many
// parentheses and nots are open.
func (p *parser) disjunction(depth int) *node {
	return p.row(tokOr, opOr, depth, p.conjunction)
}

// conjunction reads terms joined by and.
func (p *parser) conjunction(depth int) *node {
	return p.row(tokAnd, opAnd, depth, p.factor)
}

// row reads one part or more, with sep between them.
func (p *parser) row(sep tokenKind, o op, depth int, part func(int) *node) *node {
	kids := flat(nil, o, part(depth))
	for p.tok.kind == sep {
		p.next()
		kids = flat(kids, o, part(depth))
	}
	if len(kids) == 1 {
		return kids[0]
	}
	return &node{op: o, kids: kids}
}

// flat appends n to kids, or n's own kids where they are joined by o too.
func flat(kids []*node, o op, n *node) []*node {
	if n.op == o {
		return append(kids, n.kids...)
	}
	return append(kids, n)
}

// factor reads a term, a group in parentheses, or not and another factor.
func (p *parser) factor(depth int) *node {
	t := p.tok
	if (t.kind == tokNot || t.kind == tokOpen) && depth == MaxNesting {
		return p.failAs(t, fmt.Sprintf("more than %d parentheses and nots open", MaxNesting), "fewer", "not (tcp or udp)")
	}
	switch t.kind {
	case tokNot:
		p.next()
		n := p.factor(depth + 1)
		if n.op == opNot {
			return n.kids[0]
		}
		return &node{op: opNot, kids: []*node{n}}
	case tokOpen:
		p.next()
		n := p.disjunction(depth + 1)
		if p.tok.kind != tokClose {
			return p.fail(p.tok, "and, or, or )", "(tcp or udp) and port 53")
		}
		p.next()
		return n
	}
	return p.question()
}

const wantTerm = "host, net, port, src, dst, proto, tcp, udp, icmp, icmp6, ip, ip6, arp, vlan, on, to, frag, less, greater, not or ("

// question reads one term.
func (p *parser) question() *node {
	t := p.tok
	if t.kind != tokWord {
		return p.fail(t, wantTerm, "src host 10.0.0.1 and tcp")
	}
	if p.terms++; p.terms > MaxTerms {
		return p.failAs(t, fmt.Sprintf("more than %d terms", MaxTerms), "fewer, by prefixes or ranges", "net 10.0.0.0/8 and port 8000-8999")
	}
	p.next()
	switch t.text {
	case "host", "net", "port":
		return p.sided(t, eitherSide)
	case "src":
		return p.sided(p.take(), srcSide)
	case "dst":
		return p.sided(p.take(), dstSide)
	case "ip":
		return exactly(askEther, pkt.EtherIPv4)
	case "ip6":
		return exactly(askEther, pkt.EtherIPv6)
	case "arp":
		return exactly(askEther, pkt.EtherARP)
	case "vlan":
		return exactly(askVLAN, p.number("a VLAN id of 1 to 4094", 1, 4094, "vlan 10"))
	case "on":
		return &node{term: term{ask: askOn}, name: p.name()}
	case "to":
		return &node{term: term{ask: askTo}, name: p.name()}
	case "frag":
		return &node{term: term{ask: askFragment}}
	case "less":
		return between(askLength, 0, p.number("a length in bytes", 0, math.MaxUint32, "less 128"))
	case "greater":
		return between(askLength, p.number("a length in bytes of at least 1", 1, math.MaxUint32, "greater 1400"), math.MaxUint32)
	}
	return p.protocol(t)
}

// take moves on and returns the token passed.
func (p *parser) take() token {
	t := p.tok
	p.next()
	return t
}

func exactly(a ask, v uint32) *node { return between(a, v, v) }

func between(a ask, lo, hi uint32) *node { return &node{term: term{ask: a, lo: lo, hi: hi}} }

// sided reads what t, one of host, net and port, asks of a packet's sides.
func (p *parser) sided(t token, s side) *node {
	var n *node
	switch {
	case t.kind == tokWord && t.text == "host":
		n = &node{term: term{ask: askNet, prefix: p.address()}}
	case t.kind == tokWord && t.text == "net":
		n = &node{term: term{ask: askNet, prefix: p.prefix()}}
	case t.kind == tokWord && t.text == "port":
		n = between(askPort, 0, 0)
		n.lo, n.hi = p.ports()
	default:
		return p.fail(t, "host, net or port", "src port 53")
	}
	n.side = s
	return n
}

// address reads an address as the prefix of it alone.
func (p *parser) address() netip.Prefix {
	t := p.take()
	a, err := netip.ParseAddr(t.text)
	if err != nil || a.Zone() != "" {
		p.fail(t, "an IPv4 or IPv6 address", "host 2001:db8::1 or net 10.0.0.0/8")
		return netip.Prefix{}
	}
	return single(a)
}

// prefix reads a prefix.
func (p *parser) prefix() netip.Prefix {
	t := p.take()
	out, err := netip.ParsePrefix(t.text)
	switch {
	case err != nil:
		p.fail(t, "an IPv4 or IPv6 prefix", "net 10.0.0.0/8 or host 2001:db8::1")
	case out != out.Masked():
		p.fail(t, "no bits behind the prefix's length", "net "+out.Masked().String())
	}
	return out
}

// ports reads a port or a range of them.
func (p *parser) ports() (lo, hi uint32) {
	t := p.take()
	first, last, ranged := strings.Cut(t.text, "-")
	if !ranged {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a > b {
		p.fail(t, "a port of 0 to 65535, or a range, the lower port first", "port 53 or port 8000-8999")
	}
	return uint32(a), uint32(b)
}

// protocol reads a term about the IP protocol: proto and a word or number, or
// the word alone.
func (p *parser) protocol(t token) *node {
	const example = "proto sctp or proto 47"
	word := t
	if t.text == "proto" {
		word = p.take()
	}
	switch word.text {
	case "tcp":
		return exactly(askProto, pkt.ProtoTCP)
	case "udp":
		return exactly(askProto, pkt.ProtoUDP)
	case "icmp":
		return p.icmp(pkt.ProtoICMP)
	case "icmp6":
		return p.icmp(pkt.ProtoICMPv6)
	}
	if t.text != "proto" {
		return p.fail(t, wantTerm, "src host 10.0.0.1 and tcp")
	}
	if word.text == "sctp" {
		return exactly(askProto, pkt.ProtoSCTP)
	}
	n, err := strconv.ParseUint(word.text, 10, 8)
	if err != nil || n == 0 {
		return p.fail(word, "tcp, udp, icmp, icmp6, sctp, or a protocol of 1 to 255", example)
	}
	return exactly(askProto, uint32(n))
}

// icmp reads what may stand behind icmp and icmp6: a type, and a code behind that.
func (p *parser) icmp(proto uint8) *node {
	if p.tok.text != "type" {
		return exactly(askProto, uint32(proto))
	}
	p.next()
	kind := uint8(p.number("an ICMP type of 0 to 255", 0, 255, "icmp type 8 or icmp6 type 128"))
	if p.tok.text != "code" {
		return between(askICMP, icmpValue(proto, kind, 0), icmpValue(proto, kind, 255))
	}
	p.next()
	code := uint8(p.number("an ICMP code of 0 to 255", 0, 255, "icmp type 3 code 4"))
	return exactly(askICMP, icmpValue(proto, kind, code))
}

// number reads a decimal number of lo to hi.
func (p *parser) number(want string, lo, hi uint32, example string) uint32 {
	t := p.take()
	n, err := strconv.ParseUint(t.text, 10, 32)
	if err != nil || uint32(n) < lo || uint32(n) > hi {
		p.fail(t, want, example)
		return lo
	}
	return uint32(n)
}

// name reads a port's name, in quotes or not.
func (p *parser) name() string {
	t := p.take()
	name := t.text
	if t.kind == tokQuoted {
		name, _ = strconv.Unquote(t.text) // the scanner has seen that it can be
	}
	if t.kind != tokWord && t.kind != tokQuoted || name == "" || len(name) > MaxName {
		p.fail(t, fmt.Sprintf("a port's name of 1 to %d bytes, in quotes where it has signs", MaxName), `on eth0 and not to "pod(1)"`)
	}
	return name
}

// Package filter picks packets by an expression over what their headers say:
// "src net 10.0.0.0/8 and (tcp or udp) and not port 53". The language is in
// docs/FILTERS.md; it resembles tcpdump's, with the usual precedence.
//
// An expression is read once (Parse), its port names are resolved once (Bind),
// and what comes of that is a flat program which a worker asks for each packet:
//
//	Key.Read(bytes) ► Bound.Match(key)
//
// Neither allocates, and both are bounded: by the bytes given, and by MaxTerms.
package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"margay.dev/margay/internal/pkt"
)

// What an expression may be at most, since anyone who may ask sends one.
const (
	MaxBytes   = 4096 // as written, and in normal form
	MaxNesting = 64   // of parentheses and not
	MaxTerms   = 512  // questions to a packet
	MaxName    = 32   // bytes of a port's name
)

// Filter is an expression that was understood. It does not change; the zero
// Filter matches every packet.
type Filter struct {
	root *node // nil: every packet
}

// op is what a node of the tree is.
type op uint8

const (
	opTerm op = iota
	opNot     // one kid
	opAnd     // two kids or more, none an opAnd
	opOr      // two kids or more, none an opOr
)

// node is a part of the tree. Where terms are joined alike they are the kids of
// one node, however they were put in parentheses, so that equal filters are
// equal trees.
type node struct {
	op   op
	kids []*node
	term        // of opTerm
	name string // port that askOn and askTo ask for; Bind makes it a number
}

// String is the filter in normal form, "" for one that matches every packet:
// words for signs, as few parentheses as there can be, addresses as RFC 5952
// writes them. Parse(f.String()) is the same filter.
func (f *Filter) String() string {
	if f.root == nil {
		return ""
	}
	return f.root.String()
}

// Ports are the port names that the filter mentions, sorted, each once.
func (f *Filter) Ports() []string {
	var names []string
	if f.root != nil {
		f.root.each(func(n *node) {
			if n.asksPortName() {
				names = append(names, n.name)
			}
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// each visits the terms from left to right.
func (n *node) each(visit func(*node)) {
	if n.op == opTerm {
		visit(n)
	}
	for _, kid := range n.kids {
		kid.each(visit)
	}
}

func (n *node) asksPortName() bool { return n.op == opTerm && (n.ask == askOn || n.ask == askTo) }

// String is the node in normal form.
func (n *node) String() string {
	switch n.op {
	case opNot:
		return "not " + n.kids[0].inside(opNot)
	case opAnd:
		return n.join(" and ")
	case opOr:
		return n.join(" or ")
	}
	return n.termString()
}

func (n *node) join(sep string) string {
	parts := make([]string, len(n.kids))
	for i, kid := range n.kids {
		parts[i] = kid.inside(n.op)
	}
	return strings.Join(parts, sep)
}

// inside is the node as a kid of outer, in parentheses where it binds less.
func (n *node) inside(outer op) string {
	if n.op > outer {
		return "(" + n.String() + ")"
	}
	return n.String()
}

// termString is a term in normal form.
func (n *node) termString() string {
	switch n.ask {
	case askNet:
		if n.prefix.IsSingleIP() {
			return n.side.String() + "host " + n.prefix.Addr().String()
		}
		return n.side.String() + "net " + n.prefix.String()
	case askPort:
		if n.lo != n.hi {
			return fmt.Sprintf("%sport %d-%d", n.side, n.lo, n.hi)
		}
		return fmt.Sprintf("%sport %d", n.side, n.lo)
	case askProto:
		return protoString(n.lo)
	case askICMP:
		return icmpString(n.lo, n.hi)
	case askEther:
		return map[uint32]string{pkt.EtherIPv4: "ip", pkt.EtherIPv6: "ip6", pkt.EtherARP: "arp"}[n.lo]
	case askVLAN:
		return fmt.Sprintf("vlan %d", n.lo)
	case askOn:
		return "on " + nameString(n.name)
	case askTo:
		return "to " + nameString(n.name)
	case askFragment:
		return "frag"
	}
	if n.lo == 0 {
		return fmt.Sprintf("less %d", n.hi)
	}
	return fmt.Sprintf("greater %d", n.lo)
}

func protoString(proto uint32) string {
	switch proto {
	case pkt.ProtoTCP:
		return "tcp"
	case pkt.ProtoUDP:
		return "udp"
	case pkt.ProtoICMP:
		return "icmp"
	case pkt.ProtoICMPv6:
		return "icmp6"
	case pkt.ProtoSCTP:
		return "proto sctp"
	}
	return fmt.Sprintf("proto %d", proto)
}

// icmpString writes a range of icmpValue, which is one code or all of a type.
func icmpString(lo, hi uint32) string {
	s := fmt.Sprintf("%s type %d", protoString(lo>>16), lo>>8&0xff)
	if lo == hi {
		s += fmt.Sprintf(" code %d", lo&0xff)
	}
	return s
}

// nameString is a port's name as Parse takes it: in quotes where the name alone
// would read as something else.
func nameString(name string) string {
	if wordSize(name) < len(name) || isOperator(name) {
		return strconv.Quote(name)
	}
	return name
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

package nft

import (
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft/cover"
)

// mode is what lists do where rules allow and deny: it depends on the place where
// packets are judged.
type mode uint8

const (
	filtering  mode = iota // accept, drop
	rejecting              // accept, answer with an ICMP error
	untracking             // accept, untracked and marked; drop
	marking                // accept, marked; drop
)

// Protocols whose packets have ports, and those whose packets have types and codes
// in their place, as the classifier's keys have them.
var (
	portful   = []classifier.Range{{First: 6, Last: 6}, {First: 17, Last: 17}, {First: 132, Last: 132}}
	portless4 = []classifier.Range{{First: 0, Last: 0}, {First: 2, Last: 5}, {First: 7, Last: 16}, {First: 18, Last: 131}, {First: 133, Last: 255}}
	portless6 = []classifier.Range{{First: 0, Last: 5}, {First: 7, Last: 16}, {First: 18, Last: 57}, {First: 59, Last: 131}, {First: 133, Last: 255}}
)

const (
	protocolICMP   = 1
	protocolICMPv6 = 58
	protocolIPIP   = 4
	protocolUDP    = 17
)

var (
	anyProtocol = []classifier.Range{{First: 0, Last: 255}}
	anyPort     = []classifier.Range{{First: 0, Last: 65535}}
)

// part is one way to match a rule: where it asks for ports, packets of protocols
// that have them are told from ICMP messages and all others.
type part struct {
	protocols []classifier.Range
	ports     [3][]classifier.Range // at the offsets of source and destination ports, and of ICMP's types and codes
}

// parts are the ways to match a rule in one family; there may be none.
func parts(r *classifier.Rule, family int) []part {
	protocols := orAll(r.Protocols, anyProtocol)
	from, to := orAll(r.Source.Ports, anyPort), orAll(r.Destination.Ports, anyPort)
	if cover.Everything(from, 65535) && cover.Everything(to, 65535) {
		return []part{{protocols: protocols, ports: [3][]classifier.Range{anyPort, anyPort, anyPort}}}
	}
	icmp, portless := classifier.Range{First: protocolICMP, Last: protocolICMP}, portless4
	if family == 6 {
		icmp, portless = classifier.Range{First: protocolICMPv6, Last: protocolICMPv6}, portless6
	}
	var out []part
	if p := cover.Common(protocols, portful); len(p) > 0 {
		out = append(out, part{protocols: p, ports: [3][]classifier.Range{from, to, anyPort}})
	}
	if from[0].First > 0 {
		return out // what has no ports has 0 as a source port
	}
	if p := cover.Common(protocols, []classifier.Range{icmp}); len(p) > 0 {
		out = append(out, part{protocols: p, ports: [3][]classifier.Range{anyPort, anyPort, to}})
	}
	if p := cover.Common(protocols, portless); len(p) > 0 && to[0].First == 0 {
		out = append(out, part{protocols: p, ports: [3][]classifier.Range{anyPort, anyPort, anyPort}})
	}
	return out
}

func orAll(ranges, all []classifier.Range) []classifier.Range {
	if len(ranges) == 0 {
		return all
	}
	return cover.Joined(ranges)
}

// rules are the kernel's rules for one of a list.
func (w *writer) rules(r *classifier.Rule, family int, m mode, o *Options, s *Settings) []rule {
	if never(r.Source.NotNets) || never(r.Destination.NotNets) {
		return nil
	}
	var out []rule
	for _, p := range parts(r, family) {
		l := w.line(o.Comment(r.ID)).protocols(p.protocols)
		for e, side := range [...]*classifier.Side{source: &r.Source, destination: &r.Destination} {
			l.side(family, end(e), side)
		}
		l.port(sourcePort, p.ports[0]).port(destinationPort, p.ports[1]).port(icmpTypeCode, p.ports[2])
		out = append(out, l.count(r.ID).act(r, m, o, s))
	}
	return out
}

// never reports whether no address is outside of the prefixes.
func never(nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Bits() == 0 })
}

func (l *line) side(family int, e end, s *classifier.Side) {
	if len(s.Nets) > 0 && !never(s.Nets) {
		l.within(family, e, s.Nets, false)
	}
	if len(s.NotNets) > 0 {
		l.within(family, e, s.NotNets, true)
	}
	for _, id := range s.Sets {
		l.member(family, e, id, false)
	}
	for _, id := range s.NotSets {
		l.member(family, e, id, true)
	}
}

// act ends a rule with what it does.
func (l *line) act(r *classifier.Rule, m mode, o *Options, s *Settings) rule {
	switch {
	case r.Action == classifier.Log:
		return l.limit(s).log(o.Prefix(s.LogPrefix, r.ID))
	case r.Action == classifier.Pass && l.w.passed != 0:
		return l.mark(l.w.passed, true).verdict(codeReturn, "")
	case r.Action == classifier.Pass:
		return l.verdict(codeReturn, "")
	case r.Action == classifier.Deny:
		return l.deny(m)
	}
	return l.allow(m, s.judged())
}

func (l *line) deny(m mode) rule {
	if m == rejecting {
		return l.add(reject()).r
	}
	return l.verdict(codeDrop, "")
}

func (l *line) allow(m mode, bit uint32) rule {
	switch m {
	case untracking:
		l.add(untrack()).mark(bit, true)
	case marking:
		l.mark(bit, true)
	}
	return l.verdict(codeAccept, "")
}

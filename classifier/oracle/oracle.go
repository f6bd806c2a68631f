// Package oracle judges packets by reading the list of rules from the top, one
// rule after the other. It is what the classifier is held against: slow, plain,
// and with nothing in common with it but the rule's type.
package oracle

import (
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
)

// Packet is what a rule can ask about. An ICMP packet has source port 0 and
// destination port type<<8 | code.
type Packet struct {
	Source, Destination         netip.Addr
	Protocol                    uint8
	SourcePort, DestinationPort uint16
}

// Sets are the members of each set.
type Sets map[classifier.SetID][]netip.Prefix

// Match returns the position of the first rule that decides, len(list) if none
// does, and the positions of the Log rules that matched before it.
func Match(list []classifier.Rule, sets Sets, p Packet) (decides int, logged []int) {
	for i, r := range list {
		switch {
		case !Matches(r, sets, p):
		case r.Action == classifier.Log:
			logged = append(logged, i)
		default:
			return i, logged
		}
	}
	return len(list), logged
}

// Matches reports whether one rule matches.
func Matches(r classifier.Rule, sets Sets, p Packet) bool {
	return in(r.Protocols, uint16(p.Protocol)) &&
		side(r.Source, sets, p.Source, p.SourcePort) && side(r.Destination, sets, p.Destination, p.DestinationPort)
}

func side(s classifier.Side, sets Sets, a netip.Addr, port uint16) bool {
	member := func(id classifier.SetID) bool { return contains(sets[id], a) }
	return (len(s.Nets) == 0 || contains(s.Nets, a)) && !contains(s.NotNets, a) &&
		!slices.ContainsFunc(s.Sets, func(id classifier.SetID) bool { return !member(id) }) &&
		!slices.ContainsFunc(s.NotSets, member) && in(s.Ports, port)
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func in(ranges []classifier.Range, v uint16) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(r classifier.Range) bool { return r.First <= v && v <= r.Last })
}

package explain

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/internal/pkt"
)

// condition is one thing that would have to be otherwise.
type condition struct {
	kind   pb.Explanation_Change_Kind
	number uint16 // protocol or port
	set    classifier.SetID
	prefix netip.Prefix
	rule   uint32 // to be removed, or to be put another one before; 0 for none
	force  forced // rule to be added
	// The rule that asks for it, zero where none does, and the side that this, or
	// the rule that goes or comes, is of.
	wants classifier.Verdict
	side  int
}

// unmet appends what would have to be otherwise for a clause to match. It is false
// where no packet of this family can meet it.
func unmet(h *hypothesis, c *classifier.Clause, out []condition) ([]condition, bool) {
	port, proto := h.port, h.proto
	if !within(c.Protocol, uint16(proto)) {
		var ok bool
		if proto, ok = protocol(c.Protocol, h.addr[0].Is4()); !ok {
			return out, false
		}
		out = append(out, condition{kind: pb.Explanation_Change_KIND_PROTOCOL, number: uint16(proto)})
		port = ports(h, proto)
	}
	for side, r := range [2]classifier.Range{c.SourcePort, c.DestinationPort} {
		if within(r, port[side]) && (port[side] != 0 || !hasPorts(proto)) {
			continue
		}
		n := nearest(r, port[side])
		if !hasPorts(proto) || n == 0 {
			return out, false
		}
		out = append(out, condition{kind: pb.Explanation_Change_KIND_SOURCE_PORT + pb.Explanation_Change_Kind(side), number: n})
	}
	for side, r := range [2][2]uint32{c.Source, c.Destination} {
		if p := netip.Prefix(between(r)); h.addr[side].Is4() && !p.Contains(h.addr[side]) {
			out = append(out, condition{kind: pb.Explanation_Change_KIND_SOURCE_PREFIX + pb.Explanation_Change_Kind(side), prefix: p})
		}
	}
	for _, t := range c.Terms {
		side := 0
		if t.Destination {
			side = 1
		}
		if slices.Contains(h.sets[side], t.Set) == t.Not {
			out = append(out, membership(t, !t.Not))
		}
	}
	return out, true
}

// membership is the condition that an address is in the set of a term, or is not.
func membership(t classifier.Term, in bool) condition {
	kind := pb.Explanation_Change_KIND_SOURCE_LEAVES
	if in {
		kind = pb.Explanation_Change_KIND_SOURCE_JOINS
	}
	if t.Destination {
		kind++
	}
	return condition{kind: kind, set: t.Set}
}

// protocol is the one of a range that people most likely mean.
func protocol(r classifier.Range, ipv4 bool) (uint8, bool) {
	echo, _ := echoOf(!ipv4)
	for _, p := range []uint8{pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP, echo} {
		if within(r, uint16(p)) {
			return p, true
		}
	}
	other := r.First == pkt.ProtoICMP || r.First == pkt.ProtoICMPv6 // the other family's
	return uint8(r.First), r.First > 0 && r.First < 256 && !other
}

// ports are those that a packet of another protocol would have.
func ports(h *hypothesis, proto uint8) [2]uint16 {
	switch echo, kind := echoOf(h.addr[0].Is6()); {
	case proto == echo:
		return [2]uint16{0, kind}
	case !hasPorts(proto):
		return [2]uint16{}
	case hasPorts(h.proto):
		return h.port
	}
	return [2]uint16{clientPort, 0}
}

// meet makes a condition true in the hypothesis. It is false where it contradicts
// what was made true before.
func (s *search) meet(h *hypothesis, c *condition) bool {
	switch side := int(c.kind) & 1; c.kind { // those of destinations are odd
	case pb.Explanation_Change_KIND_PROTOCOL:
		h.port = ports(h, uint8(c.number))
		h.proto = uint8(c.number)
	case pb.Explanation_Change_KIND_SOURCE_PORT:
		h.port[0] = c.number
	case pb.Explanation_Change_KIND_DESTINATION_PORT:
		h.port[1] = c.number
	case pb.Explanation_Change_KIND_SOURCE_PREFIX, pb.Explanation_Change_KIND_DESTINATION_PREFIX:
		h.addr[side] = within4(c.prefix)
		h.sets[side] = slices.Clone(s.sets(h.addr[side]))
		return !h.moved
	case pb.Explanation_Change_KIND_SOURCE_JOINS, pb.Explanation_Change_KIND_DESTINATION_JOINS:
		return h.move(side, c.set, true)
	case pb.Explanation_Change_KIND_SOURCE_LEAVES, pb.Explanation_Change_KIND_DESTINATION_LEAVES:
		return h.move(side, c.set, false)
	case pb.Explanation_Change_KIND_RULE_REMOVED:
		h.without = c.rule
	case pb.Explanation_Change_KIND_RULE_ADDED:
		h.forced[c.side] = c.force
	}
	return true
}

// move lets an address join a set, or leave it.
func (h *hypothesis) move(side int, set classifier.SetID, in bool) bool {
	if slices.Contains(h.sets[side], set) == in {
		return false
	}
	h.moved = true
	if in {
		h.sets[side] = append(slices.Clone(h.sets[side]), set)
	} else {
		h.sets[side] = slices.DeleteFunc(slices.Clone(h.sets[side]), func(id classifier.SetID) bool { return id == set })
	}
	return true
}

func within(r classifier.Range, v uint16) bool { return r.First <= v && v <= r.Last }

// nearest is the number of a range that is nearest to another.
func nearest(r classifier.Range, v uint16) uint16 {
	switch {
	case v != 0 || r.First > 0:
		return min(max(v, r.First), r.Last)
	default:
		return min(80, r.Last) // any will do
	}
}

// between is the prefix of IPv4 addresses from the first to the last.
func between(r [2]uint32) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], r[0])
	return netip.PrefixFrom(netip.AddrFrom4(b), bits.LeadingZeros32(r[0]^r[1]))
}

// within4 is an address of a prefix that a host may have.
func within4(p netip.Prefix) netip.Addr {
	if p.Bits() < 31 {
		return p.Addr().Next()
	}
	return p.Addr()
}

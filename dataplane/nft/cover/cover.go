// Package cover keeps sets of prefixes for kernels whose sets have no two that overlap:
// such a kernel gets the outermost ones, and what changes of them; and ranges of numbers
// likewise.
package cover

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Set is prefixes of IPv4 and IPv6, which may cover each other, and how many there
// are of each length. It is for one goroutine. Make it with New.
type Set struct {
	members map[netip.Prefix]struct{}
	lengths [2][129]int // of IPv4 and IPv6
}

// New makes one without members.
func New() *Set { return &Set{members: map[netip.Prefix]struct{}{}} }

// Clone is a copy that changes by itself.
func (s *Set) Clone() *Set { return &Set{members: maps.Clone(s.members), lengths: s.lengths} }

// All are the members, in no order.
func (s *Set) All() iter.Seq[netip.Prefix] { return maps.Keys(s.members) }

// Family is 4 or 6.
func Family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func (s *Set) count(p netip.Prefix, n int) { s.lengths[Family(p)/6][p.Bits()] += n }

// covered reports whether another member has all addresses of p.
func (s *Set) covered(p netip.Prefix) bool {
	lengths := &s.lengths[Family(p)/6]
	for bits := range p.Bits() {
		if lengths[bits] > 0 {
			if _, ok := s.members[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
				return true
			}
		}
	}
	return false
}

// within are the outermost members that p covers, without p. It looks at all
// members, unless none is longer.
func (s *Set) within(p netip.Prefix) []netip.Prefix {
	longer := 0
	for _, n := range s.lengths[Family(p)/6][p.Bits()+1:] {
		longer += n
	}
	if longer == 0 {
		return nil
	}
	var out []netip.Prefix
	for m := range s.members {
		if m != p && p.Overlaps(m) && m.Bits() > p.Bits() {
			out = append(out, m)
		}
	}
	return Outermost(out)
}

// Join adds a member, and counts in net what joins the outermost and what leaves
// them. It reports whether anything changed.
func (s *Set) Join(p netip.Prefix, net map[netip.Prefix]int) bool {
	if _, ok := s.members[p]; ok {
		return false
	}
	if !s.covered(p) {
		s.exchange(p, 1, net)
	}
	s.members[p] = struct{}{}
	s.count(p, 1)
	return true
}

// Leave takes a member away, as Join adds one.
func (s *Set) Leave(p netip.Prefix, net map[netip.Prefix]int) bool {
	if _, ok := s.members[p]; !ok {
		return false
	}
	delete(s.members, p)
	s.count(p, -1)
	if !s.covered(p) {
		s.exchange(p, -1, net)
	}
	return true
}

// exchange lets p join, in the place of what it covers, or the other way round.
func (s *Set) exchange(p netip.Prefix, n int, net map[netip.Prefix]int) {
	net[p] += n
	for _, m := range s.within(p) {
		net[m] -= n
	}
}

// Outermost are the prefixes of a list that no other one covers, sorted.
func Outermost(nets []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, len(nets))
	for i, n := range nets {
		sorted[i] = n.Masked()
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, n := range sorted {
		if len(out) == 0 || !out[len(out)-1].Contains(n.Addr()) {
			out = append(out, n)
		}
	}
	return out
}

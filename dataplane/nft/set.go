package nft

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
)

// set is the members of a set of addresses. The kernel's sets of prefixes have no
// two that overlap: it gets the outermost ones.
type set struct {
	name    string
	members map[netip.Prefix]struct{}
	lengths [2][129]int // how many there are of each length, of IPv4 and IPv6
}

func newSet(name string) *set { return &set{name: name, members: map[netip.Prefix]struct{}{}} }

// clone is a copy that changes by itself.
func (s *set) clone() *set {
	out := newSet(s.name)
	for p := range s.members {
		out.members[p] = struct{}{}
	}
	out.lengths = s.lengths
	return out
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func (s *set) count(p netip.Prefix, n int) { s.lengths[familyOf(p)/6][p.Bits()] += n }

// covered reports whether another member has all addresses of p.
func (s *set) covered(p netip.Prefix) bool {
	lengths := &s.lengths[familyOf(p)/6]
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
func (s *set) within(p netip.Prefix) []netip.Prefix {
	longer := 0
	for _, n := range s.lengths[familyOf(p)/6][p.Bits()+1:] {
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
	return outermost(out)
}

// join and leave change the members, and count in net what joins the kernel's set
// and what leaves it. They report whether anything changed.
func (s *set) join(p netip.Prefix, net map[netip.Prefix]int) bool {
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

func (s *set) leave(p netip.Prefix, net map[netip.Prefix]int) bool {
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
func (s *set) exchange(p netip.Prefix, n int, net map[netip.Prefix]int) {
	net[p] += n
	for _, m := range s.within(p) {
		net[m] -= n
	}
}

// memberUndo is one change of a set that may have to be taken back.
type memberUndo struct {
	set    *set
	member netip.Prefix
	joined bool
}

// changeSet brings one change to a set, writes it, and notes how to take it back.
func (b *batch) changeSet(name func(family int) string, s *set, c *SetChange, undo *[]memberUndo) {
	net := map[netip.Prefix]int{}
	for _, p := range c.Left {
		if s.leave(p.Masked(), net) {
			*undo = append(*undo, memberUndo{s, p.Masked(), false})
		}
	}
	for _, p := range c.Joined {
		if s.join(p.Masked(), net) {
			*undo = append(*undo, memberUndo{s, p.Masked(), true})
		}
	}
	var joined, left [2][]netip.Prefix
	for p, n := range net {
		switch f := familyOf(p) / 6; {
		case n > 0:
			joined[f] = append(joined[f], p)
		case n < 0:
			left[f] = append(left[f], p)
		}
	}
	for f, family := range [...]int{4, 6} {
		b.elements(unix.NFT_MSG_DELSETELEM, name(family), intervals(outermost(left[f])))
		b.elements(unix.NFT_MSG_NEWSETELEM, name(family), intervals(outermost(joined[f])))
	}
}

// takeBack undoes changes of sets, the last one first.
func takeBack(undo []memberUndo) {
	for i := len(undo) - 1; i >= 0; i-- {
		if u := undo[i]; u.joined {
			u.set.leave(u.member, map[netip.Prefix]int{})
		} else {
			u.set.join(u.member, map[netip.Prefix]int{})
		}
	}
}

// makeSet makes the kernel's two sets, with all members.
func (b *batch) makeSet(name func(family int) string, s *set) {
	var nets [2][]netip.Prefix
	for p := range s.members {
		f := familyOf(p) / 6
		nets[f] = append(nets[f], p)
	}
	for f, family := range [...]int{4, 6} {
		b.newSet(name(family), kindAddresses(family), s.name, 0)
		b.elements(unix.NFT_MSG_NEWSETELEM, name(family), intervals(outermost(nets[f])))
	}
}

// check reports what is wrong with a change of a set.
func (c *SetChange) check() error {
	if c.ID == 0 || c.ID&classifier.AnonymousSet != 0 {
		return fmt.Errorf("set %#x, want 1 to %#x", uint32(c.ID), uint32(classifier.AnonymousSet-1))
	}
	for _, list := range [...][]netip.Prefix{c.Joined, c.Left} {
		for _, p := range list {
			if !p.IsValid() || p.Addr().Is4In6() {
				return fmt.Errorf("set %d (%s) has %v, want a prefix of IPv4 or IPv6", c.ID, c.Name, p)
			}
		}
	}
	return nil
}

package nft

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft/cover"
)

// set is the members of a set of addresses, of which the kernel gets the outermost.
type set struct {
	name string
	*cover.Set
}

func newSet(name string) *set { return &set{name, cover.New()} }

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
		if s.Leave(p.Masked(), net) {
			*undo = append(*undo, memberUndo{s, p.Masked(), false})
		}
	}
	for _, p := range c.Joined {
		if s.Join(p.Masked(), net) {
			*undo = append(*undo, memberUndo{s, p.Masked(), true})
		}
	}
	var joined, left [2][]netip.Prefix
	for p, n := range net {
		switch f := cover.Family(p) / 6; {
		case n > 0:
			joined[f] = append(joined[f], p)
		case n < 0:
			left[f] = append(left[f], p)
		}
	}
	for f, family := range [...]int{4, 6} {
		b.elements(unix.NFT_MSG_DELSETELEM, name(family), intervals(cover.Outermost(left[f])))
		b.elements(unix.NFT_MSG_NEWSETELEM, name(family), intervals(cover.Outermost(joined[f])))
	}
}

// takeBack undoes changes of sets, the last one first.
func takeBack(undo []memberUndo) {
	for i := len(undo) - 1; i >= 0; i-- {
		if u := undo[i]; u.joined {
			u.set.Leave(u.member, map[netip.Prefix]int{})
		} else {
			u.set.Join(u.member, map[netip.Prefix]int{})
		}
	}
}

// makeSet makes the kernel's two sets, with all members.
func (b *batch) makeSet(name func(family int) string, s *set) {
	var nets [2][]netip.Prefix
	for p := range s.All() {
		f := cover.Family(p) / 6
		nets[f] = append(nets[f], p)
	}
	for f, family := range [...]int{4, 6} {
		b.newSet(name(family), kindAddresses(family), s.name, 0)
		b.elements(unix.NFT_MSG_NEWSETELEM, name(family), intervals(cover.Outermost(nets[f])))
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

package label

import (
	"net/netip"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
)

// View is what a reader sees of a Table: taken once per vector and not kept
// beyond it.
type View struct {
	trie    fib.View
	classes *lists
	births  *births
}

// View returns the tables in force. It costs one load.
//
//fastpath:hot
func (t *Table) View() View { return View{t.trie.View(), &t.classes, &t.births} }

// Lookup4 returns the class of an IPv4 address in host byte order.
//
//fastpath:hot
func (v *View) Lookup4(addr uint32) Class { return Class(v.trie.Lookup4(addr)) }

// Lookup6 returns the class of the IPv6 address whose upper and lower 64 bits
// are hi and lo.
//
//fastpath:hot
func (v *View) Lookup6(hi, lo uint64) Class { return Class(v.trie.Lookup6(hi, lo)) }

// Lookup returns the class of an address of either family, IPv4 mapped into IPv6
// as IPv4; 0 for the zero Addr. It is for those who explain.
func (v *View) Lookup(a netip.Addr) Class {
	if !a.IsValid() {
		return 0
	}
	a = a.Unmap()
	k := keyOf(a)
	if a.Is4() {
		return v.Lookup4(uint32(k.hi >> 32))
	}
	return v.Lookup6(k.hi, k.lo)
}

// Members returns the sets of a class that a lookup in this view answered,
// sorted; none for class 0. The slice is the table's: it is read, as long as the
// view is used.
//
//fastpath:hot
func (v *View) Members(c Class) []classifier.SetID { return v.classes.at(uint32(c)) }

package classifier

import (
	"fmt"
	"net/netip"
)

// Action is what a rule wants done with a packet.
type Action uint8

// The actions. Log is not final: the rule is reported and the list goes on.
// Pass ends this list and leaves the decision to the next one.
const (
	NoMatch Action = iota // no rule of the list matched; no rule has it
	Allow
	Deny
	Pass
	Log
)

var actionNames = [...]string{"no-match", "allow", "deny", "pass", "log"}

// String is the action's name in lower case.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// SetID names a set of addresses, of both families; 0 is no set. Those with
// AnonymousSet are handed out by this package, callers number the others.
type SetID uint32

// AnonymousSet is the bit of sets that stand for a literal list of prefixes.
const AnonymousSet SetID = 1 << 31

// Range is a range of numbers, both ends included.
type Range struct{ First, Last uint16 }

// MaxRuleID is the highest rule id: a verdict has 24 bits for it, and one of the
// numbers stands for the end of a tier.
const MaxRuleID = 1<<24 - 2

// MaxRules is how many rules a list may have.
const MaxRules = 1<<20 - 1

// Rule is one rule of an ordered list: a packet matches when every part that is
// not empty matches.
type Rule struct {
	ID          uint32  // up to MaxRuleID, reported with the verdict; several rules of a list may share one
	Action      Action  // Allow, Deny, Pass or Log
	Protocols   []Range // IP protocols 0..255, one of them; empty: any. A "not" is given as the complement
	Source      Side
	Destination Side
}

// Side is what a rule asks of one end of a packet.
//
// An ICMP or ICMPv6 packet has source port 0 and destination port type<<8 |
// code. A packet without ports has 0 and 0.
type Side struct {
	Nets, NotNets []netip.Prefix // one of Nets contains the address (empty: any); none of NotNets does. All of a list are of one family
	Sets, NotSets []SetID        // every one of Sets contains the address; none of NotSets does
	Ports         []Range        // one of these; empty: any. A "not" is given as the complement
}

// Validate reports the first fault of a list, naming the rule by its position
// from 0 and its ID. A list without faults can be compiled, budget permitting.
func Validate(list []Rule) error {
	if len(list) > MaxRules {
		return fmt.Errorf("check list: %d rules, want at most %d", len(list), MaxRules)
	}
	family := 0 // 4 or 6 from the first prefix on
	for i := range list {
		if err := list[i].check(&family); err != nil {
			return fmt.Errorf("check rule %d of %d (id %d): %w", i, len(list), list[i].ID, err)
		}
	}
	return nil
}

// check reports the rule's first fault. family is the list's, 0 while unknown.
func (r *Rule) check(family *int) error {
	if r.ID > MaxRuleID {
		return fmt.Errorf("id is over %d", MaxRuleID)
	}
	if r.Action < Allow || r.Action > Log {
		return fmt.Errorf("%v is not what a rule can do, want allow, deny, pass or log", r.Action)
	}
	for _, p := range r.Protocols {
		if p.First > p.Last || p.Last > 255 {
			return fmt.Errorf("protocols %d-%d, want a range within 0-255", p.First, p.Last)
		}
	}
	if err := r.Source.check(family); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if err := r.Destination.check(family); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	return nil
}

// check reports the side's first fault.
func (s *Side) check(family *int) error {
	for _, nets := range [][]netip.Prefix{s.Nets, s.NotNets} {
		for _, n := range nets {
			if err := checkNet(n, family); err != nil {
				return err
			}
		}
	}
	for _, sets := range [][]SetID{s.Sets, s.NotSets} {
		for _, id := range sets {
			if id == 0 || id&AnonymousSet != 0 {
				return fmt.Errorf("set %#x, want 1 to %#x", uint32(id), uint32(AnonymousSet-1))
			}
		}
	}
	for _, p := range s.Ports {
		if p.First > p.Last {
			return fmt.Errorf("ports %d-%d, want the lower one first", p.First, p.Last)
		}
	}
	return nil
}

// checkNet reports a prefix that is none, or not of the list's family.
func checkNet(n netip.Prefix, family *int) error {
	if !n.IsValid() {
		return fmt.Errorf("a prefix that is not valid")
	}
	if n.Addr().Is4In6() {
		return fmt.Errorf("prefix %v, want it as IPv4", n)
	}
	is := 6
	if n.Addr().Is4() {
		is = 4
	}
	if *family == 0 {
		*family = is
	}
	if *family != is {
		return fmt.Errorf("prefix %v is of IPv%d, the list is of IPv%d: give each family a list of its own", n, is, *family)
	}
	return nil
}

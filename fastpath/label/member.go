package label

import (
	"cmp"
	"iter"
	"net/netip"

	"margay.dev/margay/classifier"
)

// member is one membership: a prefix in a set, and how often it joined.
type member struct {
	key
	set    classifier.SetID
	joined uint32 // how often; the prefix's length and family in the upper 8 bits
}

const (
	joinedMax = 1<<lengthShift - 1
	ipv4Code  = 129 // of length 0; lengths of IPv6 stand for themselves
)

func newMember(set classifier.SetID, p prefix) member {
	code := p.bits
	if !p.ipv6 {
		code += ipv4Code
	}
	return member{p.key, set, uint32(code) << lengthShift}
}

func (m *member) prefix() prefix {
	code := uint8(m.joined >> lengthShift)
	if code >= ipv4Code {
		return prefix{m.key, code - ipv4Code, false}
	}
	return prefix{m.key, code, true}
}

func (m *member) times() int { return int(m.joined & joinedMax) }

// compareMembers sorts by set, and what is of one set in some order.
func compareMembers(a, b member) int {
	switch {
	case a.set != b.set:
		return cmp.Compare(a.set, b.set)
	case a.key != b.key:
		return a.key.compare(b.key)
	}
	return cmp.Compare(a.joined>>lengthShift, b.joined>>lengthShift)
}

// members are all memberships.
type members struct{ sorted[member] }

// times is how often m's prefix is in m's set.
func (ms *members) times(m member) int {
	if s, ok := ms.find(m); ok {
		return ms.at(s).times()
	}
	return 0
}

// put makes it so many times; 0 takes the membership away.
func (ms *members) put(m member, times int) {
	s, ok := ms.find(m)
	m.joined = m.joined&^joinedMax | uint32(times)
	switch {
	case times == 0 && ok:
		ms.remove(s)
	case ok:
		*ms.at(s) = m
	case times > 0:
		ms.insert(s, m)
	}
}

// of yields the memberships of a set.
func (ms *members) of(set classifier.SetID) iter.Seq[*member] {
	return func(yield func(*member) bool) {
		s, _ := ms.find(member{set: set})
		for m := ms.at(s); m != nil && m.set == set; m = ms.at(s) {
			if !yield(m) {
				return
			}
			s = ms.next(s)
		}
	}
}

// Prefixes yields the prefixes that are in a set and how often each joined it, in
// no order. The loop's body must not change the table.
func (t *Table) Prefixes(set classifier.SetID) iter.Seq2[netip.Prefix, int] {
	return func(yield func(netip.Prefix, int) bool) {
		for m := range t.members.of(set) {
			if !yield(m.prefix().netip(), m.times()) {
				return
			}
		}
	}
}

// Holds tells whether exactly p has joined set.
func (t *Table) Holds(set classifier.SetID, p netip.Prefix) bool {
	q, err := check(set, p)
	return err == nil && t.members.times(newMember(set, q)) > 0
}

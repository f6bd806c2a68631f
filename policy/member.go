package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
)

// member is a prefix in 17 bytes without a pointer, since a set may have a
// million: the address, then its bits, from v4Bits on for IPv4.
type member [17]byte

const v4Bits = 129

// memberOf packs a masked prefix.
func memberOf(p netip.Prefix) (m member) {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		copy(m[:], a[:])
		m[16] = v4Bits + byte(p.Bits())
		return m
	}
	a := p.Addr().As16()
	copy(m[:], a[:])
	m[16] = byte(p.Bits())
	return m
}

// prefix unpacks it.
func (m member) prefix() netip.Prefix {
	if m[16] >= v4Bits {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(m[:4])), int(m[16]-v4Bits))
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(m[:16])), int(m[16]))
}

func (m member) compare(n member) int { return bytes.Compare(m[:], n[:]) }

// parsePrefix reads a CIDR or an address, masks it, and gives IPv4 in IPv6 as
// IPv4.
func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.64q is no address and no CIDR: write one as 10.0.0.0/8 or 2001:db8::1", text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	p = p.Masked()
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// members reads prefixes, each once and sorted, and tells of those that cannot
// be read.
func members(texts []string, field string, tell func(fault string)) []member {
	out := make([]member, 0, len(texts))
	for i, text := range texts {
		p, err := parsePrefix(text)
		if err != nil {
			tell(fmt.Sprintf("%s[%d]: %v; it is left out", field, i, err))
			continue
		}
		out = append(out, memberOf(p))
	}
	slices.SortFunc(out, member.compare)
	return slices.Compact(out)
}

// compareMembers calls gone for what only a has and come for what only b has.
// Both are sorted.
func compareMembers(a, b []member, gone, come func(member)) {
	for len(a) > 0 || len(b) > 0 {
		switch order := compareHeads(a, b); {
		case order < 0:
			gone(a[0])
			a = a[1:]
		case order > 0:
			come(b[0])
			b = b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
}

// compareHeads compares the first of each; what is empty comes last.
func compareHeads(a, b []member) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return a[0].compare(b[0])
}

// memberSet counts who brings each member, and knows which members were told.
type memberSet struct {
	id      classifier.SetID
	name    string
	told    bool // that there is such a set
	live    int  // members that somebody brings
	counts  map[member]uint32
	changed []member // whose told bit may differ from whether anybody brings them
}

// Bits of a member's count; the rest is how many bring it.
const (
	memberTold    = 1 << 31
	memberChanged = 1 << 30 // it is in changed
	memberCount   = memberChanged - 1
)

// bring counts one more, or one less, that has the member.
func (s *memberSet) bring(m member, more bool) {
	n := s.counts[m]
	switch {
	case more:
		if n++; n&memberCount == 1 {
			s.live++
		}
	default:
		if n--; n&memberCount == 0 {
			s.live--
		}
	}
	if n&memberChanged == 0 && (n&memberCount > 0) != (n&memberTold != 0) {
		n |= memberChanged
		s.changed = append(s.changed, m)
	}
	s.counts[m] = n
}

// tell gives what joined and left since the last time, sorted.
func (s *memberSet) tell() (joined, left []netip.Prefix) {
	slices.SortFunc(s.changed, member.compare)
	for _, m := range s.changed {
		n := s.counts[m]
		is, was := n&memberCount > 0, n&memberTold != 0
		switch {
		case is && !was:
			joined = append(joined, m.prefix())
		case was && !is:
			left = append(left, m.prefix())
		}
		if !is {
			delete(s.counts, m)
		} else {
			s.counts[m] = n&memberCount | memberTold
		}
	}
	s.changed = nil
	return joined, left
}

// all are the members that were told, sorted.
func (s *memberSet) all() []netip.Prefix {
	var told []member
	for m, n := range s.counts {
		if n&memberTold != 0 {
			told = append(told, m)
		}
	}
	slices.SortFunc(told, member.compare)
	out := make([]netip.Prefix, len(told))
	for i, m := range told {
		out[i] = m.prefix()
	}
	return out
}

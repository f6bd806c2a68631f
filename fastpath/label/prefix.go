package label

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"margay.dev/margay/classifier"
)

// key is an address of either family, left-aligned in 128 bits: an IPv4
// address fills the upper 32.
type key struct{ hi, lo uint64 }

// under says whether k begins with the first n bits of o.
func (k key) under(o key, n uint8) bool {
	m := maskOf(n)
	return (k.hi^o.hi)&m.hi|(k.lo^o.lo)&m.lo == 0
}

// masked keeps the first n bits.
func (k key) masked(n uint8) key {
	m := maskOf(n)
	return key{k.hi & m.hi, k.lo & m.lo}
}

// maskOf has the first n of 128 bits set.
func maskOf(n uint8) key {
	return key{^uint64(0) << (64 - min(n, 64)), ^uint64(0) << (128 - max(n, 64))}
}

func (k key) compare(o key) int {
	switch {
	case k.hi < o.hi || k.hi == o.hi && k.lo < o.lo:
		return -1
	case k == o:
		return 0
	}
	return 1
}

// prefix is a netip.Prefix without its pointer. A prefix sorts behind all that
// cover it, and what it covers follows it without a gap.
type prefix struct {
	key
	bits uint8
	ipv6 bool
}

func (p prefix) compare(o prefix) int {
	switch {
	case p.ipv6 != o.ipv6 && o.ipv6:
		return -1
	case p.ipv6 != o.ipv6:
		return 1
	case p.key != o.key:
		return p.key.compare(o.key)
	}
	return int(p.bits) - int(o.bits)
}

// netip is the way back.
func (p prefix) netip() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.hi)
	binary.BigEndian.PutUint64(b[8:], p.lo)
	if p.ipv6 {
		return netip.PrefixFrom(netip.AddrFrom16(b), int(p.bits))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(p.bits))
}

// keyOf turns an address that is valid and not IPv4-mapped into a key.
func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// check turns a prefix that may be a member into our form. (A zone cannot
// occur: netip takes it off when it makes a prefix.)
func check(set classifier.SetID, p netip.Prefix) (prefix, error) {
	switch {
	case set == 0:
		return prefix{}, fmt.Errorf("set is 0, want at least 1: %w", ErrSet)
	case !p.IsValid():
		return prefix{}, fmt.Errorf("prefix is invalid: %w", ErrPrefix)
	case p.Addr().Is4In6():
		return prefix{}, fmt.Errorf("prefix %s is IPv4 mapped into IPv6, want plain IPv4: %w", p, ErrPrefix)
	case p != p.Masked():
		return prefix{}, fmt.Errorf("prefix %s has bits set behind its length, want %s: %w", p, p.Masked(), ErrPrefix)
	}
	return prefix{keyOf(p.Addr()), uint8(p.Bits()), p.Addr().Is6()}, nil
}

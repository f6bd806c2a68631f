package v3

import (
	"fmt"
	"net/netip"
	"strings"
)

// ParseNet reads an entry of a list of nets: a CIDR, whose host bits are dropped,
// or an address, which is a CIDR of all its bits. An IPv4 address in IPv6's
// clothes is refused, and an address with a zone.
func ParseNet(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := ParseIP(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR: want one as 10.0.0.0/8 or fd00::/8", cut(text))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is IPv4 within IPv6: write it as IPv4", cut(text))
	}
	return p.Masked(), nil
}

// ParseIP reads an address. An IPv4 address in IPv6's clothes is refused, and an
// address with a zone.
func ParseIP(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q is no address: want one as 10.0.0.1 or fd00::1", cut(text))
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is IPv4 within IPv6: write it as IPv4", cut(text))
	}
	return a, nil
}

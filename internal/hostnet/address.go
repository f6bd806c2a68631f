//go:build linux

package hostnet

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddressFlags are the kernel's IFA_F_* bits.
type AddressFlags uint32

// The flags that AddAddress takes; Address tells these and the kernel's others.
const (
	NoPrefixRoute    AddressFlags = unix.IFA_F_NOPREFIXROUTE // no route to the prefix comes with the address
	NoDAD            AddressFlags = unix.IFA_F_NODAD         // no duplicate address detection (IPv6; RFC 4862 section 5.4)
	AddressTentative AddressFlags = unix.IFA_F_TENTATIVE     // duplicate address detection is not done: read only
)

// An Address is one of a link's.
type Address struct {
	Link   int // index
	Prefix netip.Prefix
	Scope  Scope
	Flags  AddressFlags
}

// AddAddress gives the link an address. One that is there already gets the new
// flags, which is no error. IPv4 link-local addresses (RFC 3927) get link scope.
func (h *Host) AddAddress(link string, p netip.Prefix, flags AddressFlags) error {
	err := h.changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, link, p, flags)
	if err != nil {
		return fmt.Errorf("add address %v to %s: %w", p, link, err)
	}
	return nil
}

// DeleteAddress takes an address from the link. One that is not there, or a
// link that is not, is no error.
func (h *Host) DeleteAddress(link string, p netip.Prefix) error {
	err := h.changeAddress(unix.RTM_DELADDR, 0, link, p, 0)
	if err != nil && !Missing(err) {
		return fmt.Errorf("delete address %v from %s: %w", p, link, err)
	}
	return nil
}

func (h *Host) changeAddress(msg uint16, how int, link string, p netip.Prefix, flags AddressFlags) error {
	if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fmt.Errorf("%v is no address with a prefix length", p)
	}
	l, err := h.Link(link)
	if err != nil {
		return err
	}
	var scope byte
	if p.Addr().Is4() && p.Addr().IsLinkLocalUnicast() {
		scope = unix.RT_SCOPE_LINK
	}
	head := raw{family(p.Addr()), byte(p.Bits()), 0, scope}
	head = native.AppendUint32(head, uint32(l.Index))
	address := p.Addr().AsSlice()
	return h.conn.change(msg, how, head, attr(unix.IFA_LOCAL, address), attr(unix.IFA_ADDRESS, address),
		attr(unix.IFA_FLAGS, u32(uint32(flags))))
}

// Addresses reads the addresses of one link, or of all links for the empty name.
func (h *Host) Addresses(link string) ([]Address, error) {
	index := 0
	if link != "" {
		l, err := h.Link(link)
		if err != nil {
			return nil, fmt.Errorf("read addresses: %w", err)
		}
		index = l.Index
	}
	msgs, err := h.conn.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, raw(make([]byte, unix.SizeofIfAddrmsg)))
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var out []Address
	for _, m := range msgs {
		if a, ok := parseAddress(m); ok && (index == 0 || a.Link == index) {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseAddress reads RTM_NEWADDR and RTM_DELADDR of IPv4 and IPv6.
func parseAddress(m []byte) (a Address, ok bool) {
	if len(m) < unix.SizeofIfAddrmsg || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
		return Address{}, false
	}
	a.Link = int(native.Uint32(m[4:]))
	a.Scope = Scope(m[3])
	a.Flags = AddressFlags(m[2])
	var local, address netip.Addr
	walk(m[unix.SizeofIfAddrmsg:], func(kind int, v []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS: // the far end, where the link is point to point
			address, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			a.Flags = AddressFlags(number(v))
		}
	})
	if !local.IsValid() {
		local = address
	}
	a.Prefix = netip.PrefixFrom(local, int(m[1]))
	return a, a.Prefix.IsValid()
}

// family is the kernel's number for an address's family.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

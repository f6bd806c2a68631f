package fabric

import (
	"encoding/base64"
	"net"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"margay.dev/margay/api/selector"
)

// Lengths of the prefixes that nodes take from pools, by family.
const (
	defaultBlock4, minBlock4 = 26, 20
	defaultBlock6, minBlock6 = 122, 116
)

// Default fills in what a pool does not say.
func (s *IPPoolSpec) Default() {
	if s.VXLANMode == "" {
		s.VXLANMode = EncapNever
	}
	if s.IPIPMode == "" {
		s.IPIPMode = EncapNever
	}
	if s.NodeSelector == "" {
		s.NodeSelector = "all()"
	}
	if len(s.AllowedUses) == 0 {
		s.AllowedUses = []PoolUse{UseWorkload, UseTunnel}
	}
	if s.AssignmentMode == nil {
		mode := AssignAutomatic
		s.AssignmentMode = &mode
	}
	if c, err := netip.ParsePrefix(s.CIDR); err == nil && s.BlockSize == 0 {
		s.BlockSize = defaultBlock4
		if !c.Addr().Is4() {
			s.BlockSize = defaultBlock6
		}
	}
}

// Validate gives every fault of the pool that stands at p.
func (s *IPPoolSpec) Validate(p *field.Path) (all field.ErrorList) {
	c, fault := cidr(p.Child("cidr"), s.CIDR)
	all = append(all, fault...)
	if fault == nil {
		all = append(all, s.rangeFaults(p, c)...)
	}
	all = append(all, oneOf(p.Child("vxlanMode"), s.VXLANMode, EncapNever, EncapAlways, EncapCrossSubnet)...)
	all = append(all, oneOf(p.Child("ipipMode"), s.IPIPMode, EncapNever, EncapAlways, EncapCrossSubnet)...)
	if s.VXLANMode != EncapNever && s.IPIPMode != EncapNever {
		all = append(all, field.Forbidden(p.Child("ipipMode"), "not beside vxlanMode: make one of them Never"))
	}
	all = append(all, picks(p.Child("nodeSelector"), s.NodeSelector)...)
	all = append(all, picks(p.Child("namespaceSelector"), s.NamespaceSelector)...)
	if s.AssignmentMode != nil {
		all = append(all, oneOf(p.Child("assignmentMode"), *s.AssignmentMode, AssignAutomatic, AssignManual)...)
	}
	return append(all, s.useFaults(p)...)
}

// rangeFaults are those of the pool's range.
func (s *IPPoolSpec) rangeFaults(p *field.Path, c netip.Prefix) (all field.ErrorList) {
	bad := func(name string, value any, want string) {
		all = append(all, field.Invalid(p.Child(name), value, want))
	}
	if c != c.Masked() {
		bad("cidr", s.CIDR, "want no bits beyond its length: "+c.Masked().String())
	}
	for _, local := range []string{"169.254.0.0/16", "fe80::/10"} {
		if c.Overlaps(netip.MustParsePrefix(local)) {
			bad("cidr", s.CIDR, "want nothing of "+local+", which holds on one link alone")
		}
	}
	least := minBlock4
	if !c.Addr().Is4() {
		least = minBlock6
		if s.IPIPMode != EncapNever {
			bad("ipipMode", s.IPIPMode, "want Never: IPIP is for IPv4 alone")
		}
	}
	switch {
	case s.BlockSize < least || s.BlockSize > c.Addr().BitLen():
		all = append(all, field.Invalid(p.Child("blockSize"), s.BlockSize, "want 20 to 32 for IPv4, 116 to 128 for IPv6"))
	case c.Bits() > s.BlockSize && !s.Disabled:
		bad("cidr", s.CIDR, "want room for a block at least: a shorter prefix, or a greater blockSize")
	}
	return all
}

// useFaults are those of what the addresses are for.
func (s *IPPoolSpec) useFaults(p *field.Path) (all field.ErrorList) {
	at := p.Child("allowedUses")
	seen := make(map[PoolUse]bool)
	for i, use := range s.AllowedUses {
		if all = append(all, oneOf(at.Index(i), use, UseWorkload, UseTunnel, UseLoadBalancer)...); seen[use] {
			all = append(all, field.Duplicate(at.Index(i), cut(string(use))))
		}
		seen[use] = true
	}
	if seen[UseTunnel] && s.NamespaceSelector != "" {
		all = append(all, field.Forbidden(p.Child("namespaceSelector"), "ends of tunnels are in no namespace: take it out, or Tunnel out of allowedUses"))
	}
	if !seen[UseLoadBalancer] {
		return all
	}
	for _, fault := range []struct {
		is        bool
		name, why string
	}{
		{len(seen) > 1, "allowedUses", "LoadBalancer stands alone: make two pools of it"},
		{s.VXLANMode != EncapNever, "vxlanMode", "addresses of services are never tunnelled to: want Never"},
		{s.IPIPMode != EncapNever, "ipipMode", "addresses of services are never tunnelled to: want Never"},
		{s.DisableBGPExport, "disableBGPExport", "addresses of services must be told: take it out"},
		{s.NodeSelector != "all()", "nodeSelector", "addresses of services belong to no node: want all()"},
	} {
		if fault.is {
			all = append(all, field.Forbidden(p.Child(fault.name), fault.why))
		}
	}
	return all
}

// Validate gives every fault of the node that stands at p.
func (s *NodeSpec) Validate(p *field.Path) (all field.ErrorList) {
	if b := s.BGP; b != nil {
		at := p.Child("bgp")
		all = append(all, hostNet(at.Child("ipv4Address"), b.IPv4Address, 4)...)
		all = append(all, hostNet(at.Child("ipv6Address"), b.IPv6Address, 6)...)
		all = append(all, address(at.Child("ipv4IPIPTunnelAddr"), b.IPv4IPIPTunnelAddr, 4)...)
		all = append(all, address(at.Child("routeReflectorClusterID"), b.RouteReflectorClusterID, 4)...)
	}
	all = append(all, address(p.Child("ipv4VXLANTunnelAddr"), s.IPv4VXLANTunnelAddr, 4)...)
	all = append(all, mac(p.Child("vxlanTunnelMACAddr"), s.VXLANTunnelMACAddr)...)
	all = append(all, address(p.Child("ipv6VXLANTunnelAddr"), s.IPv6VXLANTunnelAddr, 6)...)
	all = append(all, mac(p.Child("vxlanTunnelMACAddrV6"), s.VXLANTunnelMACAddrV6)...)
	for i, r := range s.OrchRefs {
		if r.Orchestrator == "" {
			all = append(all, field.Required(p.Child("orchRefs").Index(i).Child("orchestrator"), "say who calls the node so, as k8s"))
		}
	}
	if w := s.Wireguard; w != nil {
		at := p.Child("wireguard")
		all = append(all, address(at.Child("interfaceIPv4Address"), w.InterfaceIPv4Address, 4)...)
		all = append(all, address(at.Child("interfaceIPv6Address"), w.InterfaceIPv6Address, 6)...)
	}
	for i, a := range s.Addresses {
		at := p.Child("addresses").Index(i)
		all = append(all, some(at.Child("address"), a.Address)...)
		all = append(all, oneOf(at.Child("type"), a.Type, "", CalicoNodeIP, InternalIP, ExternalIP)...)
	}
	for i, f := range s.Interfaces {
		at := p.Child("interfaces").Index(i)
		if f.Name == "" {
			all = append(all, field.Required(at.Child("name"), "want the interface's name"))
		}
		for j, a := range f.Addresses {
			all = append(all, some(at.Child("addresses").Index(j), a)...)
		}
	}
	return all
}

// Validate gives every fault of what stands at p.
func (s *NodeStatus) Validate(p *field.Path) (all field.ErrorList) {
	for _, k := range []struct{ name, key string }{{"wireguardPublicKey", s.WireguardPublicKey}, {"wireguardPublicKeyV6", s.WireguardPublicKeyV6}} {
		if b, err := base64.StdEncoding.DecodeString(k.key); k.key != "" && (err != nil || len(b) != 32) {
			all = append(all, field.Invalid(p.Child(k.name), cut(k.key), "want a key of 32 bytes in base64"))
		}
	}
	for i, c := range s.PodCIDRs {
		_, fault := cidr(p.Child("podCIDRs").Index(i), c)
		all = append(all, fault...)
	}
	return all
}

// cidr wants a prefix.
func cidr(p *field.Path, text string) (netip.Prefix, field.ErrorList) {
	c, err := netip.ParsePrefix(text)
	if err != nil || c.Addr().Is4In6() {
		return c, field.ErrorList{field.Invalid(p, cut(text), "want a CIDR as 10.0.0.0/8 or fd00::/8")}
	}
	return c, nil
}

// hostNet wants an address of a family with or without the bits of its network,
// or nothing.
func hostNet(p *field.Path, text string, family int) field.ErrorList {
	if c, err := netip.ParsePrefix(text); err == nil {
		text = c.Addr().String()
	}
	return address(p, text, family)
}

// some wants an address of either family, with or without the bits of its network.
func some(p *field.Path, text string) field.ErrorList {
	if text == "" {
		return field.ErrorList{field.Required(p, "want an address as 10.0.0.1 or fd00::1")}
	}
	if hostNet(p, text, 4) != nil && hostNet(p, text, 6) != nil {
		return field.ErrorList{field.Invalid(p, cut(text), "want an address as 10.0.0.1, 10.0.0.1/24 or fd00::1")}
	}
	return nil
}

// address wants an address of a family, or nothing.
func address(p *field.Path, text string, family int) field.ErrorList {
	a, err := netip.ParseAddr(text)
	if text == "" || err == nil && a.Zone() == "" && !a.Is4In6() && a.Is4() == (family == 4) {
		return nil
	}
	want := "want an IPv4 address as 10.0.0.1"
	if family == 6 {
		want = "want an IPv6 address as fd00::1"
	}
	return field.ErrorList{field.Invalid(p, cut(text), want)}
}

// mac wants six bytes, or nothing.
func mac(p *field.Path, text string) field.ErrorList {
	if m, err := net.ParseMAC(text); text != "" && (err != nil || len(m) != 6) {
		return field.ErrorList{field.Invalid(p, cut(text), "want six bytes, as ee:ee:ee:ee:ee:ee")}
	}
	return nil
}

// picks wants a selector of labels.
func picks(p *field.Path, text string) field.ErrorList {
	switch s, err := selector.ParseField(text); {
	case err != nil:
		return field.ErrorList{field.Invalid(p, cut(text), err.Error())}
	case s.AsksGlobal():
		return field.ErrorList{field.Invalid(p, cut(text), "global() stands in a rule's namespaceSelector only: take it out")}
	}
	return nil
}

// oneOf wants one of some values.
func oneOf[T ~string](p *field.Path, got T, want ...T) field.ErrorList {
	if slices.Contains(want, got) {
		return nil
	}
	return field.ErrorList{field.NotSupported(p, T(cut(string(got))), want)}
}

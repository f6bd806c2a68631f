package desired

import (
	"math/bits"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode"

	pb "margay.dev/margay/api/dataplane/v1"
)

// parser turns objects of the contract into typed ones and notes what is wrong
// with each by itself. What it returns beside a fault is never used.
type parser struct{ *faults }

func (p parser) name(object, field, s string, most int) {
	bad := func(r rune) bool { return r == '/' || !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if s == "" || len(s) > most || s == "." || s == ".." || strings.ContainsFunc(s, bad) {
		p.say("%s: %s is %.64q, want 1 to %d bytes without blanks or slashes", object, field, s, most)
	}
}

// prefix reads "10.0.0.0/8", or an address for a prefix of that address alone.
func (p parser) prefix(object, field, s string, masked bool) netip.Prefix {
	out, err := netip.ParsePrefix(s)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil && a.Zone() == "" {
			out = netip.PrefixFrom(a, a.BitLen())
		}
	}
	switch {
	case !out.IsValid():
		p.say("%s: %s is %.64q, want an address or prefix", object, field, s)
	case out.Addr().Is4In6():
		p.add(object, field, out, "plain IPv4, not mapped into IPv6")
	case masked && out != out.Masked():
		p.add(object, field, out, "no bits behind its length: "+out.Masked().String())
	}
	return out
}

func (p parser) addr(object, field, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil || a.Zone() != "":
		p.say("%s: %s is %.64q, want an address", object, field, s)
	case a.Is4In6():
		p.add(object, field, a, "plain IPv4, not mapped into IPv6")
	case a.IsUnspecified() || a.IsMulticast():
		p.add(object, field, a, "the address of one station")
	}
	return a
}

func (p parser) mac(object, field string, b []byte) (m MAC) {
	switch {
	case len(b) == 0:
		return MAC{}
	case len(b) != len(m):
		p.add(object, field+" length", len(b), "6 bytes, or none")
		return MAC{}
	case b[0]&1 != 0:
		p.say("%s: %s is % x, want the address of one station, not of a group", object, field, b)
	}
	return MAC(b)
}

func (p parser) mtu(object string, mtu uint32) int {
	if mtu != 0 && (mtu < 576 || mtu > 65535) {
		p.add(object, "mtu", mtu, "576 to 65535, or 0")
	}
	return int(mtu)
}

func (p parser) prefixes(object, field string, list []string, masked bool) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, p.prefix(object, field, s, masked))
	}
	return out
}

func (p parser) port(m *pb.Port) *Port {
	object := "port/" + clip(m.GetName())
	p.name(object, "name", m.GetName(), maxName)
	out := &Port{Name: m.GetName(), Device: m.GetDevice(), NetNS: m.GetNetns(), Queues: int(m.GetQueues())}
	if out.Device == "" {
		out.Device = out.Name
	}
	p.name(object, "device", out.Device, maxDevice)
	if n := out.NetNS; n != "" && (!filepath.IsAbs(n) || len(n) > 4096 || strings.ContainsRune(n, 0)) {
		p.say("%s: netns is %.64q, want an absolute path, or nothing", object, n)
	}
	out.MTU = p.mtu(object, m.GetMtu())
	if m.GetQueues() > 256 {
		p.add(object, "queues", m.GetQueues(), "at most 256")
	}
	switch k := m.GetKind().(type) {
	case *pb.Port_Xsk:
		p.xsk(object, out, k.Xsk)
	case *pb.Port_Tun:
		p.tun(object, out, k.Tun)
	default:
		p.add(object, "kind", "missing", "xsk or tun")
	}
	return out
}

func (p parser) xsk(object string, out *Port, m *pb.XskPort) {
	out.Kind, out.Takeover, out.BusyPoll = XSK, m.GetTakeover(), m.GetBusyPoll()
	if m.GetMode() < 0 || m.GetMode() > pb.XskPort_MODE_GENERIC {
		p.add(object, "xsk.mode", int32(m.GetMode()), "a mode of this contract")
	}
	out.Mode = XDPMode(m.GetMode())
	if n := m.GetRingSize(); n != 0 && (bits.OnesCount32(n) != 1 || n < 64 || n > 1<<16) {
		p.add(object, "xsk.ring_size", n, "a power of two from 64 to 65536, or 0")
	}
	out.RingSize = int(m.GetRingSize())
}

func (p parser) tun(object string, out *Port, m *pb.TunPort) {
	out.Kind, out.Keep = TUN, m.GetKeep()
	out.Addresses = p.prefixes(object, "tun.addresses", m.GetAddresses(), false)
	out.Routes = p.prefixes(object, "tun.routes", m.GetRoutes(), true)
	if len(m.GetMac()) != 0 {
		p.add(object, "tun.mac", "set", "nothing: it is reserved for TAP")
	}
}

func (p parser) address(m *pb.Address) Address {
	object := "address/" + clip(m.GetPort()) + "/" + clip(m.GetPrefix())
	out := Address{Port: m.GetPort(), Prefix: p.prefix(object, "prefix", m.GetPrefix(), false)}
	if a := out.Prefix.Addr(); a.IsValid() && (a.IsUnspecified() || a.IsMulticast()) {
		p.add(object, "prefix", out.Prefix, "the address of one station")
	}
	return out
}

func (p parser) nextHop(m *pb.NextHop) *NextHop {
	object := hopName(m.GetId())
	out := &NextHop{ID: m.GetId(), Kind: HopKind(m.GetKind())}
	if m.GetId() < 1 || m.GetId() > MaxNextHop {
		p.add(object, "id", m.GetId(), "1 to 16777215")
	}
	switch n := len(m.GetMembers()); {
	case m.GetKind() < pb.NextHop_KIND_FORWARD || m.GetKind() > pb.NextHop_KIND_PUNT:
		p.add(object, "kind", int32(m.GetKind()), "a kind of this contract")
	case out.Kind == Forward && (n < 1 || n > MaxMembers):
		p.add(object, "members", n, "1 to 128")
	case out.Kind != Forward && n > 0:
		p.add(object, "members", n, "none for kind "+out.Kind.String())
	}
	type way struct {
		port    string
		gateway netip.Addr
	}
	seen := map[way]bool{}
	for _, m := range m.GetMembers() {
		member := p.member(object, m)
		if w := (way{member.Port, member.Gateway}); seen[w] {
			p.say("%s: members name port %q and gateway %v twice", object, w.port, w.gateway)
		} else {
			seen[w] = true
		}
		out.Members = append(out.Members, member)
	}
	return out
}

func (p parser) member(object string, m *pb.NextHop_Member) Member {
	out := Member{Port: m.GetPort(), Weight: uint16(max(1, min(m.GetWeight(), 65535))), MAC: p.mac(object, "member mac", m.GetMac())}
	if m.GetWeight() > 65535 {
		p.add(object, "member weight", m.GetWeight(), "at most 65535")
	}
	if m.GetGateway() != "" {
		out.Gateway = p.addr(object, "member gateway", m.GetGateway())
	} else if len(m.GetMac()) != 0 {
		p.add(object, "member mac", "set", "nothing where there is no gateway")
	}
	return out
}

func (p parser) endpoint(m *pb.Endpoint) *Endpoint {
	object := "endpoint/" + clip(m.GetId())
	if m.GetId() == "" || len(m.GetId()) > 512 {
		p.add(object, "id length", len(m.GetId()), "1 to 512 bytes")
	}
	if m.GetPolicy() < 0 || m.GetPolicy() > pb.Endpoint_POLICY_ENFORCED {
		p.add(object, "policy", int32(m.GetPolicy()), "a policy state of this contract")
	}
	if len(m.GetEgress())+len(m.GetIngress())+len(m.GetStagedEgress())+len(m.GetStagedIngress()) > 0 && m.GetPolicy() != pb.Endpoint_POLICY_ENFORCED {
		p.add(object, "policy", m.GetPolicy(), "POLICY_ENFORCED where there are stages")
	}
	if m.GetHost() && (len(m.GetAddresses()) > 0 || len(m.GetMac()) > 0 || m.GetHostDenied()) {
		p.say("%s: it is a host's and has addresses, a mac or host_denied: want none, a host endpoint judges what passes its port", object)
	}
	return &Endpoint{
		Host: m.GetHost(), ID: m.GetId(), Port: m.GetPort(), MAC: p.mac(object, "mac", m.GetMac()),
		Addresses: p.prefixes(object, "addresses", m.GetAddresses(), true),
		Policy:    Policy(m.GetPolicy()), Egress: p.stages(object, "egress", m.GetEgress()), Ingress: p.stages(object, "ingress", m.GetIngress()), HostDenied: m.GetHostDenied(),
		StagedEgress: p.stages(object, "staged_egress", m.GetStagedEgress()), StagedIngress: p.stages(object, "staged_ingress", m.GetStagedIngress()),
	}
}

func (p parser) hostPort(m *pb.HostPort) *HostPort {
	const object = "host-port"
	out := &HostPort{Name: m.GetName(), MTU: p.mtu(object, m.GetMtu())}
	if out.Name == "" {
		out.Name = "margay0"
	}
	if out.MTU == 0 {
		out.MTU = 1500
	}
	p.name(object, "name", out.Name, maxDevice)
	families := map[bool]int{}
	for _, s := range m.GetAddresses() {
		a := p.prefix(object, "addresses", s, false)
		if a.IsValid() && !a.IsSingleIP() {
			p.add(object, "addresses", a, "an address, not a prefix")
		}
		families[a.Addr().Is4()]++
		out.Addresses = append(out.Addresses, a.Addr())
	}
	if families[true] > 1 || families[false] > 1 {
		p.add(object, "addresses", len(out.Addresses), "at most one per family")
	}
	out.Routes = p.prefixes(object, "routes", m.GetRoutes(), true)
	out.Guarded = p.prefixes(object, "guarded", m.GetGuarded(), true)
	return out
}

func (p parser) steering(m *pb.Steering) Steering {
	const object = "steering"
	out := Steering{Prefixes: p.prefixes(object, "prefixes", m.GetPrefixes(), true)}
	for _, s := range m.GetLocal() {
		out.Local = append(out.Local, p.addr(object, "local", s))
	}
	for _, s := range m.GetServices() {
		if s.GetProtocol() > 255 || s.GetFirst() > s.GetLast() || s.GetLast() > 65535 {
			p.say("%s: service of protocol %d is %d to %d, want a protocol up to 255 and a rising range up to 65535",
				object, s.GetProtocol(), s.GetFirst(), s.GetLast())
		}
		out.Services = append(out.Services, Service{uint8(s.GetProtocol()), uint16(s.GetFirst()), uint16(s.GetLast())})
	}
	return out
}

// clip keeps a client's key short in a message.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:61] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

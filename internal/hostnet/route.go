//go:build linux

package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// Protocol marks routes as Margay's own, so that a sweep knows them
	// (ip route shows "proto 77"; the kernel and iproute2 leave it unused).
	Protocol uint8 = 77

	// TableMain and TableLocal are the kernel's own routing tables.
	TableMain  = unix.RT_TABLE_MAIN
	TableLocal = unix.RT_TABLE_LOCAL

	metricDefault6 = 1024 // what the kernel makes of metric 0 in IPv6
)

// RouteKind is what becomes of a packet that the route matches (RTN_*).
type RouteKind uint8

// The kinds. The zero value means Unicast where a route is written.
const (
	Unicast     RouteKind = unix.RTN_UNICAST
	Local       RouteKind = unix.RTN_LOCAL
	Broadcast   RouteKind = unix.RTN_BROADCAST
	Anycast     RouteKind = unix.RTN_ANYCAST
	Multicast   RouteKind = unix.RTN_MULTICAST
	Blackhole   RouteKind = unix.RTN_BLACKHOLE   // dropped, in silence
	Unreachable RouteKind = unix.RTN_UNREACHABLE // dropped, with an ICMP error
	Prohibit    RouteKind = unix.RTN_PROHIBIT    // dropped, with an ICMP error that names policy
	Throw       RouteKind = unix.RTN_THROW       // looked for in the next table
)

// Scope is how far a route or address reaches (RT_SCOPE_*).
type Scope uint8

// The scopes.
const (
	ScopeUniverse Scope = unix.RT_SCOPE_UNIVERSE
	ScopeLink     Scope = unix.RT_SCOPE_LINK
	ScopeHost     Scope = unix.RT_SCOPE_HOST
)

// A Hop is one of several next hops of a route.
type Hop struct {
	Link    int        // index
	Gateway netip.Addr // zero value for none
	Weight  int        // 1 to 256; 0 is 1
	OnLink  bool       `json:",omitempty"`
}

// A Route is one entry of the kernel's routing tables. Zero fields take what
// their comment says when the route is written.
type Route struct {
	Dst      netip.Prefix // masked; a default route is 0.0.0.0/0 or ::/0
	Kind     RouteKind    // 0 is Unicast
	Link     int          // index; 0 for kinds that drop, and where Hops are given
	Gateway  netip.Addr   // may be IPv6 under an IPv4 Dst (RFC 5549)
	OnLink   bool         // the gateway is on the link although no route says so
	Hops     []Hop        `json:",omitempty"` // several next hops, instead of Link and Gateway
	Source   netip.Addr   // preferred source address of the host's own packets
	Metric   int          // less is better; 0 is 0 in IPv4 and 1024 in IPv6, as the kernel has it
	Table    int          // 0 is TableMain
	Protocol uint8        // 0 is Protocol, ours
	Scope    Scope        // IPv4; 0 is ScopeLink for a unicast route without gateway
	MTU      int          // octets; 0 for the link's
}

// link is the index, but for kinds that drop, where IPv6 tells loopback and IPv4 tells none.
func (r Route) link() int {
	switch r.Kind {
	case Blackhole, Unreachable, Prohibit, Throw:
		return 0
	}
	return r.Link
}

// Canonical fills in what zero fields stand for, so that a route written and
// the same route read back are Equal.
func (r Route) Canonical() Route {
	four := r.Dst.Addr().Is4()
	if r.Kind == 0 {
		r.Kind = Unicast
	}
	if r.Table == 0 {
		r.Table = TableMain
	}
	if r.Protocol == 0 {
		r.Protocol = Protocol
	}
	if r.Metric == 0 && !four {
		r.Metric = metricDefault6
	}
	if four && r.Scope == ScopeUniverse && r.Kind == Unicast && !r.Gateway.IsValid() && len(r.Hops) == 0 {
		r.Scope = ScopeLink
	}
	r.Link = r.link()
	r.Hops = slices.Clone(r.Hops)
	for i := range r.Hops {
		r.Hops[i].Weight = max(r.Hops[i].Weight, 1)
	}
	return r
}

// Equal tells whether two routes are the same in every field, the order of
// hops included. A route to be written is compared in its
// Canonical form.
func (r Route) Equal(o Route) bool {
	return r.Dst == o.Dst && r.Kind == o.Kind && r.Link == o.Link && r.Gateway == o.Gateway && r.OnLink == o.OnLink &&
		slices.Equal(r.Hops, o.Hops) && r.Source == o.Source && r.Metric == o.Metric && r.Table == o.Table &&
		r.Protocol == o.Protocol && r.Scope == o.Scope && r.MTU == o.MTU
}

// Validate tells whether a canonical route can be written at all.
func (r Route) Validate() error {
	switch {
	case !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().Is4In6():
		return fmt.Errorf("destination %v is no prefix (bits beyond its length must be 0)", r.Dst)
	case r.Metric < 0 || r.Table < 0 || r.MTU < 0:
		return errors.New("metric, table and MTU must not be negative")
	case r.Kind == Unicast && r.Link == 0 && len(r.Hops) == 0 && !r.Gateway.IsValid():
		return errors.New("a unicast route needs a link, a gateway or hops")
	case r.Source.IsValid() && r.Source.Is4() != r.Dst.Addr().Is4():
		return fmt.Errorf("source %v is of the other family than %v", r.Source, r.Dst)
	}
	for _, hop := range r.Hops {
		if hop.Weight > 256 {
			return fmt.Errorf("weight %d, want 1 to 256", hop.Weight)
		}
	}
	return nil
}

// ReplaceRoute writes a route in place of one to the same destination with the
// same metric in the same table, or as a new one.
func (h *Host) ReplaceRoute(r Route) error {
	r = r.Canonical()
	if err := r.Validate(); err != nil {
		return fmt.Errorf("replace route: %w", err)
	}
	if err := h.conn.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r.encode(r.Scope)...); err != nil {
		return fmt.Errorf("replace route to %v: %w", r.Dst, err)
	}
	return nil
}

// DeleteRoute removes the route with this destination, kind, metric, table and
// protocol, and link and gateway where given. One that is not there is no error.
func (h *Host) DeleteRoute(r Route) error {
	r = r.Canonical()
	if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
		return fmt.Errorf("delete route: destination %v is no prefix", r.Dst)
	}
	r.Source, r.MTU = netip.Addr{}, 0
	err := h.conn.change(unix.RTM_DELROUTE, 0, r.encode(unix.RT_SCOPE_NOWHERE)...) // nowhere: of any scope
	if err != nil && !Missing(err) {
		return fmt.Errorf("delete route to %v: %w", r.Dst, err)
	}
	return nil
}

// A RouteFilter chooses routes; its zero fields choose all.
type RouteFilter struct {
	Table    int
	Protocol uint8
	Kind     RouteKind
	Link     int
	Dst      netip.Prefix // exactly this one
}

func (f RouteFilter) chooses(r Route) bool {
	return (f.Table == 0 || f.Table == r.Table) && (f.Protocol == 0 || f.Protocol == r.Protocol) &&
		(f.Kind == 0 || f.Kind == r.Kind) && (!f.Dst.IsValid() || f.Dst == r.Dst) &&
		(f.Link == 0 || f.Link == r.Link || slices.ContainsFunc(r.Hops, func(hop Hop) bool { return hop.Link == f.Link }))
}

// Routes reads the routes of both families that f chooses.
func (h *Host) Routes(f RouteFilter) ([]Route, error) {
	msgs, err := h.conn.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, raw(make([]byte, unix.SizeofRtMsg)))
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	var out []Route
	for _, m := range msgs {
		if r, ok := parseRoute(m); ok && f.chooses(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// encode makes the body of RTM_NEWROUTE and RTM_DELROUTE from a canonical route.
func (r Route) encode(scope Scope) []nl.NetlinkRequestData {
	table := byte(unix.RT_TABLE_COMPAT)
	if r.Table < 256 {
		table = byte(r.Table)
	}
	head := raw{family(r.Dst.Addr()), byte(r.Dst.Bits()), 0, 0, table, r.Protocol, byte(scope), byte(r.Kind)}
	head = native.AppendUint32(head, onLink(r.OnLink))
	parts := append(message(head), attr(unix.RTA_TABLE, u32(uint32(r.Table))), attr(unix.RTA_PRIORITY, u32(uint32(r.Metric))))
	if r.Dst.Bits() > 0 {
		parts = append(parts, attr(unix.RTA_DST, r.Dst.Addr().AsSlice()))
	}
	if r.Link != 0 {
		parts = append(parts, attr(unix.RTA_OIF, u32(uint32(r.Link))))
	}
	if r.Gateway.IsValid() {
		parts = append(parts, gateway(r.Gateway, r.Dst))
	}
	if r.Source.IsValid() {
		parts = append(parts, attr(unix.RTA_PREFSRC, r.Source.AsSlice()))
	}
	if r.MTU != 0 {
		parts = append(parts, nest(unix.RTA_METRICS, attr(unix.RTAX_MTU, u32(uint32(r.MTU)))))
	}
	if len(r.Hops) > 0 {
		parts = append(parts, attr(unix.RTA_MULTIPATH, encodeHops(r.Hops, r.Dst)))
	}
	return parts
}

func onLink(on bool) uint32 {
	if on {
		return unix.RTNH_F_ONLINK
	}
	return 0
}

// gateway is RTA_GATEWAY, or RTA_VIA where the gateway is of the other family.
func gateway(g netip.Addr, dst netip.Prefix) *nl.RtAttr {
	if g.Is4() == dst.Addr().Is4() {
		return attr(unix.RTA_GATEWAY, g.AsSlice())
	}
	return attr(unix.RTA_VIA, append(native.AppendUint16(nil, uint16(family(g))), g.AsSlice()...))
}

// encodeHops is an array of struct rtnexthop, each with its gateway.
func encodeHops(hops []Hop, dst netip.Prefix) []byte {
	var out []byte
	for _, hop := range hops {
		var via []byte
		if hop.Gateway.IsValid() {
			via = gateway(hop.Gateway, dst).Serialize()
		}
		out = native.AppendUint16(out, uint16(unix.SizeofRtNexthop+len(via)))
		out = append(out, byte(onLink(hop.OnLink)), byte(hop.Weight-1))
		out = native.AppendUint32(out, uint32(hop.Link))
		out = append(out, via...)
	}
	return out
}

// parseRoute reads RTM_NEWROUTE and RTM_DELROUTE of IPv4 and IPv6. Cached
// clones of routes (path MTU, redirects) are not routes of a table.
func parseRoute(m []byte) (r Route, ok bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 || native.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	dst := netip.IPv4Unspecified()
	if m[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	r.Table, r.Protocol, r.Scope, r.Kind = int(m[4]), m[5], Scope(m[6]), RouteKind(m[7])
	r.OnLink = native.Uint32(m[8:])&unix.RTNH_F_ONLINK != 0
	walk(m[unix.SizeofRtMsg:], func(kind int, v []byte) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_MULTIPATH:
			r.Hops = parseHops(v)
		case unix.RTA_METRICS:
			walk(v, func(kind int, v []byte) {
				if kind == unix.RTAX_MTU {
					r.MTU = int(number(v))
				}
			})
		default:
			r.set(kind, v)
		}
	})
	r.Dst = netip.PrefixFrom(dst, int(m[1]))
	r.Link = r.link()
	return r, r.Dst.IsValid()
}

func (r *Route) set(kind int, v []byte) {
	switch kind {
	case unix.RTA_OIF:
		r.Link = int(number(v))
	case unix.RTA_GATEWAY, unix.RTA_VIA:
		r.Gateway = parseGateway(kind, v)
	case unix.RTA_PREFSRC:
		r.Source, _ = netip.AddrFromSlice(v)
	case unix.RTA_PRIORITY:
		r.Metric = int(number(v))
	case unix.RTA_TABLE:
		r.Table = int(number(v))
	}
}

func parseGateway(kind int, v []byte) netip.Addr {
	if kind == unix.RTA_VIA {
		v = v[min(2, len(v)):] // the family, which the length tells too
	}
	a, _ := netip.AddrFromSlice(v)
	return a
}

func parseHops(b []byte) (hops []Hop) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return hops
		}
		hop := Hop{Link: int(int32(native.Uint32(b[4:]))), Weight: int(b[3]) + 1, OnLink: b[2]&unix.RTNH_F_ONLINK != 0}
		walk(b[unix.SizeofRtNexthop:size], func(kind int, v []byte) {
			if kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA {
				hop.Gateway = parseGateway(kind, v)
			}
		})
		hops = append(hops, hop)
		b = b[min((size+3)&^3, len(b)):]
	}
	return hops
}

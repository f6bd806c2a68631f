package graphtest

import (
	"fmt"
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
)

// The ports of the Standard lab. Index 0 is a port to which nothing is routed:
// what leaves by it went astray.
//
//	                 ┌───────────────┐
//	stations ── Up ──┤               ├── Pod     workload, L3, superpackets
//	  VLAN 7 ── Tag ─┤               ├── Veth    workload, L2, its MAC is known
//	stations ── Side ┤               ├── Mute    workload, L3, without policy
//	 MTU 1280 ─ Small┤               ├── Host    the node's own stack
//	                 └───────────────┘
const (
	Astray uint16 = iota
	Up            // L2, all ours
	Pod
	Veth
	Host
	Tag   // VLAN 7 on Up
	Small // L2, all ours, MTU 1280
	Mute
	Side // L2, bifurcated: the kernel is its neighbours' master
	Ports
)

// The nets of the Standard lab: 10.n.0.0/16 and 2001:db8:n::/48.
const (
	NetUp      = iota // stations on Up
	NetPods           // pods, by /32 and /128
	NetSide           // stations on Side
	NetRemote         // by the gateway on Up, whose MAC is known
	NetAsk            // by a gateway on Up whose MAC is not known
	NetSmall          // stations on Small
	NetAskSide        // by a gateway on Side whose MAC is not known
	NetTag            // stations on Tag
	NetSpread         // ECMP over the gateways on Up and Side
	NetProhibited
	NetBlackhole
	NetPunt
	NetNowhere = 99 // no route
)

// Hosts in the nets: ours, a station whose MAC is known, one whose is not, and
// gateways. In NetPods, the pods.
const (
	Ours    = 1
	Station = 2
	Unknown = 3
	Gateway = 254
	Asked   = 77 // gateway whose MAC is not known

	PodHost  = 2
	VethHost = 3
	MuteHost = 4
)

// Families runs f as a subtest for each IP family.
func Families(tb *testing.T, f func(t *testing.T, ipv6 bool)) {
	for _, ipv6 := range []bool{false, true} {
		name := "IPv4"
		if ipv6 {
			name = "IPv6"
		}
		tb.Run(name, func(t *testing.T) { f(t, ipv6) })
	}
}

// Addr is host h of net n.
func Addr(ipv6 bool, n, h int) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", n, h))
	}
	return netip.AddrFrom4([4]byte{10, byte(n), 0, byte(h)})
}

// Net is net n.
func Net(ipv6 bool, n int) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(Addr(true, n, 0), 48)
	}
	return netip.PrefixFrom(Addr(false, n, 0), 16)
}

// MAC is ours on a port.
func MAC(port uint16) node.MAC { return node.MAC{2, 0, 0, 0, 0, byte(port)} }

// StationMAC is the MAC of host h in net n.
func StationMAC(n, h int) node.MAC { return node.MAC{2, 0, 0, 1, byte(n), byte(h)} }

// VethMAC is the MAC of the pod behind Veth.
var VethMAC = StationMAC(NetPods, VethHost)

// Standard is a Lab with the ports, nets and hosts above, in both families.
func Standard(tb testing.TB, workers int) *Lab { return StandardConfig(tb, Config{Workers: workers}) }

// StandardConfig is Standard with other sizes.
func StandardConfig(tb testing.TB, cfg Config) *Lab {
	tb.Helper()
	l := New(tb, cfg)
	ours := func(n int) []netip.Addr { return []netip.Addr{Addr(false, n, Ours), Addr(true, n, Ours)} }
	const l2, l3 = node.L2 | node.Owned, node.Owned
	l.AddPort(Port{Index: Astray, Flags: node.L2, MTU: 1500, MAC: MAC(Astray)})
	l.AddPort(Port{Index: Up, Flags: l2, MTU: 1500, MAC: MAC(Up), Sources: ours(NetUp)})
	l.AddPort(Port{Index: Pod, Flags: l3 | node.Workload | node.GSO, MTU: 9000})
	l.AddPort(Port{Index: Veth, Flags: l2 | node.Workload, MTU: 1500, MAC: MAC(Veth), Peer: VethMAC})
	l.AddPort(Port{Index: Host, Flags: node.HostPort | node.GSO, MTU: 9000})
	l.AddPort(Port{Index: Tag, Flags: l2, MTU: 1500, VLAN: 7, Main: Up, MAC: MAC(Up), Sources: ours(NetTag)})
	l.AddPort(Port{Index: Small, Flags: l2, MTU: 1280, MAC: MAC(Small), Sources: ours(NetSmall)})
	l.AddPort(Port{Index: Mute, Flags: l3 | node.Workload | node.NoPolicyState, MTU: 1500})
	l.AddPort(Port{Index: Side, Flags: node.L2, MTU: 1500, MAC: MAC(Side), Sources: ours(NetSide)})
	l.Publish(func(s *node.State) {
		s.Sources[node.Source{Port: graph.NoPort, IPv6: false}] = Addr(false, NetUp, Ours)
		s.Sources[node.Source{Port: graph.NoPort, IPv6: true}] = Addr(true, NetUp, Ours)
	})
	l.standardRoutes(false)
	l.standardRoutes(true)
	l.Change()
	return l
}

func (l *Lab) standardRoutes(ipv6 bool) {
	host := func(n, h int) netip.Prefix { a := Addr(ipv6, n, h); return netip.PrefixFrom(a, a.BitLen()) }
	kind := func(k fib.Kind) fib.AdjacencyID { return l.Adjacency(fib.Adjacency{Kind: k}) }
	to := func(port uint16, n, h int, gw netip.Addr) fib.AdjacencyID {
		return l.Adjacency(l.Rewrite(port, ipv6, StationMAC(n, h), gw))
	}
	for port, n := range map[uint16]int{Up: NetUp, Side: NetSide, Small: NetSmall, Tag: NetTag} {
		l.Route(Net(ipv6, n), l.Adjacency(fib.Adjacency{Kind: fib.Attached, Port: port, MTU: uint32(l.port(port).MTU)}))
		l.Route(host(n, Station), to(port, n, Station, netip.Addr{}))
		l.Route(host(n, Gateway), to(port, n, Gateway, netip.Addr{}))
	}
	up := to(Up, NetUp, Gateway, Addr(ipv6, NetUp, Gateway))
	side := to(Side, NetSide, Gateway, Addr(ipv6, NetSide, Gateway))
	l.Route(Net(ipv6, NetRemote), up)
	l.Route(Net(ipv6, NetSpread), up, side)
	l.Route(Net(ipv6, NetAsk), l.Adjacency(l.Incomplete(Up, Addr(ipv6, NetUp, Asked))))
	l.Route(Net(ipv6, NetAskSide), l.Adjacency(l.Incomplete(Side, Addr(ipv6, NetSide, Asked))))
	l.Route(host(NetPods, PodHost), l.Adjacency(l.Rewrite(Pod, ipv6, node.MAC{}, netip.Addr{})))
	l.Route(host(NetPods, MuteHost), l.Adjacency(l.Rewrite(Mute, ipv6, node.MAC{}, netip.Addr{})))
	l.Route(host(NetPods, VethHost), to(Veth, NetPods, VethHost, netip.Addr{}))
	l.Route(Net(ipv6, NetPods), kind(fib.Blackhole))
	l.Route(Net(ipv6, NetProhibited), kind(fib.Prohibit))
	l.Route(Net(ipv6, NetBlackhole), kind(fib.Blackhole))
	l.Route(Net(ipv6, NetPunt), kind(fib.Punt))
}

// Framed is an IP packet as a station on port of the Standard lab sends it to us.
func Framed(port uint16, ip []byte) []byte {
	switch port {
	case Pod, Host, Mute:
		return ip
	case Tag:
		return Ether(MAC(Up), StationMAC(NetTag, Station), ip, 7)
	case Veth:
		return Ether(MAC(Veth), VethMAC, ip)
	}
	return Ether(MAC(port), StationMAC(NetUp, Station), ip)
}

// SendIP lets IP packets come in by a port of the Standard lab and runs.
func (l *Lab) SendIP(port uint16, ips ...[]byte) {
	for _, ip := range ips {
		l.Inject(l.port(port).Main, Framed(port, ip))
	}
	l.Run()
}

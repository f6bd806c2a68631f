package node_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
)

// ndRow is one neighbour discovery message and what becomes of it.
type ndRow struct {
	ip     []byte
	reply  netip.Addr // the address that the advertisement tells the MAC of
	learnt netip.Addr
	want   graph.Reason
}

// neighbourly runs f in the Standard lab, and again where policy denies everybody
// everything: neighbours find each other all the same.
func neighbourly(t *testing.T, name string, f func(*testing.T, *gt.Lab)) {
	t.Run(name, func(t *testing.T) { f(t, gt.Standard(t, 1)) })
	t.Run(name+", judged", func(t *testing.T) {
		l := gt.Standard(t, 1)
		for _, port := range []uint16{gt.Up, gt.Pod, gt.Veth, gt.Side, gt.Tag} {
			l.Police(port, &judge.Endpoint{Host: port != gt.Pod && port != gt.Veth, Egress: only(t), Ingress: only(t)})
		}
		f(t, l)
	})
}

func runND(t *testing.T, port uint16, src node.MAC, tests map[string]ndRow) {
	main := port
	if port == gt.Tag {
		main = gt.Up
	}
	for name, tt := range tests {
		neighbourly(t, name, func(t *testing.T, l *gt.Lab) {
			dst := gt.MAC(main)
			if tt.ip[24] == 0xff {
				dst = node.MAC{0x33, 0x33, tt.ip[36], tt.ip[37], tt.ip[38], tt.ip[39]}
			}
			var vlans []uint16
			if port == gt.Tag {
				vlans = []uint16{7}
			}
			l.Inject(main, gt.Ether(dst, src, tt.ip, vlans...))
			l.Run()
			wantLearned(t, l, port, tt.learnt, src)
			c := l.Change()
			if tt.want != graph.NoReason {
				wantNone(t, l)
				if c.Drops[tt.want] != 1 {
					t.Errorf("drops %v, want %s", dropNames(&c), tt.want)
				}
				return
			}
			if c.Consumed[graph.UsedND] != 1 || c.Dropped() != 0 {
				t.Errorf("consumed %v, drops %v", c.Consumed, dropNames(&c))
			}
			if !tt.reply.IsValid() {
				wantNone(t, l)
				return
			}
			wantAdvertisement(t, wantOne(t, l, main).Bytes, tt, src, gt.MAC(main), vlans)
		})
	}
}

// wantAdvertisement fails t unless got is the whole answer to tt.
func wantAdvertisement(t *testing.T, got []byte, tt ndRow, them, us node.MAC, vlans []uint16) {
	t.Helper()
	dst, flags := netip.AddrFrom16([16]byte(tt.ip[8:24])), uint8(0xe0) // router, solicited, override
	if dst.IsUnspecified() {
		dst, flags, them = netip.IPv6LinkLocalAllNodes(), 0xa0, node.MAC{0x33, 0x33, 0, 0, 0, 1}
	}
	wantBytes(t, got, gt.Ether(them, us, gt.Advertise(tt.reply, dst, tt.reply, flags, us), vlans...))
}

func TestNeighbourDiscoveryOnTheUplink(t *testing.T) {
	a := func(n, h int) netip.Addr { return gt.Addr(true, n, h) }
	station := gt.StationMAC(gt.NetUp, gt.Unknown)
	ours, asker, none := a(gt.NetUp, gt.Ours), a(gt.NetUp, gt.Unknown), netip.Addr{}
	group, _ := gt.SolicitedNode(ours)
	link, any6, all := netip.MustParseAddr("fe80::9"), netip.IPv6Unspecified(), netip.IPv6LinkLocalAllNodes()
	nobody := node.MAC{}
	hop := func(limit uint8) []byte {
		ip := gt.Solicit(asker, group, ours, station)
		ip[7] = limit
		return ip
	}
	runND(t, gt.Up, station, map[string]ndRow{
		"a solicitation for ours":               {gt.Solicit(asker, group, ours, station), ours, asker, 0},
		"a unicast one":                         {gt.Solicit(asker, ours, ours, station), ours, asker, 0},
		"one without a MAC":                     {gt.Solicit(asker, ours, ours, nobody), ours, none, 0},
		"one from a link-local address":         {gt.Solicit(link, group, ours, station), ours, link, 0},
		"one for another":                       {gt.Solicit(asker, group, a(gt.NetUp, 9), station), none, asker, 0},
		"one for ours of another port":          {gt.Solicit(asker, group, a(gt.NetSmall, gt.Ours), station), none, asker, 0},
		"one for the pods' gateway":             {gt.Solicit(asker, group, node.WorkloadGateways[1], station), none, asker, 0},
		"a probe for ours":                      {gt.Solicit(any6, group, ours, nobody), ours, none, 0},
		"a probe with a MAC":                    {gt.Solicit(any6, group, ours, station), none, none, graph.NDInvalid},
		"a unicast probe":                       {gt.Solicit(any6, ours, ours, nobody), none, none, graph.NDInvalid},
		"one for a group":                       {gt.Solicit(asker, group, group, station), none, none, graph.NDInvalid},
		"one from who claims our address":       {gt.Solicit(ours, group, ours, station), none, none, graph.NDInvalid},
		"one from a pod's address":              {gt.Solicit(a(gt.NetPods, gt.PodHost), group, ours, station), none, none, graph.NDInvalid},
		"one from behind the gateway":           {gt.Solicit(a(gt.NetRemote, 4), group, ours, station), none, none, graph.NDInvalid},
		"one from another hop":                  {hop(254), none, none, graph.NDInvalid},
		"one with hop limit zero":               {hop(0), none, none, graph.NDInvalid},
		"one with a code":                       {resum(patch(gt.Solicit(asker, group, ours, station), 41, 1)), none, none, graph.NDInvalid},
		"a wrong checksum":                      {flip(gt.Solicit(asker, group, ours, station), 43), none, none, graph.NDInvalid},
		"an option of no length":                {resum(patch(gt.Solicit(asker, group, ours, station), 65, 0)), none, none, graph.NDInvalid},
		"an option beyond the message":          {resum(patch(gt.Solicit(asker, group, ours, station), 65, 2)), none, none, graph.NDInvalid},
		"half an option":                        {cut(gt.Solicit(asker, group, ours, station), 4), none, none, graph.NDInvalid},
		"a message without its target":          {cut(gt.Solicit(asker, group, ours, nobody), 1), none, none, graph.NDInvalid},
		"an unknown option before the MAC":      {grow(gt.Solicit(asker, group, ours, nobody), append([]byte{14, 1, 1, 2, 3, 4, 5, 6, 1, 1}, station[:]...)...), ours, asker, 0},
		"a group as the MAC":                    {gt.Solicit(asker, group, ours, node.MAC{1, 2, 3, 4, 5, 6}), none, none, graph.NDInvalid},
		"an advertisement":                      {gt.Advertise(asker, ours, asker, 0x60, station), none, asker, 0},
		"one to all nodes":                      {gt.Advertise(asker, all, asker, 0x20, station), none, asker, 0},
		"a solicited one to all nodes":          {gt.Advertise(asker, all, asker, 0x60, station), none, none, graph.NDInvalid},
		"an advertisement without a MAC":        {gt.Advertise(asker, ours, asker, 0x60, nobody), none, none, 0},
		"an advertisement of our address":       {gt.Advertise(asker, ours, ours, 0x20, station), none, none, graph.NDInvalid},
		"an advertisement of a pod":             {gt.Advertise(asker, ours, a(gt.NetPods, gt.PodHost), 0x20, station), none, none, graph.NDInvalid},
		"an advertisement of a group":           {gt.Advertise(asker, ours, all, 0x20, station), none, none, graph.NDInvalid},
		"an advertisement of another's address": {gt.Advertise(link, ours, asker, 0x20, station), none, asker, 0}, // proxies do
		"a router solicitation":                 {gt.ND(link, netip.IPv6LinkLocalAllRouters(), 133, &layers.ICMPv6RouterSolicitation{}), none, none, 0},
		"a router advertisement":                {gt.ND(link, all, 134, &layers.ICMPv6RouterAdvertisement{}), none, none, 0},
		"a redirect":                            {gt.ND(link, ours, 137, &layers.ICMPv6Redirect{TargetAddress: asker.AsSlice(), DestinationAddress: asker.AsSlice()}), none, none, 0},
		"one from a group":                      {gt.Solicit(group, ours, ours, station), none, none, graph.IPMartian},
		"a listener report":                     {gt.Frame(gt.IPTTL(link, netip.MustParseAddr("ff02::16"), 58, 1), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(143, 0)}, gt.Payload(24)), none, none, graph.IPMulticast},
	})
}

func TestNeighbourDiscoveryOfPods(t *testing.T) {
	a := func(n, h int) netip.Addr { return gt.Addr(true, n, h) }
	pod, other, gw, none := a(gt.NetPods, gt.VethHost), a(gt.NetPods, gt.PodHost), node.WorkloadGateways[1], netip.Addr{}
	group, _ := gt.SolicitedNode(gw)
	link, all := netip.MustParseAddr("fe80::9"), netip.IPv6LinkLocalAllNodes()
	runND(t, gt.Veth, gt.VethMAC, map[string]ndRow{
		"a pod asks for its gateway":       {gt.Solicit(pod, group, gw, gt.VethMAC), gw, none, 0},
		"by its link-local address":        {gt.Solicit(link, group, gw, gt.VethMAC), gw, link, 0},
		"a pod asks for another pod":       {gt.Solicit(pod, group, other, gt.VethMAC), none, none, 0},
		"a pod asks for the node":          {gt.Solicit(pod, group, a(gt.NetUp, gt.Ours), gt.VethMAC), none, none, 0},
		"a pod probes for its own":         {gt.Solicit(netip.IPv6Unspecified(), group, pod, node.MAC{}), none, none, 0},
		"a pod announces itself":           {gt.Advertise(pod, all, pod, 0x20, gt.VethMAC), none, none, 0},
		"a pod announces another":          {gt.Advertise(pod, all, other, 0x20, gt.VethMAC), none, none, graph.NDInvalid},
		"a pod announces the gateway":      {gt.Advertise(pod, all, gw, 0x20, gt.VethMAC), none, none, graph.NDInvalid},
		"a pod asks in the gateway's name": {gt.Solicit(gw, group, gw, gt.VethMAC), none, none, graph.NDInvalid},
		"a pod asks in another's name":     {gt.Solicit(other, group, gw, gt.VethMAC), none, none, graph.NDInvalid},
		"a pod asks for a router":          {gt.ND(link, netip.IPv6LinkLocalAllRouters(), 133, &layers.ICMPv6RouterSolicitation{}), none, none, 0},
		"a pod says it is a router":        {gt.ND(link, all, 134, &layers.ICMPv6RouterAdvertisement{}), none, none, graph.NDInvalid},
		"a pod redirects":                  {gt.ND(link, pod, 137, &layers.ICMPv6Redirect{TargetAddress: other.AsSlice(), DestinationAddress: other.AsSlice()}), none, none, graph.NDInvalid},
	})
}

func TestNeighbourDiscoveryElsewhere(t *testing.T) {
	a := func(n, h int) netip.Addr { return gt.Addr(true, n, h) }
	station := gt.StationMAC(gt.NetTag, gt.Unknown)
	runND(t, gt.Tag, station, map[string]ndRow{
		"on a VLAN": {gt.Solicit(a(gt.NetTag, gt.Unknown), a(gt.NetTag, gt.Ours), a(gt.NetTag, gt.Ours), station),
			a(gt.NetTag, gt.Ours), a(gt.NetTag, gt.Unknown), 0},
		"for an address of the main port": {gt.Solicit(a(gt.NetTag, gt.Unknown), a(gt.NetTag, gt.Ours), a(gt.NetUp, gt.Ours), station),
			netip.Addr{}, a(gt.NetTag, gt.Unknown), 0},
	})
	runND(t, gt.Side, station, map[string]ndRow{
		"on a port that the kernel shares": {gt.Solicit(a(gt.NetSide, gt.Unknown), a(gt.NetSide, gt.Ours), a(gt.NetSide, gt.Ours), station),
			netip.Addr{}, netip.Addr{}, graph.NDInvalid},
	})
	for _, port := range []uint16{gt.Pod, gt.Host, gt.Mute} {
		l := gt.Standard(t, 1)
		l.SendIP(port, gt.Solicit(a(gt.NetPods, gt.PodHost), a(gt.NetUp, gt.Ours), a(gt.NetUp, gt.Ours), station),
			gt.ND(netip.MustParseAddr("fe80::9"), netip.IPv6LinkLocalAllRouters(), 133, &layers.ICMPv6RouterSolicitation{}))
		wantNone(t, l)
		l.WantDrops(t, map[graph.Reason]uint64{graph.IPMulticast: 2}) // no link to discover
	}
}

// What lies in padding is not part of a message, however short the header says
// that it is; this was once read beyond its end.
func TestDiscoveryCutShortAndPadded(t *testing.T) {
	ours, asker := gt.Addr(true, gt.NetUp, gt.Ours), gt.Addr(true, gt.NetUp, gt.Unknown)
	group, mac := gt.SolicitedNode(ours)
	for _, dst := range []netip.Addr{group, ours} {
		for _, src := range []netip.Addr{asker, netip.MustParseAddr("fe80::9"), netip.IPv6Unspecified()} {
			for _, kind := range []uint8{133, 134, 135, 136, 137} {
				l := gt.Standard(t, 1)
				whole := patch(gt.Solicit(src, dst, ours, gt.StationMAC(0, 3)), 40, kind)
				for n := range len(whole) - 40 {
					short := append([]byte(nil), whole...)
					short[4], short[5] = 0, byte(n)
					l.Inject(gt.Up, gt.Ether(mac, gt.StationMAC(0, 3), short))
					l.Inject(gt.Up, gt.Ether(gt.MAC(gt.Up), gt.StationMAC(0, 3), short))
				}
				l.Run()
				wantNone(t, l)
				if got := events(l); len(got) > 0 {
					t.Errorf("learnt %v", got)
				}
			}
		}
	}
}

func TestDiscoveryInPiecesIsRefused(t *testing.T) {
	ours, asker := gt.Addr(true, gt.NetUp, gt.Ours), gt.Addr(true, gt.NetUp, gt.Unknown)
	ip := grow(gt.Solicit(asker, ours, ours, gt.StationMAC(0, 3)), append([]byte{14, 100}, make([]byte, 798)...)...)
	for _, first := range []int{14 + 40, 14 + 48, 14 + 64, 14 + 72, 500} {
		l := gt.Standard(t, 1)
		l.InjectPackets(gt.Up, gt.Packet{Bytes: gt.Framed(gt.Up, ip), Pieces: []int{first}})
		l.Run()
		wantNone(t, l)
		if c := l.Change(); c.Dropped() != 1 {
			t.Errorf("first of %d bytes: drops %v", first, dropNames(&c))
		}
	}
}

// resum computes the ICMPv6 checksum of ip anew.
func resum(ip []byte) []byte {
	body := append([]byte(nil), ip[40:]...)
	setLength(ip)
	body[2], body[3] = 0, 0
	pseudo := append(append([]byte(nil), ip[8:40]...), 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, 58)
	sum := ^plainSum(append(pseudo, body...))
	return append(append(ip[:40:40], body[0], body[1], byte(sum>>8), byte(sum)), body[4:]...)
}

// cut takes n bytes off the end and makes the packet right otherwise.
func cut(ip []byte, n int) []byte { return resum(ip[:len(ip)-n]) }

// grow adds bytes at the end and makes the packet right otherwise.
func grow(ip []byte, b ...byte) []byte { return resum(append(ip[:len(ip):len(ip)], b...)) }

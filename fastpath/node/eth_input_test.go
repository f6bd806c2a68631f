package node_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// qinq is a frame with a provider's tag (802.1ad) around payload.
func qinq(dst, src node.MAC, id uint16, kind layers.EthernetType, payload []byte) []byte {
	tag := []byte{byte(id >> 8), byte(id), byte(kind >> 8), byte(kind)}
	return gt.EtherType(dst, src, 0x88a8, append(tag, payload...))
}

func TestEthernetHeader(t *testing.T) {
	ours, station := gt.MAC(gt.Up), gt.StationMAC(gt.NetUp, gt.Station)
	tests := map[string]struct {
		port  uint16
		frame func(ip []byte, kind layers.EthernetType) []byte
		want  graph.Reason // NoReason: it arrives at the pod
	}{
		"to us":          {gt.Up, func(ip []byte, _ layers.EthernetType) []byte { return gt.Ether(ours, station, ip) }, graph.NoReason},
		"to another MAC": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte { return gt.Ether(gt.MAC(gt.Pod), station, ip) }, graph.NotForUs},
		"to all zeros":   {gt.Up, func(ip []byte, _ layers.EthernetType) []byte { return gt.Ether(node.MAC{}, station, ip) }, graph.NotForUs},
		"broadcast, with a unicast packet inside": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(node.MAC{255, 255, 255, 255, 255, 255}, station, ip)
		}, graph.IPMulticast},
		"multicast, with a unicast packet inside": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(node.MAC{0x33, 0x33, 0, 0, 0, 1}, station, ip)
		}, graph.IPMulticast},
		"an EtherType we do not speak": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.EtherType(ours, station, 0x88cc, ip)
		}, graph.EthType},
		"a length instead of an EtherType": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.EtherType(ours, station, 46, ip)
		}, graph.EthType},
		"the EtherType of the other family": {gt.Up, func(ip []byte, kind layers.EthernetType) []byte {
			return gt.EtherType(ours, station, kind^layers.EthernetTypeIPv4^layers.EthernetTypeIPv6, ip)
		}, graph.IPVersion},
		"a priority tag": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(ours, station, ip, 0xe000)
		}, graph.NoReason},
		"a VLAN of ours": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(ours, station, ip, 0x2007)
		}, graph.NoReason},
		"a VLAN that nobody has": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(ours, station, ip, 8)
		}, graph.VLANUnknown},
		"a VLAN of ours on another port": {gt.Side, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(gt.MAC(gt.Side), station, ip, 7)
		}, graph.VLANUnknown},
		"two tags": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(ours, station, ip, 7, 7)
		}, graph.VLANStack},
		"a priority tag around a VLAN": {gt.Up, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(ours, station, ip, 0, 7)
		}, graph.VLANStack},
		"a provider's tag with the number of our VLAN": {gt.Up, func(ip []byte, kind layers.EthernetType) []byte {
			return qinq(ours, station, 7, kind, ip)
		}, graph.VLANUnknown},
		"a provider's tag around a VLAN of ours": {gt.Up, func(ip []byte, kind layers.EthernetType) []byte {
			return qinq(ours, station, 7, layers.EthernetTypeDot1Q, append([]byte{0, 7, byte(kind >> 8), byte(kind)}, ip...))
		}, graph.VLANStack},
		"an endpoint's own MAC": {gt.Veth, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(gt.MAC(gt.Veth), gt.VethMAC, ip)
		}, graph.NoReason},
		"another MAC than the endpoint's": {gt.Veth, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(gt.MAC(gt.Veth), station, ip)
		}, graph.SpoofedMAC},
		"our MAC from an endpoint": {gt.Veth, func(ip []byte, _ layers.EthernetType) []byte {
			return gt.Ether(gt.MAC(gt.Veth), gt.MAC(gt.Veth), ip)
		}, graph.SpoofedMAC},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		kind := layers.EthernetTypeIPv4
		if ipv6 {
			kind = layers.EthernetTypeIPv6
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				src := gt.Addr(ipv6, gt.NetUp, gt.Station)
				if tt.port == gt.Veth {
					src = gt.Addr(ipv6, gt.NetPods, gt.VethHost)
				}
				ip := gt.UDP(src, gt.Addr(ipv6, gt.NetPods, gt.PodHost), 60)
				l.Inject(tt.port, tt.frame(ip, kind))
				l.Run()
				if tt.want == graph.NoReason {
					wantBytes(t, wantOne(t, l, gt.Pod).Bytes, older(t, ip))
					return
				}
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{tt.want: 1})
			})
		}
	})
}

// What the link adds behind the packet does not go on.
func TestPaddingIsTrimmed(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		w := toPod(ipv6)
		ip := gt.Frame(gt.IP(w.src, w.dst, 253), gt.Payload(3))
		for _, n := range []int{1, 7, 46, 1000} {
			l.Inject(gt.Up, append(gt.Framed(gt.Up, ip), gt.Payload(n)...))
			l.Run()
			wantBytes(t, wantOne(t, l, gt.Pod).Bytes, older(t, ip))
		}
	})
}

// truncated are whole frames, of which every prefix is put in.
func truncated(ipv6 bool) map[string][]byte {
	w := toPod(ipv6)
	up := func(ip []byte, vlans ...uint16) []byte {
		return gt.Ether(gt.MAC(gt.Up), gt.StationMAC(gt.NetUp, gt.Station), ip, vlans...)
	}
	all := map[string][]byte{
		"UDP":          up(gt.UDP(w.src, w.dst, 20)),
		"TCP":          up(gt.TCP(w.src, w.dst, 20)),
		"echo":         up(gt.Echo(w.src, gt.Addr(ipv6, gt.NetUp, gt.Ours), 20)),
		"VLAN":         up(gt.UDP(w.src, w.dst, 20), 7),
		"VLAN stack":   up(gt.UDP(w.src, w.dst, 20), 7, 8),
		"TTL spent":    up(gt.UDPTTL(w.src, w.dst, 20, 1)),
		"unreachable":  up(gt.UDP(w.src, gt.Addr(ipv6, gt.NetNowhere, 1), 20)),
		"part of many": up(part(ipv6, w, 0, true, gt.Payload(64))),
	}
	if ipv6 {
		all["extension headers"] = up(chain6(w, extension{0, make([]byte, 6)}, extension{60, make([]byte, 14)}, extension{51, make([]byte, 18)}))
		group, mac := gt.SolicitedNode(gt.Addr(true, gt.NetUp, gt.Ours))
		all["solicitation"] = gt.Ether(mac, gt.StationMAC(gt.NetUp, gt.Station),
			gt.Solicit(w.src, group, gt.Addr(true, gt.NetUp, gt.Ours), gt.StationMAC(gt.NetUp, gt.Station)))
	} else {
		all["options"] = up(options4(w, []byte{7, 7, 4, 0, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0}))
		all["ARP"] = gt.ARP(gt.MAC(gt.Up), gt.StationMAC(gt.NetUp, gt.Station), 1, w.src, node.MAC{}, gt.Addr(false, gt.NetUp, gt.Ours))
	}
	return all
}

// Every prefix of every frame is survived, and ends as a drop of a kind that
// says so: nothing of it goes on or is answered.
func TestTruncationsAreDropped(t *testing.T) {
	kinds := map[graph.Reason]bool{graph.RxRunt: true, graph.IPTruncated: true, graph.IPHeaderLength: true, graph.ARPInvalid: true,
		graph.VLANStack: true}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, frame := range truncated(ipv6) {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				for n := range len(frame) {
					l.Inject(gt.Up, frame[:n])
					if l3 := len(frame) - n; n > 14 && name != "VLAN" && name != "VLAN stack" && name != "ARP" && l3 > 0 {
						l.Inject(gt.Host, frame[14:n]) // the same without a link layer
					}
				}
				l.Run()
				wantNone(t, l)
				c := l.Change()
				for r, n := range c.Drops {
					if n > 0 && !kinds[graph.Reason(r)] {
						t.Errorf("%d prefixes were dropped for %s", n, graph.Reason(r))
					}
				}
				if c.Rx == 0 || c.Dropped() != c.Rx {
					t.Errorf("%d of %d prefixes were dropped", c.Dropped(), c.Rx)
				}
			})
		}
	})
}

// The same, where the lengths are true to what is left: whatever becomes of it,
// nothing breaks, and padding does not bring back what was cut off.
func TestShortPacketsAreSurvived(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		header := 20
		if ipv6 {
			header = 40
		}
		for name, frame := range truncated(ipv6) {
			if name == "ARP" || name == "VLAN" || name == "VLAN stack" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				if name == "options" {
					header = 36
				}
				for n := 14 + header; n < len(frame); n++ {
					short := append([]byte(nil), frame[:n]...)
					setLength(short[14:])
					l.Inject(gt.Up, short)
					l.Inject(gt.Up, append(short, make([]byte, 100)...)) // padded
				}
				l.Run()
				for port := range l.CollectAll() {
					if port != gt.Pod && port != gt.Up {
						t.Errorf("something left by port %d", port)
					}
				}
			})
		}
	})
}

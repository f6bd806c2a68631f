package node_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
)

func TestEcho(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		ours := gt.Addr(ipv6, gt.NetUp, gt.Ours)
		for _, n := range []int{0, 1, 7, 56, 1000, 1472 - 20, 3000, 3700} {
			for in, from := range map[uint16]netip.Addr{gt.Pod: gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Up: gt.Addr(ipv6, gt.NetUp, gt.Station)} {
				if in == gt.Up && n > 1472 {
					continue // more than the reply's way takes
				}
				l := gt.Standard(t, 1)
				ip := gt.Echo(from, ours, n)
				l.SendIP(in, ip)
				got := wantOne(t, l, in).Bytes
				if in == gt.Up {
					wantBytes(t, got[:14], gt.Ether(gt.StationMAC(gt.NetUp, gt.Station), gt.MAC(gt.Up), ip)[:14])
					got = got[14:]
				}
				wantReply(t, got, ip)
				c := l.Change()
				if c.Consumed[graph.UsedEcho] != 1 || c.Made[graph.MadeEchoReply] != 1 {
					t.Errorf("consumed %v, made %v", c.Consumed, c.Made)
				}
			}
		}
	})
}

// wantReply fails t unless got answers the echo request asked.
func wantReply(t *testing.T, got, asked []byte) {
	t.Helper()
	kind := layers.LayerTypeIPv4
	l4 := 20
	if asked[0]>>4 == 6 {
		kind, l4 = layers.LayerTypeIPv6, 40
	}
	p := gopacket.NewPacket(got, kind, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("reply cannot be decoded: %v", e.Error())
	}
	flow, was := p.NetworkLayer().NetworkFlow(), gopacket.NewPacket(asked, kind, gopacket.Default).NetworkLayer().NetworkFlow()
	if flow != was.Reverse() || len(got) != len(asked) || !icmpSumRight(got) {
		t.Errorf("reply to %v is %v, %d bytes for %d, checksum right: %v", was, flow, len(got), len(asked), icmpSumRight(got))
	}
	wantBytes(t, got[l4+4:], asked[l4+4:])
	if kind := got[l4]; kind != 0 && kind != 129 {
		t.Errorf("reply has type %d", kind)
	}
	if l4 == 20 && plainSum(got[:20]) != 0xffff {
		t.Error("the reply's header checksum is wrong")
	}
}

func TestEchoThatIsNotAnswered(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		ours, from := gt.Addr(ipv6, gt.NetUp, gt.Ours), gt.Addr(ipv6, gt.NetUp, gt.Station)
		tests := map[string]struct {
			packet gt.Packet
			out    int // port, or -1
			want   graph.Reason
		}{
			"a wrong checksum":       {gt.Packet{Bytes: flip(gt.Echo(from, ours, 50), -1)}, -1, graph.EchoInvalid},
			"the first part of one":  {gt.Packet{Bytes: echoPart(ipv6, from, ours)}, -1, graph.EchoInvalid},
			"one in several buffers": {gt.Packet{Bytes: gt.Echo(from, ours, 5000), Pieces: []int{3000}}, -1, graph.EchoInvalid},
			"a reply":                {gt.Packet{Bytes: replyOf(gt.Echo(from, ours, 50))}, int(gt.Host), graph.NoReason},
			"one to a pod":           {gt.Packet{Bytes: gt.Echo(from, gt.Addr(ipv6, gt.NetPods, gt.PodHost), 50)}, int(gt.Pod), graph.NoReason},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				if len(tt.packet.Pieces) > 0 {
					tt.packet.Pieces[0] += 14
				}
				tt.packet.Bytes = gt.Framed(gt.Up, tt.packet.Bytes)
				l.InjectPackets(gt.Up, tt.packet)
				l.Run()
				if tt.out >= 0 {
					wantOne(t, l, uint16(tt.out))
					return
				}
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{tt.want: 1})
			})
		}
		t.Run("on a port that the kernel shares", func(t *testing.T) {
			l := gt.Standard(t, 1)
			l.SendIP(gt.Side, gt.Echo(from, gt.Addr(ipv6, gt.NetSide, gt.Ours), 50))
			wantOne(t, l, gt.Host)
		})
	})
}

// flip changes one bit, counted from the end when at is negative.
func flip(b []byte, at int) []byte {
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	return b
}

func echoPart(ipv6 bool, from, ours netip.Addr) []byte {
	ip := gt.Echo(from, ours, 56)
	if ipv6 {
		out := part(true, ends{from, ours}, 0, true, ip[40:])
		out[40] = 58
		return out
	}
	out := part(false, ends{from, ours}, 0, true, ip[20:])
	setProto(out, 1)
	return out
}

// replyOf is an echo reply with the addresses of a request.
func replyOf(ip []byte) []byte {
	if ip[0]>>4 == 6 {
		ip[40] = 129
	} else {
		ip[20] = 0
	}
	return ip
}

// Options and extension headers of a request: IPv4's come back, IPv6's do not.
func TestEchoWithHeadersBetween(t *testing.T) {
	from, ours := gt.Addr(true, gt.NetPods, gt.PodHost), gt.Addr(true, gt.NetUp, gt.Ours)
	plain := gt.Echo(from, ours, 40)
	l := gt.Standard(t, 1)
	l.SendIP(gt.Pod, chainTo(ends{from, ours}, 58, plain[40:], extension{0, make([]byte, 6)}, extension{60, make([]byte, 14)}))
	wantReply(t, wantOne(t, l, gt.Pod).Bytes, plain)

	from, ours = gt.Addr(false, gt.NetPods, gt.PodHost), gt.Addr(false, gt.NetUp, gt.Ours)
	plain = gt.Echo(from, ours, 40)
	ip := append(append(append([]byte(nil), plain[:20]...), 7, 7, 4, 0, 0, 0, 0, 0), plain[20:]...)
	ip[0] = 0x47
	setLength(ip)
	l.SendIP(gt.Pod, ip)
	got := wantOne(t, l, gt.Pod).Bytes
	if got[0] != 0x47 || plainSum(got[:28]) != 0xffff || plainSum(got[28:]) != 0xffff || got[28] != 0 {
		t.Errorf("reply is %x", got)
	}
}

// A reply that has to wait for its neighbour is not taken for a spoofed packet,
// nor for one that turns back, when it goes on.
func TestReplyToAPodWhoseMACIsNotKnown(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod := gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		id := l.Way(pod, 0)
		complete := l.Rewrite(gt.Veth, ipv6, gt.VethMAC, netip.Addr{})
		l.SetAdjacency(id, l.Incomplete(gt.Veth, pod))
		ip := gt.Echo(pod, gt.Addr(ipv6, gt.NetUp, gt.Ours), 10)
		l.SendIP(gt.Veth, ip)
		l.Collect(gt.Veth)
		l.SetAdjacency(id, complete)
		l.Engine.Kick()
		l.Run()
		wantReply(t, wantOne(t, l, gt.Veth).Bytes[14:], ip)
	})
}

// The reply is as long as the request; where the way back is narrower it is lost.
func TestReplyTooBigForTheWayBack(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		src := gt.Addr(ipv6, gt.NetNowhere, 1)
		a := l.Rewrite(gt.Small, ipv6, gt.StationMAC(0, 2), netip.Addr{})
		l.Route(netip.PrefixFrom(src, src.BitLen()), l.Adjacency(a))
		l.SendIP(gt.Up, gt.Echo(src, gt.Addr(ipv6, gt.NetUp, gt.Ours), 1400))
		wantNone(t, l)
		l.WantDrops(t, map[graph.Reason]uint64{graph.TooBig: 1})
	})
}

package node_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// report is an ICMP error taken apart by gopacket, its checksums verified.
type report struct {
	src, dst   netip.Addr
	kind, code uint8
	rest       uint32 // what follows the checksum
	quoted     []byte
}

func readReport(t *testing.T, ip []byte) (r report) {
	t.Helper()
	body := ip[20:]
	if ip[0]>>4 == 6 {
		body = ip[40:]
		r.src, r.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		if ip[6] != 58 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 || len(ip) > 1280 {
			t.Errorf("IPv6 header of the error is %x, %d bytes", ip[:40], len(ip))
		}
	} else {
		r.src, r.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		if ip[0] != 0x45 || ip[9] != 1 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || len(ip) > 576 || plainSum(ip[:20]) != 0xffff {
			t.Errorf("IPv4 header of the error is %x, %d bytes", ip[:20], len(ip))
		}
	}
	if !icmpSumRight(ip) {
		t.Error("the checksum of the error is wrong")
	}
	r.kind, r.code, r.rest, r.quoted = body[0], body[1], binary.BigEndian.Uint32(body[4:]), body[8:]
	return r
}

// icmpSumRight verifies the ICMP checksum of a packet without options.
func icmpSumRight(ip []byte) bool {
	if ip[0]>>4 == 4 {
		return plainSum(ip[20:]) == 0xffff
	}
	pseudo := append([]byte(nil), ip[8:40]...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(ip)-40))
	pseudo = append(pseudo, 0, 0, 0, 58)
	return plainSum(append(pseudo, ip[40:]...)) == 0xffff
}

// plainSum is RFC 1071 word by word.
func plainSum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		if i&1 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestTellsTheSenderWhatWentWrong(t *testing.T) {
	remote := func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetRemote, 9) }
	type code struct{ kind, code uint8 }
	tests := map[string]struct {
		dst    func(ipv6 bool) netip.Addr
		ttl    uint8
		size   int
		v4, v6 code
		mtu    uint32
		want   graph.Reason
	}{
		"time to live 1": {remote, 1, 100, code{11, 0}, code{3, 0}, 0, graph.TTLSpent},
		"time to live 0": {remote, 0, 100, code{11, 0}, code{3, 0}, 0, graph.TTLSpent},
		"to a pod, time to live 1": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetPods, gt.VethHost) }, 1, 10,
			code{11, 0}, code{3, 0}, 0, graph.TTLSpent},
		"to a neighbour not yet known, time to live 1": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetUp, gt.Unknown) }, 1, 10,
			code{11, 0}, code{3, 0}, 0, graph.TTLSpent},
		"no route": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetNowhere, 9) }, 64, 2000,
			code{3, 0}, code{1, 0}, 0, graph.NoRoute},
		"prohibited": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetProhibited, 9) }, 64, 0,
			code{3, 13}, code{1, 1}, 0, graph.Prohibited},
		"too big": {remote, 64, 1600, code{3, 4}, code{2, 0}, 1500, graph.TooBig},
		"too big for a smaller way": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetSmall, gt.Station) }, 64, 1400,
			code{3, 4}, code{2, 0}, 1280, graph.TooBig},
		"too big for a neighbour not yet known": {func(ipv6 bool) netip.Addr { return gt.Addr(ipv6, gt.NetSmall, gt.Unknown) }, 64, 1400,
			code{3, 4}, code{2, 0}, 1280, graph.TooBig},
		"too big, and its time is spent": {remote, 1, 1600, code{11, 0}, code{3, 0}, 0, graph.TTLSpent},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				ip := gt.UDPTTL(gt.Addr(ipv6, gt.NetPods, gt.PodHost), tt.dst(ipv6), tt.size, tt.ttl)
				l.SendIP(gt.Pod, ip)
				r := readReport(t, wantOne(t, l, gt.Pod).Bytes)
				want := tt.v4
				most := 576 - 28
				if ipv6 {
					want, most = tt.v6, 1280-48
				}
				if r.src != gt.Addr(ipv6, gt.NetUp, gt.Ours) || r.dst != gt.Addr(ipv6, gt.NetPods, gt.PodHost) {
					t.Errorf("told %s from %s", r.dst, r.src)
				}
				if r.kind != want.kind || r.code != want.code || r.rest != tt.mtu {
					t.Errorf("type %d code %d, rest %d; want %v, %d", r.kind, r.code, r.rest, want, tt.mtu)
				}
				wantBytes(t, r.quoted, ip[:min(len(ip), most)])
				c := l.Change()
				if c.Drops[tt.want] != 1 || c.Dropped() != 1 || c.Made[graph.MadeICMPError] != 1 {
					t.Errorf("drops %v, made %v", dropNames(&c), c.Made)
				}
			})
		}
	})
}

// The error speaks from our address on the port by which the packet came.
func TestErrorsComeFromTheAddressOfThePort(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for port, n := range map[uint16]int{gt.Up: gt.NetUp, gt.Tag: gt.NetTag, gt.Small: gt.NetSmall} {
			l := gt.Standard(t, 1)
			l.SendIP(port, gt.UDPTTL(gt.Addr(ipv6, n, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.PodHost), 10, 1))
			out := port
			vlan := 0
			if port == gt.Tag {
				out, vlan = gt.Up, 4
			}
			if r := readReport(t, wantOne(t, l, out).Bytes[14+vlan:]); r.src != gt.Addr(ipv6, n, gt.Ours) {
				t.Errorf("on port %d the error is from %s", port, r.src)
			}
		}
	})
}

func TestNoErrorAboutErrorsPartsAndGroups(t *testing.T) {
	w := func(ipv6 bool) ends { return ends{gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetRemote, 9)} }
	icmp := func(v4, v6 uint8) func(bool) []byte {
		return func(ipv6 bool) []byte {
			w := w(ipv6)
			if ipv6 {
				return gt.Frame(gt.IPTTL(w.src, w.dst, 58, 1), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(v6, 0)}, gt.Payload(60))
			}
			return gt.Frame(gt.IPTTL(w.src, w.dst, 1, 1), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(v4, 0)}, gt.Payload(60))
		}
	}
	spent := func(ip []byte) []byte {
		if ip[0]>>4 == 6 {
			ip[7] = 1
		} else {
			ip[8] = 1
			copy(ip, sumHeader(ip))
		}
		return ip
	}
	tests := map[string]struct {
		ip  func(ipv6 bool) []byte
		due bool
	}{
		"UDP":               {func(ipv6 bool) []byte { return gt.UDPTTL(w(ipv6).src, w(ipv6).dst, 8, 1) }, true},
		"an echo request":   {icmp(8, 128), true},
		"an echo reply":     {icmp(0, 129), true},
		"unreachable":       {icmp(3, 1), false},
		"time exceeded":     {icmp(11, 3), false},
		"too big":           {icmp(3, 2), false},
		"parameter problem": {icmp(12, 4), false},
		"source quench, or an error yet to be invented": {icmp(4, 127), false},
		"redirect, or an error":                         {icmp(5, 100), false},
		"the first part": {func(ipv6 bool) []byte {
			return spent(part(ipv6, w(ipv6), 0, true, gt.UDP(w(ipv6).src, w(ipv6).dst, 64)[len(gt.UDP(w(ipv6).src, w(ipv6).dst, 0))-8:]))
		}, true},
		"a later part":                 {func(ipv6 bool) []byte { return spent(part(ipv6, w(ipv6), 80, true, gt.Payload(64))) }, false},
		"the last part":                {func(ipv6 bool) []byte { return spent(part(ipv6, w(ipv6), 80, false, gt.Payload(64))) }, false},
		"a protocol that nobody knows": {func(ipv6 bool) []byte { return gt.Frame(gt.IPTTL(w(ipv6).src, w(ipv6).dst, 253, 1), gt.Payload(9)) }, true},
		"nothing behind the IP header": {func(ipv6 bool) []byte { return gt.Frame(gt.IPTTL(w(ipv6).src, w(ipv6).dst, 59, 1)) }, true},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.SendIP(gt.Up, tt.ip(ipv6))
				c := l.Change()
				if c.Drops[graph.TTLSpent] != 1 || c.Dropped() != 1 {
					t.Errorf("drops %v, want ttl-spent", dropNames(&c))
				}
				if n := len(l.Collect(gt.Up)); (n == 1) != tt.due {
					t.Errorf("%d errors were sent", n)
				}
			})
		}
		t.Run("in a broadcast frame", func(t *testing.T) {
			l := gt.Standard(t, 1)
			l.Inject(gt.Up, gt.Ether(node.MAC{255, 255, 255, 255, 255, 255}, gt.StationMAC(0, 2), gt.UDPTTL(w(ipv6).src, w(ipv6).dst, 8, 1)))
			l.Run()
			wantNone(t, l)
		})
	})
}

func TestErrorsAreLimitedInRate(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		w := fromPod(ipv6)
		flood := func(n int) int {
			for range n {
				l.Inject(gt.Pod, gt.UDPTTL(w.src, w.dst, 8, 1))
			}
			l.Run()
			return len(l.Collect(gt.Pod))
		}
		if n := flood(1000); n != 200 {
			t.Errorf("%d of 1000 at once were answered, want 200", n)
		}
		c := l.Change()
		if c.Drops[graph.TTLSpent] != 1000 || c.MadeRefused+c.Made[graph.MadeICMPError] != 1000 {
			t.Errorf("drops %v, made %v, refused %d", dropNames(&c), c.Made, c.MadeRefused)
		}
		l.Advance(100 * time.Millisecond)
		if n := flood(1000); n != 100 {
			t.Errorf("a tenth of a second later %d were answered, want 100", n)
		}
		l.Advance(time.Hour)
		if n := flood(1000); n != 200 {
			t.Errorf("an hour later %d were answered, want 200", n)
		}
	})
}

// Who has no address to speak from keeps silent, and says so in a counter.
func TestWithoutAnAddressNoErrorIsSent(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Publish(func(s *node.State) { clear(s.Sources) })
		w := fromPod(ipv6)
		l.SendIP(gt.Pod, gt.UDPTTL(w.src, w.dst, 8, 1))
		wantNone(t, l)
		if c := l.Change(); c.MadeRefused != 1 || c.Drops[graph.TTLSpent] != 1 {
			t.Errorf("refused %d, drops %v", c.MadeRefused, dropNames(&c))
		}
	})
}

// Errors about superpackets quote the first buffer and tell of every segment.
func TestSuperpacketTooBigIsOneError(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		p := superpacket(ipv6, true, 30_000, 1480)
		l.InjectPackets(gt.Pod, p)
		l.Run()
		if r := readReport(t, wantOne(t, l, gt.Pod).Bytes); r.rest != 1500 {
			t.Errorf("MTU told is %d, want 1500", r.rest)
		}
		l.WantDrops(t, map[graph.Reason]uint64{graph.TooBig: uint64(p.Meta.Segments)})
	})
}

// An error whose own way needs a neighbour waits for it and then goes on.
func TestErrorsWaitForTheirNeighbour(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		src := gt.Addr(ipv6, gt.NetUp, gt.Unknown)
		l.SendIP(gt.Up, gt.UDPTTL(src, gt.Addr(ipv6, gt.NetPods, gt.PodHost), 8, 1))
		l.Collect(gt.Up) // the question
		if held := l.Engine.Total().Held; held != 1 {
			t.Fatalf("%d packets are held, want the error", held)
		}
		l.Route(netip.PrefixFrom(src, src.BitLen()), l.Adjacency(l.Rewrite(gt.Up, ipv6, gt.StationMAC(gt.NetUp, gt.Unknown), netip.Addr{})))
		l.Engine.Kick()
		l.Run()
		if r := readReport(t, wantOne(t, l, gt.Up).Bytes[14:]); r.dst != src {
			t.Errorf("told %s, want %s", r.dst, src)
		}
	})
}

// The source of the packet is one of ours: the error goes to the host.
func TestErrorsToTheNodeArePunted(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.SendIP(gt.Host, gt.UDPTTL(gt.Addr(ipv6, gt.NetUp, gt.Ours), gt.Addr(ipv6, gt.NetRemote, 9), 8, 1))
		if r := readReport(t, wantOne(t, l, gt.Host).Bytes); r.dst != gt.Addr(ipv6, gt.NetUp, gt.Ours) {
			t.Errorf("told %s", r.dst)
		}
		if c := l.Change(); c.Punt != 1 {
			t.Errorf("%d packets were punted, want 1", c.Punt)
		}
	})
}

func TestErrorsThatCannotGoBackAreDropped(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range map[string]struct {
			net, host int
			want      graph.Reason
		}{
			"no route back":        {gt.NetNowhere, 1, graph.NoRoute},
			"a black hole":         {gt.NetBlackhole, 1, graph.NoRoute},
			"a pod without policy": {gt.NetPods, gt.MuteHost, graph.NoPolicy},
		} {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.SendIP(gt.Up, gt.UDPTTL(gt.Addr(ipv6, tt.net, tt.host), gt.Addr(ipv6, gt.NetPods, gt.PodHost), 8, 1))
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{graph.TTLSpent: 1, tt.want: 1})
			})
		}
	})
}

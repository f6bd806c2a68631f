package node_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// waitInVain lets the time pass after which a neighbour is given up.
func waitInVain(l *gt.Lab) {
	l.Advance(1500 * time.Millisecond)
	l.CollectAll() // what was asked
	l.Change()
	l.Advance(1600 * time.Millisecond)
}

// wantUnreached fails t unless ip tells of a host that cannot be reached.
func wantUnreached(t *testing.T, ip []byte, from, to netip.Addr, quoted []byte) {
	t.Helper()
	r := readReport(t, ip)
	kind, code := uint8(3), uint8(1)
	if to.Is6() {
		kind, code = 1, 3
	}
	if r.kind != kind || r.code != code || r.rest != 0 || r.src != from || r.dst != to {
		t.Errorf("told %s from %s: type %d code %d, rest %d; want %s from %s: %d %d", r.dst, r.src, r.kind, r.code, r.rest, to, from, kind, code)
	}
	wantBytes(t, r.quoted, quoted)
}

func TestTellsEachSenderThatNobodyAnswered(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, a := range askings {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				pod, station, dst := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, a.net, a.host)
				first, second, other := gt.UDP(pod, dst, 100), gt.TCP(pod, dst, 200), gt.Echo(station, dst, 50)
				l.SendIP(gt.Pod, first, second)
				l.SendIP(gt.Up, other)
				waitInVain(l)
				toPod, toStation := l.Collect(gt.Pod), l.Collect(gt.Up)
				if len(toPod) != 2 || len(toStation) != 1 {
					t.Fatalf("the pod was told %d times, the station %d times; want 2 and 1", len(toPod), len(toStation))
				}
				ours := gt.Addr(ipv6, gt.NetUp, gt.Ours)
				wantUnreached(t, toPod[0].Bytes, ours, pod, first)
				wantUnreached(t, toPod[1].Bytes, ours, pod, second)
				wantUnreached(t, toStation[0].Bytes[14:], ours, station, other)
				c := l.Change()
				if c.Drops[graph.Unresolved] != 3 || c.Dropped() != 3 || c.Made[graph.MadeICMPError] != 3 || c.Held != 0 {
					t.Errorf("drops %v, made %v, %d are held", dropNames(&c), c.Made, c.Held)
				}
			})
		}
	})
}

func TestNobodyIsToldInVainOf(t *testing.T) {
	w := func(ipv6 bool) ends {
		return ends{gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetSmall, gt.Unknown)}
	}
	tests := map[string]func(ipv6 bool) []byte{
		"an ICMP error": func(ipv6 bool) []byte {
			w := w(ipv6)
			if ipv6 {
				return gt.Frame(gt.IP(w.src, w.dst, 58), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 0)}, gt.Payload(60))
			}
			return gt.Frame(gt.IP(w.src, w.dst, 1), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 0)}, gt.Payload(60))
		},
		"a later part": func(ipv6 bool) []byte { return part(ipv6, w(ipv6), 80, false, gt.Payload(64)) },
		// The sender's own neighbour is not known, so that our error waits.
		"an error of our own": func(ipv6 bool) []byte { return gt.UDPTTL(w(ipv6).dst, w(ipv6).src, 9, 1) },
		"a reply of our own":  func(ipv6 bool) []byte { return gt.Echo(w(ipv6).dst, gt.Addr(ipv6, gt.NetUp, gt.Ours), 9) },
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, ip := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.SendIP(gt.Up, ip(ipv6))
				if held := l.Engine.Total().Held; held != 1 {
					t.Fatalf("%d packets are held, want 1", held)
				}
				waitInVain(l)
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: 1})
			})
		}
	})
}

// While a packet waits, the port that it came in by may go.
func TestTellsOfPacketsWhosePortHasGone(t *testing.T) {
	gone := func(l *gt.Lab, port uint16) {
		if err := l.Engine.RemovePort(t.Context(), port); err != nil {
			t.Fatal(err)
		}
		l.Publish(func(s *node.State) {
			s.Ports[port] = node.Port{}
			for _, ipv6 := range []bool{false, true} {
				delete(s.Sources, node.Source{Port: port, IPv6: ipv6})
			}
		})
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		dst := gt.Addr(ipv6, gt.NetUp, gt.Unknown)
		t.Run("with the way back", func(t *testing.T) {
			l := gt.Standard(t, 1)
			pod := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
			l.SendIP(gt.Pod, gt.UDP(pod, dst, 10))
			gone(l, gt.Pod)
			l.Tables.FIB.DeleteRoute(netip.PrefixFrom(pod, pod.BitLen()))
			waitInVain(l)
			wantNone(t, l)
			l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: 1, graph.NoRoute: 1})
		})
		t.Run("while its sender is still there", func(t *testing.T) {
			l := gt.Standard(t, 1)
			src := gt.Addr(ipv6, gt.NetRemote, 9)
			ip := gt.UDP(src, dst, 10)
			l.SendIP(gt.Small, ip)
			gone(l, gt.Small)
			waitInVain(l)
			wantUnreached(t, wantOne(t, l, gt.Up).Bytes[14:], gt.Addr(ipv6, gt.NetUp, gt.Ours), src, ip)
		})
	})
}

// Whoever sent a superpacket is told of it once; the account is in segments.
func TestSuperpacketThatNobodyAnsweredForIsOneError(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		p := superpacket(ipv6, false, 9000, 1400)
		dst := gt.Addr(ipv6, gt.NetAsk, 9).AsSlice()
		if ipv6 {
			copy(p.Bytes[24:], dst)
		} else {
			copy(p.Bytes[16:], dst)
			copy(p.Bytes, sumHeader(p.Bytes))
		}
		l.InjectPackets(gt.Pod, p)
		l.Run()
		waitInVain(l)
		most := 576 - 28
		if ipv6 {
			most = 1280 - 48
		}
		wantUnreached(t, wantOne(t, l, gt.Pod).Bytes, gt.Addr(ipv6, gt.NetUp, gt.Ours), gt.Addr(ipv6, gt.NetPods, gt.PodHost), p.Bytes[:most])
		l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: uint64(p.Meta.Segments)})
	})
}

// The node's own packets come from its stack, which is told.
func TestTellsTheNodeThatNobodyAnswered(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		ours := gt.Addr(ipv6, gt.NetUp, gt.Ours)
		ip := gt.UDP(ours, gt.Addr(ipv6, gt.NetUp, gt.Unknown), 10)
		l.SendIP(gt.Host, ip)
		waitInVain(l)
		wantUnreached(t, wantOne(t, l, gt.Host).Bytes, ours, ours, ip)
		if c := l.Change(); c.Punt != 1 || c.Drops[graph.Unresolved] != 1 {
			t.Errorf("%d packets were punted, drops %v", c.Punt, dropNames(&c))
		}
	})
}

// holdMany holds 1600 packets, 16 for each of 100 neighbours, for half of the
// time that they may wait.
func holdMany(t *testing.T, ipv6 bool) *gt.Lab {
	t.Helper()
	l := gt.StandardConfig(t, gt.Config{Frames: 4096})
	for i := range 100 {
		for port := range 16 {
			l.Inject(gt.Pod, gt.UDPPorts(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetUp, 10+i), 10, uint16(port), 9))
		}
	}
	l.Run()
	if held := l.Engine.Total().Held; held != 1600 {
		t.Fatalf("%d packets are held, want 1600", held)
	}
	l.Advance(1500 * time.Millisecond)
	l.CollectAll()
	l.Change()
	return l
}

// More packets are given up than a pass has room for: as many are told as the
// rate allows, none for want of room, and others go on meanwhile.
func TestGivesUpInSeveralPasses(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := holdMany(t, ipv6)
		l.Inject(gt.Pod, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetRemote, 10), 10))
		l.Advance(1600 * time.Millisecond)
		if n := len(l.Collect(gt.Pod)); n != 200 {
			t.Errorf("%d were told at once, want 200", n)
		}
		if n := len(l.Collect(gt.Up)); n != 1 {
			t.Errorf("%d packets went on meanwhile, want 1", n)
		}
		for range 10 {
			l.Engine.Kick()
			l.Run()
			l.Even(t)
		}
		c := l.Change()
		if c.Drops[graph.Unresolved] != 1600 || c.Dropped() != 1600 || c.Held != 0 || c.Made[graph.MadeICMPError]+c.MadeRefused != 1600 {
			t.Errorf("drops %v, made %v, refused %d, %d are held", dropNames(&c), c.Made, c.MadeRefused, c.Held)
		}
	})
}

// Neighbours that answer while their packets are being given up get the rest,
// which carries no reason to be dropped any more.
func TestAnswersWhileGivingUpSaveTheRest(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := holdMany(t, ipv6)
		l.Advance(1600 * time.Millisecond)
		told := l.Change().Drops[graph.Unresolved]
		l.Route(gt.Net(ipv6, gt.NetUp), l.Adjacency(l.Rewrite(gt.Up, ipv6, gt.StationMAC(0, 9), netip.Addr{})))
		for range 10 {
			l.Engine.Kick()
			l.Run()
		}
		out := l.Collect(gt.Up)
		if told == 0 || len(out) != 1600-int(told) {
			t.Errorf("%d packets were given up and %d left, want 1600 together", told, len(out))
		}
		if slices.ContainsFunc(out, func(p gt.Packet) bool { return p.Meta.Reason != graph.NoReason }) {
			t.Error("a packet that left carries a reason to be dropped")
		}
	})
}

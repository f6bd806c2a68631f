package node_test

import (
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// asking is a destination whose neighbour must be asked for.
type asking struct {
	out       uint16
	net, host int // the destination
	via       int // host in the link's net whose MAC is asked for
	link      int // net of the link
}

var askings = map[string]asking{
	"a station on the link":      {gt.Up, gt.NetUp, gt.Unknown, gt.Unknown, gt.NetUp},
	"behind a gateway":           {gt.Up, gt.NetAsk, 5, gt.Asked, gt.NetUp},
	"a station on a VLAN":        {gt.Tag, gt.NetTag, gt.Unknown, gt.Unknown, gt.NetTag},
	"a station on a narrow link": {gt.Small, gt.NetSmall, gt.Unknown, gt.Unknown, gt.NetSmall},
}

// question is the frame that asks for the neighbour of a.
func (a asking) question(ipv6 bool) []byte {
	ours, addr, mac := gt.Addr(ipv6, a.link, gt.Ours), gt.Addr(ipv6, a.link, a.via), gt.MAC(a.out)
	var vlans []uint16
	if a.out == gt.Tag {
		mac, vlans = gt.MAC(gt.Up), []uint16{7}
	}
	if !ipv6 {
		return gt.ARP(broadcast, mac, 1, ours, node.MAC{}, addr, vlans...)
	}
	group, dst := gt.SolicitedNode(addr)
	return gt.Ether(dst, mac, gt.Solicit(ours, group, addr, mac), vlans...)
}

// main is the port whose queues a uses.
func (a asking) main() uint16 {
	if a.out == gt.Tag {
		return gt.Up
	}
	return a.out
}

// answer tells the FIB the neighbour's MAC, as the tables' owner does.
func (a asking) answer(l *gt.Lab, ipv6 bool, mac node.MAC) {
	dst := gt.Addr(ipv6, a.net, a.host)
	if a.net == a.link {
		l.Route(netip.PrefixFrom(dst, dst.BitLen()), l.Adjacency(l.Rewrite(a.out, ipv6, mac, netip.Addr{})))
		return
	}
	l.SetAdjacency(l.Way(dst, 0), l.Rewrite(a.out, ipv6, mac, gt.Addr(ipv6, a.link, a.via)))
}

func TestHoldsAsksAndLetsGo(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, a := range askings {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				ip := gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, a.net, a.host), 100)
				l.SendIP(gt.Pod, ip, ip)
				wantBytes(t, wantOne(t, l, a.main()).Bytes, a.question(ipv6))
				l.Even(t)
				if held := l.Engine.Total().Held; held != 2 {
					t.Fatalf("%d packets are held, want 2", held)
				}
				want := node.NeighbourEvent{Kind: node.Needed, Port: a.out, Addr: gt.Addr(ipv6, a.link, a.via)}
				if got := events(l); len(got) != 1 || got[0] != want {
					t.Errorf("told %v, want %v", got, want)
				}
				mac := gt.StationMAC(a.link, a.via)
				a.answer(l, ipv6, mac)
				l.Engine.Kick()
				l.Run()
				out := l.Collect(a.main())
				if len(out) != 2 {
					t.Fatalf("%d packets left, want both", len(out))
				}
				header := 14
				if a.out == gt.Tag {
					header = 18
				}
				wantBytes(t, out[1].Bytes[:6], mac[:])
				wantBytes(t, out[1].Bytes[header:], older(t, ip))
			})
		}
	})
}

// A port that the kernel shares: we ask it, and nothing else leaves.
func TestAsksTheKernelOnSharedPorts(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.SendIP(gt.Pod, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetAskSide, 9), 10))
		wantNone(t, l)
		want := node.NeighbourEvent{Kind: node.Needed, Port: gt.Side, Addr: gt.Addr(ipv6, gt.NetSide, gt.Asked)}
		if got := events(l); len(got) != 1 || got[0] != want {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// A pod whose MAC is not known is asked for in the gateway's name.
func TestAsksPodsInTheNameOfTheirGateway(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod := gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		l.SetAdjacency(l.Way(pod, 0), l.Incomplete(gt.Veth, pod))
		l.SendIP(gt.Up, gt.UDP(gt.Addr(ipv6, gt.NetUp, gt.Station), pod, 10))
		want := gt.ARP(broadcast, gt.MAC(gt.Veth), 1, node.WorkloadGateways[0], node.MAC{}, gt.Addr(false, gt.NetPods, gt.VethHost))
		if ipv6 {
			group, mac := gt.SolicitedNode(pod)
			want = gt.Ether(mac, gt.MAC(gt.Veth), gt.Solicit(node.WorkloadGateways[1], group, pod, gt.MAC(gt.Veth)))
		}
		wantBytes(t, wantOne(t, l, gt.Veth).Bytes, want)
	})
}

func TestGivesUpAfterThreeSeconds(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		a := askings["behind a gateway"]
		l.SendIP(gt.Pod, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, a.net, a.host), 100))
		asked := len(l.Collect(gt.Up))
		for range 30 {
			if held := l.Engine.Total().Held; held != 1 {
				t.Fatalf("%d packets are held", held)
			}
			l.Advance(97 * time.Millisecond)
			asked += len(l.Collect(gt.Up))
		}
		if asked != 3 {
			t.Errorf("asked %d times in 3 seconds, want 3", asked)
		}
		l.Change()
		l.Advance(300 * time.Millisecond)
		l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: 1})
		if held := l.Engine.Total().Held; held != 0 {
			t.Errorf("%d packets are held", held)
		}
		wantOne(t, l, gt.Pod) // the news of it
	})
}

func TestHoldsNoMoreThanItHasPlacesFor(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		pod := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		t.Run("for one neighbour", func(t *testing.T) {
			l := gt.Standard(t, 1)
			for i := range 100 {
				l.SendIP(gt.Pod, gt.UDPPorts(pod, gt.Addr(ipv6, gt.NetAsk, i), 10, uint16(i), 9))
			}
			if n := len(l.Collect(gt.Up)); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
			l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 84})
		})
		t.Run("for many", func(t *testing.T) {
			l := gt.Standard(t, 1)
			for i := range 200 {
				l.SendIP(gt.Pod, gt.UDP(pod, gt.Addr(ipv6, gt.NetUp, 10+i), 10))
			}
			if n := len(l.Collect(gt.Up)); n != 128 {
				t.Errorf("asked %d times, want 128", n)
			}
			l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 72})
		})
		t.Run("for as many again, once those are given up", func(t *testing.T) {
			l := gt.Standard(t, 1)
			for round := range 3 {
				for i := range 128 {
					l.Inject(gt.Pod, gt.UDP(pod, gt.Addr(ipv6, gt.NetUp, 10+i), 10))
				}
				l.Run()
				if n := len(l.Collect(gt.Up)); n != 128 {
					t.Errorf("round %d: asked %d times, want 128", round, n)
				}
				l.Advance(3100 * time.Millisecond)
				l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: 128})
			}
		})
	})
}

// More packets are let go than one pass has room for.
func TestLetsGoInSeveralPasses(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.StandardConfig(t, gt.Config{Frames: 4096})
		pod := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		for i := range 100 {
			for port := range 16 {
				l.Inject(gt.Pod, gt.UDPPorts(pod, gt.Addr(ipv6, gt.NetUp, 10+i), 10, uint16(port), 9))
			}
		}
		l.Run()
		l.Collect(gt.Up)
		if held := l.Engine.Total().Held; held != 1600 {
			t.Fatalf("%d packets are held, want 1600", held)
		}
		l.Route(gt.Net(ipv6, gt.NetUp), l.Adjacency(l.Rewrite(gt.Up, ipv6, gt.StationMAC(0, 9), netip.Addr{})))
		for range 10 {
			l.Inject(gt.Pod, gt.UDP(pod, gt.Addr(ipv6, gt.NetRemote, 10), 10)) // others go on meanwhile
			l.Engine.Kick()
			l.Run()
		}
		if n := len(l.Collect(gt.Up)); n != 1610 {
			t.Errorf("%d packets left, want 1610", n)
		}
	})
}

// While packets wait, the way to their destination may change altogether.
func TestHeldPacketsFollowTheirRoute(t *testing.T) {
	tests := map[string]struct {
		change func(l *gt.Lab, ipv6 bool)
		out    int
		want   graph.Reason
	}{
		"to another port": {func(l *gt.Lab, ipv6 bool) {
			l.Route(gt.Net(ipv6, gt.NetAsk), l.Way(gt.Addr(ipv6, gt.NetPods, gt.VethHost), 0))
		}, int(gt.Veth), 0},
		"to nowhere": {func(l *gt.Lab, ipv6 bool) { l.Tables.FIB.DeleteRoute(gt.Net(ipv6, gt.NetAsk)) }, int(gt.Pod), graph.NoRoute},
		"into a black hole": {func(l *gt.Lab, ipv6 bool) {
			l.Route(gt.Net(ipv6, gt.NetAsk), l.Way(gt.Addr(ipv6, gt.NetBlackhole, 0), 0))
		}, -1, graph.Blackhole},
		"back to the pod": {func(l *gt.Lab, ipv6 bool) {
			l.Route(gt.Net(ipv6, gt.NetAsk), l.Way(gt.Addr(ipv6, gt.NetPods, gt.PodHost), 0))
		}, -1, graph.Loop},
		"the pod is gone": {func(l *gt.Lab, ipv6 bool) {
			p := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
			l.Tables.FIB.DeleteRoute(netip.PrefixFrom(p, p.BitLen()))
			l.Route(gt.Net(ipv6, gt.NetAsk), l.Way(gt.Addr(ipv6, gt.NetRemote, 1), 0))
		}, -1, graph.SpoofedSource},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.SendIP(gt.Pod, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetAsk, 9), 10))
				l.Collect(gt.Up)
				tt.change(l, ipv6)
				l.Engine.Kick()
				l.Run()
				if tt.out >= 0 {
					wantOne(t, l, uint16(tt.out))
				} else {
					wantNone(t, l)
				}
				if tt.want != graph.NoReason {
					l.WantDrops(t, map[graph.Reason]uint64{tt.want: 1})
				}
			})
		}
	})
}

// One way of several is known, the other not: each flow waits for its own, and
// is neither asked for without end nor given up although it is known.
func TestFlowsOfAGroupWaitForTheirOwnWay(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, last := range map[string]bool{"the first": false, "the last": true} {
			t.Run("of which "+name+" is not known", func(t *testing.T) {
				l := gt.Standard(t, 1)
				gateway := gt.Addr(ipv6, gt.NetUp, gt.Asked)
				unknown := l.Adjacency(l.Incomplete(gt.Up, gateway))
				known := l.Way(gt.Addr(ipv6, gt.NetSide, gt.Gateway), 0)
				if last {
					l.Route(gt.Net(ipv6, gt.NetSpread), known, unknown)
				} else {
					l.Route(gt.Net(ipv6, gt.NetSpread), unknown, known)
				}
				held, asked := holdFlows(t, l, ipv6)
				if asked != 1 {
					t.Errorf("asked %d times in 600 ms, want once", asked)
				}
				l.SetAdjacency(unknown, l.Rewrite(gt.Up, ipv6, gt.StationMAC(0, 9), gateway))
				l.Engine.Kick()
				l.Run()
				if n := len(l.Collect(gt.Up)); n != held {
					t.Errorf("%d packets left, want %d", n, held)
				}
			})
		}
	})
}

// holdFlows sends flows to NetSpread, some of which must wait, and lets 600 ms pass.
func holdFlows(t *testing.T, l *gt.Lab, ipv6 bool) (held, asked int) {
	t.Helper()
	pod, dst := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetSpread, 1)
	for i := range 20 {
		l.Inject(gt.Pod, gt.UDPPorts(pod, dst, 10, uint16(i), 9))
	}
	l.Run()
	asked = len(l.Collect(gt.Up))
	held = int(l.Engine.Total().Held)
	if held == 0 || held > 16 || len(l.Collect(gt.Side)) != 20-held {
		t.Fatalf("%d of 20 packets are held", held)
	}
	for range 20 {
		l.Engine.Kick()
		l.Advance(30 * time.Millisecond)
		asked += len(l.Collect(gt.Up))
	}
	return held, asked
}

// Packets of every shape can wait: superpackets, and chains of buffers.
func TestHoldsSuperpacketsAndChains(t *testing.T) {
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
		station := gt.Addr(ipv6, gt.NetUp, gt.Station)
		chain := gt.Packet{Bytes: gt.Framed(gt.Up, gt.UDP(station, gt.Addr(ipv6, gt.NetAsk, 8), 1400)), Pieces: []int{500, 500}}
		l.InjectPackets(gt.Up, chain)
		l.Run()
		l.Collect(gt.Up)
		if held := l.Engine.Total().Held; held != 8 {
			t.Errorf("%d segments are held, want 7 and 1", held)
		}
		l.SetAdjacency(l.Way(gt.Addr(ipv6, gt.NetAsk, 9), 0), l.Rewrite(gt.Up, ipv6, gt.StationMAC(0, 9), gt.Addr(ipv6, gt.NetUp, gt.Asked)))
		l.Engine.Kick()
		l.Run()
		out := l.Collect(gt.Up)
		if len(out) != 2 {
			t.Fatalf("%d packets left, want 2", len(out))
		}
		for _, o := range out {
			want := p.Bytes
			if o.Meta.GSO == graph.GSONone {
				want = chain.Bytes[14:]
			}
			wantBytes(t, o.Bytes[14:], older(t, want))
		}
	})
}

// Nobody is asked for on a port without link layer, whatever its route says.
func TestNobodyIsAskedForOnAnL3Port(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.SetAdjacency(l.Way(pod, 0), l.Incomplete(gt.Pod, pod))
		l.SendIP(gt.Up, gt.UDP(gt.Addr(ipv6, gt.NetUp, gt.Station), pod, 10))
		wantNone(t, l)
	})
}

// With the queue of events full nothing blocks and nothing is lost but the event.
func TestFullEventQueueBlocksNobody(t *testing.T) {
	l := gt.Standard(t, 1)
	for range cap(l.Tables.Events) {
		l.Tables.Events <- node.NeighbourEvent{}
	}
	l.SendIP(gt.Pod, gt.UDP(gt.Addr(false, gt.NetPods, gt.PodHost), gt.Addr(false, gt.NetAsk, 9), 10))
	wantOne(t, l, gt.Up)
	events(l)
	l.Advance(1100 * time.Millisecond)
	if got := events(l); len(got) != 1 || got[0].Kind != node.Needed {
		t.Errorf("a second later told %v", got)
	}
}

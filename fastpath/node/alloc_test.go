package node_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
)

// mixed is traffic that meets every node, for each port.
func mixed() map[uint16][]gt.Packet {
	all := map[uint16][]gt.Packet{}
	add := func(port uint16, frames ...[]byte) {
		for _, f := range frames {
			all[port] = append(all[port], gt.Packet{Bytes: f})
		}
	}
	for _, ipv6 := range []bool{false, true} {
		up, pod := gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		ours := gt.Addr(ipv6, gt.NetUp, gt.Ours)
		names := gt.Addr(ipv6, gt.NetRemote, 53)
		add(gt.Pod, gt.UDPPorts(pod, names, 30, 4000, 53))
		add(gt.Up, gt.Framed(gt.Up, gt.UDPPorts(names, pod, 60, 53, 4000)))
		for i := range 20 {
			add(gt.Up, gt.Framed(gt.Up, gt.UDP(up, pod, 100+i)), gt.Framed(gt.Up, gt.TCP(up, gt.Addr(ipv6, gt.NetPods, gt.VethHost), i)))
			add(gt.Pod, gt.TCP(pod, gt.Addr(ipv6, gt.NetRemote, i), i), gt.UDPPorts(pod, gt.Addr(ipv6, gt.NetSpread, i), 9, uint16(i), 9))
		}
		add(gt.Up, gt.Framed(gt.Up, gt.Echo(up, ours, 100)), gt.Framed(gt.Up, gt.UDP(up, ours, 9)),
			gt.Framed(gt.Tag, gt.UDP(gt.Addr(ipv6, gt.NetTag, gt.Station), pod, 9)),
			gt.Framed(gt.Up, gt.UDP(up, gt.Addr(ipv6, gt.NetNowhere, 1), 9)))
		add(gt.Pod, gt.UDPTTL(pod, gt.Addr(ipv6, gt.NetRemote, 1), 9, 1), gt.UDP(pod, gt.Addr(ipv6, gt.NetRemote, 1), 1600),
			gt.UDP(pod, gt.Addr(ipv6, gt.NetAsk, 1), 9), gt.UDP(pod, gt.Addr(ipv6, gt.NetAskSide, 1), 9), gt.UDP(up, pod, 9),
			part(ipv6, ends{pod, gt.Addr(ipv6, gt.NetTag, gt.Station)}, 80, true, gt.Payload(64)))
		all[gt.Pod] = append(all[gt.Pod], superpacket(ipv6, false, 60_000, 1400), superpacket(ipv6, true, 3000, 1400))
	}
	w4, w6 := fromPod(false), fromPod(true)
	add(gt.Pod, mayFragment(gt.UDP(w4.src, w4.dst, 3000)), options4(w4, []byte{7, 7, 4, 0, 0, 0, 0, 0}),
		chain6(w6, extension{0, make([]byte, 6)}, extension{60, make([]byte, 6)}))
	ours6, asker := gt.Addr(true, gt.NetUp, gt.Ours), gt.StationMAC(gt.NetUp, 7)
	group, mac := gt.SolicitedNode(ours6)
	add(gt.Up, gt.ARP(broadcast, asker, 1, gt.Addr(false, gt.NetUp, 7), node.MAC{}, gt.Addr(false, gt.NetUp, gt.Ours)),
		gt.Ether(mac, asker, gt.Solicit(gt.Addr(true, gt.NetUp, 7), group, ours6, asker)))
	all[gt.Up] = append(all[gt.Up], gt.Packet{Bytes: gt.Framed(gt.Up, gt.TCP(gt.Addr(false, gt.NetUp, 2), w4.src, 7000)), Pieces: []int{3800}})
	return all
}

// loopMixed lets mixed traffic come in by all queues until endAll.
func loopMixed(l *gt.Lab) {
	traffic := mixed()
	for port := range gt.Ports {
		for _, q := range l.Queues(port) {
			q.Loop(traffic[port]...)
		}
	}
}

func endAll(l *gt.Lab) {
	for port := range gt.Ports {
		for _, q := range l.Queues(port) {
			q.End()
		}
	}
}

// A pass allocates nothing, whatever comes, and also when packets change hands
// between workers.
func TestMixedTrafficAllocatesNothing(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			l := gt.StandardConfig(t, gt.Config{Workers: workers, Single: []uint16{gt.Veth, gt.Host, gt.Side}})
			l.Police(gt.Pod, &judge.Endpoint{Ingress: open(t), Egress: open(t)})
			for _, ipv6 := range []bool{false, true} { // who asks for names first begins the flow
				l.SendIP(gt.Pod, gt.UDPPorts(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetRemote, 53), 30, 4000, 53))
			}
			loopMixed(l)
			heard, stop := l.Tables.Court.Post.Listen()
			for range 200 { // until every buffer has its size, and what is held is held
				l.Engine.Step()
			}
			l.Change()
			n := testing.AllocsPerRun(300, func() {
				l.Engine.Advance(15 * time.Millisecond) // ticks, questions and errors are due in time
				l.Tables.Court.Begin()                  // and known flows are looked at
				l.Engine.Step()
				for len(l.Tables.Events) > 0 {
					<-l.Tables.Events
				}
				for len(heard) > 0 {
					<-heard
				}
			})
			stop()
			if n != 0 {
				t.Errorf("%v allocations per pass, want 0", n)
			}
			endAll(l)
			wantAllUsed(t, l)
			if l.Tables.Court.Renewed() == 0 {
				t.Error("no flow was renewed")
			}
		})
	}
}

// Two workers carry all of it while the tables change under them: next hops,
// adjacencies, routes, ports. Nothing is lost, and no buffer.
func TestTablesChangeUnderTraffic(t *testing.T) {
	l := gt.StandardConfig(t, gt.Config{Workers: 2, Running: true, Single: []uint16{gt.Veth, gt.Host, gt.Side}})
	loopMixed(l)
	for round := range 100 {
		changeTables(t, l, round)
	}
	endAll(l)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l.Engine.Kick()
		if c := l.Engine.Total(); c.Held == 0 && c.In() == c.Out() {
			return // and the lab's end checks the rest
		}
		if time.Now().After(end) {
			t.Fatalf("after 10 s %+v", l.Engine.Total())
		}
	}
}

// changeTables makes the next hops that must be asked for known and unknown in
// turn, and moves routes and a VLAN. It ends with all of them known.
func changeTables(t *testing.T, l *gt.Lab, round int) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		gw := gt.Addr(ipv6, gt.NetUp, gt.Asked)
		for port, n := range map[uint16]int{gt.Up: gt.NetAsk, gt.Side: gt.NetAskSide} {
			a := l.Incomplete(port, gw)
			if round%2 == 1 {
				a = l.Rewrite(port, ipv6, gt.StationMAC(0, 9), gw)
			}
			l.SetAdjacency(l.Way(gt.Addr(ipv6, n, 1), 0), a)
		}
		p := netip.PrefixFrom(gt.Addr(ipv6, gt.NetRemote, round%20), gt.Addr(ipv6, 0, 0).BitLen())
		l.Route(p, l.Way(gt.Addr(ipv6, gt.NetSide, gt.Gateway), 0))
		l.Tables.FIB.DeleteRoute(p)
	}
	l.Publish(func(s *node.State) { s.Ports[gt.Mute].MTU = uint16(1500 + round) })
	gen := l.Tables.FIB.Generation()
	if err := l.Engine.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Tables.FIB.Quiesced(gen)
	l.Engine.Kick()
}

// wantAllUsed fails t unless the traffic has met every node.
func wantAllUsed(t *testing.T, l *gt.Lab) {
	t.Helper()
	names, seen := l.Engine.Graph().Nodes(), map[string]uint64{}
	for _, s := range l.Engine.Stats() {
		for i, n := range s.Nodes {
			seen[names[i]] += n.Packets
		}
	}
	for _, name := range names {
		if seen[name] == 0 {
			t.Errorf("no packet met %s", name)
		}
	}
	c := l.Change()
	for o, n := range c.Made {
		if n == 0 && graph.Origin(o) != graph.MadeFormer {
			t.Errorf("no %s was made", graph.Origin(o))
		}
	}
}

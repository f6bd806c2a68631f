package node_test

import (
	"fmt"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
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

// A pass allocates nothing, whatever comes, and also when packets change hands
// between workers.
func TestMixedTrafficAllocatesNothing(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			l := gt.StandardConfig(t, gt.Config{Workers: workers, Single: []uint16{gt.Veth, gt.Host, gt.Side}})
			for port := range gt.Ports {
				for _, q := range l.Queues(port) {
					q.Discard, q.Repeat = true, true
				}
			}
			for port, ps := range mixed() {
				for i := range workers {
					l.Queue(port, i).Inject(ps...)
				}
			}
			for range 200 { // until every buffer has its size, and what is held is held
				l.Engine.Step()
			}
			l.Change()
			n := testing.AllocsPerRun(300, func() {
				l.Engine.Advance(15 * time.Millisecond) // ticks, questions and errors are due in time
				l.Engine.Step()
				for len(l.Tables.Events) > 0 {
					<-l.Tables.Events
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per pass, want 0", n)
			}
			for port := range gt.Ports {
				for _, q := range l.Queues(port) {
					q.Repeat = false
				}
			}
			wantAllUsed(t, l)
		})
	}
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
		if n == 0 {
			t.Errorf("no %s was made", graph.Origin(o))
		}
	}
}

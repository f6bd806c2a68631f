package node_test

import (
	"maps"
	"testing"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// burst is packets of known flows that come together, from Pod and then from Veth:
// most go one way, and between them is what must not.
func burst(ipv6 bool) (known, pod, veth [][]byte) {
	client, a, b := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
	good := gt.UDPPorts(a, client, 10, 1000, web)
	theirs := gt.UDPPorts(b, client, 10, 2000, web)
	across := gt.UDPPorts(a, b, 10, 3000, web)
	spent := gt.Frame(gt.IPTTL(a, client, layers.IPProtocolUDP, 1), &layers.UDP{SrcPort: 1000, DstPort: web}, gt.Payload(10))
	long := gt.UDPPorts(a, client, 3000, 1000, web)
	pod = [][]byte{good, good, theirs, good, spent, good, long, good, across, good}
	return [][]byte{good, theirs, across}, pod, [][]byte{theirs, good, theirs}
}

// Packets of known flows that come together fare as they do one by one.
func TestBurstsOfKnownFlowsFareAsTheirPackets(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		known, pod, veth := burst(ipv6)
		var drops [2]map[graph.Reason]uint64
		var sent [2]map[uint16]int
		for together := range 2 {
			l := gt.Standard(t, 1)
			for _, port := range []uint16{gt.Pod, gt.Veth} {
				l.Police(port, &judge.Endpoint{Egress: open(t), Ingress: open(t)})
			}
			l.SendIP(gt.Pod, known[0])
			l.SendIP(gt.Veth, known[1])
			l.SendIP(gt.Pod, known[2])
			l.CollectAll()
			before := l.Engine.Total()
			if together == 1 {
				for _, ip := range pod {
					l.Inject(gt.Pod, gt.Framed(gt.Pod, ip))
				}
				l.SendIP(gt.Veth, veth...)
			} else {
				for _, ip := range pod {
					l.SendIP(gt.Pod, ip)
				}
				for _, ip := range veth {
					l.SendIP(gt.Veth, ip)
				}
			}
			drops[together], sent[together] = map[graph.Reason]uint64{}, map[uint16]int{}
			for r, n := range l.Engine.Total().Drops {
				if n -= before.Drops[r]; n > 0 {
					drops[together][graph.Reason(r)] = n
				}
			}
			for port, packets := range l.CollectAll() {
				sent[together][port] = len(packets)
			}
		}
		if !maps.Equal(drops[0], drops[1]) || !maps.Equal(sent[0], sent[1]) {
			t.Errorf("one by one %v are dropped and %v sent, together %v and %v", drops[0], sent[0], drops[1], sent[1])
		}
		if drops[0][graph.SpoofedSource] != 2 || sent[0][gt.Up] != 8 || sent[0][gt.Veth] != 1 {
			t.Errorf("%v are dropped and %v sent, want 2 for their sources, and 8 and 1", drops[0], sent[0])
		}
	})
}

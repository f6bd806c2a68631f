package node_test

import (
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// counted are the packets that are counted by each of some numbers.
func counted(t *judge.Tally, numbers ...uint32) (packets []uint64) {
	for _, n := range numbers {
		packets = append(packets, t.Count(n).Packets)
	}
	return packets
}

// Each judged packet counts once for each side that judges it: by the rule that
// decided, or by the end that denied.
func TestWhatIsDecidedIsCounted(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		r := &l.Tables.Court.Record
		r.Rules.Expect(slices.Values([]uint32{1, 5000, classifier.MaxRuleID, classifier.MaxRuleID + 1}))
		ends := func(first uint32) judge.Ends { return judge.Ends{{first, first + 1}, {first, first + 1}} }
		refuse := classifier.Rule{ID: classifier.MaxRuleID, Action: classifier.Deny, Destination: classifier.Side{Ports: []classifier.Range{{First: 9, Last: 9}}}}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, refuse, allow(5000, udp, web), allow(777777, udp, 82)), Ends: [2]judge.Ends{ends(10), ends(20)}})
		l.Police(gt.Veth, &judge.Endpoint{Egress: ending(t, classifier.Pass, allow(1, udp, web), allow(1, udp, 9)), Ends: [2]judge.Ends{ends(30), ends(40)}})
		client, pod, veth := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		send := func(from uint16, ip []byte, n int) {
			for range n {
				l.SendIP(from, ip)
			}
		}
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, web), 5) // one opens, four follow
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, 9), 3)   // denied by a rule, each
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, 81), 4)  // denied by the end
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, 82), 1)  // by a rule that nobody expected
		send(gt.Veth, gt.UDPPorts(veth, pod, 10, 1000, web), 1) // both sides
		send(gt.Veth, gt.UDPPorts(veth, pod, 10, 1000, 9), 1)   // out it may, in it may not
		send(gt.Veth, gt.UDPPorts(veth, pod, 10, 1000, 70), 2)  // past all tiers
		send(gt.Pod, gt.UDPPorts(pod, client, 10, 1000, 1), 1)  // its egress has no list at all
		if got, want := counted(&r.Rules, 0, 1, 5000, classifier.MaxRuleID, classifier.MaxRuleID+1, 777777), []uint64{1, 2, 2, 4, 0, 0}; !slices.Equal(got, want) {
			t.Errorf("rules decided %v, want %v", got, want)
		}
		if got, want := counted(&r.Ends, 0, 10, 11, 20, 21, 30, 31, 40, 41), []uint64{0, 0, 1, 4, 0, 0, 2, 0, 0}; !slices.Equal(got, want) {
			t.Errorf("ends denied %v, want %v", got, want)
		}
		header := 28
		if ipv6 {
			header = 48
		}
		if c := l.Tables.Court.Count(5000); c.Segments != 2 || c.Bytes != 2*uint64(header+10) {
			t.Errorf("a rule counts %+v, want 2 packets of %d bytes", c, header+10)
		}
		// What policy decides anew about a known flow counts if it is denied now.
		l.Tables.Court.Moved()
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, web), 1)
		if n := l.Tables.Court.Count(5000).Packets; n != 2 {
			t.Errorf("a flow that is judged anew counts again: %d, want 2", n)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, refuse), Ends: [2]judge.Ends{ends(10), ends(20)}})
		send(gt.Up, gt.UDPPorts(client, pod, 10, 1000, web), 1)
		if n := r.Ends.Count(20).Packets; n != 5 {
			t.Errorf("the end of a tier denied %d packets, want 5", n)
		}
		r.Rules.Reset(5000)
		r.Rules.Reset(777777) // no page: what it would be counted by stays
		if got, want := counted(&r.Rules, 0, 1, 5000), []uint64{1, 2, 0}; !slices.Equal(got, want) {
			t.Errorf("after a reset rules decided %v, want %v", got, want)
		}
	})
}

// Numbers of ends lead to the tier of the family, also in chains of several tiers.
func TestEndsOfTiersAreToldApart(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		list := func(rules ...classifier.Rule) *chain.List { return chain.NewList(program(t, rules...)) }
		pass := allow(3, udp, 7)
		pass.Action = classifier.Pass
		c, err := chain.NewChain(chain.Tier{List: list(pass, allow(4, udp, 8)), End: classifier.Deny}, chain.Tier{List: list(allow(5, udp, 9)), End: classifier.Deny})
		if err != nil {
			t.Fatal(err)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: [2]*chain.Chain{c, c}, Ends: [2]judge.Ends{{}, {{1, 2, 3}, {4, 5, 6}}}})
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		for _, port := range []uint16{7, 7, 8, 9} {
			l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000, port))
		}
		want := []uint64{1, 2, 0, 0, 0, 0}
		if ipv6 {
			want = []uint64{0, 0, 0, 1, 2, 0}
		}
		if got := counted(&l.Tables.Court.Ends, 1, 2, 3, 4, 5, 6); !slices.Equal(got, want) {
			t.Errorf("the ends denied %v, want %v", got, want)
		}
	})
}

package node_test

import (
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// What is staged is asked beside what is in force, and changes nothing but counts.
func TestStagedPolicyIsCountedAndNeverEnforced(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		r := &l.Tables.Court.Record
		ends := judge.Ends{{11, 12}, {11, 12}}
		l.Police(gt.Pod, &judge.Endpoint{
			Egress: open(t), Ingress: only(t, allow(7, udp, web), allow(8, udp, 81)),
			Staged: [2]*judge.Staged{
				{Denies: 1, Permits: 2}, // of no list: nothing would be allowed out
				{Chain: only(t, allow(8, udp, 81), logs(9, udp, 82), allow(9, udp, 82)), Ends: ends, Denies: 3, Permits: 4},
			},
		})
		l.Police(gt.Veth, &judge.Endpoint{Egress: open(t), Ingress: open(t)})
		client, pod, veth := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		for _, s := range []struct {
			from, out uint16
			ip        []byte
			passes    bool
		}{
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, web), true}, // would be denied
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, web), true}, // of a known flow
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, 81), true},  // either way
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, 82), false}, // would be allowed
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, 82), false}, // would still be
			{gt.Up, gt.Pod, gt.UDPPorts(client, pod, 10, 1, 83), false}, // neither way
			{gt.Pod, gt.Up, gt.UDPPorts(pod, client, 10, 5, 5), true},   // would be denied, by no tier
			{gt.Veth, gt.Pod, gt.UDPPorts(veth, pod, 10, 1, 82), false}, // by who has nothing staged
			{gt.Up, gt.Veth, gt.UDPPorts(client, veth, 10, 1, 82), true},
		} {
			l.SendIP(s.from, s.ip)
			if n := left(l, s.out); (n == 1) != s.passes {
				t.Errorf("%d packets passed from %d to %d, want one: %v", n, s.from, s.out, s.passes)
			}
		}
		if got, want := counted(&r.Pending, 7, 8, 9), []uint64{0, 1, 3}; !slices.Equal(got, want) {
			t.Errorf("staged rules would decide %v, want %v", got, want)
		}
		if got, want := counted(&r.Ends, 0, 1, 2, 3, 4, 11, 12), []uint64{4 + 1, 1, 0, 1, 3, 2, 0}; !slices.Equal(got, want) {
			t.Errorf("turned packets and ends: %v, want %v", got, want)
		}
		if got := told(l); len(got) != 0 {
			t.Errorf("what is staged is logged: %+v", got)
		}
		// A flow that is judged anew counts for what is staged as it does for what is in force.
		l.Tables.Court.Moved()
		l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1, web))
		if n := r.Ends.Count(3).Packets; n != 1 {
			t.Errorf("a flow that is judged anew counts as turned again: %d, want 1", n)
		}
	})
}

// A vector of packets to endpoints that have staged different things, or nothing,
// is counted for each as if it had come alone.
func TestStagedPoliciesOfSeveralEndpoints(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		shared := only(t, allow(1, udp, web))
		staged := func(port uint16, denies, permits uint32) [2]*judge.Staged {
			return [2]*judge.Staged{1: {Chain: only(t, classifier.Rule{ID: denies, Action: classifier.Deny, Protocols: []classifier.Range{{First: udp, Last: udp}},
				Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}}}, classifier.Rule{ID: permits, Action: classifier.Allow}), Denies: denies, Permits: permits}}
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: shared, Staged: staged(web, 10, 11)})
		l.Police(gt.Veth, &judge.Endpoint{Ingress: shared, Staged: staged(9, 20, 21)})
		client := gt.Addr(ipv6, gt.NetRemote, 9)
		var burst [][]byte
		for i := range uint16(60) {
			to := gt.Addr(ipv6, gt.NetPods, []int{gt.PodHost, gt.VethHost}[i/7%2])
			burst = append(burst, gt.UDPPorts(client, to, 10, 100+i, []uint16{web, 9, 10}[i%3]))
		}
		l.SendIP(gt.Up, burst...)
		want := make([]uint64, 4)
		for i := range 60 {
			switch pod := i/7%2 == 0; {
			case pod && i%3 == 0:
				want[0]++
			case pod:
				want[1]++
			case i%3 == 2:
				want[3]++
			}
		}
		r := &l.Tables.Court.Record
		if got := counted(&r.Ends, 10, 11, 20, 21); !slices.Equal(got, want) {
			t.Errorf("turned packets: %v, want %v", got, want)
		}
		all := uint64(0)
		for _, n := range counted(&r.Pending, 10, 11, 20, 21) {
			all += n
		}
		if all != 60 {
			t.Errorf("%d packets were judged by what is staged, want 60", all)
		}
	})
}

package node_test

import (
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// passing leaves to the next tier, which there is not, what its rules do not decide.
func passing(t *testing.T, rules ...classifier.Rule) [2]*chain.Chain {
	return ending(t, classifier.Pass, rules...)
}

// openBoth allows what is past all tiers, where there are any: a list that could not be
// made denies everything.
func openBoth(chains ...[2]*chain.Chain) (open [2][2]bool) {
	for side, by := range chains {
		open[side] = [2]bool{by[0] != nil, by[1] != nil}
	}
	return open
}

// deny is a rule against one protocol and destination port.
func deny(id uint32, proto uint16, port uint16) classifier.Rule {
	r := allow(id, proto, port)
	r.Action = classifier.Deny
	return r
}

// A host endpoint judges what the node forwards through its port, in each direction by
// itself, before and after the pods at the other end; never what the node itself sends
// or gets.
func TestHostEndpointJudgesWhatIsForwarded(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		far, aside := gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetSide, gt.Station)
		pod, host := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPunt, 1)
		one := func(from, to netip.Addr, port uint16) []byte { return gt.UDPPorts(from, to, 10, 1000, port) }
		tests := map[string]struct {
			in, out       [2]*chain.Chain // of the port Up: what comes by it, what leaves by it
			podOut, podIn [2]*chain.Chain
			from          uint16
			packet        []byte
			to            uint16
			why           graph.Reason
		}{
			"in, allowed":                                    {in: only(t, allow(1, udp, 53)), out: only(t), from: gt.Up, packet: one(far, pod, 53), to: gt.Pod},
			"in, by a rule of the pod's as well":             {in: only(t, allow(1, udp, 53)), podIn: only(t, allow(2, udp, 54)), from: gt.Up, packet: one(far, pod, 53), why: graph.IngressDenied},
			"in, denied":                                     {in: only(t, allow(1, udp, 53)), out: open(t), from: gt.Up, packet: one(far, pod, 54), why: graph.EgressDenied},
			"in, past all tiers":                             {in: passing(t, deny(1, udp, 53)), out: only(t), from: gt.Up, packet: one(far, pod, 54), to: gt.Pod},
			"in, denied by a rule":                           {in: passing(t, deny(1, udp, 53)), out: only(t), from: gt.Up, packet: one(far, pod, 53), why: graph.EgressDenied},
			"in, no list could be made":                      {out: open(t), from: gt.Up, packet: one(far, pod, 53), why: graph.EgressDenied},
			"out, allowed":                                   {in: only(t), out: only(t, allow(1, udp, 53)), from: gt.Pod, packet: one(pod, far, 53), to: gt.Up},
			"out, denied":                                    {in: open(t), out: only(t, allow(1, udp, 53)), from: gt.Pod, packet: one(pod, far, 54), why: graph.IngressDenied},
			"out, the pod's egress comes first":              {out: only(t), podOut: only(t), from: gt.Pod, packet: one(pod, far, 53), why: graph.EgressDenied},
			"through, allowed":                               {in: only(t, allow(1, udp, 53)), out: only(t), from: gt.Up, packet: one(far, aside, 53), to: gt.Side},
			"through, denied":                                {in: only(t), out: open(t), from: gt.Up, packet: one(far, aside, 53), why: graph.EgressDenied},
			"through, the other way":                         {in: only(t), out: only(t, allow(1, udp, 53)), from: gt.Side, packet: one(aside, far, 53), to: gt.Up},
			"through, the other way, denied":                 {in: open(t), out: only(t), from: gt.Side, packet: one(aside, far, 53), why: graph.IngressDenied},
			"through, encapsulated":                          {in: open(t), out: only(t), from: gt.Up, packet: one(far, aside, 4789), to: gt.Side},
			"to the node":                                    {in: only(t), out: only(t), from: gt.Up, packet: one(far, host, 53), to: gt.Host},
			"to the node, of a connection that nobody knows": {in: only(t), out: only(t), from: gt.Up, packet: segment(far, host, 1000, web, 5, 6, "A", 10), to: gt.Host},
			"from the node":                                  {in: only(t), out: only(t), from: gt.Host, packet: one(host, far, 53), to: gt.Up},
			"elsewhere":                                      {in: only(t), out: only(t), from: gt.Side, packet: one(aside, pod, 53), to: gt.Pod},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				if tt.podOut[0] == nil {
					tt.podOut = open(t)
				}
				if tt.podIn[0] == nil {
					tt.podIn = open(t)
				}
				l.Police(gt.Pod, &judge.Endpoint{Egress: tt.podOut, Ingress: tt.podIn})
				l.Police(gt.Up, &judge.Endpoint{Host: true, Open: openBoth(tt.in, tt.out), Egress: tt.in, Ingress: tt.out})
				for range 2 { // judged, and by its flow
					l.SendIP(tt.from, tt.packet)
					left := left(l, tt.to)
					if drops := l.Engine.Total().Drops; tt.why == 0 && left != 1 || tt.why != 0 && drops[tt.why] == 0 {
						t.Fatalf("%d packets left, want reason %v, drops %v", left, tt.why, drops)
					}
				}
				l.Account(t)
			})
		}
	})
}

// Answers to what was allowed pass, and a connection is cut when the host's policy
// comes to deny it. It is charged to the pod, whoever opens it.
func TestHostEndpointAndConnections(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		far, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.Police(gt.Pod, &judge.Endpoint{Account: uint32(gt.Pod), Egress: only(t), Ingress: open(t)})
		l.Police(gt.Up, &judge.Endpoint{Account: uint32(gt.Up), Host: true, Egress: only(t, allow(1, tcp, web)), Ingress: only(t)})
		l.SendIP(gt.Up, segment(far, pod, 1000, web, 100, 0, "S", 0))
		l.SendIP(gt.Pod, segment(pod, far, web, 1000, 500, 101, "SA", 0))
		if there, back := left(l, gt.Pod), left(l, gt.Up); there != 1 || back != 1 {
			t.Fatalf("%d packets came and %d answers, want 1 and 1: %v", there, back, l.Engine.Total().Drops)
		}
		if flows := l.Tables.Court.Flows; flows.Held(uint32(gt.Pod)) != 1 || flows.Held(uint32(gt.Up)) != 0 {
			t.Errorf("%d flows are charged to the pod and %d to the host, want 1 and 0", flows.Held(uint32(gt.Pod)), flows.Held(uint32(gt.Up)))
		}
		l.Police(gt.Up, &judge.Endpoint{Account: uint32(gt.Up), Host: true, Egress: only(t, allow(1, tcp, 81)), Ingress: open(t)})
		l.SendIP(gt.Pod, segment(pod, far, web, 1000, 501, 101, "A", 9))
		l.SendIP(gt.Up, segment(far, pod, 1000, web, 101, 501, "A", 0))
		if there, back := left(l, gt.Pod), left(l, gt.Up); there != 0 || back != 0 {
			t.Errorf("%d packets came and %d answers after the host's policy has come to deny them", there, back)
		}
	})
}

// A packet with the address of a pod of this node that comes by an uplink was spoofed,
// or sent around by somebody out there. The pod was not asked for it: its own packets
// of the same flow must be, whoever came first.
func TestPodsAddressFromOutsideOpensNothingForThePod(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for _, keep := range []bool{false, true} {
			l := gt.Standard(t, 1)
			l.Tables.Court.KeepAllowed = keep
			a, b := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
			there := func(from uint16, port uint16) int {
				l.SendIP(from, gt.UDPPorts(a, b, 10, 1000, port))
				return left(l, gt.Veth)
			}
			l.Police(gt.Pod, &judge.Endpoint{Egress: only(t, allow(1, udp, 53)), Ingress: open(t)})
			l.Police(gt.Veth, &judge.Endpoint{Ingress: open(t), Egress: open(t)})
			if once, again := there(gt.Up, 99), there(gt.Up, 99); once != 1 || again != 1 || there(gt.Pod, 99) != 0 {
				t.Fatalf("keep %v: what came around did not pass, or the pod may go on with it: %v", keep, l.Engine.Total().Drops)
			}
			if there(gt.Pod, 53) != 1 {
				t.Fatalf("what the pod may send does not pass: %v", l.Engine.Total().Drops)
			}
			l.Police(gt.Pod, &judge.Endpoint{Egress: only(t), Ingress: open(t)})
			there(gt.Up, 53)
			if n := there(gt.Pod, 53); !keep && n != 0 {
				t.Error("the pod goes on with what it may not send any more, since a packet that came around was judged first")
			}
			l.SendIP(gt.Up, gt.UDPPorts(b, a, 10, 53, 1000)) // an answer that came around
			if n := left(l, gt.Pod); !keep && n != 0 {
				t.Error("an answer passes that belongs to what the pod may not send any more")
			}
		}
	})
}

// Two hosts' ports may lead to the same sender: what comes by the one, and would be answered
// by the other, is a flow like any.
func TestOtherWayBackIsNoWayAround(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		far, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost) // whose way is by Up
		l.Police(gt.Pod, &judge.Endpoint{Egress: only(t), Ingress: open(t)})
		for _, port := range []uint16{gt.Up, gt.Side} {
			l.Police(port, &judge.Endpoint{Host: true, Egress: open(t), Ingress: only(t)})
		}
		for range 3 {
			l.SendIP(gt.Side, gt.UDPPorts(far, pod, 10, 1000, 53))
			if n := left(l, gt.Pod); n != 1 {
				t.Errorf("%d packets came, want 1: %v", n, l.Engine.Total().Drops)
			}
		}
		if n := l.Tables.Court.Rejudged(); n != 0 {
			t.Errorf("%d packets of a known flow were judged anew", n)
		}
	})
}

// What others send in a pod's name, and the policy of their way denies, does not cut the
// pod's own conversation, though it comes just when that is to be judged anew.
func TestDenialOfWhatOthersSentCutsNobody(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		a, b := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		there := func(from uint16) int {
			l.SendIP(from, gt.UDPPorts(a, b, 10, 1000, 53))
			return left(l, gt.Veth)
		}
		l.Police(gt.Veth, &judge.Endpoint{Ingress: open(t), Egress: open(t)})
		l.Police(gt.Up, &judge.Endpoint{Host: true, Egress: only(t), Ingress: open(t)})
		for range 2 {
			l.Police(gt.Pod, &judge.Endpoint{Egress: only(t, allow(1, udp, 53)), Ingress: open(t)})
			if n := there(gt.Up); n != 0 || l.Engine.Total().Drops[graph.EgressDenied] == 0 {
				t.Errorf("%d packets came that the host's policy denies", n)
			}
			if n := there(gt.Pod); n != 1 {
				t.Errorf("the pod's own packet did not come: %v", l.Engine.Total().Drops)
			}
		}
	})
}

// A sender to whom no way leads back is none (Calico: loose reverse path checks).
func TestSendersWithoutAWayBackAreRefused(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.Police(gt.Pod, &judge.Endpoint{Ingress: open(t), Egress: open(t)})
		for _, net := range []int{gt.NetNowhere, gt.NetBlackhole, gt.NetProhibited} {
			before := l.Engine.Total().Drops[graph.SpoofedSource]
			l.SendIP(gt.Up, gt.UDPPorts(gt.Addr(ipv6, net, 9), pod, 10, 1000, 53))
			if n, d := left(l, gt.Pod), l.Engine.Total().Drops[graph.SpoofedSource]-before; n != 0 || d != 1 {
				t.Errorf("from net %d %d packets came and %d were refused, want 0 and 1", net, n, d)
			}
		}
	})
}

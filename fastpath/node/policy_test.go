package node_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/internal/pkt"
)

// The numbers of protocols and of what rules ask for.
const (
	tcp, udp = 6, 17
	web      = 80
)

func program(t *testing.T, rules ...classifier.Rule) *classifier.Program {
	t.Helper()
	c, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// allow is a rule for one protocol and destination port.
func allow(id uint32, proto uint16, port uint16) classifier.Rule {
	return classifier.Rule{ID: id, Action: classifier.Allow, Protocols: []classifier.Range{{First: proto, Last: proto}},
		Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}}}
}

func open(t *testing.T) [2]*chain.Chain {
	return only(t, classifier.Rule{ID: 1, Action: classifier.Allow})
}

// only is what allows what these rules do.
func only(t *testing.T, rules ...classifier.Rule) [2]*chain.Chain {
	return ending(t, classifier.Deny, rules...)
}

func ending(t *testing.T, end classifier.Action, rules ...classifier.Rule) [2]*chain.Chain {
	c, err := chain.NewChain(chain.Tier{List: chain.NewList(program(t, rules...)), End: end})
	if err != nil {
		t.Fatal(err)
	}
	return [2]*chain.Chain{c, c}
}

// segment is a TCP packet between two hosts.
func segment(src, dst netip.Addr, sport, dport uint16, seq, ack uint32, flags string, n int) []byte {
	h := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: seq, Ack: ack, Window: 5000}
	for _, f := range flags {
		switch f {
		case 'S':
			h.SYN = true
		case 'A':
			h.ACK = true
		case 'R':
			h.RST = true
		case 'F':
			h.FIN = true
		}
	}
	return gt.Frame(gt.IP(src, dst, layers.IPProtocolTCP), h, gt.Payload(n))
}

// left says how many packets left by a port since the last look.
func left(l *gt.Lab, port uint16) int { return len(l.Collect(port)) }

func TestPolicyOpensOnePort(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(7, tcp, web)), Egress: [2]*chain.Chain{}})
		steps := []struct {
			name string
			from uint16
			ip   []byte
			out  uint16
			why  graph.Reason
		}{
			{"a SYN to the open port", gt.Up, segment(client, pod, 1000, web, 100, 0, "S", 0), gt.Pod, 0},
			{"its answer, though egress allows nothing", gt.Pod, segment(pod, client, web, 1000, 500, 101, "SA", 0), gt.Up, 0},
			{"the third of the handshake", gt.Up, segment(client, pod, 1000, web, 101, 501, "A", 0), gt.Pod, 0},
			{"data", gt.Up, segment(client, pod, 1000, web, 101, 501, "A", 200), gt.Pod, 0},
			{"data back", gt.Pod, segment(pod, client, web, 1000, 501, 301, "A", 900), gt.Up, 0},
			{"data out of its window", gt.Up, segment(client, pod, 1000, web, 900101, 501, "A", 200), 0, graph.FlowOutOfWindow},
			{"a forged reset", gt.Up, segment(client, pod, 1000, web, 70000, 0, "R", 0), 0, graph.FlowBadReset},
			{"a SYN to another port", gt.Up, segment(client, pod, 1000, 81, 100, 0, "S", 0), 0, graph.IngressDenied},
			{"UDP to the open port", gt.Up, gt.UDPPorts(client, pod, 10, 1000, web), 0, graph.IngressDenied},
			{"a connection under way that nobody knows", gt.Up, segment(client, pod, 2000, web, 100, 5, "A", 10), 0, graph.FlowMidFlow},
			{"a SYN of the pod's own", gt.Pod, segment(pod, client, 3000, web, 100, 0, "S", 0), 0, graph.EgressDenied},
			{"from another's address, of its flow", gt.Veth, segment(pod, client, web, 1000, 1401, 301, "A", 10), 0, graph.SpoofedSource},
		}
		for _, s := range steps {
			l.CollectAll()
			before := l.Engine.Total()
			l.SendIP(s.from, s.ip)
			after := l.Engine.Total()
			if s.why == 0 {
				if n := left(l, s.out); n != 1 {
					t.Errorf("%s: %d packets left by port %d, drops %v", s.name, n, s.out, after.Drops)
				}
			} else if after.Drops[s.why] != before.Drops[s.why]+1 {
				t.Errorf("%s: not dropped for %v: drops were %v, are %v", s.name, s.why, before.Drops, after.Drops)
			}
		}
	})
}

func TestPolicyOfBothSidesOnOneNode(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		a, b := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		tests := map[string]struct {
			egress, ingress [2]*chain.Chain
			why             graph.Reason
		}{
			"both allow":               {only(t, allow(1, udp, 53)), only(t, allow(2, udp, 53)), 0},
			"the sender's does not":    {only(t, allow(1, udp, 54)), only(t, allow(2, udp, 53)), graph.EgressDenied},
			"the receiver's does not":  {only(t, allow(1, udp, 53)), only(t, allow(2, udp, 54)), graph.IngressDenied},
			"neither has any list":     {[2]*chain.Chain{}, [2]*chain.Chain{}, graph.EgressDenied},
			"an empty list":            {only(t), open(t), graph.EgressDenied},
			"undecided passes, no end": {ending(t, classifier.Pass), open(t), graph.EgressDenied},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.Police(gt.Pod, &judge.Endpoint{Egress: tt.egress, Ingress: only(t)})
				l.Police(gt.Veth, &judge.Endpoint{Ingress: tt.ingress, Egress: only(t)})
				l.SendIP(gt.Pod, gt.UDPPorts(a, b, 10, 1000, 53), gt.UDPPorts(a, b, 10, 1000, 53))
				if tt.why != 0 {
					if d := l.Engine.Total().Drops[tt.why]; d != 2 {
						t.Errorf("%d packets dropped for %v, want 2: %v", d, tt.why, l.Engine.Total().Drops)
					}
					return
				}
				if n := left(l, gt.Veth); n != 2 {
					t.Fatalf("%d packets came, want 2: %v", n, l.Engine.Total().Drops)
				}
				l.SendIP(gt.Veth, gt.UDPPorts(b, a, 10, 53, 1000))
				if n := left(l, gt.Pod); n != 1 {
					t.Errorf("%d answers came, want 1: %v", n, l.Engine.Total().Drops)
				}
			})
		}
	})
}

func TestPolicyThatChangesJudgesKnownFlowsAnew(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		there := func() int { l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000, web)); return left(l, gt.Pod) }
		back := func() int { l.SendIP(gt.Pod, gt.UDPPorts(pod, client, 10, web, 1000)); return left(l, gt.Up) }
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(7, udp, web))})
		if there() != 1 || back() != 1 {
			t.Fatalf("what is allowed does not pass: %v", l.Engine.Total().Drops)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(7, udp, 81))})
		if back() != 0 || there() != 0 || back() != 0 {
			t.Error("a flow goes on that policy denies now, asked by its answer's side first")
		}
		if d := l.Engine.Total().Drops[graph.IngressDenied]; d != 3 {
			t.Errorf("%d packets dropped for policy, want 3", d)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(9, udp, web))})
		if back() != 1 || there() != 1 {
			t.Error("a flow does not go on that policy allows again")
		}
		l.Police(gt.Pod, nil)
		if there() != 1 || back() != 1 {
			t.Error("without policy packets do not pass")
		}
	})
}

// Packets of one flow that come in one vector by two ports: the one that is not its
// sender's does not slip through behind those that are, wherever it stands.
func TestFlowsPacketByAnotherPortInOneVector(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod, far := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetRemote, 9)
		l.Police(gt.Pod, &judge.Endpoint{Egress: open(t), Ingress: open(t)})
		l.Police(gt.Veth, &judge.Endpoint{Egress: open(t), Ingress: open(t)})
		one := gt.UDPPorts(pod, far, 10, 1000, 53)
		l.SendIP(gt.Pod, one)
		for i, order := range [][]uint16{{gt.Pod, gt.Veth}, {gt.Veth, gt.Pod}} {
			l.CollectAll()
			before := l.Engine.Total()
			for _, port := range order {
				for range 2 {
					l.Inject(port, gt.Framed(port, one))
				}
			}
			l.Run()
			if n, d := left(l, gt.Up), l.Engine.Total().Drops[graph.SpoofedSource]-before.Drops[graph.SpoofedSource]; n != 2 || d != 2 {
				t.Errorf("order %d: %d packets left and %d were refused, want 2 and 2", i, n, d)
			}
		}
	})
}

// As it may be configured, and as Calico does: what was allowed goes on until it ends,
// by today's routes, and nothing new begins.
func TestAllowedFlowsAreKept(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Tables.Court.KeepAllowed = true
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		there := func(port uint16) int {
			l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000, port))
			return left(l, gt.Pod)
		}
		back := func() int { l.SendIP(gt.Pod, gt.UDPPorts(pod, client, 10, web, 1000)); return left(l, gt.Up) }
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(7, udp, web))})
		if there(web) != 1 || there(81) != 0 {
			t.Fatalf("policy is not what it should be: %v", l.Engine.Total().Drops)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(7, udp, 81))})
		if back() != 1 || there(web) != 1 || there(81) != 1 {
			t.Errorf("a flow that was allowed does not go on, or one that was not does not begin: %v", l.Engine.Total().Drops)
		}
		l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1001, web))
		if left(l, gt.Pod) != 0 {
			t.Error("a new flow begins that policy denies")
		}
	})
}

func TestNodeAndItsPods(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		host, pod := gt.Addr(ipv6, gt.NetPunt, 1), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t), Egress: only(t, allow(1, udp, 53))})
		l.SendIP(gt.Host, gt.UDPPorts(host, pod, 10, 1000, 9))
		if n := left(l, gt.Pod); n != 1 {
			t.Errorf("%d packets of the node came to its pod, want 1: %v", n, l.Engine.Total().Drops)
		}
		l.SendIP(gt.Pod, gt.UDPPorts(pod, host, 10, 9, 1000))
		if n := left(l, gt.Host); n != 1 {
			t.Errorf("%d answers came to the node, want 1: %v", n, l.Engine.Total().Drops)
		}
		l.SendIP(gt.Pod, gt.UDPPorts(pod, host, 10, 5, 53))
		if n := left(l, gt.Host); n != 1 {
			t.Errorf("%d packets that egress allows came to the node, want 1: %v", n, l.Engine.Total().Drops)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t), Egress: only(t, allow(1, udp, 53)), HostDenied: true})
		l.SendIP(gt.Pod, gt.UDPPorts(pod, host, 10, 6, 53))
		if n := l.Engine.Total().Drops[graph.HostDenied]; n != 1 {
			t.Errorf("%d packets dropped for the node's sake, want 1: %v", n, l.Engine.Total().Drops)
		}
		far := gt.Addr(ipv6, gt.NetRemote, 9) // whose address comes to be one of the node's
		l.SendIP(gt.Pod, gt.UDPPorts(pod, far, 10, 7, 53))
		there := left(l, gt.Up)
		l.Route(gt.Net(ipv6, gt.NetRemote), l.Way(host, 0))
		l.Tables.Court.Begin()
		l.SendIP(gt.Pod, gt.UDPPorts(pod, far, 10, 7, 53))
		if n := left(l, gt.Host); there != 1 || n != 0 || l.Engine.Total().Drops[graph.HostDenied] != 2 {
			t.Errorf("%d packets of a conversation came through and %d to the node, to which it leads now, want 1 and 0: %v", there, n, l.Engine.Total().Drops)
		}
	})
}

func TestTransitIsNobodysPolicy(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Police(gt.Pod, &judge.Endpoint{})
		src, dst := gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetSide, gt.Station)
		l.SendIP(gt.Up, segment(src, dst, 1, 2, 3, 4, "A", 100), gt.UDPPorts(src, dst, 10, 1, 2))
		if n := left(l, gt.Side); n != 2 {
			t.Errorf("%d packets passed, want 2: %v", n, l.Engine.Total().Drops)
		}
		if n := l.Tables.Court.Flows.Stats().Flows; n != 0 {
			t.Errorf("%d flows were made, want none", n)
		}
	})
}

func TestHeldPacketsAreJudgedWhenTheyGoOn(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod, far := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetUp, gt.Unknown)
		l.Police(gt.Pod, &judge.Endpoint{Egress: only(t, allow(1, udp, 53))})
		l.SendIP(gt.Pod, gt.UDPPorts(pod, far, 10, 1000, 53), gt.UDPPorts(pod, far, 10, 1000, 54))
		if c := l.Engine.Total(); c.Held != 1 || c.Drops[graph.EgressDenied] != 1 {
			t.Fatalf("%d packets held and %d denied, want 1 and 1", c.Held, c.Drops[graph.EgressDenied])
		}
		l.Police(gt.Pod, &judge.Endpoint{Egress: only(t, allow(1, udp, 99))})
		l.Advance(5 * time.Second)
	})
}

// Later fragments follow their first, which policy has judged: of the datagram that
// opens a flow, and of the next ones, whether a flow speaks for them, or they were sent
// around by somebody and are judged each for itself.
func TestFragmentsFollowTheirFirst(t *testing.T) {
	for name, net := range map[string]int{"of others": gt.NetUp, "of a pod, sent around": gt.NetPods} {
		t.Run(name, func(t *testing.T) {
			gt.Families(t, func(t *testing.T, ipv6 bool) {
				l := gt.Standard(t, 1)
				l.Police(gt.Veth, &judge.Endpoint{Ingress: only(t, allow(7, udp, 2222))})
				l.Police(gt.Pod, &judge.Endpoint{Egress: only(t)})
				w := ends{gt.Addr(ipv6, net, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)}
				for id := range uint16(3) {
					l.SendIP(gt.Up, datagram(ipv6, w, id+1)...)
					if n := left(l, gt.Veth); n != 3 {
						t.Errorf("%d of the 3 parts of datagram %d passed: %v", n, id, l.Engine.Total().Drops)
					}
				}
				l.SendIP(gt.Up, datagram(ipv6, w, 9)[1:]...)
				if n, d := left(l, gt.Veth), l.Engine.Total().Drops[graph.FlowFragmentUnknown]; n != 0 || d != 2 {
					t.Errorf("%d parts without their first passed, %d were dropped", n, d)
				}
				parts := datagram(ipv6, w, 10) // one by one
				for i := range parts {
					if l.SendIP(gt.Up, parts[i]); left(l, gt.Veth) != 1 {
						t.Errorf("part %d did not pass alone: %v", i, l.Engine.Total().Drops)
					}
				}
				parts = datagram(ipv6, w, 11)
				l.SendIP(gt.Up, parts[0])
				l.Police(gt.Veth, &judge.Endpoint{Ingress: only(t)})
				l.SendIP(gt.Up, parts[1:]...)
				if n := left(l, gt.Veth); n != 1 {
					t.Errorf("%d parts passed of a datagram that was denied after its first", n)
				}
			})
		})
	}
}

// What a pod may not send does not pass behind a first fragment that others sent in its
// name, in the same vector or later.
func TestPodsFragmentsDoNotFollowWhatOthersSent(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Police(gt.Pod, &judge.Endpoint{Ingress: open(t)})
		l.Police(gt.Veth, &judge.Endpoint{Egress: only(t)})
		w := ends{gt.Addr(ipv6, gt.NetPods, gt.VethHost), gt.Addr(ipv6, gt.NetPods, gt.PodHost)}
		for id, together := range []bool{true, false} {
			parts := datagram(ipv6, w, uint16(id+1))
			l.Inject(gt.Up, gt.Framed(gt.Up, parts[0]))
			if !together {
				l.Run()
			}
			l.SendIP(gt.Veth, parts[1:]...)
			if n := left(l, gt.Pod); n != 1 {
				t.Errorf("together %v: %d parts passed, want what others sent alone", together, n)
			}
		}
		l.Account(t)
	})
}

// datagram is one to port 2222 in three parts.
func datagram(ipv6 bool, w ends, id uint16) (parts [][]byte) {
	whole := gt.UDP(w.src, w.dst, 1600)
	payload := whole[len(whole)-1608:]
	for at := 0; at < len(payload); at += 800 {
		p := part(ipv6, w, at, at+800 < len(payload), payload[at:min(at+800, len(payload))])
		renumber(p, id)
		parts = append(parts, p)
	}
	return parts
}

// renumber gives a part the identification of another datagram.
func renumber(ip []byte, id uint16) {
	if ip[0]>>4 == 6 {
		binary.BigEndian.PutUint16(ip[46:], id)
		return
	}
	binary.BigEndian.PutUint16(ip[4:], id)
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^pkt.Fold(pkt.Sum(ip[:20])))
}

package node_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// What Try says of a packet is what the graph does with it: from every port, to
// every net, while nobody has policy and while the pods have.
func TestTrySaysWhatTheGraphDoes(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for _, policed := range []bool{false, true} {
			ends := map[string]int{}
			l := gt.Standard(t, 1)
			if policed {
				open := only(t, allow(1, udp, 80), allow(2, 1, 8<<8), allow(3, 58, 128<<8))
				l.Police(gt.Pod, &judge.Endpoint{Egress: open, Ingress: open})
				l.Police(gt.Veth, &judge.Endpoint{Egress: only(t, allow(4, udp, 80)), Ingress: only(t)})
			}
			for _, in := range []uint16{gt.Up, gt.Pod, gt.Veth, gt.Host, gt.Mute} {
				for _, dst := range targets(ipv6) {
					for _, src := range []netip.Addr{gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost), gt.Addr(ipv6, gt.NetRemote, 7)} {
						for kind, ip := range map[string][]byte{"UDP": gt.UDPPorts(src, dst, 0, 40000, 80), "echo": gt.Echo(src, dst, 0)} {
							ends[tried(l, fmt.Sprintf("%s from %v by port %d to %v, policed %v", kind, src, in, dst, policed), in, ip)]++
						}
					}
				}
			}
			for _, want := range []string{"rewrite", "punt", "icmp-echo", "resolve", "no-policy", "spoofed-source", "blackhole", "no-route", "prohibited", "loop"} {
				if ends[want] == 0 {
					t.Errorf("none came to %s: %v", want, ends)
				}
			}
		}
	})
}

func targets(ipv6 bool) (out []netip.Addr) {
	for _, n := range []int{gt.NetUp, gt.NetSide, gt.NetSmall, gt.NetTag} {
		out = append(out, gt.Addr(ipv6, n, gt.Ours), gt.Addr(ipv6, n, gt.Station), gt.Addr(ipv6, n, gt.Unknown))
	}
	for _, n := range []int{gt.NetRemote, gt.NetAsk, gt.NetProhibited, gt.NetBlackhole, gt.NetPunt, gt.NetNowhere, gt.NetSpread} {
		out = append(out, gt.Addr(ipv6, n, 9))
	}
	for _, h := range []int{gt.PodHost, gt.VethHost, gt.MuteHost, 9} {
		out = append(out, gt.Addr(ipv6, gt.NetPods, h))
	}
	return append(out, netip.IPv6LinkLocalAllNodes(), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("127.0.0.1"))[:len(out)+btoi(ipv6)]
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tried sends a packet and holds what becomes of it against what Try and Hear
// say. It returns how it ends.
func tried(l *gt.Lab, name string, in uint16, ip []byte) string {
	t := l.TB
	t.Helper()
	p := l.Tables.Try(in, slices.Clone(ip))
	end, why := p.Next, p.Reason
	if p.Referred {
		why = l.Tables.Court.Hear(&p.Case)
	}
	if why == graph.NoReason {
		why = p.Later
	}
	before := l.Engine.Total()
	l.SendIP(in, ip)
	after := l.Engine.Total()
	if why != graph.NoReason {
		end = why.String()
		if after.Drops[why] != before.Drops[why]+1 {
			t.Errorf("%s: %v was said, drops were %v, are %v", name, why, before.Drops, after.Drops)
		}
	} else if after.Dropped() != before.Dropped() || (after.Held > before.Held) != (end == "resolve") || (after.Punt > before.Punt) != (end == "punt") {
		t.Errorf("%s: %s was said; %d held, %d punted, drops %v", name, end, after.Held, after.Punt, after.Drops)
	} else if out := left(l, p.OutPort); end == "rewrite" && p.OutPort != gt.Tag && out != 1 { // Tag's leave by Up
		t.Errorf("%s: it did not leave by port %d", name, p.OutPort)
	}
	l.CollectAll()
	if end == "resolve" {
		l.Advance(5 * time.Second)
		l.CollectAll()
	}
	forget(l)
	events(l)
	return end
}

package node_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
)

// BenchmarkKnownFlows is what a packet of a known flow costs with all the path around it, among
// 50,000 members and as many routes: while nothing changes; when every flow must be looked at
// in every pass; when every flow is judged again in every pass.
func BenchmarkKnownFlows(b *testing.B) {
	for _, ipv6 := range []bool{false, true} {
		l := gt.StandardConfig(b, gt.Config{Labels: label.New(nil)})
		r := rand.New(rand.NewPCG(1, 2))
		var joins []label.Change
		for i := range 50_000 {
			a := gt.Addr(ipv6, gt.NetRemote, 0).AsSlice()
			copy(a[len(a)-2:], []byte{byte(i >> 8), byte(i)})
			addr, _ := netip.AddrFromSlice(a)
			p := netip.PrefixFrom(addr, addr.BitLen())
			joins = append(joins, label.Change{Set: classifier.SetID(1 + r.IntN(50)), Prefix: p})
			if err := l.Tables.FIB.SetRoute(p, 1); err != nil {
				b.Fatal(err)
			}
		}
		if err := l.Tables.Court.Labels.Apply(joins); err != nil {
			b.Fatal(err)
		}
		tb := &testing.T{}
		police := func() { l.Police(gt.Pod, &judge.Endpoint{Ingress: open(tb), Egress: open(tb)}) }
		var packets []gt.Packet
		for i := range 2000 {
			from := joins[r.IntN(len(joins))].Prefix.Addr()
			packets = append(packets, gt.Packet{Bytes: gt.Framed(gt.Up, gt.UDPPorts(from, gt.Addr(ipv6, gt.NetPods, gt.PodHost), 10, uint16(i), 53))})
		}
		police()
		for _, mode := range []struct {
			name   string
			change func()
		}{{"at rest", func() {}}, {"looked at", l.Tables.Court.Begin}, {"judged", police}} {
			b.Run(fmt.Sprintf("ipv6=%v/%s", ipv6, mode.name), func(b *testing.B) {
				l.Queue(gt.Up, 0).Loop(packets...)
				l.Queue(gt.Pod, 0).Loop()
				for range 20 {
					l.Engine.Step()
				}
				l.Change()
				b.ResetTimer()
				for range b.N {
					mode.change()
					l.Engine.Step()
				}
				b.StopTimer()
				n := l.Change().Rx
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
				l.Queue(gt.Up, 0).End()
			})
		}
	}
}

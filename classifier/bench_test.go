package classifier_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

// accessList is the usual kind of list: subnets to hosts, at one port, and some
// wide rules at the end.
func accessList(n int) []classifier.Rule {
	rng := rand.New(rand.NewPCG(uint64(n), 0))
	net := func(bits int) []netip.Prefix {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0x0a000000|rng.Uint32N(1<<20))
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(a), bits).Masked()}
	}
	list := make([]classifier.Rule, n)
	for i := range list {
		r := &list[i]
		r.ID, r.Action = uint32(i), classifier.Allow
		r.Protocols = []classifier.Range{{First: 6, Last: 6}}
		port := uint16(1 + rng.IntN(2000))
		r.Destination.Ports = []classifier.Range{{First: port, Last: port + uint16(rng.IntN(2)*rng.IntN(100))}}
		r.Source.Nets, r.Destination.Nets = net(24+rng.IntN(9)), net(28+rng.IntN(5))
		if i > n*19/20 {
			r.Source.Nets = nil
		}
	}
	return list
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		list := accessList(n)
		p := classifiertest.Load(b, list, classifier.Options{})
		keys := make([]classifier.Key, 1<<12)
		for i, packet := range classifiertest.Probes(rand.New(rand.NewPCG(1, 1)), list, len(keys)) {
			keys[i] = classifiertest.KeyOf(packet)
		}
		out := make([]classifier.Verdict, len(keys))
		b.Run(fmt.Sprintf("rules=%d/burst=%d", n, classifier.Burst), func(b *testing.B) {
			for b.Loop() {
				p.Match(keys, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/key")
		})
		b.Run(fmt.Sprintf("rules=%d/single", n), func(b *testing.B) {
			for b.Loop() {
				for i := range keys {
					out[i] = p.MatchOne(&keys[i])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/key")
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		list := accessList(n)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := classifier.Compile(list, classifier.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEdit(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		list := accessList(n)
		p := classifiertest.Load(b, list, classifier.Options{Editable: true})
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := p.Edit(nil, classifier.Edit{Position: n / 2, Rule: list[0]}, classifier.Edit{Position: n / 3, Remove: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package nodes

import (
	"runtime"
	"testing"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/bench/tcp"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Each path carries TCP of both families, and gives back what it took.
func TestEveryPathCarriesTCP(t *testing.T) {
	for _, c := range contestants(stagetest.Forwarder(t, tcp.Installed)) {
		t.Run(c.Name, func(t *testing.T) {
			threads, files := hostnettest.Threads(t), hostnettest.Descriptors(t)
			p, err := c.Raise(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range []tcp.Case{{Streams: 1}, {IPv6: true, Streams: 8}} {
				carries(t, p, what)
			}
			p.Close()
			hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
			hostnettest.Eventually(t, "threads end", func() bool { return hostnettest.Threads(t) <= threads+runtime.NumCPU()+4 })
		})
	}
}

// carries measures a path, and has its device bear witness.
func carries(t *testing.T, p *stage.Path, what tcp.Case) {
	t.Helper()
	before, err := p.Received()
	if err != nil {
		t.Fatal(err)
	}
	got, err := tcp.Measure(t.Context(), p, what, 1)
	if err != nil {
		t.Error(err)
		return
	}
	if got.Gbit <= 0 || got.CPUGB <= 0 || got.Other < 0 || got.Other > 1.1 {
		t.Errorf("%v: %+v", what, got)
	}
	after, err := p.Received()
	if octets := float64(after - before); err != nil || octets < got.Gbit*1e9/8 {
		t.Errorf("%v: %.2f Gbit/s for a second, and the server's device has received %.0f octets, %v", what, got.Gbit, octets, err)
	}
}

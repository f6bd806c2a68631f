package pods

import (
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/bench/tcp"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Each path carries TCP, and what it costs is counted.
func TestEveryPathCarriesTCP(t *testing.T) {
	for _, c := range contestants(stagetest.Forwarder(t, tcp.Installed)) {
		t.Run(c.Name, func(t *testing.T) {
			threads, files := hostnettest.Threads(t), hostnettest.Descriptors(t)
			p, err := c.Raise(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range []tcp.Case{{Streams: 1}, {Streams: 8}, {IPv6: true, Streams: 1}} {
				got, err := tcp.Measure(t.Context(), p, what, 1)
				if err != nil {
					t.Error(err)
					continue
				}
				if got.Gbit <= 0 || got.CPUGB <= 0 || got.Other < 0 || got.Other > 1.1 {
					t.Errorf("%v: %+v", what, got)
				}
			}
			p.Close()
			hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
			hostnettest.Eventually(t, "threads end", func() bool { return hostnettest.Threads(t) <= threads+runtime.NumCPU()+4 })
		})
	}
}

func TestPathsThatCannotRunAreNamed(t *testing.T) {
	hostnettest.NeedRoot(t)
	var got []harness.Result
	o := harness.Options{Quick: true, Limit: 2 * time.Second, Filter: "streams=1", Log: io.Discard, Forwarder: filepath.Join(t.TempDir(), "none")}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 8 { // two families, two peers, rate and cost
		t.Fatalf("%d results, want 8", len(got))
	}
	for _, r := range got { // what the peers carry depends on the time that there is
		if r.Ours != nil || !strings.Contains(r.Why, "find the forwarder") {
			t.Errorf("without a forwarder: %+v", r)
		}
	}
}

func TestPairsTalkAtOnce(t *testing.T) {
	var got []harness.Result
	o := harness.Options{Quick: true, Filter: "workers=1", Log: io.Discard, Forwarder: stagetest.Forwarder(t, tcp.Installed)}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scaling()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Ours == nil || *got[0].Ours <= 0 || got[0].PeerValue == nil || *got[0].PeerValue <= 0 {
		t.Errorf("results: %+v, want one with both sides", got)
	}
}

func TestSizesOfScaling(t *testing.T) {
	for cores, want := range map[int][]int{1: {2, 1}, 2: {2, 1}, 4: {2, 1, 2}, 8: {3, 1, 2, 4}, 16: {6, 1, 2, 4, 8}, 64: {8, 1, 2, 4, 8, 16, 32}} {
		if got := append([]int{pairsFor(cores)}, workersFor(cores)...); !slices.Equal(got, want) {
			t.Errorf("%d cores: pairs and workers %v, want %v", cores, got, want)
		}
	}
}

package pods

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// forwarder builds the real one.
func forwarder(t *testing.T) string {
	t.Helper()
	hostnettest.NeedRoot(t)
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("needs iperf3 (hack/deps.sh installs it)")
	}
	bin := filepath.Join(t.TempDir(), "margay-forwarder")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "margay.dev/margay/cmd/margay-forwarder").CombinedOutput(); err != nil {
		t.Fatalf("build the forwarder: %v\n%s", err, out)
	}
	return bin
}

// Each path carries TCP, and what it costs is counted.
func TestEveryPathCarriesTCP(t *testing.T) {
	bin := forwarder(t)
	for name, raise := range map[string]func() (*path, error){
		"ours":        func() (*path, error) { return oursPath(t.Context(), bin) },
		"bare-pump":   pumpPath,
		"kernel-veth": kernelPath,
	} {
		t.Run(name, func(t *testing.T) {
			threads, files := hostnettest.Threads(t), hostnettest.Descriptors(t)
			p, err := raise()
			if err != nil {
				t.Fatal(err)
			}
			for _, streams := range []int{1, 8} {
				got, err := p.measure(t.Context(), streams, 1)
				if err != nil {
					t.Error(err)
					continue
				}
				if got.gbit <= 0 || got.cpuGB <= 0 || got.other < 0 || got.other > 1.1 {
					t.Errorf("%d streams: %+v", streams, got)
				}
			}
			p.close()
			hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
			hostnettest.Eventually(t, "threads end", func() bool { return hostnettest.Threads(t) <= threads+runtime.NumCPU()+4 })
		})
	}
}

func TestPathsThatCannotRunAreNamed(t *testing.T) {
	hostnettest.NeedRoot(t)
	var got []harness.Result
	o := harness.Options{Limit: time.Minute, Log: io.Discard, Forwarder: filepath.Join(t.TempDir(), "none")}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	// One round is enough, three are made where others take the machine: no clock ends it.
	short := harness.Scenario{Name: "pods-tcp", Run: func(ctx context.Context, s *harness.Session) error {
		return run(ctx, s, plan{streams: []int{1}, seconds: 1, rounds: 1})
	}}
	if err := harness.Run(t.Context(), o, short); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 { // two peers, rate and cost
		t.Fatalf("%d results, want 4", len(got))
	}
	for _, r := range got {
		if r.Ours != nil || !strings.Contains(r.Why, "find the forwarder") {
			t.Errorf("without a forwarder: %+v", r)
		}
		if r.PeerValue == nil {
			t.Errorf("%s could run without a forwarder: %s", r.Peer, r.Why)
		}
	}
}

func TestDeadServerIsAnError(t *testing.T) {
	hostnettest.NeedRoot(t)
	p, err := kernelPath()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := p.measure(ctx, 1, 5); err == nil {
		t.Errorf("a run that was cut off came to %+v", got)
	}
}

func TestReportsOfIperf(t *testing.T) {
	tests := map[string]struct {
		report string
		bits   float64 // 0: an error
		says   string
	}{
		"a run":           {`{"end":{"sum_received":{"bytes":2.5e9,"bits_per_second":2e10}}}`, 2e10, ""},
		"it failed":       {`{"start":{},"end":{},"error":"unable to connect to server"}`, 0, "unable to connect"},
		"nothing arrived": {`{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}`, 0, "nothing arrived"},
		"no JSON":         {`iperf3: error`, 0, "read iperf3's report"},
		"empty":           {``, 0, "read iperf3's report"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bits, _, err := received([]byte(tt.report))
			if bits != tt.bits || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, %v; want %v, %q", bits, err, tt.bits, tt.says)
			}
		})
	}
}

func TestEnoughRunsAreUndisturbedOnes(t *testing.T) {
	quiet, noisy := sample{other: 0.01}, sample{other: 0.5}
	p := plan{streams: []int{1}, rounds: 2}
	tests := map[string]struct {
		ours, peer []sample
		want       bool
	}{
		"both have them":    {[]sample{quiet, quiet}, []sample{quiet, noisy, quiet}, true},
		"one was disturbed": {[]sample{quiet, quiet}, []sample{quiet, noisy}, false},
		"nothing yet":       {nil, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			all := []*contestant{
				{path: &path{}, samples: map[int][]sample{1: tt.ours}},
				{path: &path{}, samples: map[int][]sample{1: tt.peer}},
				{why: "it cannot run"},
			}
			if got := enough(all, p); got != tt.want {
				t.Errorf("enough is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPairsTalkAtOnce(t *testing.T) {
	var got []harness.Result
	o := harness.Options{Quick: true, Filter: "workers=1", Log: io.Discard, Forwarder: forwarder(t)}
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

package tcp

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// kernelPath is one to measure.
func kernelPath(t *testing.T) *stage.Path {
	t.Helper()
	hostnettest.NeedRoot(t)
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("needs iperf3 (hack/deps.sh installs it)")
	}
	all, err := stage.KernelPairs(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all[0].Close)
	return all[0]
}

// Who cannot run is named, and keeps nobody else from running.
func TestEveryCaseIsReported(t *testing.T) {
	p := kernelPath(t)
	var got []harness.Result
	o := harness.Options{Limit: time.Minute, Log: io.Discard}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	peer := func(context.Context) (*stage.Path, error) { return p, nil }
	ours := func(context.Context) (*stage.Path, error) { return nil, errors.New("no such device") }
	err := harness.Run(t.Context(), o, harness.Scenario{Name: "s", Run: func(ctx context.Context, s *harness.Session) error {
		one := plan{cases: []Case{{IPv6: true, Streams: 1}}, seconds: 1, rounds: 1} // no clock ends it
		return contest(ctx, s, one, []Contestant{{Name: "ours", Raise: ours}, {Name: "peer", Raise: peer, Least: 0.5}})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 { // rate and cost
		t.Fatalf("%d results, want 2", len(got))
	}
	for _, r := range got {
		if r.Case != "tcp/ipv6/streams=1" || r.Ours != nil || r.PeerValue == nil || *r.PeerValue <= 0 || !strings.Contains(r.Why, "ours: no such device") {
			t.Errorf("got %+v, want the peer's figure and why ours has none", r)
		}
	}
	if got[0].MinRatio == nil || *got[0].MinRatio != 0.5 || got[1].MinRatio != nil {
		t.Errorf("ratios asked for are %v and %v, want 0.5 of the rate and none of the cost", got[0].MinRatio, got[1].MinRatio)
	}
}

func TestDeadServerIsAnError(t *testing.T) {
	p := kernelPath(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := Measure(ctx, p, Case{Streams: 1}, 5); err == nil {
		t.Errorf("a run that was cut off came to %+v", got)
	}
}

// A paced stream keeps to its rate, flows until it is stopped, and an end before
// that is told.
func TestPacedStreamsKeepToTheirRate(t *testing.T) {
	p := kernelPath(t)
	const rate = 200e6
	for _, ipv6 := range []bool{false, true} {
		b, err := Pace(t.Context(), p, ipv6, rate)
		if err != nil {
			t.Fatal(err)
		}
		before, err := p.Received()
		start := time.Now()
		time.Sleep(500 * time.Millisecond)
		after, err2 := p.Received()
		got := float64(after-before) * 8 / time.Since(start).Seconds()
		if err := errors.Join(err, err2); err != nil || got < rate/20 || got > 1.2*rate {
			t.Errorf("IPv6 %v: %.0f bit/s arrive, want %.0f: %v", ipv6, got, rate, err)
		}
		if took, err := b.CPU(); err != nil || took <= 0 {
			t.Errorf("IPv6 %v: it took %v of CPU, %v", ipv6, took, err)
		}
		if err := b.Stop(); err != nil {
			t.Errorf("IPv6 %v: %v", ipv6, err)
		}
	}
	b, err := Pace(t.Context(), p, false, rate)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.ended
	if err := b.Stop(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("a stream that was killed: %v", err)
	}
}

func TestQuickRunsHaveIPv6WhereItIsAskedFor(t *testing.T) {
	tests := map[string]struct {
		quick  bool
		filter string
		want   string
	}{
		"all":           {false, "", "tcp/streams=1 tcp/streams=8 tcp/ipv6/streams=1 tcp/ipv6/streams=8"},
		"quick":         {true, "", "tcp/streams=1 tcp/streams=8"},
		"quick, asked":  {true, "ipv6", "tcp/ipv6/streams=1 tcp/ipv6/streams=8"},
		"one of either": {true, "streams=8", "tcp/streams=8 tcp/ipv6/streams=8"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &harness.Session{Options: harness.Options{Quick: tt.quick, Filter: tt.filter}}
			var got []string
			for _, c := range planOf(s).cases {
				got = append(got, c.String())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("cases are %v, want %s", got, tt.want)
			}
		})
	}
}

func TestEnoughRunsAreUndisturbedOnes(t *testing.T) {
	quiet, noisy := Sample{Other: 0.01}, Sample{Other: 0.5}
	one := Case{Streams: 1}
	p := plan{cases: []Case{one}, rounds: 2}
	tests := map[string]struct {
		ours, peer []Sample
		want       bool
	}{
		"both have them":    {[]Sample{quiet, quiet}, []Sample{quiet, noisy, quiet}, true},
		"one was disturbed": {[]Sample{quiet, quiet}, []Sample{quiet, noisy}, false},
		"nothing yet":       {nil, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			all := []*contestant{
				{path: &stage.Path{}, samples: map[Case][]Sample{one: tt.ours}},
				{path: &stage.Path{}, samples: map[Case][]Sample{one: tt.peer}},
				{why: "it cannot run"},
			}
			if got := enough(all, p); got != tt.want {
				t.Errorf("enough is %v, want %v", got, tt.want)
			}
		})
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

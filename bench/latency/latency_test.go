package latency

import (
	"context"
	"encoding/binary"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/bench/tcp"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// everyKind is all without a load.
var everyKind = []kind{{}, {tcp: true}, {ipv6: true}, {tcp: true, ipv6: true}}

func kernelPath(t *testing.T) *stage.Path {
	t.Helper()
	hostnettest.NeedRoot(t)
	all, err := stage.KernelPairs(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all[0].Close)
	return all[0]
}

func opened(t *testing.T, p *stage.Path, k kind) *talk {
	t.Helper()
	c, err := open(t.Context(), p, k.tcp, k.ipv6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// answerBy has a server answer as f tells, until the talk is closed.
func answerBy(c *talk, f func(n int) (after time.Duration, ok bool)) {
	c.answering.Go(func() {
		b := make([]byte, size)
		for n := 1; !c.ending.Load(); {
			got, err := unix.Read(c.server, b)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil || got == 0 {
				return
			}
			if after, ok := f(n); ok {
				time.Sleep(after)
				_, _ = unix.Write(c.server, b[:got])
			}
			n++
		}
	})
}

// A server that takes its time shows in the figures, and by as much.
func TestFiguresAreThoseOfTheServer(t *testing.T) {
	p := kernelPath(t)
	const usual, rare = 3 * time.Millisecond, 40 * time.Millisecond
	for _, k := range everyKind {
		t.Run(k.String(), func(t *testing.T) {
			c := opened(t, p, k)
			answerBy(c, func(n int) (time.Duration, bool) {
				if n%10 == 0 {
					return rare, true
				}
				return usual, true
			})
			h := new(histogram)
			if err := c.ask(h, 300*time.Millisecond, 40); err != nil {
				t.Fatal(err)
			}
			if h.total < 10 || h.total != c.asked || c.lost > h.total/2 {
				t.Fatalf("%d round trips are counted of %d questions, %d lost", h.total, c.asked, c.lost)
			}
			const width = 0.99 // of a bucket
			if p50, p99 := h.rank(0.5), h.rank(0.99); float64(p50) < width*float64(usual) || float64(p99) < width*float64(rare) {
				t.Errorf("p50 is %v and p99 %v, want at least %v and %v", p50, p99, usual, rare)
			}
		})
	}
}

// A datagram that is lost counts as one that took as long as we wait, and a late
// answer is not taken for that of the next question.
func TestLostDatagramsCountAsSlowOnes(t *testing.T) {
	p := kernelPath(t)
	for _, k := range []kind{{}, {ipv6: true}} {
		t.Run(k.String(), func(t *testing.T) {
			c := opened(t, p, k)
			answerBy(c, func(n int) (time.Duration, bool) {
				switch n {
				case 2:
					return 0, false
				case 4:
					return 2 * patience, true
				}
				return 0, true
			})
			h := new(histogram)
			for range 10 {
				lost := c.lost
				if err := c.ask(h, time.Millisecond, 1); err != nil {
					t.Fatal(err)
				}
				if got := binary.BigEndian.Uint64(c.answer[:]); c.lost == lost && got != c.asked {
					t.Errorf("question %d got the answer of %d", c.asked, got)
				}
			}
			if c.lost < 1 || h.rank(1) < patience*99/100 || h.total != c.asked {
				t.Errorf("lost %d of %d, the longest of %d round trips took %v", c.lost, c.asked, h.total, h.rank(1))
			}
			if got := h.rank(0); got >= patience {
				t.Errorf("the shortest took %v: nothing was answered", got)
			}
		})
	}
}

func TestDeadServerIsAnError(t *testing.T) {
	p := kernelPath(t)
	for _, k := range []kind{{tcp: true}, {tcp: true, ipv6: true}, {}, {ipv6: true}} {
		c := opened(t, p, k)
		if err := unix.Close(c.server); err != nil {
			t.Fatal(err)
		}
		c.server = -1
		if err := c.ask(new(histogram), time.Second, 1); err == nil {
			t.Errorf("%v: nobody listens, and that is no error", k)
		}
	}
}

func TestAskingAllocatesNothing(t *testing.T) {
	p := kernelPath(t)
	for _, k := range everyKind {
		c := opened(t, p, k)
		c.serve()
		h := new(histogram)
		asked := func() {
			if err := c.ask(h, 50*time.Millisecond, 500); err != nil {
				t.Fatal(err)
			}
		}
		objects := harness.Allocations(1, asked)
		if objects > 50 { // the test's, and the runtime's own
			t.Errorf("%v: %d questions made %.0f objects", k, c.asked, objects)
		}
		if c.asked < 500 {
			t.Errorf("%v: only %d questions were asked", k, c.asked)
		}
	}
}

// Both paths, by ours and by the kernel, with a load beside.
func TestWindowsOfEveryPath(t *testing.T) {
	bin := stagetest.Forwarder(t, tcp.Installed)
	for name, raise := range map[string]func() ([]*stage.Path, error){
		"ours":        func() ([]*stage.Path, error) { return stage.OursPairs(t.Context(), "rtt", bin, 1, 1) },
		"kernel-veth": func() ([]*stage.Path, error) { return stage.KernelPairs(1) },
	} {
		t.Run(name, func(t *testing.T) {
			threads, files := hostnettest.Threads(t), hostnettest.Descriptors(t)
			all, err := raise()
			if err != nil {
				t.Fatal(err)
			}
			for _, rate := range []float64{0, 100e6} {
				for _, k := range everyKind {
					windowOf(t, all[0], k, rate)
				}
			}
			all[0].Close()
			hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
			hostnettest.Eventually(t, "threads end", func() bool { return hostnettest.Threads(t) <= threads+runtime.NumCPU()+8 })
		})
	}
}

func windowOf(t *testing.T, p *stage.Path, k kind, rate float64) {
	t.Helper()
	w, err := measure(t.Context(), p, k, rate, 200*time.Millisecond)
	if err != nil {
		t.Errorf("%v beside %.0f bit/s: %v", k, rate, err)
		return
	}
	if w.lost > w.trips/2 || w.trips == 0 || w.at[0] <= 0 || w.at[1] < w.at[0] || w.at[2] < w.at[1] || w.other < 0 || w.other > 1.1 {
		t.Errorf("%v beside %.0f bit/s: %+v", k, rate, w)
	}
	if beside := w.load * 1e9; rate > 0 && beside < rate/20 {
		t.Errorf("%v: of %.0f bit/s beside %.0f arrived", k, rate, beside)
	}
}

func TestEveryCaseIsReported(t *testing.T) {
	hostnettest.NeedRoot(t)
	var got []harness.Result
	o := harness.Options{Quick: true, Limit: 10 * time.Second, Filter: "latency/", Log: io.Discard, Forwarder: filepath.Join(t.TempDir(), "none")}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, k := range []string{"udp", "tcp", "udp/ipv6", "tcp/ipv6"} {
		want[k+"/idle"], want[k+"/load=50"] = len(figures), len(figures)
	}
	for _, r := range got {
		want[r.Case]--
		if r.Ours != nil || !strings.Contains(r.Why, "find the forwarder") {
			t.Errorf("without a forwarder: %+v", r)
		}
	}
	for name, n := range want {
		if n != 0 {
			t.Errorf("%s is told %d times too few", name, n)
		}
	}
}

func TestShortRun(t *testing.T) {
	var got []harness.Result
	o := harness.Options{Limit: 2 * time.Minute, Log: io.Discard, Forwarder: stagetest.Forwarder(t, tcp.Installed)}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	short := harness.Scenario{Name: "latency", Run: func(ctx context.Context, s *harness.Session) error { // no clock ends it
		return run(ctx, s, plan{kinds: []kind{{ipv6: true, loaded: true}}, rounds: 1, window: 200 * time.Millisecond, probes: 1, seconds: 1})
	}}
	if err := harness.Run(t.Context(), o, short); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(figures) {
		t.Fatalf("%d results, want %d", len(got), len(figures))
	}
	for _, r := range got {
		if r.Ours == nil || *r.Ours <= 0 || r.PeerValue == nil || *r.PeerValue <= 0 || r.Ratio == nil {
			t.Errorf("%s of %s: %+v", r.Metric, r.Case, r)
		}
		for _, key := range []string{"trips", "peer_trips", "asked_gbit_per_s", "arrived_gbit_per_s", "peer_arrived_gbit_per_s"} {
			if r.Extra[key] <= 0 {
				t.Errorf("%s of %s tells nothing of %s: %v", r.Metric, r.Case, key, r.Extra)
			}
		}
	}
}

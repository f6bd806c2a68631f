package veth

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/xdpgen"
)

// needBed skips where none can be raised.
func needBed(t *testing.T) {
	t.Helper()
	hostnettest.NeedRoot(t)
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs: one for the generator, one for who forwards")
	}
}

// forwarder builds the real one.
func forwarder(t *testing.T) string {
	t.Helper()
	needBed(t)
	return stagetest.Forwarder(t)
}

var (
	alone = placement{generators: []int{0}, workers: []int{1}}
	// shared is for machines of two CPUs: who generates for one worker is in the
	// way of the other, which is no matter for what arrives where.
	shared = placement{generators: []int{0, 1}, workers: []int{1, 0}}
)

// Each forwards every load as a router does, and leaves the veths to the next.
func TestEveryContestantForwards(t *testing.T) {
	bin := forwarder(t)
	files := hostnettest.Descriptors(t)
	b, err := raise(t.Context(), bin, alone, everyLoad())
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			b.close()
		}
	}()
	all := contestants(b)
	for _, i := range []int{0, 1, 2, 0, 2} { // each beside each
		c := all[i]
		if i == 1 && !installed(testpmdProgram) {
			t.Logf("%s is not installed: left out", testpmdProgram)
			continue
		}
		t.Run(c.name, func(t *testing.T) { forwards(t, b, c) })
	}
	b.close()
	closed = true
	hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
	if _, err := os.Stat(b.lab.Dir()); err == nil {
		t.Errorf("%s is still there", b.lab.Dir())
	}
}

func installed(program string) bool { _, err := exec.LookPath(program); return err == nil }

// forwards starts one, has it forward every load, and stops it.
func forwards(t *testing.T, b *bed, c *contestant) {
	on, err := c.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := on.stop(); err != nil {
			t.Error(err)
		}
		got, err := b.offer(t.Context(), everyLoad()[0], 1000, 5*time.Millisecond)
		if err != nil || got.arrived.Frames != 0 {
			t.Errorf("%d frames arrive after it was stopped, %v", got.arrived.Frames, err)
		}
	}()
	if err := b.ready(t.Context(), everyLoad()[0], on.ended); err != nil {
		t.Fatal(err)
	}
	if on.drops != nil {
		accountsAgree(t, b, on)
	}
	for _, l := range everyLoad() {
		if err := b.check(t.Context(), l, c.hops); err != nil {
			t.Error(err)
		}
		if err := b.check(t.Context(), l, c.hops-1); err == nil {
			t.Errorf("%v: a wrong hop count was not noticed", l)
		}
		got, err := b.offer(t.Context(), l, 10_000, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		const few = 200 // tell no rate, and may be all that there was CPU time for
		if got.arrived.Frames == 0 && got.sent.Frames > 0 || got.arrived.Frames > got.sent.Frames || got.arrived.Rate <= 0 && got.arrived.Frames > few {
			t.Errorf("%v: %+v", l, got)
		}
	}
}

// accountsAgree overloads one, and holds what was lost against what was counted.
func accountsAgree(t *testing.T, b *bed, on running) {
	t.Helper()
	before, err := on.drops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.offer(t.Context(), everyLoad()[0], 0, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	after, err := on.drops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const others = 10 // frames of the pods' kernels, as multicast, which are dropped and counted too
	if counted := after.sum() - before.sum(); counted < got.lost() || counted > got.lost()+others || got.lost() == 0 {
		t.Errorf("of %d frames %d were lost and %d counted: %v before, %v after", got.sent.Frames, got.lost(), counted, before, after)
	}
	uncounted := running{drops: func(context.Context) (drops, error) { return drops{}, nil }}
	err = b.accounted(t.Context(), uncounted, func() error {
		_, err := b.offer(t.Context(), everyLoad()[0], 0, 100*time.Millisecond)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "only 0 were counted") {
		t.Errorf("frames that nobody counted: %v", err)
	}
}

// One that ends by itself is told at once, with what it said.
func TestDeadPeerIsAnError(t *testing.T) {
	bin := forwarder(t)
	b, err := raise(t.Context(), bin, alone, everyLoad()[:1])
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	dir := t.TempDir()
	script := "#!/bin/sh\necho no such device >&2\nexit 3\n"
	if err := os.WriteFile(filepath.Join(dir, testpmdProgram), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	start := time.Now()
	c := contestants(b)[1]
	err = b.turn(t.Context(), nil, c, plan{loads: everyLoad()[:1]})
	if err == nil || !strings.Contains(err.Error(), "it has ended") || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(start); took > readyTime/2 {
		t.Errorf("it took %v to notice", took)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := c.start(t.Context()); err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("a peer that is not installed: %v", err)
	}
}

// One that is killed leaves the veths as they were, for the next.
func TestKilledPeerLeavesNothing(t *testing.T) {
	bin := forwarder(t)
	if !installed(testpmdProgram) {
		t.Skipf("needs %s, which leaves its XDP programs behind: apt-get install --no-install-recommends dpdk-dev", testpmdProgram)
	}
	l := everyLoad()[0]
	b, err := raise(t.Context(), bin, alone, []load{l})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	c := contestants(b)[1]
	on, err := c.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ready := b.ready(t.Context(), l, on.ended)
	if err := syscall.Kill(on.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	hostnettest.Eventually(t, "it is gone", func() bool {
		select {
		case <-on.ended:
			return true
		default:
			return false
		}
	})
	left := attached(t, b)
	if err := on.stop(); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("stopping one that was killed: %v", err)
	}
	if ready != nil {
		t.Fatal(ready)
	}
	if left == 0 {
		t.Skipf("this %s leaves no program behind when it is killed", testpmdProgram)
	}
	if n := attached(t, b); n != 0 {
		t.Errorf("%d programs are still there", n)
	}
}

// attached is how many of the node's ends have an XDP program.
func attached(t *testing.T, b *bed) (n int) {
	t.Helper()
	for _, name := range []string{entry, exit} {
		l, err := linkOf(b.ns, name)
		if err != nil {
			t.Fatal(err)
		}
		if l.XDP.Mode != hostnet.XDPNone {
			n++
		}
	}
	return n
}

func TestEveryCaseIsReported(t *testing.T) {
	needBed(t)
	var got []harness.Result
	o := harness.Options{Quick: true, Log: io.Discard, Forwarder: filepath.Join(t.TempDir(), "none")}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	cases := map[string]int{}
	for _, r := range got {
		cases[r.Case]++
		if r.Ours != nil || r.PeerValue != nil || !strings.Contains(r.Why, "find the forwarder") || *r.MinRatio != 1 || r.Metric != "pps" {
			t.Errorf("without a forwarder: %+v", r)
		}
	}
	for _, want := range []string{
		"64B/workers=1/saturation", "64B/workers=1/loss-free", "1500B/workers=1/saturation", "1500B/workers=1/loss-free",
		"64B/ipv6/workers=1/saturation", "64B/ipv6/workers=1/loss-free", "1500B/ipv6/workers=1/saturation", "1500B/ipv6/workers=1/loss-free",
	} {
		if cases[want] != 2 {
			t.Errorf("%s is reported against %d peers, want 2", want, cases[want])
		}
		delete(cases, want)
	}
	if len(cases) != 0 {
		t.Errorf("and there are %v", cases)
	}
}

// A whole run: ours and the kernel have figures, testpmd is named where it is not.
func TestShortRun(t *testing.T) {
	bin := forwarder(t)
	if !installed(testpmdProgram) {
		t.Logf("%s is not installed", testpmdProgram)
	}
	var got []harness.Result
	o := harness.Options{Quick: true, Limit: 20 * time.Second, Filter: "/64B/workers=1/", Log: io.Discard, Forwarder: bin}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 { // two figures, two peers
		t.Fatalf("%d results, want 4", len(got))
	}
	for _, r := range got {
		if r.Peer == "testpmd-af-xdp" && !installed(testpmdProgram) {
			if !strings.Contains(r.Why, "apt-get install") {
				t.Errorf("%s says %q, want how to have it", r.Peer, r.Why)
			}
			continue
		}
		if r.Ours == nil || r.PeerValue == nil || *r.Ours <= 0 || *r.PeerValue <= 0 {
			t.Errorf("%s against %s: %v, %v; %s", r.Case, r.Peer, r.Ours, r.PeerValue, r.Why)
		}
		if strings.HasSuffix(r.Case, "saturation") && r.Extra["offered_pps"] <= 0 {
			t.Errorf("%s tells nothing of what was offered: %v", r.Case, r.Extra)
		}
	}
}

func TestBisection(t *testing.T) {
	tests := map[string]struct {
		can, top  float64
		low, high float64 // what it may find
	}{
		"in the middle":  {500, 1000, 485, 500},
		"all of it":      {5000, 1000, 980, 1000},
		"nearly nothing": {10, 1000, 0, 10},
		"nothing":        {0, 1000, 0, 0},
		"no top":         {500, 0, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bisect(tt.top, 7, func(rate float64) (float64, error) {
				if rate > tt.can {
					return 0, nil
				}
				return rate, nil
			})
			if err != nil || got < tt.low || got > tt.high {
				t.Errorf("found %v, %v; want %v to %v", got, err, tt.low, tt.high)
			}
		})
	}
	if _, err := bisect(1000, 7, func(float64) (float64, error) { return 0, io.ErrUnexpectedEOF }); err == nil {
		t.Error("an error of a trial was lost")
	}
}

func TestFramesThatAreNotTheSameAreTold(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		src, dst := addresses(ipv6)
		s := xdpgen.Stream{Src: src, Dst: dst, Size: 64, Ports: 1}
		sent := s.Frame()
		if err := same(sent, sent, xdpgen.Hops); err != nil {
			t.Errorf("IPv6 %v: the frame itself: %v", ipv6, err)
		}
		if err := same(sent, sent, xdpgen.Hops-1); err == nil {
			t.Errorf("IPv6 %v: one that nobody took a hop off passes for forwarded", ipv6)
		}
		differ := 0
		for i := range sent {
			other := append([]byte(nil), sent...)
			other[i] ^= 0x40
			if same(other, sent, xdpgen.Hops) != nil {
				differ++
			}
		}
		if want := len(sent) - 4; differ != want { // source port and its complement go as they like
			t.Errorf("IPv6 %v: of %d changed bytes %d were noticed, want %d", ipv6, len(sent), differ, want)
		}
	}
}

func TestLossIsNeverNegative(t *testing.T) {
	tr := trial{sent: xdpgen.Sent{Frames: 100}, arrived: xdpgen.Arrived{Frames: 90}}
	if tr.lost() != 10 {
		t.Errorf("of 100 frames 90 arrived: lost %d", tr.lost())
	}
	if tr.arrived.Frames = 101; tr.lost() != 0 {
		t.Errorf("more arrived than was sent: lost %d", tr.lost())
	}
}

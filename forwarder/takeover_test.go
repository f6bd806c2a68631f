package forwarder_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/forwarder/handover"
	. "margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/hostnet/journal"
)

// facts are those of the lab's forwarder.
func (l *lab) facts() handover.Facts {
	return handover.Facts{
		Program: "test", Contract: pb.Version, MinContract: pb.MinVersion, Arena: umem.LayoutVersion,
		Workers: l.workers, Frames: 16384, Supers: 384,
	}
}

func (l *lab) take(facts handover.Facts) (*handover.Taking, handover.Bundle, error) {
	return handover.Take(l.t.Context(), l.socket()+".handover", facts)
}

// takeOver starts another forwarder, which takes over, and waits until the first
// has ended by itself.
func (l *lab) takeOver(flags ...string) {
	l.t.Helper()
	first, conn := l.cmd, l.conn
	l.cmd = nil
	l.start(append(flags, "--take-over")...)
	conn.Close()
	done := make(chan error, 1)
	go func() { done <- first.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			l.t.Fatalf("the forwarder that was taken over from ended with %v", err)
		}
	case <-time.After(time.Minute):
		_ = first.Process.Kill()
		l.t.Fatal("the forwarder that was taken over from does not end")
	}
	Eventually(l.t, "the one that took over is ready", func() bool {
		_, err := l.inspect().GetStatus(context.Background(), &pb.StatusRequest{})
		return err == nil
	})
}

// refusedTakeOver starts another forwarder that must fail, and returns what it said.
func (l *lab) refusedTakeOver(flags ...string) string {
	l.t.Helper()
	path, err := binary()
	if err != nil {
		l.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, append([]string{"--socket", l.socket(), "--state-dir", filepath.Join(l.dir, "state"), "--metrics", "",
		"--workers", "1", "--take-over"}, flags...)...)
	cmd.Stderr = &out
	if err := l.node.Do(cmd.Run); err == nil {
		l.t.Fatalf("it took over:\n%s", out.String())
	}
	return out.String()
}

func TestTakeOverKeepsWhatWasInForce(t *testing.T) {
	l := newLab(t)
	Run(t, l.node, "sysctl", "-w", "net.ipv4.conf.default.rp_filter=1")
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	l.pings()
	before, rx := l.status(), l.account().GetRx()
	devices := Run(t, l.pods["a"], "ip", "-o", "link", "show", "eth0")
	program := Run(t, l.node, "ip", "-d", "link", "show", "vc")
	if !strings.Contains(program, "prog/xdp") {
		t.Fatalf("there is no program on the veth:\n%s", program)
	}
	for range 2 { // the second takes over from one that took over
		l.takeOver()
		after := l.status()
		if after.Generation != before.Generation || !after.Restored || after.BootId == before.BootId || len(after.Conditions) > 0 {
			t.Errorf("after the hand-over status is %v, before it was %v", after, before)
		}
		if now := l.account().GetRx(); now < rx {
			t.Errorf("%d packets were received in all, %d before", now, rx)
		}
		l.pings()
		before = after
	}
	if after := Run(t, l.pods["a"], "ip", "-o", "link", "show", "eth0"); after != devices {
		t.Errorf("the pod's device was\n%s, it is\n%s", devices, after)
	}
	if got := l.rpFilter(); got != "2" {
		t.Errorf("rp_filter of the host port is %s, want 2 as before", got)
	}
	c = l.connect()
	c.must(true, l.snapshot())
	c.must(false, &pb.Chunk{RemovedEndpoints: []string{"b"}})
	if err := l.kill(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	if got := l.rpFilter(); got != "1" {
		t.Errorf("rp_filter is %s after a clean exit, want 1 again: the journal was not handed over", got)
	}
	for _, path := range []string{l.socket(), l.socket() + ".handover"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
	l.start()
	if s := l.status(); s.Generation != c.gen {
		t.Errorf("generation %d is restored from disk, want %d", s.Generation, c.gen)
	}
	l.ping("a", "10.1.0.4")
}

// A taker that fails, at whatever step, leaves the running one in charge, and
// the next one finds everything.
func TestTakersThatFail(t *testing.T) {
	l := newLab(t)
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	l.pings()
	var free uint32
	Eventually(t, "frames are at rest", func() bool {
		was := free
		free = l.status().FramesFree
		return was == free
	})
	steps := []string{"offered", "ready", "applied"}
	for last, step := range steps {
		taking, b, err := l.take(l.facts())
		if err != nil {
			t.Fatal(err)
		}
		if last >= 1 {
			if _, err := taking.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if last >= 2 {
			if err := taking.Applied(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.squander(b.FDs[0])
		}
		for _, fd := range b.FDs {
			_ = syscall.Close(fd)
		}
		taking.Abort(errors.New("lost heart when it was " + step))
		Eventually(t, "the forwarder says why it goes on", func() bool { return strings.Contains(l.log.String(), "lost heart when it was "+step) })
		l.pings()
		Eventually(t, "all frames are back", func() bool { return l.status().FramesFree == free })
		c.must(false, &pb.Chunk{RemovedEndpoints: []string{"b"}})
		_, eb := l.tunPod("b", "10.1.0.3", "fd00::3")
		c.must(false, &pb.Chunk{Endpoints: []*pb.Endpoint{eb}})
	}
	l.takeOver()
	l.pings()
}

// squander takes frames out of an arena that nobody gives back.
func (l *lab) squander(fd int) {
	l.t.Helper()
	mine, err := syscall.Dup(fd)
	if err != nil {
		l.t.Fatal(err)
	}
	a, err := umem.Attach(mine, umem.Config{Frames: 16384, Supers: 384, Caches: l.workers + 2})
	if err != nil {
		l.t.Fatal(err)
	}
	defer a.Close()
	for range 1000 {
		a.Cache(0).Frame()
	}
}

func TestTakeOverIsRefused(t *testing.T) {
	l := newLab(t)
	if out := l.refusedTakeOver(); !strings.Contains(out, "start without --take-over") {
		t.Errorf("without a running forwarder it says: %s", out)
	}
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	tests := map[string]struct {
		flags []string
		want  string
	}{
		"other workers": {[]string{"--workers", "2"}, "workers"},
		"other folder":  {[]string{"--state-dir", t.TempDir()}, "cannot move it"},
	}
	for name, tt := range tests {
		if out := l.refusedTakeOver(tt.flags...); !strings.Contains(out, tt.want) {
			t.Errorf("%s: it says %s, want a word on %q", name, out, tt.want)
		}
	}
	skewed := map[string]func(*handover.Facts){
		"newer contract": func(f *handover.Facts) { f.Contract, f.MinContract = pb.Version+2, pb.Version+1 },
		"older contract": func(f *handover.Facts) { f.Contract, f.MinContract = pb.MinVersion-1, pb.MinVersion-1 },
		"newer memory":   func(f *handover.Facts) { f.Arena++ },
		"other frames":   func(f *handover.Facts) { f.Frames *= 2 },
	}
	for name, skew := range skewed {
		facts := l.facts()
		skew(&facts)
		if _, _, err := l.take(facts); !errors.Is(err, handover.ErrRefused) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	c.must(false, &pb.Chunk{RemovedEndpoints: []string{"b"}})
	l.ping("a", "10.1.0.4")
	l.takeOver()
	l.ping("a", "10.1.0.4")
}

// A giver that is told to stop when it has let go already ends as one that was
// taken over from: what it has belongs to the other process.
func TestToldToStopWhenItHasLetGo(t *testing.T) {
	l := newLab(t)
	Run(t, l.node, "sysctl", "-w", "net.ipv4.conf.default.rp_filter=1")
	l.start()
	l.connect().must(true, l.snapshot())
	taking, b, err := l.take(l.facts())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, fd := range b.FDs {
			_ = syscall.Close(fd)
		}
	}()
	if _, err := taking.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := taking.Applied(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the time to say so is short
	if err := taking.Running(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = l.cmd.Process.Kill()
		<-ended
		t.Error("it does not end")
	}
	l.cmd = nil
	if got := l.rpFilter(); got != "2" {
		t.Errorf("rp_filter is %s, want it left to the other process", got)
	}
}

// A giver that is told to stop while it offers puts the host back, though the
// other process has the journal until it hears of it.
func TestToldToStopWhileItOffers(t *testing.T) {
	l := newLab(t)
	Run(t, l.node, "sysctl", "-w", "net.ipv4.conf.default.rp_filter=1")
	l.start()
	l.connect().must(true, l.snapshot())
	taking, b, err := l.take(l.facts())
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range b.FDs {
		_ = syscall.Close(fd)
	}
	lent, err := journal.Open(filepath.Join(l.dir, "state", "journal"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.kill(syscall.SIGTERM) }()
	Eventually(t, "it is stopping", func() bool { return strings.Contains(l.log.String(), "stopping") })
	if _, err := taking.Ready(t.Context()); !errors.Is(err, handover.ErrRefused) {
		t.Errorf("it goes on with the hand-over: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // as one that tidies up
	if err := lent.Close(); err != nil {
		t.Error(err)
	}
	taking.Abort(errors.New("refused"))
	if err := <-ended; err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if got := l.rpFilter(); got != "1" {
		t.Errorf("rp_filter is %s after a clean exit, want 1 again", got)
	}
}

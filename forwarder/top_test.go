package forwarder_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// glance is what margayctl top says in JSON.
type glance struct {
	State   string
	BootID  string
	Traffic struct{ RxPacketsPerSecond, TxBitsPerSecond, PacketsPerCall float64 }
	Nodes   []struct{ Name string }
	Workers []struct{ Busy float64 }
	Ports   []struct {
		Name  string
		Rates *struct{ RxPacketsPerSecond float64 }
	}
}

// top runs margayctl top until the test ends, and hands out what it shows.
func (l *lab) top() (*exec.Cmd, <-chan glance) {
	l.t.Helper()
	path, err := ctlBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(path, "--socket", l.socket(), "top", "--interval", "200ms", "-o", "json")
	cmd.Stderr = os.Stderr
	r, w := io.Pipe()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { r.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	shown := make(chan glance)
	go func() {
		defer close(shown)
		for d := json.NewDecoder(r); ; {
			var g glance
			if d.Decode(&g) != nil {
				return
			}
			shown <- g
		}
	}()
	return cmd, shown
}

// pinging sends from pod to to, 50 times a second, until the test ends.
func (l *lab) pinging(pod, to string) {
	l.t.Helper()
	cmd := exec.Command("ping", "-q", "-i", "0.02", to)
	if err := l.pods[pod].Do(cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

func TestTopGoesOnWhileTheForwarderRestarts(t *testing.T) {
	for family, to := range map[string]string{"IPv4": "10.1.0.3", "IPv6": "fd00::3"} {
		t.Run(family, func(t *testing.T) {
			l := newLab(t)
			l.start()
			l.connect().must(true, l.snapshot())
			l.pinging("a", to)
			cmd, shown := l.top()
			first := wantShown(t, shown, "running")
			if len(first.Workers) != 1 || first.Traffic.TxBitsPerSecond <= 0 || first.Traffic.PacketsPerCall < 1 {
				t.Errorf("it shows %+v, want one worker and what moves", first)
			}
			if names := nodeNames(first); !strings.Contains(names, "ip-input") || strings.Contains(names, "resolve") {
				t.Errorf("it shows the nodes %s, want those that packets went through", names)
			}
			if p := first.Ports[0]; p.Rates == nil || p.Rates.RxPacketsPerSecond <= 0 {
				t.Errorf("the busiest port is %+v, want a or b with packets", p)
			}
			_ = l.kill(syscall.SIGKILL)
			wantShown(t, shown, "unreachable")
			l.start()
			if again := wantShown(t, shown, "restarted"); again.BootID == first.BootID {
				t.Errorf("it restarted as the run that it was: %+v", again)
			}
			wantShown(t, shown, "running")
			_ = cmd.Process.Signal(os.Interrupt)
			go func() {
				for range shown { // what it showed before it heard of the end
				}
			}()
			if err := cmd.Wait(); err != nil {
				t.Errorf("interrupted, it ends with %v", err)
			}
		})
	}
}

// wantShown waits for a glance of this state; for a running forwarder, one with packets.
func wantShown(t *testing.T, shown <-chan glance, state string) glance {
	t.Helper()
	deadline := time.After(time.Minute)
	var last glance
	for {
		select {
		case g, ok := <-shown:
			if !ok {
				t.Fatalf("top ended before it showed %s; the last was %+v", state, last)
			}
			if last = g; g.State == state && (state != "running" || g.Traffic.RxPacketsPerSecond > 0) {
				return g
			}
		case <-deadline:
			t.Fatalf("nothing shown is %s for 20 s; the last was %+v", state, last)
		}
	}
}

func nodeNames(g glance) string {
	var names []string
	for _, n := range g.Nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

package forwarder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/built"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// ctlBinary is margayctl, built once for all tests.
var ctlBinary = sync.OnceValues(func() (string, error) { return built.Program("margayctl") })

// ctl is a run of margayctl against the lab's forwarder.
func (l *lab) ctl(args ...string) (cmd *exec.Cmd, out, errOut *logBuffer) {
	l.t.Helper()
	path, err := ctlBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd = exec.Command(path, append([]string{"--socket", l.socket()}, args...)...)
	out, errOut = &logBuffer{}, &logBuffer{}
	cmd.Stdout, cmd.Stderr = out, errOut
	return cmd, out, errOut
}

// during runs margayctl, and traffic again and again until it has ended.
func (l *lab) during(traffic func(), args ...string) (out, errOut string, err error) {
	l.t.Helper()
	cmd, o, e := l.ctl(args...)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		traffic()
		select {
		case err := <-ended:
			return o.String(), e.String(), err
		default:
		}
	}
}

// raised is a lab whose pods reach each other.
func raised(t *testing.T) *lab {
	l := newLab(t)
	l.start()
	l.connect().must(true, l.snapshot())
	l.pings()
	return l
}

// The pings of each family from pod a, a TUN, to pod c, a veth.
var fromAToC = map[string]struct{ to, filter, prefix string }{
	"IPv4": {"10.1.0.4", "icmp and dst host 10.1.0.4", "10.1.0.4/32"},
	"IPv6": {"fd00::4", "icmp6 type 128 and dst host fd00::4", "fd00::4/128"},
}

func TestTraceTellsAPacketsWay(t *testing.T) {
	l := raised(t)
	for name, tt := range fromAToC {
		t.Run(name, func(t *testing.T) {
			ping := func() { l.ping("a", tt.to) }
			out, errOut, err := l.during(ping, "trace", "--filter", tt.filter, "-n", "2", "-o", "json")
			if err != nil {
				t.Fatalf("%v\n%s", err, errOut)
			}
			var got struct {
				Packets []struct {
					End   string
					Lost  string
					Steps []struct {
						Kind, Stop, Edge, InPort, OutPort string
						NsPerPacket                       float64
						Route                             struct {
							Prefix  string
							Changed bool
							Chosen  struct{ Port string }
						}
					}
				}
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Packets) != 2 {
				t.Fatalf("%d packets are told of, %v\n%s", len(got.Packets), err, out)
			}
			for _, p := range got.Packets {
				var way []string
				for _, s := range p.Steps {
					way = append(way, strings.TrimPrefix(s.Kind, "KIND_")+" "+s.Stop+">"+s.Edge+s.OutPort)
					if s.Stop == "route" && (s.Route.Prefix != tt.prefix || s.Route.Chosen.Port != "c" || s.Route.Changed || s.NsPerPacket <= 0) {
						t.Errorf("route says %+v, want %s by c", s, tt.prefix)
					}
				}
				want := "RECEIVED ip-input>, VISITED ip-input>route, VISITED route>rewrite, VISITED rewrite>tx, TRANSMITTED >c"
				if strings.Join(way, ", ") != want || p.End != "END_SENT" || p.Lost != "0" || p.Steps[0].InPort != "a" {
					t.Errorf("told is %s, %+v; want %s", strings.Join(way, ", "), p, want)
				}
			}
			story, _, err := l.during(ping, "trace", "--filter", tt.filter)
			if err != nil || strings.Count(story, "\n") < 6 || !strings.Contains(story, "sent by c after") {
				t.Errorf("the story is, %v:\n%s", err, story)
			}
			t.Log("\n" + story)
		})
	}
	l.balanced()
}

func TestCaptureIsReadByTcpdump(t *testing.T) {
	l := raised(t)
	for name, tt := range fromAToC {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.pcapng")
			_, errOut, err := l.during(func() { l.ping("a", tt.to) }, "capture", "-f", tt.filter, "--stage", "rx,pre-tx", "--count", "6", "-w", file)
			if err != nil || !strings.Contains(errOut, "6 packets") {
				t.Fatalf("%v\n%s", err, errOut)
			}
			out := Run(t, l.node, "tcpdump", "-nr", file)
			if n := strings.Count(out, "echo request"); n != 6 || !strings.Contains(out, tt.to) {
				t.Errorf("tcpdump reads %d echo requests, want 6:\n%s", n, out)
			}
			kept, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"stage=rx port=a ethernet=none", "stage=pre-tx port=c"} {
				if n := bytes.Count(kept, []byte(want)); n < 2 || n > 4 {
					t.Errorf("%d comments say %q", n, want)
				}
			}
		})
	}
}

func TestCaptureTellsWhyPacketsAreDropped(t *testing.T) {
	l := raised(t)
	for pod, tt := range map[string]struct{ to, reason string }{
		"a": {"10.99.0.1", "no-route"}, "c": {"fd99::1", "no-route"},
	} {
		_, _ = TryRun(l.pods[pod], "ping", "-c", "1", "-W", "1", tt.to) // so that neighbours are known
		file := filepath.Join(t.TempDir(), "drops.pcapng")
		lost := func() { _, _ = TryRun(l.pods[pod], "ping", "-c", "2", "-i", "0.05", "-W", "1", tt.to) }
		if _, errOut, err := l.during(lost, "capture", "-f", "host "+tt.to, "--stage", "drop", "-n", "2", "-w", file); err != nil {
			t.Fatalf("%v\n%s", err, errOut)
		}
		out := Run(t, l.node, "tcpdump", "-nr", file)
		kept, err := os.ReadFile(file)
		want := fmt.Sprintf("stage=drop port=%s", pod)
		if err != nil || strings.Count(out, tt.to) != 2 || bytes.Count(kept, []byte(want)) != 2 || bytes.Count(kept, []byte("reason="+tt.reason)) != 2 {
			t.Errorf("pod %s: tcpdump reads, %v\n%s\nand comments do not say twice %q and %s", pod, err, out, want, tt.reason)
		}
	}
}

func TestCaptureToAFullDisk(t *testing.T) {
	l := raised(t)
	for to, filter := range map[string]string{"10.1.0.3": "icmp", "fd00::3": "icmp6 and host fd00::3"} {
		folder := t.TempDir()
		Run(t, l.node, "mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder)
		t.Cleanup(func() { Run(t, l.node, "umount", folder) })
		file := filepath.Join(folder, "c.pcapng")
		big := func() {
			_, _ = TryRun(l.pods["a"], "ping", "-c", "20", "-i", "0.002", "-s", "1000", "-W", "1", to)
		}
		_, errOut, err := l.during(big, "capture", "-f", filter, "--stage", "rx", "-w", file)
		if err == nil || !strings.Contains(errOut, "no space left on device") || !strings.Contains(errOut, file+" holds ") {
			t.Fatalf("on a full disk capture ends with %v and says\n%s", err, errOut)
		}
		var kept int
		if _, err := fmt.Sscanf(errOut[strings.Index(errOut, " holds "):], " holds %d packet", &kept); err != nil || kept == 0 {
			t.Errorf("kept are %d packets, %v\n%s", kept, err, errOut)
		}
		if out := Run(t, l.node, "tcpdump", "-nr", file); strings.Count(out, "length") != kept {
			t.Errorf("%d packets are said to be kept, tcpdump reads\n%s", kept, out)
		}
	}
}

// traces opens n traces that see nothing, and ends them with the test.
func (l *lab) traces(ctx context.Context, n int) (err error) {
	for range n {
		s, e := l.inspect().Trace(ctx, &pb.TraceRequest{Filter: "host 203.0.113.9", Count: 1, TimeoutMs: 60_000})
		if e == nil {
			if begun, _ := s.Header(); begun == nil {
				_, e = s.Recv()
			}
		}
		err = errors.Join(err, e)
	}
	return err
}

// watcher is a margayctl that waits for a packet that never comes.
type watcher struct {
	cmd   *exec.Cmd
	ended chan error
}

func (l *lab) watcher() *watcher {
	l.t.Helper()
	cmd, _, _ := l.ctl("trace", "--filter", "host 203.0.113.9", "-n", "1000", "--timeout", "5m")
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	w := &watcher{cmd, make(chan error, 1)}
	go func() { w.ended <- cmd.Wait() }()
	return w
}

func TestWatchersThatDieMakeRoom(t *testing.T) {
	l := raised(t)
	var dying [3]*watcher
	for i := range dying {
		dying[i] = l.watcher()
	}
	deaf, err := l.inspect().Capture(t.Context(), &pb.CaptureRequest{
		Stages: []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX}, Count: 1e6, Bytes: 1 << 30, TimeoutMs: 60_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	if begun, err := deaf.Header(); begun == nil {
		t.Fatal(err)
	}
	Eventually(t, "nobody else may watch", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if status.Code(l.traces(ctx, 1)) == codes.ResourceExhausted {
			return true
		}
		for i, w := range dying { // whose place the question before took
			select {
			case <-w.ended:
				dying[i] = l.watcher()
			default:
			}
		}
		return false
	})
	l.pings() // with four who watch
	for _, w := range dying {
		_ = w.cmd.Process.Kill()
		<-w.ended
	}
	Eventually(t, "there is room again", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return l.traces(ctx, 3) == nil
	})
	l.pings()
	l.balanced()
}

// A capture that is killed while packets stream in leaves its place to others, and
// a file of which all but the last packet is whole.
func TestACaptureIsKilledInTheMiddle(t *testing.T) {
	l := raised(t)
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for _, to := range []string{"10.1.0.3", "fd00::3"} {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = TryRun(l.pods["a"], "ping", "-q", "-c", "200", "-i", "0.001", "-s", "20000", "-W", "1", to)
				}
			}
		})
	}
	var dying []*exec.Cmd
	var files []string
	for i := range 4 {
		file := filepath.Join(t.TempDir(), "c.pcapng")
		cmd, _, errOut := l.ctl("capture", "-n", "1000000", "--bytes", "1000000000", "-w", file, fmt.Sprintf("--segments=%v", i%2 == 0))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		dying, files = append(dying, cmd), append(files, file)
		Eventually(t, "a capture is in its middle", func() bool {
			st, err := os.Stat(file)
			return err == nil && st.Size() > 1<<20 || errOut.Len() > 0
		})
	}
	for _, cmd := range dying {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil {
			t.Error("a capture had ended before it was killed")
		}
	}
	Eventually(t, "there is room again", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return l.traces(ctx, 4) == nil
	})
	close(stop)
	traffic.Wait()
	for _, file := range files {
		out, err := TryRun(l.node, "tcpdump", "-nqr", file)
		if n := len(frames(t, file)); n < 10 || strings.Count(out, "\n") != n {
			t.Errorf("%s holds %d packets, tcpdump reads %d lines, %v", file, n, strings.Count(out, "\n"), err)
		}
	}
	l.pings()
	l.balanced()
}

// A client that does not read what it asked for costs nobody else anything, and
// its place is free when its time is over.
func TestADeafClientIsLeftBehind(t *testing.T) {
	l := raised(t)
	deaf, err := l.inspect().Capture(t.Context(), &pb.CaptureRequest{
		Stages: []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX}, Count: 1e6, Bytes: 1 << 30, TimeoutMs: 1500,
	})
	if err != nil {
		t.Fatal(err)
	}
	if begun, err := deaf.Header(); begun == nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); {
		Run(t, l.pods["a"], "ping", "-c", "50", "-i", "0.002", "-s", "20000", "-W", "1", "10.1.0.3")
	}
	Eventually(t, "its place is free", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return l.traces(ctx, 4) == nil
	})
	time.Sleep(4 * time.Second) // until the forwarder has lost its patience
	for err == nil {
		_, err = deaf.Recv()
	}
	if status.Code(err) != codes.Aborted {
		t.Errorf("the deaf client is told %v, want that it does not read", err)
	}
	l.pings()
}

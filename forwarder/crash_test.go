package forwarder_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

func (l *lab) status() *pb.Status {
	l.t.Helper()
	s, err := l.inspect().GetStatus(context.Background(), &pb.StatusRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) rpFilter() string {
	l.t.Helper()
	return strings.TrimSpace(Run(l.t, l.node, "sysctl", "-n", "net.ipv4.conf.margay0.rp_filter"))
}

func TestStateOutlivesKill(t *testing.T) {
	l := newLab(t)
	Run(t, l.node, "sysctl", "-w", "net.ipv4.conf.default.rp_filter=1")
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	c.must(false, &pb.Chunk{RemovedEndpoints: []string{"b"}})
	c.must(false, &pb.Chunk{Endpoints: []*pb.Endpoint{l.snapshot().Endpoints[1]}}) // deltas live in the log
	generation := c.gen
	l.pings()
	if got := l.rpFilter(); got != "2" {
		t.Fatalf("rp_filter of the host port is %s, want 2", got)
	}
	_ = l.kill(syscall.SIGKILL)
	if _, err := l.tryPing(l.node, "10.1.0.2"); err == nil {
		t.Error("a pod answers though the forwarder is dead")
	}
	if out := Run(t, l.node, "ip", "route", "show", "type", "blackhole"); !strings.Contains(out, "10.1.0.0/24") {
		t.Errorf("no blackhole stands behind the pods' prefix:\n%s", out)
	}
	l.start()
	if s := l.status(); !s.Restored || s.Generation != generation || s.ClientConnected {
		t.Errorf("after the restart status is %v, want generation %d restored, without a client", s, generation)
	}
	l.pings()
	if err := l.kill(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	if got := l.rpFilter(); got != "1" {
		t.Errorf("rp_filter of the host port is %s after a clean exit, want 1 again", got)
	}
	l.start()
	l.pings()
}

func TestKilledAtAnyMoment(t *testing.T) {
	l := newLab(t)
	for range 5 {
		l.start()
		c := l.connect()
		c.must(true, l.snapshot())
		acked := c.gen
		for range 20 { // deltas in flight
			c.gen++
			_ = c.rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Chunk{Chunk: &pb.Chunk{
				NextHops: []*pb.NextHop{{Id: uint32(c.gen), Kind: pb.NextHop_KIND_BLACKHOLE}},
			}}})
			_ = c.rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Commit{Commit: &pb.Commit{Generation: c.gen}}})
		}
		<-c.answers
		_ = l.kill(syscall.SIGKILL)
		for len(c.answers) > 0 {
			acked = max(acked, (<-c.answers).GetAck().GetGeneration())
		}
		l.start()
		if s := l.status(); s.Generation < acked || !s.Restored {
			t.Fatalf("generation %d was acknowledged, but after the crash %d is in force", acked, s.Generation)
		}
		l.ping("a", "10.1.0.3")
		_ = l.kill(syscall.SIGKILL)
	}
}

func TestCorruptStateStartsEmpty(t *testing.T) {
	l := newLab(t)
	l.start()
	l.connect().must(true, l.snapshot())
	_ = l.kill(syscall.SIGKILL)
	path := filepath.Join(l.dir, "state", "state")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l.start()
	if s := l.status(); s.Generation != 0 || s.Restored {
		t.Errorf("status is %v, want nothing in force", s)
	}
	if !strings.Contains(l.log.String(), "state on disk cannot be used") {
		t.Error("the log does not say so")
	}
	if _, err := os.Stat(path + ".corrupt"); err != nil {
		t.Errorf("the corrupt file was not set aside: %v", err)
	}
	l.connect().must(true, l.snapshot())
	l.pings()
}

func TestOnlyOneForwarder(t *testing.T) {
	l := newLab(t)
	l.start()
	path, _ := binary()
	out, err := TryRun(l.node, path, "--socket", l.socket(), "--state-dir", filepath.Join(l.dir, "other"), "--metrics", "")
	if err == nil || !strings.Contains(out+err.Error(), "another forwarder answers there") {
		t.Errorf("a second forwarder on the socket: %v\n%s", err, out)
	}
	st, err := os.Stat(l.socket())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v, want mode 0600", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Dir(l.socket())); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("its folder is %v, %v, want mode 0700", st.Mode(), err)
	}
}

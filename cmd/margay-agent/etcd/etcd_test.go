package etcd_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	command "margay.dev/margay/cmd/margay-agent/etcd"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/etcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The command says when it is ready, to people and to systemd, ends with SIGTERM,
// and what was written is there at the next start.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	endpoint := "unix://" + filepath.Join(dir, "run", "etcd.sock")
	o := &v3.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}, Spec: v3.NetworkSetSpec{Nets: []string{"10.0.0.0/8", "fd00::/8"}}}
	for round := range 2 {
		c := command.Command()
		c.SetArgs([]string{"--data-dir", filepath.Join(dir, "data"), "--listen", endpoint, "--quota", "64", "--keep", "5m"})
		out, in := io.Pipe()
		c.SetOut(in)
		c.SetErr(t.Output())
		end := make(chan error, 1)
		go func() { end <- c.ExecuteContext(context.Background()); _ = in.Close() }()
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready at "+endpoint+"\n" {
			t.Fatalf("said %q: %v, %v", line, err, <-end)
		}
		told := make([]byte, 100)
		if n, err := notify.Read(told); err != nil || string(told[:n]) != "READY=1" {
			t.Errorf("told systemd %q: %v", told[:n], err)
		}
		s, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		_, outcome, err := datastore.Apply(t.Context(), s, o)
		if err != nil || (outcome == datastore.Created) != (round == 0) {
			t.Errorf("round %d: %s, %v", round, outcome, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-end; err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

// What is wrong is said before anything is made.
func TestRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for want, args := range map[string][]string{
		"without TLS":     {"--listen", "http://[::]:2379"},
		"quota is":        {"--quota", "0"},
		"unknown command": {"more"},
		"invalid arg":     {"--log-level", "loud"},
	} {
		c := command.Command()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(append([]string{"--data-dir", dir}, args...))
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v does not say %q", args, err, want)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a folder was made")
	}
}

// The unit starts the command as it can be started.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/systemd/margay-etcd.service")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(text), "\nExecStart=/usr/bin/margay-agent etcd ")
	line, _, _ = strings.Cut(line, "\n")
	c := command.Command()
	if err := c.ParseFlags(strings.Fields(line)); err != nil || !found || c.Flags().NArg() > 0 || !c.Flags().Changed("listen") {
		t.Errorf("%q: %v", line, err)
	}
}

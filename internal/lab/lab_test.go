package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/load"
)

// forwarder builds the daemon, once for all tests.
var forwarder = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "margay-lab-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "margay-forwarder")
	out, err := exec.Command("go", "build", "-o", path, "margay.dev/margay/cmd/margay-forwarder").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build margay-forwarder: %w\n%s", err, out)
	}
	return path, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := forwarder(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// raise brings a topology up for one test, under a name of this process.
func raise(t *testing.T, topology string) *Lab {
	t.Helper()
	topo, err := Parse([]byte(topology))
	if err != nil {
		t.Fatal(err)
	}
	return raiseTopology(t, topo)
}

func raiseTopology(t *testing.T, topo Topology) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab makes network namespaces and devices")
	}
	topo.Name = fmt.Sprintf("t%d", os.Getpid())
	program, err := forwarder()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	l, err := Up(ctx, topo, Options{Dir: t.TempDir(), Forwarder: program, Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range topo.Nodes {
				t.Logf("log of %s's forwarder:\n\t%s", n.Name, tail(l.Log(n.Name)))
			}
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, l)
	})
	return l
}

// nothingLeft fails the test if anything of a lab is still there.
func nothingLeft(t *testing.T, l *Lab) {
	t.Helper()
	names, err := hostnet.NamedNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, l.Topology().NamespaceName("")) {
			t.Errorf("namespace %s is left", n)
		}
	}
	for who, p := range l.record.Processes {
		if p.alive() {
			t.Errorf("process %d of %s is left", p.PID, who)
		}
	}
	if _, err := os.Stat(l.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s is left: %v", l.Dir(), err)
	}
}

// everybody fails the test unless every pod reaches every other.
func everybody(t *testing.T, l *Lab) {
	t.Helper()
	for _, r := range l.Matrix(t.Context(), load.Ping{Count: 3, Timeout: 2 * time.Second}) {
		if !r.Ping.OK() {
			t.Errorf("%s reaches %s (IPv6 %v): %d of %d answers, %s", r.From, r.To, r.IPv6, r.Ping.Received, r.Ping.Sent, r.Err)
		}
	}
}

func TestDemoTopologyCarriesEverybody(t *testing.T) {
	l := raise(t, DemoText())
	for _, n := range l.Topology().Nodes {
		if err := l.KernelForwardsNothing(n.Name); err != nil {
			t.Error(err)
		}
	}
	everybody(t, l)
	for _, n := range l.Topology().Nodes {
		c, err := l.Counters(t.Context(), n.Name)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", n.Name, c)
	}
}

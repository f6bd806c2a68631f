package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/process"
)

// programs builds the daemons into a folder, once for all tests.
var programs = sync.OnceValues(func() (string, error) {
	agent, err := built.Program("margay-agent")
	if err == nil {
		_, err = built.Program("margay-forwarder")
	}
	return filepath.Dir(agent), err
})

// raise brings a topology up for one test, under a name of this process.
func raise(t *testing.T, topology string) *Lab {
	t.Helper()
	topo, err := Parse([]byte(topology))
	if err != nil {
		t.Fatal(err)
	}
	return raiseTopology(t, topo, false)
}

// raiseAgents is raise with an etcd, and an agent in each node; none may do more than
// as a service.
func raiseAgents(t *testing.T, topology string) *Lab {
	t.Helper()
	topo, err := Parse([]byte(topology))
	if err != nil {
		t.Fatal(err)
	}
	return raiseTopology(t, topo, true)
}

func raiseTopology(t *testing.T, topo Topology, agents bool) *Lab {
	t.Helper()
	hostnettest.NeedRoot(t)
	hostnettest.OfProcesses(t)
	topo.Name = fmt.Sprintf("t%d", os.Getpid())
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Forwarder: filepath.Join(dir, "margay-forwarder"), Replace: true}
	if agents {
		o.Agent, o.Forwarder = asUnit(t, filepath.Join(dir, "margay-agent")), asUnit(t, o.Forwarder)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	l, err := Up(ctx, topo, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range topo.Nodes {
				t.Logf("log of %s's forwarder:\n\t%s", n.Name, process.Tail(l.Log(n.Name)))
				if l.HasAgents() {
					t.Logf("log of %s's agent:\n\t%s", n.Name, process.Tail(l.AgentLog(n.Name)))
				}
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
		if p.Alive() {
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

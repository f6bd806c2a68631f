package policytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
)

// patience is what anything may take on a machine that is busy with other things.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a lab of a suite's pods.
//
//	pods of node west ── west ──────── uplink ──────── east ── pods of node east
//
// Of each node's pods every other has an AF_XDP port, the rest TUN ports.
type world struct {
	*lab.Lab
	suite   *truth.Suite
	filters map[string]string // of the pods' kernels, by pod
}

func cyclonus(t *testing.T) *truth.Suite {
	t.Helper()
	s, err := truth.Cyclonus()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// topology is the lab's, from what the cases say of pods.
func topology(t *testing.T, w truth.World) lab.Topology {
	t.Helper()
	type object map[string]any
	var pods []object
	seen := map[string]int{}
	for _, p := range w.Pods {
		pods = append(pods, object{
			"name": inLab(p.Key()), "node": p.Node, "addresses": p.Addresses, "port": [...]string{lab.TUN, lab.XSK}[seen[p.Node]%2],
		})
		seen[p.Node]++
	}
	b, err := json.Marshal(object{
		"name":  fmt.Sprintf("p%d", os.Getpid()),
		"pools": []string{"10.79.0.0/16", "fd79::/48"},
		"nodes": []object{
			{"name": "west", "addresses": []string{"10.79.1.1", "fd79:0:0:1::1"}},
			{"name": "east", "addresses": []string{"10.79.2.1", "fd79:0:0:2::1"}},
		},
		"links": []object{{"name": "uplink", "ends": []object{
			{"node": "west", "addresses": []string{"172.31.79.1/24", "fd31:79::1/64"}},
			{"node": "east", "addresses": []string{"172.31.79.2/24", "fd31:79::2/64"}},
		}}},
		"pods": pods,
	})
	if err != nil {
		t.Fatal(err)
	}
	topo, err := lab.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// inLab is a pod's name in the lab.
func inLab(key string) string { return strings.ReplaceAll(key, "/", "-") }

// raise brings all pods of the cases up, also those that they make on the way.
func raise(t *testing.T, cases *truth.Suite) *world {
	t.Helper()
	program := stagetest.Forwarder(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := lab.Up(ctx, topology(t, cases.World), lab.Options{Dir: t.TempDir(), Forwarder: program, Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return &world{l, cases, map[string]string{}}
}

// prober opens servers in all pods; they go with the test.
func (w *world) prober(t *testing.T, o probe.Options) *probe.Prober {
	t.Helper()
	nodes := map[string]*probe.Node{}
	for _, n := range w.Topology().Nodes {
		nodes[n.Name] = &probe.Node{Name: n.Name, Place: w.place(t, n.Name), Addresses: addresses(n.Addresses)}
	}
	var pods []probe.Pod
	for _, p := range w.suite.World.Pods {
		pods = append(pods, probe.Pod{Name: p.Key(), Place: w.place(t, inLab(p.Key())), Addresses: p.Addresses, Node: nodes[p.Node]})
	}
	prober, err := probe.Open(pods, w.suite.World.Ports, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := prober.Close(); err != nil {
			t.Error(err)
		}
	})
	return prober
}

func (w *world) place(t *testing.T, of string) *hostnet.Namespace {
	t.Helper()
	ns, err := w.Namespace(of)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func addresses(list []lab.Addr) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, a.Addr)
	}
	return out
}

// all is every query between the pods that there can be.
func all(w truth.World) (out []truth.Query) {
	for _, from := range w.Pods {
		for _, to := range w.Pods {
			for _, f := range truth.Families() {
				for _, p := range w.Ports {
					if from.Key() != to.Key() {
						out = append(out, truth.Query{From: from.Key(), To: to.Key(), Family: f, Protocol: p.Protocol, Port: p.Number})
					}
				}
			}
		}
	}
	return out
}

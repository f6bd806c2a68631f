package survivaltest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/policies"
)

// patience is what anything may take on a machine that is busy with other things.
const patience = time.Minute

var packets = flag.Int("packets", 1_000_000, "how many packets TestOneWay has cross the uplink, with each number of workers; the long form is 10000000")

// programs builds the daemons into a folder, once for all tests.
var programs = sync.OnceValues(func() (string, error) {
	agent, err := built.Program("margay-agent")
	if err == nil {
		_, err = built.Program("margay-forwarder")
	}
	return filepath.Dir(agent), err
})

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// topology is two nodes, each with pods of both kinds of ports:
//
//	ann (TUN) ── north ──────── uplink ──────── south ── cleo (TUN)
//	amy (AF_XDP) ──┘                              └───── dave (AF_XDP)
//
// Its one verb is the number of workers of both.
const topology = `
name: filled-in
pools: [10.78.0.0/16, "fd78::/48"]
nodes:
  - {name: north, workers: %[1]d, addresses: [10.78.1.1, "fd78:0:0:1::1"]}
  - {name: south, workers: %[1]d, addresses: [10.78.2.1, "fd78:0:0:2::1"]}
links:
  - name: uplink
    ends:
      - {node: north, addresses: [172.31.78.1/24, "fd31:78::1/64"]}
      - {node: south, addresses: [172.31.78.2/24, "fd31:78::2/64"]}
pods:
  - {name: ann, node: north, addresses: [10.78.1.10, "fd78:0:0:1::10"]}
  - {name: amy, node: north, addresses: [10.78.1.11, "fd78:0:0:1::11"], port: xsk}
  - {name: cleo, node: south, addresses: [10.78.2.10, "fd78:0:0:2::10"]}
  - {name: dave, node: south, addresses: [10.78.2.11, "fd78:0:0:2::11"], port: xsk}
`

const uplink = "l-uplink" // the device of either end

// addresses of the nodes' kernels on the uplink, which are not the forwarders'.
var (
	kernelNorth = [2]netip.Addr{netip.MustParseAddr("172.31.78.1"), netip.MustParseAddr("fd31:78::1")}
	kernelSouth = [2]netip.Addr{netip.MustParseAddr("172.31.78.2"), netip.MustParseAddr("fd31:78::2")}
)

// world is a lab for one test.
type world struct {
	*lab.Lab
	t *testing.T
}

var raised atomic.Int32

// raise brings the topology up, and has the end of the test ask what every end
// is asked. configure adds to the configuration of forwarders; it may be nil.
func raise(t *testing.T, workers int, configure func(node string) map[string]any) *world {
	t.Helper()
	return up(t, workers, lab.Options{Configure: configure})
}

// raiseAgents is raise with an etcd, and an agent in each node.
func raiseAgents(t *testing.T, workers int) *world {
	t.Helper()
	return up(t, workers, lab.Options{Agent: "margay-agent"})
}

func up(t *testing.T, workers int, o lab.Options) *world {
	t.Helper()
	NeedRoot(t)
	OfProcesses(t)
	topo, err := lab.Parse(fmt.Appendf(nil, topology, workers))
	if err != nil {
		t.Fatal(err)
	}
	topo.Name = fmt.Sprintf("s%dx%d", os.Getpid(), raised.Add(1))
	bins, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	o.Forwarder = filepath.Join(bins, "margay-forwarder")
	if o.Agent != "" {
		o.Agent = filepath.Join(bins, o.Agent)
	}
	dir, err := os.MkdirTemp("", "mgs") // t.TempDir has the test's name in it: too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Dir = dir
	l, err := lab.Up(ctx, topo, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{l, t}
	t.Cleanup(w.end)
	return w
}

// end takes the lab down and looks for what must not be.
func (w *world) end() {
	logs := map[string][]byte{}
	for _, n := range w.Topology().Nodes {
		b, err := os.ReadFile(w.Log(n.Name))
		if err != nil {
			w.t.Error(err)
		}
		logs[n.Name] = b
		for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE", "unexpected fault"} {
			if bytes.Contains(b, []byte(bad)) {
				w.t.Errorf("%q is in the log of %s's forwarder", bad, n.Name)
			}
		}
	}
	if err := w.Down(); err != nil {
		w.t.Error(err)
	}
	w.nothingLeft()
	for node, b := range logs {
		if w.t.Failed() {
			w.t.Logf("log of %s's forwarder, its end:\n%s", node, b[max(0, len(b)-6000):])
		}
	}
}

// nothingLeft fails the test if a namespace, a process or a file of the lab is
// still there. Devices go with their namespaces.
func (w *world) nothingLeft() {
	names, err := hostnet.NamedNamespaces()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, w.Topology().NamespaceName("")) {
			w.t.Errorf("namespace %s is left", n)
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range lines {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(w.Dir())) { // its configuration file lies there
			w.t.Errorf("process %s is left: %q", filepath.Base(filepath.Dir(path)), b)
		}
	}
	if _, err := os.Stat(w.Dir()); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("folder %s is left: %v", w.Dir(), err)
	}
}

// space is the namespace of a node or pod.
func (w *world) space(of string) *hostnet.Namespace {
	w.t.Helper()
	ns, err := w.Namespace(of)
	if err != nil {
		w.t.Fatal(err)
	}
	return ns
}

// run runs a command in the namespace of a node or pod.
func (w *world) run(of string, command ...string) string {
	w.t.Helper()
	return Run(w.t, w.space(of), command...)
}

// addr is a pod's address of a family.
func (w *world) addr(pod string, six bool) netip.Addr {
	w.t.Helper()
	a, ok := w.Topology().Pod(pod).Addr(six)
	if !ok {
		w.t.Fatalf("pod %s has no address with IPv6 %v", pod, six)
	}
	return a
}

func (w *world) inspect(node string) v1.InspectClient {
	w.t.Helper()
	c, err := w.Inspect(node)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) status(node string) *v1.Status {
	w.t.Helper()
	s, err := w.inspect(node).GetStatus(w.t.Context(), &v1.StatusRequest{})
	if err != nil {
		w.t.Fatalf("ask %s's forwarder how it is: %v", node, err)
	}
	return s
}

func (w *world) counters(node string) lab.Counters {
	w.t.Helper()
	c, err := w.Counters(w.t.Context(), node)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// port is what a node's forwarder tells of a port.
func (w *world) port(node, name string) *v1.PortList_PortState {
	w.t.Helper()
	list, err := w.inspect(node).ListPorts(w.t.Context(), &v1.ListPortsRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(list.GetPorts(), func(p *v1.PortList_PortState) bool { return p.GetName() == name })
	if i < 0 {
		w.t.Fatalf("node %s has no port %s", node, name)
	}
	return list.GetPorts()[i]
}

// eventually waits until it holds, for as long as a busy machine may need.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never came true: %s", what)
		}
	}
}

// inForce waits until a node's forwarder has all that it was told in force.
func (w *world) inForce(node string) {
	w.t.Helper()
	w.eventually(node+" has everything in force", func() bool {
		s, err := w.inspect(node).GetStatus(w.t.Context(), &v1.StatusRequest{})
		return err == nil && s.GetGeneration() > 0 && len(s.GetConditions()) == 0
	})
}

// launch starts a node's forwarder without a client.
func (w *world) launch(node string) {
	w.t.Helper()
	if err := w.Launch(node); err != nil {
		w.t.Fatal(err)
	}
}

// kill ends a node's forwarder as kill -9 does.
func (w *world) kill(node string) {
	w.t.Helper()
	if err := w.StopForwarder(node, true); err != nil {
		w.t.Fatal(err)
	}
}

// takeOver has another forwarder take over from the one of a node.
func (w *world) takeOver(node string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.TakeOver(ctx, node); err != nil {
		w.t.Fatal(err)
	}
}

// feed is a good client, which sends the node's whole state.
func (w *world) feed(node string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.Feed(ctx, node); err != nil {
		w.t.Fatal(err)
	}
}

// balanced wants every packet accounted for on both nodes. Traffic has ended.
func (w *world) balanced() {
	w.t.Helper()
	for _, n := range w.Topology().Nodes {
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err = w.counters(n.Name).Balance(); err == nil {
				break
			}
		}
		if err != nil {
			w.t.Errorf("node %s: %v", n.Name, err)
		}
	}
}

// everybody wants every pod to reach every other, in both families, soon.
func (w *world) everybody() {
	w.t.Helper()
	var missing []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		missing = nil
		for _, r := range w.Matrix(w.t.Context(), load.Ping{Timeout: 2 * time.Second}) {
			if !r.Ping.OK() {
				missing = append(missing, fmt.Sprintf("%s to %s (IPv6 %v): %s", r.From, r.To, r.IPv6, r.Err))
			}
		}
		if missing == nil {
			return
		}
	}
	for _, n := range w.Topology().Nodes {
		w.t.Logf("%s has dropped %v", n.Name, w.counters(n.Name).Drops)
	}
	w.t.Fatalf("pods do not reach each other:\n\t%s", strings.Join(missing, "\n\t"))
}

// police gives every pod policy: it may send everything, and be sent what the
// rule says.
func (w *world) police(rule string) {
	w.t.Helper()
	w.policeSome(`has(pod)`, rule)
}

// policeSome gives policy to the pods that a selector picks, and no others.
func (w *world) policeSome(selector, rule string) {
	w.t.Helper()
	m, err := policies.Read([]byte(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: all}, spec: {
		selector: '` + selector + `', types: [Ingress, Egress], ingress: [` + rule + `], egress: [{action: Allow}]}}`))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.Police(ctx, func(policies.Manifests) (policies.Manifests, error) { return m, nil }); err != nil {
		w.t.Fatal(err)
	}
}

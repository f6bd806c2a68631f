package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/meta"

	agentv1 "margay.dev/margay/api/agent/v1"
	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/embedded"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/session"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// forwarder keeps a desired state as a real one does, and does nothing with it.
type forwarder struct {
	mu         sync.Mutex
	state      *desired.State
	generation uint64
	read       []uint64 // packets that may go on
	heard      chan overhear.Heard
}

func serve(t *testing.T, socket string) *forwarder {
	f := &forwarder{state: desired.Empty(), heard: make(chan overhear.Heard, 8)}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	v1.RegisterDataplaneServer(server, session.NewServer(f, f, "boot", quiet))
	go func() { _ = server.Serve(l) }() // until Stop
	t.Cleanup(server.Stop)
	return f
}

func (f *forwarder) Commit(_ context.Context, c session.Commit) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	after, faults := f.state.Apply(c.Change, c.Snapshot)
	f.state, f.generation = after, c.Generation
	return faults, nil
}

func (f *forwarder) Acknowledged()                       {}
func (f *forwarder) Generation() uint64                  { f.mu.Lock(); defer f.mu.Unlock(); return f.generation }
func (f *forwarder) Listen(func(plane.Condition)) func() { return func() {} }

func (f *forwarder) Overhear() (<-chan overhear.Heard, func()) { return f.heard, func() {} }

func (f *forwarder) AnswersRead(ids []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read = append(f.read, ids...)
}

func (f *forwarder) endpoint(id string) (e *desired.Endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Endpoints[id]
}

// house is a machine with an agent, its store and its forwarder.
type house struct {
	t     *testing.T
	cfg   Config
	store datastore.Store
	f     *forwarder
	ended chan error
	stop  func() error
}

func newHouse(t *testing.T, store connect.Config, open func() (datastore.Store, error)) *house {
	dir := t.TempDir()
	h := &house{t: t, cfg: DefaultConfig()}
	h.cfg.Node, h.cfg.Store, h.cfg.StateDir = "n0", store, filepath.Join(dir, "state")
	h.cfg.Forwarder, h.cfg.Socket, h.cfg.Metrics = filepath.Join(dir, "f"), filepath.Join(dir, "a"), "127.0.0.1:0"
	h.cfg.Address.IPv4, h.cfg.HostPort.Addresses = "172.16.0.1/24", []string{"10.9.0.1"}
	var err error
	if h.store, err = open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.store.Close() })
	h.f = serve(t, h.cfg.Forwarder)
	return h
}

// run is an agent's life, which stop ends.
func (h *house) run() *Agent {
	h.t.Helper()
	a, err := New(h.cfg, quiet)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h.ended, h.stop = ended, sync.OnceValue(func() error { cancel(); return <-ended })
	h.t.Cleanup(func() { _ = h.stop() })
	return a
}

func (h *house) apply(manifest string) {
	h.t.Helper()
	objects, err := v3.DecodeAll([]byte(manifest))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, o := range objects {
		if _, _, err := datastore.Apply(h.t.Context(), h.store, o); err != nil {
			h.t.Fatal(err)
		}
	}
}

// eventually waits until what is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

const objects = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec: {egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: ann, namespace: shop}
spec: {node: n0, orchestrator: cni, workload: ann, endpoint: eth0, ipNetworks: [10.1.0.2/32, "fd01::2/128"], profiles: [kns.shop], interfaceName: cali1}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
`

// drivers are the stores that an agent is held against.
func drivers(t *testing.T, each func(t *testing.T, h *house)) {
	t.Run("etcd", func(t *testing.T) {
		dir := t.TempDir()
		cfg := embedded.Default()
		cfg.Dir, cfg.Listen, cfg.NoSync = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "s")}, true
		server, err := embedded.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		client := etcd.Config{Endpoints: cfg.Listen}
		each(t, newHouse(t, connect.Config{Etcd: &client}, func() (datastore.Store, error) { return etcd.Open(client) }))
	})
	t.Run("file", func(t *testing.T) {
		cfg := file.Config{Dir: t.TempDir()}
		each(t, newHouse(t, connect.Config{Folder: &cfg}, func() (datastore.Store, error) { return file.Open(cfg) }))
	})
}

func TestFromTheStoreToTheForwarder(t *testing.T) {
	drivers(t, func(t *testing.T, h *house) {
		a := h.run()
		h.apply(objects)
		conn, err := grpc.NewClient("unix://"+h.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := agentv1.NewWorkloadsClient(conn)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ann := &agentv1.Workload{Namespace: "shop", Name: "ann"}
		at := &agentv1.Attachment{Workload: ann, Kind: agentv1.Attachment_KIND_TUN, Netns: "/run/netns/ann"}
		reply, err := client.Attach(ctx, &agentv1.AttachRequest{Attachment: at})
		if err != nil || reply.GetEndpoint() != "shop/ann" || strings.Join(reply.GetAddresses(), " ") != "10.1.0.2/32 fd01::2/128" {
			t.Fatalf("attach says %v, %v", reply, err)
		}
		eventually(t, "the forwarder has it, with its policy", func() bool {
			e := h.f.endpoint("shop/ann")
			return e.Port == reply.GetPort() && len(e.Ingress) == 1 && e.Ingress[0].Name == "default" && len(e.Egress) == 1
		})
		if _, err := client.Attach(ctx, &agentv1.AttachRequest{Attachment: &agentv1.Attachment{Workload: ann}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("an attachment of no kind: %v", err)
		}
		at = &agentv1.Attachment{Workload: &agentv1.Workload{Namespace: "shop", Name: "eve"}, Kind: at.Kind, Netns: at.Netns}
		if _, err := client.Attach(ctx, &agentv1.AttachRequest{Attachment: at}); status.Code(err) != codes.AlreadyExists {
			t.Errorf("a device of another workload: %v", err)
		}
		short, end := context.WithTimeout(ctx, 300*time.Millisecond)
		defer end()
		at.Device = "eth1"
		if _, err := client.Attach(short, &agentv1.AttachRequest{Attachment: at}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a workload that the store has not: %v", err)
		}
		h.registered()
		h.condition("ann", InForce, "acknowledged")
		h.web(a, "/readiness", "ok")
		h.web(a, "/liveness", "ok")
		h.web(a, "/metrics", "felix_active_local_endpoints 1", "felix_cluster_num_workload_endpoints 1", "felix_resync_state 3", "felix_cluster_num_hosts 1", "margay_agent_attachments_not_in_force 1",
			"felix_log_errors 0", "felix_nft_errors 0")
		if _, err := client.Detach(ctx, &agentv1.DetachRequest{Workload: ann}); err != nil || h.f.endpoint("shop/ann") != nil {
			t.Errorf("detached: %v, and the forwarder has %+v", err, h.f.endpoint("shop/ann"))
		}
		h.condition("ann", InForce, "nobody has attached it")
		list, err := client.List(ctx, &agentv1.ListRequest{})
		if err != nil || len(list.GetAttachments()) != 1 || !strings.Contains(list.GetAttachments()[0].GetReason(), "create it") {
			t.Errorf("list says %v, %v", list, err)
		}
		if err := h.stop(); err != nil {
			t.Errorf("the agent ends with %v", err)
		}
	})
}

// registered wants the node to be in the store as it is.
func (h *house) registered() {
	h.t.Helper()
	var n *v3.Node
	eventually(h.t, "the node is registered", func() bool {
		o, err := h.store.Get(h.t.Context(), datastore.Key{Kind: v3.KindNode, Name: "n0"})
		n, _ = o.(*v3.Node)
		return err == nil
	})
	if n.Spec.BGP == nil || n.Spec.BGP.IPv4Address != "172.16.0.1/24" || len(n.Spec.Addresses) != 2 || n.Spec.Addresses[1].Address != "10.9.0.1" {
		h.t.Errorf("the node is registered as %+v", n.Spec)
	}
}

// condition wants a workload endpoint to have a condition that says something.
func (h *house) condition(name, kind, says string) {
	h.t.Helper()
	eventually(h.t, name+" has a condition "+kind+" that says "+says, func() bool {
		o, err := h.store.Get(h.t.Context(), datastore.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "shop", Name: name})
		if err != nil {
			return false
		}
		c := meta.FindStatusCondition(*o.Conditions(), kind)
		return c != nil && strings.Contains(c.Message, says)
	})
}

// web wants a page to have lines.
func (h *house) web(a *Agent, path string, lines ...string) {
	h.t.Helper()
	r, err := http.Get("http://" + a.metrics.Addr().String() + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains("\n"+string(body), "\n"+line+"\n") {
			h.t.Errorf("%s has no line %q:\n%s", path, line, body)
		}
	}
}

func TestTwoAgentsAreNotOnOneNode(t *testing.T) {
	cfg := file.Config{Dir: t.TempDir()}
	h := newHouse(t, connect.Config{Folder: &cfg}, func() (datastore.Store, error) { return file.Open(cfg) })
	h.run()
	if _, err := New(h.cfg, quiet); err == nil || !strings.Contains(err.Error(), "another agent has it") {
		t.Errorf("a second agent with the same state folder: %v", err)
	}
	other := h.cfg
	other.StateDir = t.TempDir()
	if _, err := New(other, quiet); err == nil {
		t.Error("a second agent at the same socket begins")
	}
	eventually(t, "the agent has the forwarder", func() bool { return h.f.Generation() > 0 })
	other.Socket = filepath.Join(other.StateDir, "a")
	second := *h
	second.cfg = other
	second.run()
	select {
	case err := <-h.ended:
		if err == nil || !strings.Contains(err.Error(), "another client took the dataplane over") {
			t.Errorf("another agent has taken the forwarder, and the first ends with %v", err)
		}
		h.ended <- nil // for who stops it once more
	case <-time.After(20 * time.Second):
		t.Error("another agent has taken the forwarder, and the first goes on")
	}
}

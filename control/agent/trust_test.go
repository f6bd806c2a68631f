package agent

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "margay.dev/margay/api/agent/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/cluster"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/contract/wire"
	"margay.dev/margay/datastore/embedded"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
)

// attach attaches a workload by the agent's socket, and waits until it is in force.
func (h *house) attach(name string) {
	h.t.Helper()
	conn, err := grpc.NewClient("unix://"+h.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	_, err = agentv1.NewWorkloadsClient(conn).Attach(h.t.Context(), &agentv1.AttachRequest{Attachment: &agentv1.Attachment{
		Workload: &agentv1.Workload{Namespace: "shop", Name: name}, Kind: agentv1.Attachment_KIND_TUN, Netns: "/run/netns/" + name,
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, name+" has its policy", func() bool { // which may be read after the endpoint
		e := h.f.endpoint("shop/" + name)
		return e != nil && len(e.Ingress) == 1
	})
}

// page is what a page of an agent says.
func page(t *testing.T, a *Agent, path string) string {
	r, err := http.Get("http://" + a.metrics.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// unbelieving holds an agent that has begun, or goes on, at another store than before
// against what it must do: nothing, and say so.
func (h *house) unbelieving(a *Agent) {
	h.t.Helper()
	eventually(h.t, "it says that it does not believe the store", func() bool { return strings.Contains(page(h.t, a, "/readiness"), "margay-agent accept") })
	h.web(a, "/metrics", "margay_agent_store_refused 1", "felix_resync_state 1")
	if e := h.f.endpoint("shop/ann"); e == nil || len(e.Ingress) != 1 {
		h.t.Errorf("the forwarder has %+v of what it had", e)
	}
	if l, err := h.store.List(h.t.Context(), datastore.Scope{Kind: v3.KindNode}); err != nil || len(l.Objects) > 0 {
		h.t.Errorf("the agent has written to a store that it does not believe: %v, %v", l, err)
	}
}

// An agent does not believe an etcd that was made anew, whether it runs meanwhile or
// starts, whether that is empty or filled, until somebody says that it is right.
func TestAnotherEtcd(t *testing.T) {
	dir := t.TempDir()
	cfg := embedded.Default()
	cfg.Dir, cfg.Listen, cfg.NoSync = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "s")}, true
	var server *embedded.Server
	start := func() {
		var err error
		if server, err = embedded.Start(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() { _ = server.Close() })
	client := etcd.Config{Endpoints: cfg.Listen}
	client.Heartbeat.Duration = startTime / 100
	h := newHouse(t, connect.Config{Etcd: &client}, func() (datastore.Store, error) { return etcd.Open(client) })
	a := h.run()
	h.apply(objects)
	h.attach("ann")
	h.registered()
	first := h.follows()
	_ = server.Close()
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	start()
	h.unbelieving(a)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	a = h.run() // and knows nothing but what is on disk
	h.unbelieving(a)
	h.apply("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: late}\nspec: {order: 1}\n")
	h.unbelieving(a)
	h.apply(strings.ReplaceAll(objects, "ports: [80]", "ports: [81]"))
	if _, err := cluster.Accept(t.Context(), h.store, h.cfg.Trust(quiet), false); err != nil {
		t.Fatal(err)
	}
	h.registered()
	eventually(t, "it is ready", func() bool { return page(t, a, "/readiness") == "ok\n" })
	if second := h.follows(); second.Store == first.Store || second.Cluster == first.Cluster {
		t.Errorf("it followed %v and follows %v", first, second)
	}
}

// follows waits until the node has noted which store it follows, and of which cluster.
func (h *house) follows() (is cluster.Identity) {
	h.t.Helper()
	eventually(h.t, "the node has noted its store", func() bool {
		is, _ = cluster.Read(filepath.Join(h.cfg.StateDir, "store.json"))
		return is.Store != "" && is.Cluster != ""
	})
	return is
}

// A folder is another one where it was not mounted, and the agent does not write
// into what is in its place; one that a tool puts there with all objects is believed.
func TestAnotherFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	fresh := func() {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fresh()
	cfg := file.Config{Dir: dir}
	h := newHouse(t, connect.Config{Folder: &cfg}, func() (datastore.Store, error) { return file.Open(cfg) })
	h.run()
	h.apply(objects)
	h.attach("ann")
	h.registered()
	first := h.follows()
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".kept"); err != nil {
		t.Fatal(err)
	}
	fresh()
	a := h.run()
	h.unbelieving(a)
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(strings.ReplaceAll(objects, "ports: [80]", "ports: [81]")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.registered()
	eventually(t, "it is ready", func() bool { return page(t, a, "/readiness") == "ok\n" })
	eventually(t, "the cluster is the same", func() bool { is := h.follows(); return is.Store != first.Store && is.Cluster == first.Cluster })
}

// While an etcd is slow the agent is slow, and while it says nothing what was told
// stays in force; what was missed follows.
func TestSlowEtcd(t *testing.T) {
	dir := t.TempDir()
	cfg := embedded.Default()
	socket := filepath.Join(dir, "s")
	cfg.Dir, cfg.Listen, cfg.NoSync = filepath.Join(dir, "data"), []string{"unix://" + socket}, true
	server, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w := wire.Lay(t, socket)
	w.Set(wire.Slow)
	client := etcd.Config{Endpoints: []string{w.Endpoint}}
	client.Timeout.Duration, client.Heartbeat.Duration = startTime/10, startTime/50
	h := newHouse(t, connect.Config{Etcd: &client}, func() (datastore.Store, error) { return etcd.Open(etcd.Config{Endpoints: cfg.Listen}) })
	a := h.run()
	h.apply(objects)
	h.attach("ann")
	h.registered()
	h.follows()
	eventually(t, "it is ready", func() bool { return page(t, a, "/readiness") == "ok\n" })
	before := h.f.Generation()
	w.Set(wire.Still)
	h.apply(strings.ReplaceAll(objects, "name: web", "name: later"))
	eventually(t, "it says that the store is away", func() bool { return strings.Contains(page(t, a, "/readiness"), "does not answer") })
	if e := h.f.endpoint("shop/ann"); e == nil || len(e.Ingress) != 1 || h.f.Generation() != before {
		t.Errorf("the forwarder has %+v, generation %d after %d", e, h.f.Generation(), before)
	}
	w.Set(wire.Slow)
	eventually(t, "what was missed is in force", func() bool { return h.f.Generation() > before && page(t, a, "/readiness") == "ok\n" })
	w.Set(wire.Still)
	if err := h.stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

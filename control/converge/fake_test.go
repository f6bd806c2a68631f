package converge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/control/network"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/session"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// forwarder keeps a desired state as a real one does, behind the real session, and
// does nothing with it.
type forwarder struct {
	t      testing.TB
	server *grpc.Server

	mu         sync.Mutex
	state      *desired.State
	generation uint64
	commits    []session.Commit
	refuse     int                                // so many commits
	seen       func(before, after *desired.State) // each commit
	quick      bool                               // seen is not called, and needs no copy
	hear       func(plane.Condition)
	told       []plane.Condition
}

func newForwarder(t testing.TB, socket string) *forwarder {
	f := &forwarder{t: t, state: desired.Empty()}
	f.start(socket)
	return f
}

// start serves what the forwarder has at a socket.
func (f *forwarder) start(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		f.t.Fatal(err)
	}
	server := grpc.NewServer()
	v1.RegisterDataplaneServer(server, session.NewServer(f, nil, socket, quiet))
	f.server = server
	go func() { _ = server.Serve(l) }() // until Stop
	f.t.Cleanup(server.Stop)
}

func (f *forwarder) Commit(_ context.Context, c session.Commit) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse > 0 {
		f.refuse--
		return []string{"the test has it so"}, nil
	}
	before := f.state
	if !c.Snapshot && !f.quick { // Apply changes a state in its place
		whole := desired.NewChange()
		for _, chunk := range before.Export() {
			whole.Add(chunk)
		}
		before, _ = desired.Empty().Apply(whole, true)
	}
	after, faults := f.state.Apply(c.Change, c.Snapshot)
	if faults != nil {
		f.t.Errorf("a commit is refused: %q", faults)
		return faults, nil
	}
	f.state, f.generation, f.commits = after, c.Generation, append(f.commits, c)
	if f.seen != nil {
		f.seen(before, after)
	}
	return nil, nil
}

func (f *forwarder) Acknowledged() {}

func (f *forwarder) Generation() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.generation
}

func (f *forwarder) Listen(hear func(plane.Condition)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hear = hear
	for _, c := range f.told {
		hear(c)
	}
	return func() {}
}

// say tells a condition.
func (f *forwarder) say(c plane.Condition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hear(c)
}

// look calls see with the state in force.
func (f *forwarder) look(see func(*desired.State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	see(f.state)
}

// fakeKernel takes what it is to judge by.
type fakeKernel struct {
	mu      sync.Mutex
	changes []nft.Change
	refuse  error
}

func (k *fakeKernel) Apply(c nft.Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes = append(k.changes, c)
	return k.refuse
}

// last is the change that it was told last, and how many it was told.
func (k *fakeKernel) last() (nft.Change, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changes[len(k.changes)-1], len(k.changes)
}

// scene is a Core between a store that the test plays and a forwarder.
type scene struct {
	t       testing.TB
	socket  string
	f       *forwarder
	book    *attach.Book
	core    *Core
	stop    context.CancelFunc
	ended   chan error
	kernel  *fakeKernel
	names   *domains.Keeper // nil for none
	mu      sync.Mutex
	reports map[datastore.Key]Report
}

func newScene(t testing.TB) *scene {
	dir := t.TempDir()
	book, err := attach.Open(filepath.Join(dir, "attachments"))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, socket: filepath.Join(dir, "s"), book: book, kernel: &fakeKernel{}, reports: map[datastore.Key]Report{}}
	s.f = newForwarder(t, s.socket)
	s.begin()
	t.Cleanup(func() { s.kill() })
	return s
}

// begin is an agent's life that begins, with a store behind some doors.
func (s *scene) begin(doors ...nft.Failsafe) {
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.ended = stop, make(chan error, 1)
	s.core = New(Options{Node: "n0", Book: s.book, Log: quiet, Kernel: s.kernel, Names: s.names, Store: doors, Report: func(k datastore.Key, _ v3.Object, r Report) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reports[k] = r
	}})
	core := s.core
	stream, err := dataplane.Dial(ctx, s.socket, dataplane.Options{OnCondition: core.Heard, OnSession: core.Session, FirstBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	core.Connect(stream)
	core.SetLocal(here(), []hosts.Interface{{Name: "lo"}, {Name: "eth0", Addresses: addrs("172.16.0.1", "fd16::1")}})
	ended := s.ended
	go func() {
		err := core.Run(ctx)
		stream.Close()
		ended <- err
	}()
}

// kill ends that life wherever it is.
func (s *scene) kill() {
	s.stop()
	<-s.ended
	s.core.recount(s.t)
	s.ended <- nil // for who ends it once more
}

// tell delivers events, and waits until the forwarder is where they lead.
func (s *scene) tell(events ...datastore.Event) {
	s.t.Helper()
	s.core.Deliver(s.t.Context(), events)
	s.settle()
}

// settle waits until nothing is to be done any more.
func (s *scene) settle() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		stats, err := s.core.Stats(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if stats.Idle {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *scene) report(key datastore.Key) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports[key]
}

// here is the node of a scene: n0, with one uplink in each family.
func here() network.Local {
	return network.Local{HostDevice: "margay0", HostAddresses: addrs("10.9.0.1"), Uplinks: []network.Uplink{
		{Port: "up", Device: "eth0", Addresses: prefixes("172.16.0.1/24", "fd16::1/64")},
	}}
}

// begins and synced are the ends of a listing.
var begins, synced = datastore.Event{Type: datastore.Begin}, datastore.Event{Type: datastore.InSync}

// now tells of objects of a manifest.
func now(t testing.TB, manifest string) (events []datastore.Event) {
	t.Helper()
	objects, err := v3.DecodeAll([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		o.Default(v3.ByLength)
		events = append(events, datastore.Event{Type: datastore.Changed, Key: datastore.KeyOf(o), Object: o})
	}
	return events
}

func gone(kind, namespace, name string) datastore.Event {
	return datastore.Event{Type: datastore.Deleted, Key: datastore.Key{Kind: kind, Namespace: namespace, Name: name}}
}

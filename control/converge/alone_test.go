package converge

import (
	"context"
	"testing"
	"time"

	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

// judges waits until the kernel judges so many interfaces.
func (s *scene) judges(endpoints int, when string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, _ := s.kernel.last(); c.Desired != nil && len(c.Desired.Endpoints) == endpoints {
			return
		}
		if time.Now().After(deadline) {
			c, _ := s.kernel.last()
			s.t.Fatalf("%s: the kernel was told %+v, want %d endpoints", when, c.Desired, endpoints)
		}
	}
}

// noHosts has all of hostObjects gone.
func noHosts() []datastore.Event {
	return []datastore.Event{gone("HostEndpoint", "", "all"), gone("HostEndpoint", "", "eth"), gone("HostEndpoint", "", "other"), gone("GlobalNetworkPolicy", "", "forwarded")}
}

// comeAndGo has host endpoints come, and go again as when they are undone.
func (s *scene) comeAndGo(when string) {
	s.t.Helper()
	for range 2 {
		s.core.Deliver(s.t.Context(), now(s.t, hostObjects))
		s.judges(2, when)
		s.core.Deliver(s.t.Context(), noHosts())
		s.judges(0, when)
	}
}

// wantNoHosts wants the forwarder to have the cluster, and nothing of hosts.
func (s *scene) wantNoHosts() {
	s.t.Helper()
	s.settle()
	s.wantCluster()
	s.f.look(func(st *desired.State) {
		if len(st.Endpoints) != 1 {
			s.t.Errorf("the forwarder has %d endpoints, want ann alone", len(st.Endpoints))
		}
	})
}

// Who locks himself out of a host is let in again though the forwarder is away, or has
// never been there; and when it comes it gets what is so.
func TestTheKernelDoesNotWaitForTheForwarder(t *testing.T) {
	t.Run("that is away", func(t *testing.T) {
		s := up(t)
		s.f.server.Stop()
		s.comeAndGo("without a forwarder")
		s.f.start(s.socket)
		s.wantNoHosts()
		s.core.Deliver(t.Context(), now(t, hostObjects))
		s.judges(2, "with the forwarder")
		s.tell(noHosts()...)
		s.wantNoHosts()
	})
	t.Run("that was never there", func(t *testing.T) {
		s := up(t)
		s.kill()
		ctx, stop := context.WithCancel(context.Background())
		s.stop, s.ended = stop, make(chan error, 1)
		s.core = New(Options{Node: "n0", Book: s.book, Log: quiet, Kernel: s.kernel})
		core, ended := s.core, s.ended
		go func() { ended <- core.Run(ctx) }()
		core.SetLocal(here(), []hosts.Interface{{Name: "lo"}, {Name: "eth0", Addresses: addrs("172.16.0.1", "fd16::1")}})
		core.Deliver(t.Context(), append(append([]datastore.Event{begins}, now(t, cluster)...), synced))
		s.comeAndGo("before there is a forwarder")
		stream, err := dataplane.Dial(ctx, s.socket, dataplane.Options{OnCondition: core.Heard, OnSession: core.Session})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		core.Connect(stream)
		s.wantNoHosts()
	})
}

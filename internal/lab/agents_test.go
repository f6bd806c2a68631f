package lab

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/lab/load"
)

// denyAll lets nobody send or receive.
func denyAll() *v3.GlobalNetworkPolicy {
	p := &v3.GlobalNetworkPolicy{}
	p.Name = "deny"
	p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress, v3.PolicyTypeEgress}
	return p
}

// withStore changes the store of a lab, and waits until every node is at that.
func withStore(t *testing.T, l *Lab, change func(context.Context, datastore.Store) error) {
	t.Helper()
	s, err := l.OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := change(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// nobody fails the test if any pod reaches another.
func nobody(t *testing.T, l *Lab) {
	t.Helper()
	for _, r := range l.Matrix(t.Context(), load.Ping{Timeout: 100 * time.Millisecond}) {
		if r.Ping.Received > 0 {
			t.Errorf("%s reaches %s (IPv6 %v), and no policy allows that", r.From, r.To, r.IPv6)
		}
	}
}

// TestAgentsKeepForwardersAtWhatTheStoreSays raises the demo with an etcd and agents,
// and has policy come, stay while agents, etcd and forwarders are away, and go.
func TestAgentsKeepForwardersAtWhatTheStoreSays(t *testing.T) {
	l := raiseAgents(t, DemoText())
	everybody(t, l)
	withStore(t, l, func(ctx context.Context, s datastore.Store) error {
		_, err := s.Create(ctx, denyAll())
		return err
	})
	nobody(t, l)
	for _, n := range l.Topology().Nodes {
		if err := l.StopAgent(n.Name, true); err != nil {
			t.Fatal(err)
		}
	}
	nobody(t, l)
	for _, n := range l.Topology().Nodes {
		if err := l.StopForwarder(n.Name, true); err != nil {
			t.Fatal(err)
		}
		if err := l.Launch(n.Name); err != nil {
			t.Fatal(err)
		}
		if err := l.AwaitPorts(t.Context(), n.Name); err != nil {
			t.Fatal(err)
		}
	}
	nobody(t, l)
	if err := l.StopStore(true); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Topology().Nodes {
		if err := l.LaunchAgent(n.Name); err != nil {
			t.Fatal(err)
		}
	}
	nobody(t, l)
	if err := l.StartStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	withStore(t, l, func(ctx context.Context, s datastore.Store) error {
		return s.Delete(ctx, datastore.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "deny"}, datastore.Precondition{})
	})
	everybody(t, l)
}

// hostAnswers counts the families by which south's kernel answers north's on their link.
func hostAnswers(t *testing.T, l *Lab, p load.Ping) (families int) {
	t.Helper()
	from, err := l.Namespace("north")
	if err != nil {
		t.Fatal(err)
	}
	ends := l.Topology().Links[0].Ends
	for i := range ends[0].Addresses {
		north, south := ends[0].Addresses[i].Addr(), ends[1].Addresses[i].Addr()
		out, err := p.Run(t.Context(), from, north, south)
		if err != nil {
			t.Fatal(err)
		}
		families += out.Received
	}
	return families
}

// TestHostEndpointClosesTheHostWithoutItsAgent has one without policy close a host,
// but nothing that is forwarded, also while its agent is away.
func TestHostEndpointClosesTheHostWithoutItsAgent(t *testing.T) {
	l := raiseAgents(t, DemoText())
	is := func(want int, when string) {
		t.Helper()
		p := load.Ping{Timeout: 2 * time.Second}
		if want == 0 {
			p.Timeout = 100 * time.Millisecond
		}
		if got := hostAnswers(t, l, p); got != want {
			t.Errorf("%s, south's kernel answers by %d families, want %d", when, got, want)
		}
		everybody(t, l)
	}
	is(2, "open")
	h := &v3.HostEndpoint{}
	h.Name, h.Spec.Node, h.Spec.InterfaceName = "south-uplink", "south", l.Topology().Links[0].Ends[1].Device
	withStore(t, l, func(ctx context.Context, s datastore.Store) error {
		_, err := s.Create(ctx, h)
		return err
	})
	is(0, "closed")
	for _, atOnce := range []bool{false, true} {
		if err := l.StopAgent("south", atOnce); err != nil {
			t.Fatal(err)
		}
		is(0, "its agent away")
		if err := l.StartAgent(t.Context(), "south"); err != nil {
			t.Fatal(err)
		}
		is(0, "its agent back")
	}
	withStore(t, l, func(ctx context.Context, s datastore.Store) error {
		return s.Delete(ctx, datastore.KeyOf(h), datastore.Precondition{})
	})
	is(2, "open again")
}

// TestAgentsTakeForwardersOver has agents come to forwarders that somebody else has
// filled in, as they run: pods reach each other when they have settled, and go on
// without a loss while each agent is asked to go, and comes again.
func TestAgentsTakeForwardersOver(t *testing.T) {
	l := raise(t, DemoText())
	l.record.Agent = filepath.Join(filepath.Dir(l.options.Forwarder), "margay-agent")
	if err := errors.Join(l.StartStore(t.Context()), l.fillStore(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Topology().Nodes {
		l.Disconnect(n.Name)
		if err := errors.Join(l.LaunchAgent(n.Name), l.attach(t.Context(), n.Name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	everybody(t, l)
	var paths []load.Path
	for _, pair := range [][2]string{{"ann", "cleo"}, {"dave", "bob"}} {
		for _, six := range []bool{false, true} {
			e, err := l.between(pair[0], pair[1], six)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, load.Path{From: e.from, To: e.to, Source: e.src, Target: e.dst})
		}
	}
	s, err := load.StartSteady(paths, 200, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := s.Mark()
	for _, n := range l.Topology().Nodes {
		if err := errors.Join(l.StopAgent(n.Name, false), l.StartAgent(t.Context(), n.Name)); err != nil {
			t.Fatal(err)
		}
	}
	to := s.Mark()
	s.Stop()
	for i, f := range s.Between(from, to) {
		if f.Sent == 0 || f.Lost > 0 {
			t.Errorf("agents went and came: %d of %d packets of path %d were lost", f.Lost, f.Sent, i)
		}
	}
}

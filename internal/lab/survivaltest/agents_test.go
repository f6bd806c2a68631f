package survivaltest

import (
	"flag"
	"fmt"
	"testing"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/lab/load"
)

var rounds = flag.Int("rounds", 1, "how often TestEverythingIsKilledInTurn kills each process")

// settled is how long packets may be on their way.
const settled = 100 * time.Millisecond

// policies of the test: nobody talks to anybody, but ann to cleo by UDP. extra is a
// port more that is open to her, so that there is something to change.
func annMayAskCleo(extra uint16) []v3.Object {
	deny := &v3.GlobalNetworkPolicy{}
	deny.Name = "deny"
	deny.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress, v3.PolicyTypeEgress}
	deny.Spec.Order = new(2000.0)
	allow := func(name, pod, other string, types v3.PolicyType) *v3.NetworkPolicy {
		p := &v3.NetworkPolicy{}
		p.Namespace, p.Name = "default", name
		p.Spec.Selector, p.Spec.Types = fmt.Sprintf("pod == '%s'", pod), []v3.PolicyType{types}
		p.Spec.Order = new(100.0)
		udp := v3.Rule{Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.UDP))}
		more := v3.Rule{Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP))}
		more.Destination.Ports = []v3.Port{v3.SinglePort(extra)}
		peer := fmt.Sprintf("pod == '%s'", other)
		if types == v3.PolicyTypeIngress {
			udp.Source.Selector, more.Source.Selector = peer, peer
			p.Spec.Ingress = []v3.Rule{udp, more}
		} else {
			udp.Destination.Selector, more.Destination.Selector = peer, peer
			p.Spec.Egress = []v3.Rule{udp, more}
		}
		return p
	}
	return []v3.Object{deny, allow("cleo", "cleo", "ann", v3.PolicyTypeIngress), allow("ann", "ann", "cleo", v3.PolicyTypeEgress)}
}

// paths are those from one pod to another, of both families.
func (w *world) paths(pairs ...[2]string) (out []load.Path) {
	for _, p := range pairs {
		for _, six := range []bool{false, true} {
			out = append(out, load.Path{From: w.space(p[0]), To: w.space(p[1]), Source: w.addr(p[0], six), Target: w.addr(p[1], six)})
		}
	}
	return out
}

// TestEverythingIsKilledInTurn kills agents, the etcd and forwarders under load, and
// changes policy while each is away. Whom policy lets through loses nothing but
// while a forwarder is gone, and whom it does not never comes through.
func TestEverythingIsKilledInTurn(t *testing.T) {
	k := &killing{world: raiseAgents(t, 2)}
	var err error
	if k.store, err = k.OpenStore(); err != nil {
		t.Fatal(err)
	}
	defer k.store.Close()
	k.apply()
	k.settle()
	k.allowed = k.load([2]string{"ann", "cleo"})
	defer k.allowed.Stop()
	denied := k.load([2]string{"amy", "cleo"}, [2]string{"ann", "dave"}, [2]string{"dave", "cleo"})
	defer denied.Stop()
	began := denied.Mark()
	for range *rounds {
		for _, v := range k.victims() {
			k.kill(v)
		}
	}
	wide, tried := uint64(0), uint64(0)
	for i, f := range denied.Between(began, denied.Mark()) {
		wide, tried = wide+f.Sent-f.Lost, tried+f.Sent
		if f.Sent == 0 || f.Sent != f.Lost {
			t.Errorf("policy was too wide: %d of %d packets came by path %d", f.Sent-f.Lost, f.Sent, i)
		}
	}
	t.Logf("%d of %d packets came through that policy denies", wide, tried)
}

// killing is the world of that test.
type killing struct {
	*world
	store   datastore.Store
	allowed *load.Steady
	extra   uint16 // the port that was opened last
}

// apply changes policy, without waiting for it.
func (k *killing) apply() {
	k.t.Helper()
	k.extra++
	for _, o := range annMayAskCleo(k.extra) {
		if _, _, err := datastore.Apply(k.t.Context(), k.store, o); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *killing) settle() {
	k.t.Helper()
	if err := k.Settle(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
}

func (k *killing) load(pairs ...[2]string) *load.Steady {
	k.t.Helper()
	s, err := load.StartSteady(k.paths(pairs...), 500, 64)
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}

// kill has one process die, miss a change of policy, and come back.
func (k *killing) kill(v victim) {
	k.t.Helper()
	if err := k.allowed.Await(k.t.Context()); err != nil {
		k.t.Fatalf("before %s is killed: %v", v.name, err)
	}
	from := k.allowed.Mark()
	v.kill()
	if !v.store {
		k.apply()
	}
	time.Sleep(settled)
	v.back()
	if v.store {
		k.apply()
	}
	k.settle()
	to := k.allowed.Mark()
	time.Sleep(settled)
	lost, sent := uint64(0), uint64(0)
	for _, f := range k.allowed.Between(from, to) {
		lost, sent = lost+f.Lost, sent+f.Sent
	}
	k.t.Logf("%s killed: %d of %d packets lost", v.name, lost, sent)
	if lost > 0 && !v.forwards {
		k.t.Errorf("%d of %d packets were lost because %s was killed", lost, sent, v.name)
	}
}

// victim is a process that is killed and comes back.
type victim struct {
	name            string
	store, forwards bool
	kill, back      func()
}

func (w *world) victims() []victim {
	must := func(do func() error) func() {
		return func() {
			w.t.Helper()
			if err := do(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	out := []victim{{name: "the etcd", store: true,
		kill: must(func() error { return w.StopStore(true) }), back: must(func() error { return w.StartStore(w.t.Context()) })}}
	for _, n := range w.Topology().Nodes {
		out = append(out,
			victim{name: "the agent of " + n.Name,
				kill: must(func() error { return w.StopAgent(n.Name, true) }), back: must(func() error { return w.LaunchAgent(n.Name) })},
			victim{name: "the forwarder of " + n.Name, forwards: true,
				kill: must(func() error { return w.StopForwarder(n.Name, true) }), back: must(func() error { return w.Launch(n.Name) })})
	}
	return out
}

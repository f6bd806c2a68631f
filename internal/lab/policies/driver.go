package policies

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/policy"
)

// Driver calculates the policy of a lab's pods, a change at a time. It is for one
// goroutine at a time.
type Driver struct {
	pods  []Pod
	given Manifests // what is there without any manifest, but for the pods
	seen  Manifests // all objects of the last Change
	nodes map[string]*node
}

// node is one node of the lab.
type node struct {
	guard  *guard.Guard
	state  dataplane.State // sets, programs and names of rules
	judged map[policy.Key]*guard.Stages
	stages map[string]*guard.Stages // by id of the endpoint
	last   uint64                   // generation of guard
}

// Update is a step by which a node's policy changes.
type Update struct {
	Delta      dataplane.Delta // but for endpoints: Whole has them
	stages     map[string]*guard.Stages
	Generation uint64 // for Settled
}

// New makes a driver for nodes and their pods. Until the first Change nobody has
// policy.
func New(nodes []string, pods []Pod) (*Driver, error) {
	d := &Driver{pods: pods, nodes: map[string]*node{}}
	for _, name := range nodes {
		d.nodes[name] = &node{guard: guard.New(name), judged: map[policy.Key]*guard.Stages{}, stages: map[string]*guard.Stages{}}
	}
	var err error
	d.given, err = around(pods)
	return d, err
}

// Change makes m all that there is beside the pods, and says what differs for each
// node, one step after the other. A workload endpoint of m takes the place of the pod that has its addresses.
// It reports everything that cannot be put in force; the driver is then of no
// further use, and what it said before is what there is.
func (d *Driver) Change(m Manifests) (map[string][]Update, error) {
	all, ids, err := d.whole(m)
	if err != nil {
		return nil, err
	}
	if err := d.tell(all); err != nil {
		return nil, err
	}
	out := map[string][]Update{}
	var faults []error
	told := map[string]bool{} // every node says the same of most
	for _, name := range slices.Sorted(maps.Keys(d.nodes)) {
		steps, conditions := d.nodes[name].flush(ids)
		for _, c := range conditions {
			for _, f := range c.Faults {
				if text := all.call(c.Object) + ": " + f; !told[text] {
					told[text] = true
					faults = append(faults, errors.New(text))
				}
			}
		}
		out[name] = steps
	}
	return out, errors.Join(faults...)
}

// call is what the author of an object calls it.
func (m Manifests) call(key policy.Key) string {
	if i := m.at(key); i >= 0 {
		return m[i].String()
	}
	return key.String()
}

// whole is m with what is given, and with the pods that m does not speak of. ids
// are the endpoints for which objects stand.
func (d *Driver) whole(m Manifests) (all Manifests, ids map[policy.Key]string, err error) {
	all, ids = d.given.With(m), map[policy.Key]string{}
	spoken := map[string]Manifest{}
	var faults []error
	for _, one := range m {
		switch o := one.Object.(type) {
		case *v3.HostEndpoint:
			faults = append(faults, fmt.Errorf("%v: a lab's policy is that of pods: take it away", one))
		case *v3.WorkloadEndpoint:
			for _, name := range o.Spec.Profiles {
				if all.at(policy.Key{Kind: v3.KindProfile, Name: name}) < 0 {
					faults = append(faults, fmt.Errorf("%v: there is no profile %s: apply its Namespace or ServiceAccount with it", one, name))
				}
			}
			p, err := d.pod(o)
			if err == nil && spoken[p.Endpoint].Kind != "" {
				err = fmt.Errorf("%v stands for the same pod %s: take one away", spoken[p.Endpoint], p.Name)
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("%v: %w", one, err))
				continue
			}
			spoken[p.Endpoint], ids[one.key] = one, p.Endpoint
		}
	}
	for i := range d.pods {
		if p := &d.pods[i]; spoken[p.Endpoint].Kind == "" {
			one, err := p.manifest()
			if err != nil {
				faults = append(faults, err)
			}
			all, ids[one.key] = all.With(Manifests{one}), p.Endpoint
		}
	}
	return all, ids, errors.Join(faults...)
}

// pod is the pod of the lab that a workload endpoint stands for.
func (d *Driver) pod(w *v3.WorkloadEndpoint) (*Pod, error) {
	var found *Pod
	for _, text := range w.Spec.IPNetworks {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(d.pods, func(p Pod) bool { return slices.Contains(p.Addresses, n.Addr()) })
		switch {
		case i < 0:
			return nil, fmt.Errorf("no pod of the lab has its address %v", n.Addr())
		case found != nil && found != &d.pods[i]:
			return nil, fmt.Errorf("its addresses are those of two pods, %s and %s", found.Name, d.pods[i].Name)
		}
		found = &d.pods[i]
	}
	switch {
	case found == nil:
		return nil, errors.New("it has no address, so that it is no pod of the lab")
	case found.Node != w.Spec.Node:
		return nil, fmt.Errorf("its node is %q, and pod %s, which has its addresses, is on %q", w.Spec.Node, found.Name, found.Node)
	}
	return found, nil
}

// tell tells every node's guard what differs from the last Change.
func (d *Driver) tell(all Manifests) error {
	before := map[policy.Key]string{}
	for _, one := range d.seen {
		before[one.key] = one.text
	}
	for _, n := range d.nodes {
		for _, one := range all {
			if text, had := before[one.key]; had && text == one.text {
				continue
			}
			if err := n.guard.Upsert(one.Object); err != nil {
				return err
			}
		}
		for _, one := range d.seen {
			if all.at(one.key) < 0 {
				n.guard.Delete(one.key)
			}
		}
	}
	d.seen = all
	return nil
}

// flush brings a node up to date, in as many steps as the guard takes: what it
// compiles in the background is waited for.
func (n *node) flush(ids map[policy.Key]string) (steps []Update, conditions []policy.Condition) {
	for more := true; more; {
		u := n.guard.Flush()
		for key, stages := range u.Stages {
			if stages == nil {
				delete(n.judged, key)
			} else {
				n.judged[key] = stages
			}
		}
		now, changed := map[string]*guard.Stages{}, map[string]*guard.Stages{}
		for key, stages := range n.judged {
			now[ids[key]] = stages
		}
		for id, stages := range now {
			if n.stages[id] != stages {
				changed[id] = stages
			}
		}
		for id := range n.stages {
			if now[id] == nil {
				changed[id] = nil
			}
		}
		n.stages, n.state, n.last = now, n.state.With(u.Delta), u.Generation
		steps, conditions = append(steps, Update{u.Delta, changed, u.Generation}), append(conditions, u.Conditions...)
		folding := n.guard.Folding()
		if more = folding != nil; more {
			<-folding
		}
	}
	return steps, conditions
}

// Police adds to a node's state, whose endpoints have no policy, what judges them.
func (d *Driver) Police(name string, s *dataplane.State) (generation uint64) {
	n := d.nodes[name]
	s.Sets, s.Programs, s.Rules = n.state.Sets, n.state.Programs, n.state.Rules
	for _, e := range s.Endpoints {
		if stages := n.stages[e.GetId()]; stages != nil {
			stages.Judge(e)
		}
	}
	return n.last
}

// Whole is the Update as a delta, with those of a node's endpoints, which have no
// policy yet, that are judged otherwise. One that nothing is said of forwards nothing.
func (u Update) Whole(endpoints []*v1.Endpoint) dataplane.Delta {
	d := u.Delta
	for _, e := range endpoints {
		if stages, changed := u.stages[e.GetId()]; changed {
			e = proto.CloneOf(e)
			if stages != nil {
				stages.Judge(e)
			}
			d.Set.Endpoints = append(d.Set.Endpoints, e)
		}
	}
	return d
}

// Settled says that a node's forwarder judges by the Update of a generation, or a
// later one.
func (d *Driver) Settled(name string, generation uint64) { d.nodes[name].guard.Settled(generation) }

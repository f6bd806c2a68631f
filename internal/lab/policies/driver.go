package policies

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/policy"
)

// Driver keeps the policy of a lab's pods what objects make it. It is for one
// goroutine.
type Driver struct {
	lab   *lab.Lab
	pod   func(namespace, name string) string
	nodes []*node
	seen  map[policy.Key]string // what was applied last, as JSON
}

// node is one node of the lab.
type node struct {
	name      string
	guard     *guard.Guard
	endpoints map[string]*v1.Endpoint // by pod, as they are without policy
	pods      map[policy.Key]string   // that endpoints of policy stand for
}

// New makes a driver for a lab that is up. pod is the lab's name of a pod.
func New(l *lab.Lab, pod func(namespace, name string) string) (*Driver, error) {
	d := &Driver{lab: l, pod: pod, seen: map[policy.Key]string{}}
	for _, n := range l.Topology().Nodes {
		s, err := l.Desired(n.Name)
		if err != nil {
			return nil, err
		}
		one := &node{name: n.Name, guard: guard.New(n.Name), endpoints: map[string]*v1.Endpoint{}, pods: map[policy.Key]string{}}
		for _, e := range s.Endpoints {
			one.endpoints[e.GetId()] = e
		}
		d.nodes = append(d.nodes, one)
	}
	return d, nil
}

// Apply puts objects in force, all that there are, and returns once every worker
// judges by them. Pods that no object speaks of are left alone; those that one
// spoke of before, and none does any more, send and receive nothing.
func (d *Driver) Apply(ctx context.Context, objects []metav1.Object) error {
	if err := d.change(objects); err != nil {
		return err
	}
	var waits []func() error
	for _, n := range d.nodes {
		wait, err := n.flush(ctx, d.lab.Stream(n.name))
		if err != nil {
			return fmt.Errorf("policy of node %s: %w", n.name, err)
		}
		waits = append(waits, wait)
	}
	var errs []error
	for _, wait := range waits {
		errs = append(errs, wait())
	}
	return errors.Join(errs...)
}

// change tells every node's guard what differs from the last Apply.
func (d *Driver) change(objects []metav1.Object) error {
	now := map[policy.Key]string{}
	for _, o := range objects {
		key, err := policy.KeyOf(o)
		if err != nil {
			return err
		}
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if _, twice := now[key]; twice {
			return fmt.Errorf("%v is there twice", key)
		}
		if now[key] = string(text); d.seen[key] == now[key] {
			continue
		}
		for _, n := range d.nodes {
			if w, ok := o.(*v3.WorkloadEndpoint); ok && w.Spec.Node == n.name {
				n.pods[key] = "pod/" + d.pod(w.Namespace, w.Spec.Pod)
			}
			if err := n.guard.Upsert(o); err != nil {
				return err
			}
		}
	}
	for key := range d.seen {
		if _, stays := now[key]; !stays {
			for _, n := range d.nodes {
				n.guard.Delete(key)
			}
		}
	}
	d.seen = now
	return nil
}

// flush sends what has changed for the node. The function it returns waits until
// that is in force.
func (n *node) flush(ctx context.Context, stream *dataplane.Stream) (wait func() error, err error) {
	u, err := n.guard.Flush()
	if err != nil {
		return nil, err
	}
	for _, c := range u.Conditions {
		if len(c.Faults) > 0 {
			return nil, fmt.Errorf("%v: %s", c.Object, c.Faults[0])
		}
	}
	delta := u.Delta
	for key, stages := range u.Stages {
		e := n.endpoints[n.pods[key]]
		if e == nil {
			return nil, fmt.Errorf("%v is of pod %q, and the lab has none of that name", key, n.pods[key])
		}
		e = proto.CloneOf(e)
		if e.Policy = v1.Endpoint_POLICY_NONE; stages != nil {
			e.Policy, e.Egress, e.Ingress = v1.Endpoint_POLICY_ENFORCED, stages.Egress, stages.Ingress
		}
		delta.Set.Endpoints = append(delta.Set.Endpoints, e)
	}
	slices.SortFunc(delta.Set.Endpoints, func(a, b *v1.Endpoint) int { return strings.Compare(a.GetId(), b.GetId()) })
	sent, err := stream.SendDelta(ctx, delta)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := sent.Wait(ctx); err != nil {
			return fmt.Errorf("policy of node %s: %w", n.name, err)
		}
		n.guard.Settled(u.Generation)
		return nil
	}, nil
}

// Open takes all policy back: every pod that the lab has may send and receive
// everything.
func (d *Driver) Open(ctx context.Context) error {
	for _, n := range d.nodes {
		var delta dataplane.Delta
		for _, key := range slices.Sorted(maps.Keys(n.endpoints)) {
			delta.Set.Endpoints = append(delta.Set.Endpoints, n.endpoints[key])
		}
		sent, err := d.lab.Stream(n.name).SendDelta(ctx, delta)
		if err == nil {
			err = sent.Wait(ctx)
		}
		if err != nil {
			return fmt.Errorf("take back the policy of node %s: %w", n.name, err)
		}
	}
	return nil
}

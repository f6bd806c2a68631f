package converge

import (
	"reflect"
	"slices"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/datastore"
)

// notes are what is wrong with objects, and what was reported of that.
type notes struct {
	refused    map[datastore.Key][]string // with what the store has, which cannot be used
	unreadable map[datastore.Key][]string // with the object itself
	unfit      map[datastore.Key][]string // with what policy makes of it
	unplaced   map[datastore.Key]string   // with its place in the network
	changed    map[datastore.Key]struct{}
	reported   map[datastore.Key]Report
	faulty     int // of those reported, that are not well
}

func newNotes() notes {
	return notes{
		refused: map[datastore.Key][]string{}, unreadable: map[datastore.Key][]string{}, unfit: map[datastore.Key][]string{}, unplaced: map[datastore.Key]string{},
		changed: map[datastore.Key]struct{}{}, reported: map[datastore.Key]Report{},
	}
}

// refuse notes why what the store has cannot be used, read what is wrong with an object
// itself, policy what its policy has, place what keeps it from its place; nothing where
// all is well.
func (n *notes) refuse(key datastore.Key, faults []string) {
	note(n, n.refused, key, faults, len(faults) > 0)
}
func (n *notes) read(key datastore.Key, faults []string) {
	note(n, n.unreadable, key, faults, len(faults) > 0)
}
func (n *notes) policy(key datastore.Key, faults []string) {
	note(n, n.unfit, key, faults, len(faults) > 0)
}
func (n *notes) place(key datastore.Key, fault string) { note(n, n.unplaced, key, fault, fault != "") }

func note[T any](n *notes, in map[datastore.Key]T, key datastore.Key, what T, wrong bool) {
	if wrong {
		in[key] = what
	} else {
		delete(in, key)
	}
	n.changed[key] = struct{}{}
}

// policyAnew forgets what policies have: who calculates anew tells all of it again.
func (n *notes) policyAnew() {
	for key := range n.unfit {
		n.policy(key, nil)
	}
}

// forget forgets what is gone. What comes in its place by the same name has had
// nothing reported.
func (n *notes) forget(key datastore.Key) {
	delete(n.refused, key)
	delete(n.unreadable, key)
	n.unreport(key)
	n.changed[key] = struct{}{}
}

// unreport forgets what was reported of an object.
func (n *notes) unreport(key datastore.Key) {
	n.report(key, Report{})
	delete(n.reported, key)
}

// report notes what is reported of an object.
func (n *notes) report(key datastore.Key, r Report) {
	if !n.reported[key].well() {
		n.faulty--
	}
	if n.reported[key] = r; !r.well() {
		n.faulty++
	}
}

// reportChanged reports what has changed since the last time: what is wrong at once,
// and what is well when the forwarder has acknowledged it. What is as it was is reported
// again where an object should say something: others may have taken that away.
func (c *Core) reportChanged(acknowledged bool) {
	n := &c.notes
	for key := range n.changed {
		o := c.objects[key]
		if o == nil { // it is gone, or nobody has written it
			n.unreport(key)
			delete(n.changed, key)
			continue
		}
		r := Report{Faults: slices.Concat(n.refused[key], n.unreadable[key], n.unfit[key]), Here: n.unplaced[key], Ours: c.ours(o)}
		if w, ok := o.(*v3.WorkloadEndpoint); ok && r.Ours && r.Here == "" {
			r.Here = c.missing(w)
		}
		if key.Kind == v3.KindHostEndpoint && r.Ours {
			r.Here = c.missingHost(key)
		}
		if len(r.Faults) == 0 && !acknowledged {
			continue
		}
		delete(n.changed, key)
		if old, told := n.reported[key]; told && reflect.DeepEqual(old, r) {
			if r.Again = true; r.Ours || !r.well() {
				c.Report(key, o, r)
			}
			continue
		}
		n.report(key, r)
		for _, f := range r.Faults {
			c.Log.Warn("an object is not in force as it says", "object", key, "why", f)
		}
		c.Report(key, o, r)
	}
}

// missing says why a workload of this node is not connected.
func (c *Core) missing(w *v3.WorkloadEndpoint) string {
	k := attach.Key{Namespace: w.Namespace, Name: w.Name}
	if _, attached := c.attached[k]; !attached {
		return "nobody has attached it on its node"
	}
	s := c.stands(k)
	if !s.InForce && s.Reason == "" {
		return "the forwarder has not acknowledged it"
	}
	return s.Reason
}

// ours reports whether an object is this node's alone.
func (c *Core) ours(o v3.Object) bool {
	switch o := o.(type) {
	case *v3.WorkloadEndpoint:
		return o.Spec.Node == c.Node
	case *v3.HostEndpoint:
		return o.Spec.Node == c.Node
	case *v3.Node:
		return o.Name == c.Node
	}
	return false
}

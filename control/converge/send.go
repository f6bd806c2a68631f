package converge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/network"
	"margay.dev/margay/datastore"
)

// After a refusal all is calculated anew: first after this time, then after twice
// as long each time.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
)

// flight is a commit that is under way.
type flight struct {
	landed  chan error // how the forwarder has settled it
	told    datastore.Revision
	policy  uint64 // generation of guard
	version uint64 // of the book
	placed  map[attach.Key]attach.Status
	began   time.Time
}

// flush sends what there is to send, if it may. Where there is nothing it reports of what
// the store has told again: what is in force is acknowledged.
func (c *Core) flush(ctx context.Context) {
	if !c.dirty && c.flight == nil && c.again == nil && c.applying == nil && !c.alone && c.stats.InForce {
		c.reportChanged(true)
	}
	if !c.dirty || !c.synced || !c.ready || c.local == nil || c.applying != nil {
		return
	}
	if c.stream == nil || c.flight != nil || c.again != nil {
		c.flushAlone()
		return
	}
	if c.blocked = (time.Time{}); c.alone {
		c.begin()
	}
	c.dirty = false
	began := time.Now()
	c.resolve()
	update := c.guard.Flush()
	for key, stages := range update.Stages {
		switch key.Kind {
		case v3.KindWorkloadEndpoint:
			c.network.Judge(attach.Key{Namespace: key.Namespace, Name: key.Name}, stages)
		case v3.KindHostEndpoint:
			c.network.JudgeHost(key.Name, stages)
		}
	}
	c.apply(c.judgeHost(update))
	changes := c.network.Flush()
	delta := update.Delta
	join(&delta, &changes.Delta)
	if c.whole {
		c.notes.policyAnew()
	}
	for _, x := range update.Conditions {
		c.notes.policy(datastore.Key(x.Object), x.Faults)
	}
	for object, fault := range changes.Faults {
		c.notes.place(keyOf(object), fault)
	}
	c.stats.Calculated(time.Since(began))
	f := &flight{landed: make(chan error, 1), told: c.told, policy: update.Generation, version: c.version, placed: changes.Placed, began: time.Now()}
	c.flight = f
	delivery, err := c.send(ctx, &delta)
	go func() {
		if delivery != nil {
			err = delivery.Wait(ctx)
		}
		f.landed <- err
	}()
	c.reportChanged(false)
}

// send sends a delta, or a snapshot where that is due; nothing where there is
// nothing in it.
func (c *Core) send(ctx context.Context, d *dataplane.Delta) (*dataplane.Delivery, error) {
	if c.whole {
		c.whole = false
		c.stats.Snapshots++
		return c.stream.SendSnapshot(ctx, dataplane.State{}.With(*d))
	}
	if empty(d) {
		return nil, nil
	}
	c.stats.Deltas++
	return c.stream.SendDelta(ctx, *d)
}

// join adds to a delta of policy what a delta of the network has.
func join(d, n *dataplane.Delta) {
	s := &n.Set
	d.Set.Ports, d.Set.NextHops, d.Set.Routes, d.Set.Endpoints = s.Ports, s.NextHops, s.Routes, s.Endpoints
	d.Set.HostPort, d.Set.Steering = s.HostPort, s.Steering
	d.RemovedPorts, d.RemovedNextHops, d.RemovedRoutes, d.RemovedEndpoints = n.RemovedPorts, n.RemovedNextHops, n.RemovedRoutes, n.RemovedEndpoints
}

// empty reports whether a delta says nothing.
func empty(d *dataplane.Delta) bool {
	s := &d.Set
	return len(s.Ports)+len(s.NextHops)+len(s.Routes)+len(s.Endpoints)+len(s.Sets)+len(s.Programs)+len(s.Rules) == 0 &&
		len(d.RemovedPorts)+len(d.RemovedNextHops)+len(d.RemovedRoutes)+len(d.RemovedEndpoints) == 0 &&
		len(d.Left)+len(d.RemovedSets)+len(d.RemovedPrograms)+len(d.RemovedRules) == 0 && s.HostPort == nil && s.Steering == nil
}

func keyOf(o network.Object) datastore.Key {
	if o.Node != "" {
		return datastore.Key{Kind: v3.KindNode, Name: o.Node}
	}
	return datastore.Key{Kind: v3.KindWorkloadEndpoint, Namespace: o.Workload.Namespace, Name: o.Workload.Name}
}

// landed is ready when the commit that is under way is settled, by the kernel too.
func (c *Core) landed() <-chan error {
	if c.flight == nil || c.applying != nil {
		return nil
	}
	return c.flight.landed
}

// folding is ready when the guard has compiled something in the background, and it
// could be sent.
func (c *Core) folding() <-chan struct{} {
	if c.flight != nil || c.dirty {
		return nil
	}
	return c.guard.Folding()
}

// land takes how a commit was settled. It fails where nothing helps any more.
func (c *Core) land(ctx context.Context, err error) error {
	f := c.flight
	c.flight = nil
	if err == nil {
		c.refused = 0
		c.dirty = c.dirty || c.alone
		c.stats.Applied(time.Since(f.began), c.stream.Generation())
		c.stats.Revision = f.told
		c.guard.Settled(f.policy)
		c.namesInForce()
		maps.Copy(c.standing, f.placed)
		c.tellBook(f)
		c.reportChanged(true)
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.stats.Failures++
	refusal := (*dataplane.Refusal)(nil)
	if !errors.As(err, &refusal) {
		return fmt.Errorf("send the forwarder its state: %w", err)
	}
	pause := min(firstRetry<<min(c.refused, 20), lastRetry)
	c.refused++
	c.Log.Error("the forwarder refuses a change and stays as it is; everything is calculated anew", "in", pause, "error", refusal)
	c.again = time.After(pause)
	return nil
}

// tellBook tells attachments how they stand after a commit: all of them where the book
// has changed, since it knows nothing of one that was taken away and came back as it was.
func (c *Core) tellBook(f *flight) {
	stand := map[attach.Key]attach.Status{}
	for k := range f.placed {
		stand[k] = c.stands(k)
	}
	if f.version != c.heard {
		c.heard = f.version
		for k := range c.standing {
			stand[k] = c.stands(k)
		}
	}
	c.Book.Tell(f.version, stand)
}

// tellDoors tells the attachments of ports that the forwarder has said something
// of.
func (c *Core) tellDoors(objects map[string]bool) {
	stand := map[attach.Key]attach.Status{}
	for object := range objects {
		k := c.doors[portOf(object)]
		if _, settled := c.standing[k]; settled {
			stand[k] = c.stands(k)
			c.notes.changed[keyOf(network.Object{Workload: k})] = struct{}{}
		}
	}
	if len(stand) > 0 {
		c.Book.Tell(0, stand)
		c.reportChanged(true)
	}
}

const portPrefix = "port/"

func portOf(object string) string {
	if len(object) < len(portPrefix) || object[:len(portPrefix)] != portPrefix {
		return ""
	}
	return object[len(portPrefix):]
}

// stands is how an attachment stands, with what the forwarder says of its port.
func (c *Core) stands(k attach.Key) attach.Status {
	s := c.standing[k]
	if x := c.conditions[portPrefix+c.attached[k].Port]; x != nil && s.InForce {
		s.InForce, s.Reason = false, x.GetMessage()
	}
	return s
}

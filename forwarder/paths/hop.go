package paths

import (
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"
)

// hopKey names a next hop: a client's, for one family of packets, or one of
// ours, which has a single way.
type hopKey struct {
	client uint32
	six    bool
	way    way
	glean  bool // of a learnt host route: not part of any plan
}

type member struct {
	way    way
	weight uint16
}

// hop is a next hop in force.
type hop struct {
	id      fib.NextHopID
	members []member
	adjs    []*adjacency
}

// setHop puts a next hop in force with these members.
func (w *Writer) setHop(key hopKey, members []member) error {
	h := w.hops[key]
	if h != nil && slices.Equal(h.members, members) {
		return nil
	}
	adjs, err := w.acquireAll(members)
	if err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	if h == nil {
		id, ok := w.hopIDs.take()
		if !ok {
			w.releaseAll(adjs)
			return fmt.Errorf("set %s: all %d next hops are in use", key, w.hopIDs.max)
		}
		h = &hop{id: fib.NextHopID(id)}
	}
	set := make([]fib.Member, len(adjs))
	for i, a := range adjs {
		set[i] = fib.Member{Adjacency: a.id, Weight: members[i].weight}
	}
	if err := w.fib.SetNextHop(h.id, set); err != nil {
		w.releaseAll(adjs)
		return fmt.Errorf("set %s: %w", key, err)
	}
	w.releaseAll(h.adjs)
	h.members, h.adjs = members, adjs
	w.hops[key] = h
	return nil
}

func (w *Writer) acquireAll(members []member) ([]*adjacency, error) {
	adjs := make([]*adjacency, 0, len(members))
	for _, m := range members {
		a, err := w.acquire(m.way)
		if err != nil {
			w.releaseAll(adjs)
			return nil, err
		}
		adjs = append(adjs, a)
	}
	return adjs, nil
}

func (w *Writer) releaseAll(adjs []*adjacency) {
	for _, a := range adjs {
		w.release(a)
	}
}

// dropHop takes a next hop away that no route leads to any more.
func (w *Writer) dropHop(key hopKey) error {
	h := w.hops[key]
	delete(w.hops, key)
	if err := w.fib.SetNextHop(h.id, nil); err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	w.releaseAll(h.adjs)
	w.hopIDs.retire(uint32(h.id))
	return nil
}

// String names the next hop in messages.
func (k hopKey) String() string {
	if k.client != 0 {
		return fmt.Sprintf("next hop %d", k.client)
	}
	return fmt.Sprintf("next hop to port %s", k.way.port)
}

// pauses calls pause, which may be nil, once in so many calls.
func pauses(pause func()) (step func()) {
	n := 0
	return func() {
		if n++; n%batch == 0 && pause != nil {
			pause()
		}
	}
}

// setRoutes brings the routes of plan and the client's changed ones in force. At
// each step others may look, and the ways of what is in force may change.
func (w *Writer) setRoutes(p *plan, changed *desired.Routes, step func()) error {
	old, oldWeak := w.strong, w.weak
	w.strong, w.weak = p.strong, p.weak
	errs := faults{}
	for _, routes := range []map[netip.Prefix]hopKey{p.strong, p.weak} {
		for prefix := range routes {
			errs.add(w.settle(prefix))
		}
	}
	if changed == nil {
		w.settleAll(&errs, step)
	} else {
		for prefix := range changed.All() {
			errs.add(w.settle(prefix))
			step()
		}
	}
	for _, routes := range []map[netip.Prefix]hopKey{old, oldWeak} {
		for prefix := range routes {
			errs.add(w.settle(prefix))
		}
	}
	return errs.err()
}

// settleAll looks at every route: those wanted, then those in force.
func (w *Writer) settleAll(errs *faults, step func()) {
	for prefix := range w.client.All() {
		errs.add(w.settle(prefix))
		step()
	}
	inForce := make([]netip.Prefix, 0, w.fib.Len())
	for prefix := range w.fib.Routes() {
		inForce = append(inForce, prefix)
	}
	for _, prefix := range inForce {
		errs.add(w.settle(prefix))
		step()
	}
}

// wanted is the next hop that prefix should have, nil for none.
func (w *Writer) wanted(prefix netip.Prefix) *hop {
	if key, ok := w.strong[prefix]; ok {
		return w.hops[key]
	}
	if id, ok := w.client.Get(prefix); ok {
		return w.hops[hopKey{client: id, six: prefix.Addr().Is6()}]
	}
	if key, ok := w.weak[prefix]; ok {
		return w.hops[key]
	}
	if n, ok := w.glean[prefix]; ok {
		return w.hops[n.hopKey()]
	}
	return nil
}

// settle brings one prefix to what is wanted of it.
func (w *Writer) settle(prefix netip.Prefix) error {
	want := w.wanted(prefix)
	now, there := w.fib.Route(prefix)
	switch {
	case want == nil && there:
		w.fib.DeleteRoute(prefix)
	case want != nil && now != want.id:
		return w.fib.SetRoute(prefix, want.id)
	}
	return nil
}

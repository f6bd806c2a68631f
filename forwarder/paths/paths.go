// Package paths is the one writer of the FIB: it turns a desired state and what
// is known of ports and neighbours into routes, next hops and adjacencies.
//
//	routes ─► hop (a client's next hop, per family, or a single way) ─► way (port, neighbour, family) ─► fib.Adjacency
//	                                                                     ▲              ▲
//	                                                                  SetPort       Neighbour, Learned
//
// A way is rendered anew, in place, whenever its port or its neighbour changes,
// so that routes need not move. Ids that nothing names any more are used again
// only after Quiesced.
//
// Where several objects claim one prefix, an address of ours comes first, then
// an endpoint, then a route of the client, then what is on link.
package paths

import (
	"net/netip"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"
)

// Port is what paths depend on of a port.
type Port struct {
	Name  string
	Index uint16
	L2    bool // Ethernet: neighbours have to be resolved
	Owned bool // all frames are ours: the graph itself resolves neighbours, else the kernel does
	MTU   int  // L3, bytes
	MAC   desired.MAC
	Up    bool // the workers drive it, and it has a carrier
}

// Want is all that Converge strives for.
type Want struct {
	State *desired.State
	Ports map[string]Port // every port of State by name, and the host port by HostName
	// Changed are the client's routes that may differ from what is in
	// force; nil asks for all of them to be looked at.
	Changed *desired.Routes
	// Pause is called between batches of routes, where the owner may let others
	// read, and tell of ports and neighbours, but not converge. It may be nil.
	Pause func()
}

// batch is how many routes are looked at between two pauses.
const batch = 4096

// HostName is the host port's name among the ports; no client's port can have it.
const HostName = "host/"

// Writer owns a FIB. It is for one goroutine at a time.
type Writer struct {
	fib   *fib.Table
	now   func() time.Time
	ports map[string]Port

	ways   map[way]*adjacency
	hops   map[hopKey]*hop
	strong map[netip.Prefix]hopKey // routes that come before the client's
	weak   map[netip.Prefix]hopKey // and after
	client desired.Routes
	neigh  map[neighbourKey]*neighbour
	glean  map[netip.Prefix]*neighbour // host routes learnt below an attached prefix
	learnt map[string]int              // of glean, by port

	adjIDs, hopIDs ids
}

// New makes the writer of t, which must be empty. now is the clock.
func New(t *fib.Table, now func() time.Time) *Writer {
	return &Writer{
		fib: t, now: now, ports: map[string]Port{},
		ways: map[way]*adjacency{}, hops: map[hopKey]*hop{},
		strong: map[netip.Prefix]hopKey{}, weak: map[netip.Prefix]hopKey{}, client: desired.NewRoutes(),
		neigh: map[neighbourKey]*neighbour{}, glean: map[netip.Prefix]*neighbour{}, learnt: map[string]int{},
		adjIDs: ids{max: uint32(fib.MaxAdjacency)}, hopIDs: ids{max: uint32(fib.MaxNextHop)},
	}
}

// Converge brings the FIB to want: what is new first, then routes, then what
// nothing needs any more. A packet that is routed before and after is routed
// at every moment between. It reports what could not be had; the rest is done.
func (w *Writer) Converge(want Want) error {
	for name, p := range want.Ports {
		if w.ports[name] != p {
			w.SetPort(p)
		}
	}
	plan := w.plan(want)
	errs := faults{}
	for key, members := range plan.hops {
		errs.add(w.setHop(key, members))
	}
	w.client = want.State.Routes
	errs.add(w.setRoutes(plan, want.Changed, pauses(want.Pause)))
	w.sweepLearned()
	for key := range w.hops {
		if _, wanted := plan.hops[key]; !wanted && !key.glean {
			errs.add(w.dropHop(key))
		}
	}
	for name := range w.ports {
		if _, wanted := want.Ports[name]; !wanted {
			w.dropPort(name)
		}
	}
	return errs.err()
}

// Quiesced tells that every worker has moved on since the last change: ids and
// memory that were given up may be used again.
func (w *Writer) Quiesced() {
	w.fib.Reclaim()
	w.adjIDs.release()
	w.hopIDs.release()
}

// Len is the number of routes in force.
func (w *Writer) Len() int { return w.fib.Len() }

// ids hands out small numbers from 1. A retired one waits for release.
type ids struct {
	next, max     uint32
	free, retired []uint32
}

func (p *ids) take() (uint32, bool) {
	if n := len(p.free); n > 0 {
		id := p.free[n-1]
		p.free = p.free[:n-1]
		return id, true
	}
	if p.next == p.max {
		return 0, false
	}
	p.next++
	return p.next, true
}

func (p *ids) retire(id uint32) { p.retired = append(p.retired, id) }

func (p *ids) release() {
	p.free = append(p.free, p.retired...)
	p.retired = p.retired[:0]
}

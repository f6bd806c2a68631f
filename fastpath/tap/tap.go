// Package tap records packets on their way through the graph, for those who watch.
//
//	worker ─► set (a graph.Tap) ─► for each Watch: filter ─► ring of this worker ─► Read
//
// A Watch follows packets that its filter picks when they come in, from stop to
// stop, or records those that it picks at a stage. What it records lies in a ring
// for each worker, bounded, until Read takes it: a watcher that is slow or dead
// loses events, which are counted, and holds no worker up. While nobody watches
// the engine has no tap at all.
package tap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/fastpath/graph"
)

// Most is how many may watch at once.
const Most = 4

// ErrBusy is why nobody else may watch just now.
var ErrBusy = fmt.Errorf("%d watch already, which is the most there may be", Most)

// Stage is a point at which packets are recorded whatever they have met before.
type Stage uint8

// The stages, to be joined by |.
const (
	RX    Stage = 1 << iota // as it came in
	PreTX                   // as it is offered to a queue to be sent
	Drop                    // as it was when it was dropped
)

// Kind is what an Event tells of.
type Kind uint8

// The kinds of events; graph.Tap has the moments. Followed packets have all of
// them, and stages the first, fourth and fifth.
const (
	Received Kind = iota
	Made
	Visited
	Transmitted
	Dropped
)

// Event is one packet at one moment.
type Event struct {
	Time   int64         // Unix time in nanoseconds
	Took   time.Duration // Visited: by the stop for the whole vector
	Packet uint32        // number of a packet that is followed, unique among those under way
	Stop   uint16        // index in Graph.Nodes, of Received (the entry), Made and Visited
	Port   uint16        // Transmitted
	Vector uint16        // packets in the vector it was part of
	Kind   Kind
	Edge   graph.Edge   // Visited and Made: the way it leaves by
	Reason graph.Reason // Dropped
	Worker uint8        // modulo 256
	L2     bool         // the bytes begin with an Ethernet header, else with IP
	Meta   graph.Meta   // as it was then

	at uint64 // of its bytes in the ring
	n  int
}

// Want is what a watcher asks for.
type Want struct {
	Filter *filter.Bound // which packets; nil is every one
	Follow bool          // record every moment of packets that the filter picks when they come in
	Made   bool          // with Follow: also of those that it picks when we make them
	Stages Stage         // without Follow: record packets that the filter picks at these stages
	Events int           // room for so many with each worker; at least 1
	Bytes  int           // room for so many bytes of packets with each worker; at least Snap
	Count  int           // packets to follow, or to record at stages; at least 1
	Snap   int           // bytes to keep of a packet, from all its buffers; at least 0
}

// Taps lets watchers look at an engine. Its methods are safe for concurrent use.
type Taps struct {
	engine *graph.Engine
	l2     int           // entry of ports whose packets have an Ethernet header
	number atomic.Uint32 // of the packet that was followed last

	mu  sync.Mutex
	now *set
}

// New makes the taps of e. Ports whose entry is the node l2 deliver Ethernet
// frames, all others IP packets.
func New(e *graph.Engine, l2 string) *Taps {
	t := &Taps{engine: e, l2: -1, now: &set{}}
	for i, name := range e.Graph().Nodes() {
		if name == l2 {
			t.l2 = i
		}
	}
	return t
}

// Watch begins to watch. It fails with ErrBusy while Most do, and with ctx's error
// when a worker does not move on. The watcher must Close what it gets.
func (t *Taps) Watch(ctx context.Context, want Want) (*Watch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for place, taken := range t.now.watches {
		if taken != nil {
			continue
		}
		w := newWatch(t, want, place)
		if err := t.replace(ctx, place, w); err != nil {
			return nil, fmt.Errorf("begin to watch: %w", errors.Join(err, t.replace(ctx, place, nil)))
		}
		return w, nil
	}
	return nil, ErrBusy
}

// Watchers is how many watch now.
func (t *Taps) Watchers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now.count()
}

// replace puts w, or nobody, in a place. The last who goes takes the tap along.
func (t *Taps) replace(ctx context.Context, place int, w *Watch) error {
	next := &set{taps: t, watches: t.now.watches, keys: make([]scratch, t.engine.Workers())}
	next.watches[place] = w
	t.now = next
	if next.count() == 0 {
		return t.engine.SetTap(ctx, nil)
	}
	return t.engine.SetTap(ctx, next)
}

// Watch is what one watcher sees. Read and Close are for one goroutine.
type Watch struct {
	taps  *Taps
	want  Want
	place int
	since uint32       // number of the last packet that was followed before, as in Meta.Trace
	left  atomic.Int64 // packets it still wants
	rings []ring       // by worker
}

func newWatch(t *Taps, want Want, place int) *Watch {
	w := &Watch{taps: t, want: want, place: place, since: t.number.Load() << Most, rings: make([]ring, t.engine.Workers())}
	w.left.Store(int64(want.Count))
	for i := range w.rings {
		w.rings[i].init(want.Events, max(want.Bytes, want.Snap))
	}
	return w
}

// Read shows each the events that have come since the last Read, roughly in the
// order of their times and exactly so for each worker, with the packet's first
// bytes. Neither may be kept. It returns how many there were.
func (w *Watch) Read(each func(e *Event, data []byte)) (n int) {
	for {
		var oldest *ring
		for i := range w.rings {
			if r := &w.rings[i]; r.peek() != nil && (oldest == nil || r.peek().Time < oldest.peek().Time) {
				oldest = r
			}
		}
		if oldest == nil {
			return n
		}
		e := oldest.peek()
		each(e, oldest.bytes(e))
		oldest.pop(e)
		n++
	}
}

// Lost is how many events found no room.
func (w *Watch) Lost() (n uint64) {
	for i := range w.rings {
		n += w.rings[i].lost.Load()
	}
	return n
}

// Done says whether as many packets were picked as the watcher wants.
func (w *Watch) Done() bool { return w.left.Load() <= 0 }

// Close ends the watch. Without an error no worker records anything for it any
// more; when ctx ends before, they do within their next pass. Read may be called
// once more for what is there.
func (w *Watch) Close(ctx context.Context) error {
	w.taps.mu.Lock()
	defer w.taps.mu.Unlock()
	if w.taps.now.watches[w.place] != w {
		return nil
	}
	if err := w.taps.replace(ctx, w.place, nil); err != nil {
		return fmt.Errorf("end a watch: %w", err)
	}
	return nil
}

package graph

import (
	"context"
	"time"
)

// Tap looks at packets as they pass. Its methods are called on the workers, on
// all of them at once, before the packets' buffers are given on: w says which
// worker it is, and its Gather reads the bytes. They must neither block nor
// allocate nor keep what they are given. Of a Meta they may change Trace alone.
type Tap interface {
	// Received: v came in and is about to visit stop entry.
	Received(w *Worker, entry int, v *Vector)
	// Refused: m came in, and its queue drops it at once, for r, before stop
	// entry. Without Bufs it has no bytes.
	Refused(w *Worker, entry int, m *Meta, r Reason)
	// Made: the node at stop at made m and sends it out by e.
	Made(w *Worker, at int, e Edge, m *Meta)
	// Visited: v was at stop at for took, and next says by which edge each
	// packet leaves. What is Gone has no bytes any more, but for one that is held.
	Visited(w *Worker, at int, v *Vector, next []Edge, took time.Duration)
	// Transmitted: v is about to be offered to a queue of port. What the queue
	// refuses is told of by Dropped.
	Transmitted(w *Worker, port uint16, v *Vector)
	// Dropped: m ends here, for r.
	Dropped(w *Worker, m *Meta, r Reason)
}

// SetTap lets every worker show what it does to tap from its next pass on, in
// place of the tap before it; nil is none, which costs a worker a predicted branch
// a burst. When it returns without an error no worker uses the former tap any
// more; when ctx ends before, that is so after a later Quiesce.
func (e *Engine) SetTap(ctx context.Context, tap Tap) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tap = tap
	return e.rewire(ctx)
}

// received shows the tap what came in by rx: packets, by their slots.
func (w *Worker) received(rx *rxBinding, packets []uint16) {
	w.vec.idx = packets
	w.wired.tap.Received(w, int(rx.entry), &w.vec)
}

// refused shows the tap what the queue whose turn it is drops at reception.
func (w *Worker) refused(m *Meta, r Reason) {
	rx := &w.wired.rx[w.turn]
	m.InPort, m.Reason = rx.port, r
	w.wired.tap.Refused(w, int(rx.entry), m, r)
}

// Edges are the names of the stops that the edges of stop at lead to.
func (g *Graph) Edges(at int) []string { return g.specs[at].Edges }

// Holds says whether the node at stop at holds packets, to send them on later.
func (g *Graph) Holds(at int) bool { return len(g.specs[at].Resumes) > 0 }

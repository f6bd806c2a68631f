package graph

import (
	"math/bits"
	"time"
)

// waitingFor is the list of packets that wait for stop i, which is due from now on.
//
//fastpath:hot
func (w *Worker) waitingFor(i uint16) *list {
	w.due |= 1 << (i & (maxNodes - 1))
	return &w.stops[i].wait
}

// walk visits the stops that are due in topological order.
//
//fastpath:hot
func (w *Worker) walk() {
	watched := w.sampled() || w.wired.tap != nil
	for w.due != 0 {
		i := bits.TrailingZeros64(w.due) // the earliest in the order of the walk
		w.due &^= 1 << i
		l := &w.stops[i].wait
		n := l.n
		l.n = 0 // edges lead forward: nothing is added while these are under way
		for from := 0; from < n; from += VectorMax {
			w.follow(i, l.idx[from:min(from+VectorMax, n)], watched)
		}
	}
}

// follow takes a vector to stop i and on from there, as long as all of it leaves
// by one edge and nothing else is due before or at the stop that this leads to.
// Most vectors come through to transmission so, without waiting in a list: what
// comes next is then known before the packets have told.
//
//fastpath:hot
func (w *Worker) follow(i int, idx []uint16, watched bool) {
	next := w.next[:len(idx)]
	w.vec.idx = idx
	for {
		s, count := &w.stops[i], &w.stats.Nodes[i]
		w.at = i
		count.Calls++
		count.Packets += uint64(len(idx))
		if watched {
			w.processWatched(s, count, next)
		} else {
			s.node.Process(w, &w.vec, next)
		}
		if len(s.edges) == 0 {
			return
		}
		if next[0] != s.usual && !s.use(next[0]) || runEnd(next, 0) != len(next) ||
			w.due&(1<<s.then-1) != 0 || w.stops[s.then].wait.n != 0 {
			w.part(s, idx, next)
			return
		}
		i = s.then
	}
}

// use makes e the usual edge. It says false if e leads nowhere.
//
//fastpath:hot
func (s *stop) use(e Edge) bool {
	if int(e) >= len(s.edges) {
		return false
	}
	s.usual, s.then = e, int(s.edges[e])
	return true
}

// sampled says whether this pass is one of those whose nodes are timed.
//
//fastpath:hot
func (w *Worker) sampled() bool { return w.stats.Load.BusyLoops%sampleEvery == 0 }

// processWatched is Process in passes that are timed, and while a Tap looks.
func (w *Worker) processWatched(s *stop, count *NodeCounters, next []Edge) {
	at, start := w.at, time.Now()
	s.node.Process(w, &w.vec, next)
	took := time.Since(start)
	if w.sampled() {
		count.SampledNanos += uint64(took)
		count.SampledPackets += uint64(len(next))
	}
	if tap := w.wired.tap; tap != nil && len(s.edges) > 0 {
		tap.Visited(w, at, &w.vec, next, took)
	}
}

// part lets each packet of a vector wait for the stop that its edge leads to. Runs
// of equal edges move at once.
//
//fastpath:hot
func (w *Worker) part(s *stop, idx []uint16, next []Edge) {
	for i := 0; i < len(next) && i < len(idx); {
		e, from := next[i], i
		if i = runEnd(next, i); int(e) >= len(s.edges) {
			continue // Gone
		}
		l := w.waitingFor(s.edges[e])
		l.n += copy(l.idx[l.n:], idx[from:i])
	}
}

// runEnd is where the edges that equal next[i] and stand together with it end,
// found eight at a time.
//
//fastpath:hot
func runEnd(next []Edge, i int) int {
	const ones = 0x0101010101010101
	e := next[i]
	for ; i+8 <= len(next); i += 8 {
		n := next[i : i+8] // which the compiler loads as one word
		word := uint64(n[0]) | uint64(n[1])<<8 | uint64(n[2])<<16 | uint64(n[3])<<24 |
			uint64(n[4])<<32 | uint64(n[5])<<40 | uint64(n[6])<<48 | uint64(n[7])<<56
		if differ := word ^ uint64(e)*ones; differ != 0 {
			return i + bits.TrailingZeros64(differ)/8
		}
	}
	for i < len(next) && next[i] == e {
		i++
	}
	return i
}

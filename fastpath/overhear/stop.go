package overhear

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"margay.dev/margay/fastpath/graph"
)

// overhear holds answers of servers of names until who listens has read them. They
// go on at flow, which decides anew about them.
//
// Uses: Off, Len, Head, L3, L4, Proto, Flags. Sets: flag Told. Drops nothing.
const (
	overhearDrop graph.Edge = iota
	overhearRewrite
)

const overhearFlow graph.Again = 0

// Name is the stop's in the graph.
const Name = "overhear"

// Spec is the stop's place in the graph:
//
//	flow, flow-new ──► overhear ──► rewrite
func (p *Post) Spec() graph.Spec {
	return graph.Spec{
		Name:    Name,
		Edges:   []string{overhearDrop: graph.DropName, overhearRewrite: "rewrite"},
		Resumes: []string{overhearFlow: "flow"},
		New:     p.newStop,
	}
}

type stop struct {
	*Post
	worker          int
	seq             uint64
	held            [places]held
	n               int                   // of held that are taken
	read            [places]atomic.Uint64 // by place: the id that was read last
	copied          Heard                 // too large for a stack that does not grow
	onTime, overdue atomic.Uint64         // one worker's, so that it need not lock to add
}

// held is a packet in its place; free where id is 0.
type held struct {
	id     uint64
	until  int64 // of the worker's clock
	client netip.Addr
	meta   graph.Meta
}

func (p *Post) newStop(worker int) graph.Node {
	n := &stop{Post: p, worker: worker, seq: rand.Uint64N(1 << (seqBits - 1))} // ids of another process let nothing go on here
	p.mu.Lock()
	defer p.mu.Unlock()
	stops := slices.Clone(p.stops) // Read may be looking at them
	for len(stops) <= worker {
		stops = append(stops, nil)
	}
	stops[worker] = n
	p.stops = stops
	return n
}

// Process shows each packet to who listens, and holds it.
func (n *stop) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	e := n.ear.Load()
	for i := range next {
		m := v.Meta(i)
		m.Flags |= graph.Told
		if next[i] = overhearRewrite; e != nil && n.hold(e, w, m) {
			next[i] = graph.Gone
		}
	}
}

// hold shows one packet, and holds it if it has a place and something to say.
func (n *stop) hold(e *ear, w *graph.Worker, m *graph.Meta) bool {
	_, client := addresses(w.Mem[m.Off+uint32(m.L3):m.Off+m.Head], m.Flags&graph.IPv6 != 0)
	at := n.place(client)
	if at < 0 {
		n.lost.Add(1)
		return false
	}
	n.seq = (n.seq + 1) % (1 << seqBits)
	n.copied.ID = uint64(n.worker)<<(seqBits+placeBits) | uint64(at)<<seqBits | n.seq
	if !n.show(e, w.Mem, m, &n.copied) {
		return false
	}
	n.held[at] = held{n.copied.ID, w.Now + int64(holdFor), client, *m}
	n.n++
	w.Hold(m)
	return true
}

// place is a free place for a packet to a client; -1 where there is none for it.
func (n *stop) place(client netip.Addr) int {
	free, has := -1, 0
	for i := range n.held {
		switch h := &n.held[i]; {
		case h.id == 0:
			free = i
		case h.client == client:
			has++
		}
	}
	if has >= shares {
		return -1
	}
	return free
}

// Resume lets packets go on that were read, or have been held for long enough.
func (n *stop) Resume(w *graph.Worker) {
	if n.n == 0 {
		return
	}
	silent := n.ear.Load() == nil
	for i := range n.held {
		h := &n.held[i]
		read, over := h.id == n.read[i].Load(), w.Now >= h.until
		if h.id == 0 || !read && !over && !silent {
			continue
		}
		if !w.Release(&h.meta, overhearFlow) {
			return // the pass is full: the rest goes next time
		}
		if read {
			n.onTime.Add(1)
		} else {
			n.overdue.Add(1)
		}
		h.id = 0
		n.n--
	}
}

// Holding tells of every packet that is held. Answers that came first have the lower
// numbers.
func (n *stop) Holding(yield func(m *graph.Meta, at graph.Again)) {
	order := make([]*held, 0, n.n)
	for i := range n.held {
		if n.held[i].id != 0 {
			order = append(order, &n.held[i])
		}
	}
	slices.SortFunc(order, func(a, b *held) int { return int(a.until - b.until) })
	for _, h := range order {
		m := h.meta
		yield(&m, overhearFlow)
	}
}

// Forget holds nothing any more.
func (n *stop) Forget() {
	n.n = 0
	for i := range n.held {
		n.held[i].id = 0
	}
}

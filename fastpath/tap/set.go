package tap

import (
	"time"

	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/fastpath/graph"
)

// set is all who watch; it is what the workers see, and is replaced whole.
type set struct {
	taps    *Taps
	watches [Most]*Watch
	keys    []scratch // by worker
}

// scratch is a worker's own.
type scratch struct {
	key filter.Key
	_   [64]byte
}

func (s *set) count() (n int) {
	for _, w := range s.watches {
		if w != nil {
			n++
		}
	}
	return n
}

// Meta.Trace is a bit for each watcher that follows the packet, and above those
// the packet's number.
const followers = 1<<Most - 1

// Received shows what came in, and lets it be followed from here on.
func (s *set) Received(w *graph.Worker, entry int, v *graph.Vector) {
	e := Event{Kind: Received, Stop: uint16(entry), Vector: uint16(v.Len()), L2: entry == s.taps.l2}
	s.begin(w, &e)
	for i := range v.Len() {
		s.see(w, v.Meta(i), &e, RX, true)
	}
}

// Refused shows what came in and went no further: its reception, and its drop.
func (s *set) Refused(w *graph.Worker, entry int, m *graph.Meta, r graph.Reason) {
	e := Event{Kind: Received, Stop: uint16(entry), Vector: 1, L2: entry == s.taps.l2}
	s.begin(w, &e)
	s.see(w, m, &e, RX, m.Bufs > 0)
	e.Kind, e.Reason = Dropped, r
	s.see(w, m, &e, Drop, m.Bufs > 0)
}

// Made shows a packet of our own, and lets it be followed from here on.
func (s *set) Made(w *graph.Worker, at int, edge graph.Edge, m *graph.Meta) {
	e := Event{Kind: Made, Stop: uint16(at), Edge: edge, Vector: 1, L2: layer2(m)}
	s.begin(w, &e)
	s.see(w, m, &e, 0, true)
}

// Visited shows those packets that somebody follows.
func (s *set) Visited(w *graph.Worker, at int, v *graph.Vector, next []graph.Edge, took time.Duration) {
	e := Event{Kind: Visited, Stop: uint16(at), Took: took, Vector: uint16(len(next))}
	s.begin(w, &e)
	holds := s.taps.engine.Graph().Holds(at)
	for i, edge := range next {
		if m := v.Meta(i); m.Trace != 0 {
			e.Edge, e.L2 = edge, layer2(m)
			s.see(w, m, &e, 0, holds || edge != graph.Gone)
		}
	}
}

// Transmitted shows what is offered to a queue of port.
func (s *set) Transmitted(w *graph.Worker, port uint16, v *graph.Vector) {
	e := Event{Kind: Transmitted, Port: port, Vector: uint16(v.Len())}
	s.begin(w, &e)
	for i := range v.Len() {
		m := v.Meta(i)
		e.L2 = layer2(m)
		s.see(w, m, &e, PreTX, true)
	}
}

// Dropped shows a packet that ends here. One that is shorter than its Ethernet
// header had one all the same.
func (s *set) Dropped(w *graph.Worker, m *graph.Meta, r graph.Reason) {
	e := Event{Kind: Dropped, Reason: r, Vector: 1, L2: layer2(m) || r == graph.RxRunt}
	s.begin(w, &e)
	s.see(w, m, &e, Drop, true)
}

// layer2 says whether a packet that has met its first stop has an Ethernet header.
func layer2(m *graph.Meta) bool { return m.L3 > 0 }

// begin notes what all events of a call have in common. The clock is read by the
// first that is recorded.
func (s *set) begin(w *graph.Worker, e *Event) {
	e.Worker = uint8(w.ID())
	if e.Kind != Transmitted {
		e.Port = graph.NoPort
	}
}

// see records m for everybody who follows it, or whose filter picks it now. Without
// alive its bytes belong to somebody else by now.
func (s *set) see(w *graph.Worker, m *graph.Meta, e *Event, stage Stage, alive bool) {
	read := false
	for _, x := range s.watches {
		switch {
		case x == nil:
			continue
		case x.follows(m):
		case x.asks(e.Kind, stage):
			if key := &s.keys[w.ID()].key; !read {
				read = true
				key.Read(w.Packet(m), e.L2)
				key.InPort, key.OutPort, key.Length = m.InPort, e.Port, m.Len
			}
			if !x.picks(&s.keys[w.ID()].key) || x.want.Follow && !x.mark(m) {
				continue
			}
		default:
			continue
		}
		if e.Time == 0 {
			e.Time = time.Now().UnixNano()
		}
		x.record(w, m, e, alive)
	}
}

// follows says whether x has marked m, and not who had its place before.
func (w *Watch) follows(m *graph.Meta) bool {
	return w.want.Follow && m.Trace&(1<<w.place) != 0 && int32(m.Trace&^followers-w.since) > 0
}

// asks says whether the filter is to be asked at this moment.
func (w *Watch) asks(k Kind, stage Stage) bool {
	switch {
	case w.left.Load() <= 0:
		return false
	case w.want.Follow:
		return k == Received || k == Made && w.want.Made
	}
	return w.want.Stages&stage != 0
}

func (w *Watch) picks(key *filter.Key) bool {
	return w.want.Filter == nil || w.want.Filter.Match(key)
}

// mark lets m be followed; false when enough are.
func (w *Watch) mark(m *graph.Meta) bool {
	if w.left.Add(-1) < 0 {
		return false
	}
	if m.Trace == 0 {
		m.Trace = w.taps.number.Add(1) << Most
	}
	m.Trace |= 1 << w.place
	return true
}

// record puts what is to be kept of m into the ring of worker by.
func (w *Watch) record(by *graph.Worker, m *graph.Meta, e *Event, alive bool) {
	size := 0
	if alive {
		size = min(int(m.Len), w.want.Snap)
	}
	r := &w.rings[by.ID()]
	to, data := r.reserve(size)
	if to == nil {
		return
	}
	at, n := to.at, to.n
	*to = *e
	to.at, to.n, to.Packet, to.Meta = at, n, m.Trace>>Most, *m
	by.Gather(m, 0, data)
	r.commit()
	if !w.want.Follow {
		w.left.Add(-1)
	}
}

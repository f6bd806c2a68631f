package graph

import "sync/atomic"

// handRing carries packets from one worker to another that owns the transmit
// queue they need: one producer, one consumer, no lock.
type handRing struct {
	to   *parking // of the consumer
	_    [48]byte
	head atomic.Uint32 // next to be taken
	_    [60]byte
	tail atomic.Uint32 // next to be filled
	_    [60]byte
	meta [handSize]Meta
}

const handSize = 1024 // a power of two

// put copies m into the ring; false when it is full. For the producer.
//
//fastpath:hot
func (r *handRing) put(m *Meta) bool {
	t := r.tail.Load()
	if t-r.head.Load() >= handSize {
		return false
	}
	r.meta[t%handSize] = *m
	r.tail.Store(t + 1)
	return true
}

// take copies the oldest packet to m; false when there is none. For the consumer.
//
//fastpath:hot
func (r *handRing) take(m *Meta) bool {
	h := r.head.Load()
	if h == r.tail.Load() {
		return false
	}
	*m = r.meta[h%handSize]
	r.head.Store(h + 1)
	return true
}

func (r *handRing) empty() bool { return r.head.Load() == r.tail.Load() }

// handOver gives v to the worker that owns the queue.
//
//fastpath:hot
func (w *Worker) handOver(tx *txBinding, v *Vector) {
	for i := range v.idx {
		if m := v.Meta(i); !tx.ring.put(m) {
			w.lose(m, TxFull)
		}
	}
	tx.ring.to.rouse()
}

// takeHanded queues what other workers handed to this one, up to half a vector,
// so that their flood leaves room for what its own queues receive.
//
//fastpath:hot
func (w *Worker) takeHanded(g *wiring) {
	for i, r := range g.handed {
		w.takeFrom(r, VectorMax/2*(i+1)/len(g.handed))
	}
}

// takeFrom queues what came by r, until most slots are taken.
//
//fastpath:hot
func (w *Worker) takeFrom(r *handRing, most int) {
	for w.used < most && r.take(&w.meta[w.used]) {
		m, slot := &w.meta[w.used], [1]uint16{uint16(w.used)}
		w.queueTx(m.OutPort, slot[:], uint64(m.Len), uint64(m.Segments))
		w.used++
	}
}

// inbound is the rings by which others hand packets to w.
func (w *Worker) inbound() (rings []*handRing) {
	for from := range w.engine.rings {
		if r := w.engine.rings[from][w.id]; r != nil {
			rings = append(rings, r)
		}
	}
	return rings
}

// dropHanded gives up what was handed to w after its last pass.
func (w *Worker) dropHanded() {
	var m Meta
	for _, r := range w.inbound() {
		for r.take(&m) {
			w.stats.Counters.Drops[TxNoPort] += uint64(m.Segments)
			w.Free(&m)
		}
	}
}

// handed says whether another worker has given this one something.
func (w *Worker) handed() bool {
	for _, r := range w.wired.handed {
		if !r.empty() {
			return true
		}
	}
	return false
}

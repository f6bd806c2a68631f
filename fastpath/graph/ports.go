package graph

// receive takes a burst from each queue that may have one, in turn from a
// different one each pass, until the vector is full.
//
//fastpath:hot
func (w *Worker) receive() {
	g := w.wired
	if len(g.onDemand) > 0 && w.stats.Load.Loops%readyEvery == 0 {
		w.park.poll(g.onDemand)
	}
	w.takeHanded(g)
	if w.first++; w.first >= len(g.rx) {
		w.first = 0
	}
	for i := range g.rx {
		at := i + w.first
		if at >= len(g.rx) {
			at -= len(g.rx)
		}
		rx := &g.rx[at]
		if rx.ready != nil && !rx.ready.readable {
			continue
		}
		room := VectorMax - w.used
		if room <= 0 {
			return
		}
		w.turn = at
		w.receiveFrom(rx, min(room, rx.budget))
	}
}

//fastpath:hot
func (w *Worker) receiveFrom(rx *rxBinding, room int) {
	ms := w.meta[w.used : w.used+room]
	got := rx.queue.RxBurst(&w.IO, ms)
	if rx.ready != nil && got < room {
		rx.ready.readable = false // drained, as far as one burst can tell
	}
	if got == 0 {
		return
	}
	var bytes, segments uint64
	l := w.waitingFor(rx.entry)
	to := l.idx[l.n&(slots-1):]
	to = to[:min(got, len(to))]
	for i := range to {
		m := &ms[i]
		m.InPort = rx.port
		bytes += uint64(m.Len)
		segments += uint64(m.Segments)
		to[i] = uint16(w.used + i)
	}
	l.n += len(to)
	w.used += got
	if w.wired.tap != nil {
		w.received(rx, to)
	}
	w.stats.Counters.Rx += segments
	c := &w.stats.Ports[rx.port]
	c.RxPackets += segments
	c.RxBytes += bytes
}

// queueTx lets packets, all for one port, wait for its transmit queue; bytes and
// segments are theirs together.
//
//fastpath:hot
func (w *Worker) queueTx(port uint16, packets []uint16, bytes, segments uint64) {
	if int(port) >= len(w.tx) {
		for _, slot := range packets {
			w.refuseSlot(slot, TxNoPort)
		}
		return
	}
	l := &w.tx[port]
	if l.n == 0 {
		w.dirty = append(w.dirty, port) // arch:cap each port stands here once, and rewire made room for all
	}
	l.n += copy(l.idx[l.n&(slots-1):], packets)
	l.bytes += bytes
	l.segments += segments
}

// flush hands what waits to the transmit queues, or to the workers that own them.
//
//fastpath:hot
func (w *Worker) flush() {
	for _, port := range w.dirty {
		l := &w.tx[port]
		tx := &noTx
		if int(port) < len(w.wired.tx) {
			tx = &w.wired.tx[port]
		}
		if tx.queue != nil {
			w.countTx(port, tx, l.bytes, l.segments) // what is refused is taken off again
		}
		for from := 0; from < l.n; from += VectorMax {
			w.vec.idx = l.idx[from:min(from+VectorMax, l.n)]
			w.transmit(port, tx, &w.vec)
		}
		l.n, l.bytes, l.segments = 0, 0, 0
	}
	w.dirty = w.dirty[:0]
}

// noTx is the binding of a port that has gone.
//
// arch:var its address is taken, but nobody writes through it
var noTx txBinding

//fastpath:hot
func (w *Worker) transmit(port uint16, tx *txBinding, v *Vector) {
	switch {
	case tx.queue != nil:
		if w.wired.tap != nil {
			w.wired.tap.Transmitted(w, port, v)
		}
		if refused := tx.queue.TxBurst(&w.IO, v); refused > 0 {
			w.takeBack(port, tx, v)
		}
	case tx.ring != nil:
		w.handOver(tx, v)
	default:
		w.refuse(v, TxNoPort)
	}
}

// countTx books packets as sent, or as punted where the port is the host's.
//
//fastpath:hot
func (w *Worker) countTx(port uint16, tx *txBinding, bytes, segments uint64) {
	c := &w.stats.Ports[port]
	c.TxPackets += segments
	c.TxBytes += bytes
	if tx.host {
		w.stats.Counters.Punt += segments
	} else {
		w.stats.Counters.Tx += segments
	}
}

// takeBack drops the packets of v that a queue refused, each for its Reason.
func (w *Worker) takeBack(port uint16, tx *txBinding, v *Vector) {
	for i := range v.idx {
		m := v.Meta(i)
		if m.Reason == NoReason {
			continue
		}
		n := uint64(m.Segments)
		w.countTx(port, tx, -uint64(m.Len), -n) // modulo 2^64: off again
		w.stats.Ports[port].TxDrops += n
		w.lose(m, m.Reason)
	}
}

func (w *Worker) refuse(v *Vector, r Reason) {
	for _, slot := range v.idx {
		w.refuseSlot(slot, r)
	}
}

func (w *Worker) refuseSlot(slot uint16, r Reason) {
	w.lose(&w.meta[slot&(slots-1)], r)
}

// poll lets each queue do what is due. It says whether a kernel still has
// frames of ours to send, so that sleep must wait.
//
//fastpath:hot
func (w *Worker) poll() bool {
	pending := false
	for _, q := range w.wired.polled {
		if q.Poll(&w.IO) {
			pending = true
		}
	}
	return pending
}

// dropNode counts what others gave up, by reason, and frees it.
type dropNode struct{}

// Process ends the walk of every packet it is given.
//
//fastpath:hot
func (dropNode) Process(w *Worker, v *Vector, _ []Edge) {
	if tap := w.wired.tap; tap != nil {
		for i := range v.idx {
			tap.Dropped(w, v.Meta(i), v.Meta(i).Reason%reasons)
		}
	}
	for i := range v.idx {
		m := v.Meta(i)
		w.stats.Counters.Drops[m.Reason%reasons] += uint64(m.Segments)
		w.Free(m)
	}
}

// txNode sorts packets by the port they leave by.
type txNode struct{}

// Process queues every packet for Meta.OutPort. Most vectors leave by one port,
// so runs of equal ports move at once.
//
//fastpath:hot
func (txNode) Process(w *Worker, v *Vector, _ []Edge) {
	idx, metas := v.idx, v.meta
	for i := 0; i < len(idx); {
		from, port := i, metas[idx[i]&SlotMask].OutPort
		var bytes, segments uint64
		for ; i < len(idx); i++ {
			m := &metas[idx[i]&SlotMask]
			if m.OutPort != port {
				break
			}
			bytes += uint64(m.Len)
			segments += uint64(m.Segments)
		}
		w.queueTx(port, idx[from:i], bytes, segments)
	}
}

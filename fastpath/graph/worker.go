package graph

import (
	"context"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"margay.dev/margay/fastpath/umem"
)

const (
	sampleEvery  = 64       // passes of which one has its nodes timed
	publishEvery = 50 * 1e6 // ns after which a worker publishes its counters anyway, busy or idle
	readyEvery   = 4        // passes per look at which queues have become readable
	clockEvery   = 8        // passes per look at the clock, of those that move fewer packets than
	clockAbove   = 16

	// TickInterval is how often a Resumer is called at least, roughly.
	TickInterval = 20 * time.Millisecond
)

// Worker walks the graph with the packets of its own queues. It is one
// goroutine on one OS thread; only that goroutine calls its methods, but for
// those that say otherwise.
type Worker struct {
	IO
	id    int
	graph *Graph
	stops []stop
	due   uint64 // a bit for each stop that packets wait for
	tick  []int  // stops that are Resumers

	meta  *Slots
	used  int // slots taken in this pass
	first int // receive queue that had the first turn
	turn  int // and the one that has it now
	at    int // node being processed
	next  [VectorMax]Edge
	vec   Vector // what is being processed or sent: one for all, so that none escapes

	tx    []list // packets that wait for each port's transmit queue
	dirty []uint16
	stats Stats
	pub   published

	wiring atomic.Pointer[wiring]
	wired  *wiring // the one in use
	park   *parking
	epoch  atomic.Uint64 // odd while in a pass, see quiesce
	kick   atomic.Bool   // Resume is due
	order  atomic.Uint32 // goOn, comeOut, isOut
	left   chan struct{} // closed when run has ended
	nextAt int64         // when the next tick is due
	busy   bool          // all passes since Now moved packets
	// unclocked is the passes since Now.
	unclocked int
	cfg       Config
	cpu       int
	nap       int // ms that it sleeps at most
	// pinError is why the worker does not run on the CPU it was given.
	pinError atomic.Pointer[error]
	engine   *Engine
	started  time.Time
	ahead    int64     // ns by which Advance has moved the clock
	adopted  []adopted // packets of another process that are to go on, see Adopt
}

// stop is a node in its place.
type stop struct {
	node  Node
	edges []uint16 // Edge ► stop
	again []uint16 // Again ► stop at which packets held here go on
	wait  list     // packets that wait for it
	// usual is the edge that a whole vector took last, and then the stop it leads to.
	usual Edge
	then  int
}

func newWorker(e *Engine, id int) (*Worker, error) {
	park, err := newParking()
	if err != nil {
		return nil, err
	}
	w := &Worker{id: id, graph: e.graph, meta: new(Slots), park: park, cfg: e.cfg, engine: e, cpu: -1, nap: int(TickInterval.Milliseconds())}
	w.IO = IO{Arena: e.arena, Cache: e.arena.Cache(id), Mem: e.arena.Bytes()}
	if id < len(e.cfg.CPUs) {
		w.cpu = e.cfg.CPUs[id]
	}
	if e.cfg.ByHand {
		w.ahead = 1 // no clock that goes shows 0, which nodes take for never
	}
	w.count = &w.stats.Counters
	w.vec.meta = w.meta
	w.stats = newStats(len(e.graph.specs), 0)
	w.pub.stats = newStats(len(e.graph.specs), 0)
	w.link()
	w.wired = &wiring{}
	w.wiring.Store(w.wired)
	return w, nil
}

// link makes the nodes and turns names of edges into indexes.
func (w *Worker) link() {
	for i, s := range w.graph.specs {
		var n Node
		switch s.Name {
		case DropName:
			n = dropNode{}
		case TxName:
			n = txNode{}
		default:
			n = s.New(w.id)
		}
		at := stop{wait: newList(), node: n, edges: w.graph.indexes(s.Edges), again: w.graph.indexes(s.Resumes)}
		at.use(Drop)
		w.stops = append(w.stops, at)
		if _, ok := n.(Resumer); ok {
			w.tick = append(w.tick, i)
		}
	}
}

// ID is the worker's number, from 0.
func (w *Worker) ID() int { return w.id }

// Packet is the part of a packet that lies in its first buffer.
//
//fastpath:hot
func (w *Worker) Packet(m *Meta) []byte { return w.Mem[m.Off : m.Off+m.Head] }

// Make takes a slot and a frame for a packet of our own, with room in front
// for headers. It says false, and counts it, when there is none.
func (w *Worker) Make(o Origin) (slot uint16, m *Meta, ok bool) {
	if w.used >= slots {
		w.stats.Counters.MadeRefused++
		return 0, nil, false
	}
	b, ok := w.Cache.Frame()
	if !ok {
		w.stats.Counters.MadeRefused++
		return 0, nil, false
	}
	slot = uint16(w.used)
	w.used++
	m = &w.meta[slot]
	*m = Meta{Off: w.Arena.Start(b) + umem.Headroom, Buf: b, Bufs: 1, Segments: 1, InPort: NoPort, Flags: FromUs}
	w.stats.Counters.Made[o]++
	return slot, m, true
}

// Emit sends a packet that Make gave out by edge e of the node in Process.
func (w *Worker) Emit(e Edge, slot uint16) {
	if tap := w.wired.tap; tap != nil {
		tap.Made(w, w.at, e, &w.meta[slot])
	}
	w.waitingFor(w.stops[w.at].edges[e]).push(slot)
}

// Used counts a packet as consumed and frees it. The node then leaves it out:
// it must answer Gone for it.
func (w *Worker) Used(u Use, m *Meta) {
	w.stats.Counters.Consumed[u] += uint64(m.Segments)
	w.Free(m)
}

// Turn counts a packet as consumed and the answer that the node made of it,
// in the same buffer, as made.
func (w *Worker) Turn(u Use, o Origin, m *Meta) {
	w.stats.Counters.Consumed[u] += uint64(m.Segments)
	w.stats.Counters.Made[o] += uint64(m.Segments)
	m.Flags |= FromUs
	m.InPort = NoPort // or the answer would be judged as if it came from there
}

// Refused counts a packet that we would have made but for its rate or for want
// of an address to send it from.
func (w *Worker) Refused() { w.stats.Counters.MadeRefused++ }

// Gone is the answer of Process for a packet that the node consumed or holds.
const Gone Edge = 1<<8 - 1

// Hold counts a packet as held by the node, which keeps a copy of m and
// answers Gone for it.
func (w *Worker) Hold(m *Meta) { w.stats.Counters.Held += uint64(m.Segments) }

// Release sends a held packet on, at the node that Spec.Resumes names by at. It
// is for Resume. It says false, and the packet stays held, when the pass is
// full: the other half of the slots is for what nodes make of its packets.
func (w *Worker) Release(m *Meta, at Again) bool {
	return w.resumeAt(m, w.stops[w.at].again[at])
}

func (w *Worker) resumeAt(m *Meta, stop uint16) bool {
	if w.used >= VectorMax {
		return false
	}
	slot := uint16(w.used)
	w.used++
	w.meta[slot] = *m
	w.stats.Counters.Held -= uint64(m.Segments)
	w.waitingFor(stop).push(slot)
	return true
}

// Abandon drops a held packet where it is.
func (w *Worker) Abandon(m *Meta, r Reason) {
	w.stats.Counters.Held -= uint64(m.Segments)
	w.lose(m, r)
}

// lose counts a packet as dropped and frees it.
//
//fastpath:hot
func (w *Worker) lose(m *Meta, r Reason) {
	w.stats.Counters.Drops[r] += uint64(m.Segments)
	if tap := w.wired.tap; tap != nil {
		tap.Dropped(w, m, r)
	}
	w.Free(m)
}

// run is the worker's life: passes while there are packets, then sleep. Profiles
// have its number as the label "worker". Its thread ends with it: it is bound to
// a CPU, which no other goroutine is to inherit.
func (w *Worker) run() {
	defer close(w.left)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("worker", strconv.Itoa(w.id))))
	runtime.LockOSThread()
	if err := pin(w.cpu); err != nil {
		w.pinError.Store(&err)
	}
	w.busy = false // or the time in which it did not run would count as busy
	idleSince, publishAt := int64(-1), int64(0)
	for !w.comesOut() {
		w.epoch.Add(1)
		busy := w.pass()
		w.epoch.Add(1)
		due := w.Now >= publishAt // a pass takes from a microsecond to many milliseconds
		switch {
		case busy:
			idleSince = -1
		case idleSince < 0:
			idleSince, due = w.Now, true
		case !w.cfg.BusyPoll && w.Now-idleSince > int64(w.cfg.Spin):
			w.sleep()
			idleSince = w.Now
		}
		if due { // also while nothing comes: that time goes on is told, too
			w.pub.store(&w.stats)
			publishAt = w.Now + publishEvery
		}
	}
	w.pub.store(&w.stats)
}

// pass receives, walks the graph once, and transmits. It says whether it
// moved packets.
func (w *Worker) pass() bool {
	w.clock()
	if now := w.wiring.Load(); now != w.wired {
		w.rewire(now)
	}
	w.used = 0
	w.resume()
	w.receive()
	if w.used == 0 && len(w.dirty) == 0 {
		return w.poll()
	}
	w.walk()
	w.flush()
	w.poll()
	w.stats.Load.BusyLoops++
	w.busy = true
	return true
}

// clock reads the time and books what was done since it was read last. Reading
// it costs as much as a packet: while passes follow each other that move but few,
// one in clockEvery does.
func (w *Worker) clock() {
	w.stats.Load.Loops++
	if w.busy && w.used < clockAbove && w.unclocked < clockEvery-1 {
		w.unclocked++
		return
	}
	w.unclocked = 0
	now := w.ahead
	if !w.cfg.ByHand {
		now += int64(time.Since(w.started))
	}
	if w.busy {
		w.stats.Load.BusyNanos += uint64(now - w.Now)
		w.busy = false
	}
	w.Now = now
	w.stats.Load.Elapsed = uint64(now)
}

// rewire puts another set of queues in force, between two passes.
func (w *Worker) rewire(g *wiring) {
	for len(w.tx) < len(g.tx) {
		w.tx = append(w.tx, newList())
	}
	w.dirty = slices.Grow(w.dirty, len(w.tx))
	w.stats.growPorts(len(g.tx))
	w.wired, w.shown = g, nil
	if g.tap != nil {
		w.shown = w
	}
}

// resume gives nodes that hold packets their turn when it is due.
func (w *Worker) resume() {
	if w.Now < w.nextAt && !w.kick.Load() {
		return
	}
	w.kick.Store(false)
	w.nextAt = w.Now + int64(TickInterval)
	if len(w.adopted) > 0 {
		w.takeUp()
	}
	for _, i := range w.tick {
		w.at = i
		w.stops[i].node.(Resumer).Resume(w)
	}
}

package graph

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"margay.dev/margay/fastpath/umem"
)

// Config says how the workers run.
type Config struct {
	Workers  int           // at least 1
	CPUs     []int         // CPU of each worker; empty leaves it to the kernel
	BusyPoll bool          // never sleep
	Spin     time.Duration // how long an idle worker looks before it sleeps
	Burst    int           // packets per queue and turn, 1 to VectorMax; 0 means 64
	ByHand   bool          // the clock stands but for Advance: for tests that Step, whatever else the machine does
}

// Port is a door of the graph as the engine sees it.
type Port struct {
	Index  uint16  // below MaxPorts, unique
	Name   string  // for messages
	Entry  string  // node at which what it receives starts
	Queues []Queue // queue i belongs to worker i modulo workers
	Host   bool    // what it transmits is punted, not forwarded
}

// Engine runs a graph: it owns the workers and says which queues they drive.
// Its methods are safe for concurrent use.
type Engine struct {
	arena *umem.Arena
	graph *Graph
	cfg   Config

	mu      sync.Mutex
	workers []*Worker
	ports   map[uint16]*Port
	rings   [][]*handRing // from, to
	running bool          // workers may be in a pass
	ended   bool          // by Stop, for good
	adopted bool          // what another engine carried, see Adopt
	tap     Tap           // nil while nobody looks
}

type rxBinding struct {
	queue  Queue
	port   uint16
	entry  uint16
	budget int
	ready  *readiness // nil when asking costs nothing
}

type txBinding struct {
	queue Queue     // of this worker, or nil
	ring  *handRing // to the worker that owns one, or nil
	host  bool
}

// wiring is what one worker drives; immutable but for readiness.
type wiring struct {
	rx       []rxBinding
	tx       []txBinding // by port index
	polled   []Queue
	onDemand []*readiness
	handed   []*handRing
	tap      Tap
}

// NewEngine makes the workers of g over arena, whose caches 0 to Workers-1
// become theirs. They do nothing before Start.
func NewEngine(g *Graph, arena *umem.Arena, cfg Config) (*Engine, error) {
	if cfg.Workers < 1 {
		return nil, fmt.Errorf("make engine: workers is %d, want at least 1", cfg.Workers)
	}
	if cfg.Burst == 0 {
		cfg.Burst = 64
	}
	if cfg.Burst < 1 || cfg.Burst > VectorMax {
		return nil, fmt.Errorf("make engine: burst is %d, want 1 to %d", cfg.Burst, VectorMax)
	}
	e := &Engine{arena: arena, graph: g, cfg: cfg, ports: map[uint16]*Port{}}
	for id := range cfg.Workers {
		w, err := newWorker(e, id)
		if err != nil {
			for _, w := range e.workers {
				w.park.close()
			}
			return nil, err
		}
		e.workers = append(e.workers, w)
	}
	e.rings = make([][]*handRing, cfg.Workers)
	for from := range e.rings {
		e.rings[from] = make([]*handRing, cfg.Workers)
		for to := range e.rings[from] {
			if from != to {
				e.rings[from][to] = &handRing{to: e.workers[to].park}
			}
		}
	}
	return e, nil
}

// Step runs one pass of every worker in the caller's goroutine and says
// whether any moved packets. It is for tests and benchmarks that want to know
// exactly what one pass does; the workers must not run.
func (e *Engine) Step() bool {
	busy := false
	for _, w := range e.workers {
		if w.started.IsZero() {
			w.started = time.Now()
		}
		if w.pass() {
			busy = true
		}
	}
	return busy
}

// Advance lets the workers' clocks run ahead by d, for tests that cannot wait.
// Like Step it is for engines whose workers do not run.
func (e *Engine) Advance(d time.Duration) {
	for _, w := range e.workers {
		w.ahead += int64(d)
		w.unclocked = clockEvery // look again
	}
}

// AddPort gives p's queues to the workers. It returns when all drive them. When
// ctx ends before, the port is taken back; until a Quiesce succeeds some worker
// may still use its queues, and the caller must not close them.
func (e *Engine) AddPort(ctx context.Context, p Port) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return fmt.Errorf("add port %s: the engine has been stopped", p.Name)
	}
	if p.Index >= MaxPorts || e.ports[p.Index] != nil {
		return fmt.Errorf("add port %s: index %d is taken or not below %d", p.Name, p.Index, MaxPorts)
	}
	if _, ok := e.graph.index(p.Entry); !ok {
		return fmt.Errorf("add port %s: no node is called %q", p.Name, p.Entry)
	}
	if len(p.Queues) == 0 {
		return fmt.Errorf("add port %s: it has no queues", p.Name)
	}
	for i, q := range p.Queues {
		if q.FD() < 0 {
			continue
		}
		if err := e.owner(i).park.add(q.FD(), q.InMemory()); err != nil {
			e.forget(&p, i)
			return fmt.Errorf("add port %s: %w", p.Name, err)
		}
	}
	e.ports[p.Index] = &p
	err := e.rewire(ctx)
	if err != nil {
		delete(e.ports, p.Index)
		e.publish()
		e.forget(&p, len(p.Queues))
	}
	return err
}

// RemovePort takes port index from the workers. When it returns none of them
// touches its queues any more, and the caller may close them. It stops waiting
// when ctx ends; then the queues may still be in use, until a Quiesce succeeds.
func (e *Engine) RemovePort(ctx context.Context, index uint16) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.ports[index]
	if p == nil {
		return fmt.Errorf("remove port %d: there is none", index)
	}
	delete(e.ports, index)
	e.publish()
	err := e.settle(ctx)
	e.forget(p, len(p.Queues))
	return err
}

// drain waits until every worker has taken what others had handed to it, so
// that no packet for a port that has gone leaves by the next one of its index.
func (e *Engine) drain(ctx context.Context) error {
	if !e.running {
		return nil
	}
	for _, w := range e.workers {
		for _, r := range w.inbound() {
			upTo := r.tail.Load()
			for i := 0; int32(upTo-r.head.Load()) > 0; i++ {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("wait for worker %d to take what it was handed: %w", w.id, err)
				}
				time.Sleep(min(time.Duration(i)*time.Microsecond, time.Millisecond))
			}
		}
	}
	return nil
}

func (e *Engine) forget(p *Port, queues int) {
	if e.ended {
		return // the sets they were in are closed
	}
	for i, q := range p.Queues[:queues] {
		if q.FD() >= 0 {
			e.owner(i).park.remove(q.FD(), q.InMemory())
		}
	}
}

func (e *Engine) owner(queue int) *Worker { return e.workers[queue%len(e.workers)] }

// rewire tells every worker what it drives now and waits until all know.
func (e *Engine) rewire(ctx context.Context) error {
	e.publish()
	return e.quiesce(ctx)
}

// publish tells every worker what it drives from its next pass on.
func (e *Engine) publish() {
	order := make([]*Port, 0, len(e.ports))
	for _, p := range e.ports {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b *Port) int { return int(a.Index) - int(b.Index) })
	for _, w := range e.workers {
		w.wiring.Store(e.wire(w, order))
		if !e.ended {
			w.park.rouse()
		}
	}
}

func (e *Engine) wire(w *Worker, ports []*Port) *wiring {
	g := &wiring{handed: w.inbound(), tap: e.tap}
	if len(ports) > 0 {
		g.tx = make([]txBinding, int(ports[len(ports)-1].Index)+1)
	}
	for _, p := range ports {
		entry, _ := e.graph.index(p.Entry)
		for i := w.id; i < len(p.Queues); i += len(e.workers) {
			g.rx = append(g.rx, e.bindRx(g, p, p.Queues[i], uint16(entry)))
			g.polled = append(g.polled, p.Queues[i])
		}
		g.tx[p.Index] = e.bindTx(w, p)
	}
	return g
}

func (e *Engine) bindRx(g *wiring, p *Port, q Queue, entry uint16) rxBinding {
	b := rxBinding{queue: q, port: p.Index, entry: entry, budget: e.cfg.Burst}
	if !q.InMemory() && q.FD() >= 0 {
		b.ready = &readiness{fd: int32(q.FD()), readable: true}
		g.onDemand = append(g.onDemand, b.ready)
	}
	return b
}

// bindTx picks the queue that w transmits by: its own, or that of the worker
// that queue w modulo queues belongs to, by a ring.
func (e *Engine) bindTx(w *Worker, p *Port) txBinding {
	i := w.id % len(p.Queues)
	if owner := e.owner(i); owner != w {
		return txBinding{ring: e.rings[w.id][owner.id], host: p.Host}
	}
	return txBinding{queue: p.Queues[i], host: p.Host}
}

// Quiesce waits until every worker has moved past all that was published
// before the call, and so have the packets on their way between workers.
func (e *Engine) Quiesce(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settle(ctx)
}

// settle waits as Quiesce does.
func (e *Engine) settle(ctx context.Context) error {
	if err := e.quiesce(ctx); err != nil {
		return err
	}
	return e.drain(ctx)
}

// quiesce waits until each worker has begun a new pass, or sleeps.
func (e *Engine) quiesce(ctx context.Context) error {
	if !e.running {
		return nil
	}
	for _, w := range e.workers {
		seen := w.epoch.Load()
		if seen%2 == 0 {
			continue // between passes: what it loads next is new
		}
		for i := 0; w.epoch.Load() == seen; i++ {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("wait for worker %d to move on: %w", w.id, err)
			}
			time.Sleep(min(time.Duration(i)*time.Microsecond, time.Millisecond))
		}
	}
	return nil
}

// Kick makes every Resumer run soon: something it waits for has changed.
func (e *Engine) Kick() {
	e.mu.Lock() // or a worker's descriptors might be closed, and used by others, under our hands
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	for _, w := range e.workers {
		w.kick.Store(true)
		w.park.rouse()
	}
}

// Graph is what the workers walk.
func (e *Engine) Graph() *Graph { return e.graph }

// Workers is how many there are.
func (e *Engine) Workers() int { return len(e.workers) }

// Stats is what each worker had counted when it last went idle, or some
// thousand passes ago; exactly what it has counted while it does not run.
func (e *Engine) Stats() []Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Stats, len(e.workers))
	for i, w := range e.workers {
		if !e.running {
			w.pub.store(&w.stats)
		}
		all[i] = w.pub.load()
	}
	return all
}

// Total is the account of all workers together.
func (e *Engine) Total() Counters {
	var c Counters
	for _, s := range e.Stats() {
		c.Add(&s.Counters)
	}
	return c
}

// PinErrors tells, by worker, why it does not run on the CPU it was given; nil
// where it does.
func (e *Engine) PinErrors() []error {
	errs := make([]error, len(e.workers))
	for i, w := range e.workers {
		if err := w.pinError.Load(); err != nil {
			errs[i] = *err
		}
	}
	return errs
}

// Package plane is the dataplane in one process: packet memory, workers, graph
// and ports, and the one function that brings them to a desired state.
//
//	Apply(change) ─► desired.State ─┐
//	netlink events, timers, retries ┴─► converge: ports ► node state ► paths ► host port, steering ► removals ► quiesce
//
// Converge is level-triggered: the same pass serves the first state, the
// hundredth change, a device that came back and a route somebody deleted.
// What cannot be had becomes a Condition of its object; the rest goes on.
package plane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/forwarder/connections"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/forwarder/policing"
	"margay.dev/margay/internal/hostnet/journal"
)

// Config says how the dataplane runs.
type Config struct {
	Workers  int
	CPUs     []int
	BusyPoll bool
	Spin     time.Duration
	Burst    int
	Frames   int
	Supers   int
	// FlowBytes is the memory for connections, of endpoints that have policy.
	FlowBytes int
	// KeepEstablished lets connections that were allowed go on whatever policy comes to say.
	KeepEstablished bool
	LogRate         judge.LogRate // of packets that meet Log rules; zero: judge.DefaultLogRate
	// FlowsFile is where connections outlive the process; empty where they need not.
	FlowsFile string

	Log     *slog.Logger
	Journal *journal.Journal // of changes to the host; nil only where no host port is wanted
	Opener  Opener           // of devices; nil for the real ones
	Now     func() time.Time // nil for the clock
}

// errClosed is what a commit meets that comes while the forwarder stops.
var errClosed = errors.New("the dataplane is stopping")

// Plane is a running dataplane. Its methods are safe for concurrent use.
type Plane struct {
	cfg    Config
	log    *slog.Logger
	arena  *umem.Arena
	tables *node.Tables
	engine *graph.Engine
	opener Opener
	kicked chan struct{} // holds one: a burst of events is one pass

	turn        turn           // whose turn it is to change what is wanted, or to make a pass; taken before mu
	mu          sync.Mutex     // over all below, and over the FIB
	want        *desired.State // changed by whose turn it is
	generation  uint64
	changed     time.Time // when generation came into force
	paths       *paths.Writer
	policing    *policing.Writer
	unpoliced   error // why sets or programs are not what the state says
	unsettled   bool  // every set is to be looked at, until the members have left that were to leave before
	connections *connections.Store
	ports       map[string]*portEntry
	byIndex     map[uint16]*portEntry
	indexes     indexes
	spaces      map[string]*space
	steering    *xsk.Steering
	hostRoutes  hostRoutes
	conditions  conditions
	watching    context.Context // of the watchers of namespaces; nil before Run
	watchers    sync.WaitGroup
	failures    int // passes in a row that left something undone
	closed      bool
	// layout grows when a device is taken up or let go of; offered and frozen
	// say how far a hand-over to another process has come.
	layout, layoutOffered uint64
	offers                chan struct{}     // closed while a hand-over is on offer
	frozen, visiting      bool              // visiting: the memory is still another process's, and nothing may be opened
	stock                 int               // which of the caches of planes is ours
	verify                bool              // this pass looks at the host too, whether or not we changed what it has
	hostSeen              *desired.HostPort // as the host last had it written
}

// turn is a lock that whoever waits for it can give up. It holds one while taken.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// New makes a dataplane that wants nothing and starts its workers.
func New(cfg Config) (*Plane, error) {
	arena, err := umem.New(umem.Config{Frames: cfg.Frames, Supers: cfg.Supers, Caches: cachesFor(cfg.Workers)})
	if err != nil {
		return nil, err
	}
	for _, f := range arena.Fallbacks() {
		cfg.Log.Warn("packet memory is less than was asked for", "fallback", f)
	}
	p := newPlane(cfg, arena)
	err = p.remember(connections.Open(connections.Config{File: cfg.FlowsFile, Bytes: cfg.FlowBytes, Workers: cfg.Workers, Log: cfg.Log}))
	if err == nil {
		err = p.build()
	}
	if err != nil {
		return nil, errors.Join(err, p.forget(), arena.Close())
	}
	p.engine.Start()
	return p, nil
}

func newPlane(cfg Config, arena *umem.Arena) *Plane {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	police := policing.New()
	tables := node.NewTablesOver(police.Labels())
	police.Ledger().Keep(&tables.Court.Record)
	tables.Court.KeepAllowed, tables.Court.Log.Rate = cfg.KeepEstablished, cfg.LogRate
	return &Plane{
		cfg: cfg, log: cfg.Log, arena: arena, tables: tables, kicked: make(chan struct{}, 1),
		turn: make(turn, 1), offers: make(chan struct{}),
		want: desired.Empty(), paths: paths.New(tables.FIB, cfg.Now), policing: police,
		ports: map[string]*portEntry{}, byIndex: map[uint16]*portEntry{}, indexes: indexes{next: 1},
		spaces: map[string]*space{}, conditions: conditions{now: map[string]Condition{}},
	}
}

// build makes the workers, which do not run yet.
func (p *Plane) build() error {
	if p.opener = p.cfg.Opener; p.opener == nil {
		p.opener = &devices{arena: p.arena, cache: p.cache(), log: p.log}
	}
	g, err := graph.Build(node.Specs(p.tables)...)
	if err != nil {
		return err
	}
	p.engine, err = graph.NewEngine(g, p.arena, graph.Config{
		Workers: p.cfg.Workers, CPUs: p.cfg.CPUs, BusyPoll: p.cfg.BusyPoll, Spin: p.cfg.Spin, Burst: p.cfg.Burst,
	})
	return err
}

// cachesFor is how many caches packet memory has: one for each worker, and two
// for planes, since a process that takes over must not share one with the giver.
func cachesFor(workers int) int { return workers + 2 }

// cache is the stock of buffers that belongs to no worker but to whoever holds mu.
func (p *Plane) cache() *umem.Cache { return p.arena.Cache(p.cfg.Workers + p.stock) }

// Apply puts a commit in force: a snapshot replaces all, a delta changes what
// is there. It returns when every worker has moved past what was before. A
// commit with faults changes nothing.
func (p *Plane) Apply(ctx context.Context, generation uint64, c *desired.Change, snapshot bool) (faults []string, err error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	var next *desired.State
	if snapshot { // a state of its own, which nobody has seen yet
		next, faults = p.want.Apply(c, true)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if !snapshot {
		next, faults = p.want.Apply(c, false)
	}
	if faults != nil {
		return faults, nil
	}
	p.want, p.generation, p.changed = next, generation, p.cfg.Now()
	if snapshot {
		c = nil
	}
	p.verify = snapshot
	err = p.converge(ctx, c)
	if p.failures > 0 {
		p.kick() // Run then tries again, with growing pauses
	}
	return nil, err
}

// Restore puts a whole state in force.
func (p *Plane) Restore(ctx context.Context, generation uint64, s *desired.State) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want, p.generation, p.changed, p.verify = s, generation, p.cfg.Now(), true
	return p.converge(ctx, nil)
}

// Alive takes the plane's lock once, to tell that no pass hangs.
func (p *Plane) Alive() {
	p.mu.Lock()
	defer p.mu.Unlock()
}

// Export shows the state in force and its generation to each, which must not
// keep it. No pass is made meanwhile, but whoever only looks need not wait.
func (p *Plane) Export(each func(*desired.State, uint64)) {
	p.turn.Lock()
	defer p.turn.Unlock()
	each(p.want, p.generation)
}

// Generation is the number of the state in force, 0 before the first.
func (p *Plane) Generation() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.generation
}

// GenerationTime is when this process took up the state in force, zero before the first.
func (p *Plane) GenerationTime() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// kick asks for another pass, soon.
func (p *Plane) kick() {
	select {
	case p.kicked <- struct{}{}:
	default:
	}
}

const (
	tick         = time.Second
	resolveEvery = 5 * time.Second  // how often the kernel is reminded of neighbours that our frames use
	verifyEvery  = 30 * time.Second // how often a pass is made that nothing asked for
	firstRetry   = 500 * time.Millisecond
	lastRetry    = 15 * time.Second
)

// Run watches the host and converges until ctx ends.
func (p *Plane) Run(ctx context.Context) error {
	p.mu.Lock()
	p.watching = ctx
	for _, s := range p.spaces {
		p.watch(s)
	}
	p.mu.Unlock()
	defer p.watchers.Wait()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	retry := time.NewTimer(firstRetry)
	defer retry.Stop()
	for beats := 0; ; {
		again := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-p.tables.Events:
			p.neighbourEvents(e)
		case <-ticker.C:
			beats++
			p.beat(beats)
			p.ageFlows(ctx)
			again = beats%int(verifyEvery/tick) == 0
		case <-p.kicked:
			again = true
		case <-retry.C:
			again = p.undone()
		}
		if again {
			p.pass(ctx)
			retry.Reset(p.backoff())
		}
	}
}

// pass converges to the state in force, looking at everything but the client's
// routes, which only Apply changes.
func (p *Plane) pass(ctx context.Context) {
	if !p.myTurn() {
		return
	}
	defer p.turn.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verify = true
	if err := p.converge(ctx, desired.NewChange()); err != nil {
		p.log.Error("converge", "error", err)
	}
}

// myTurn takes the turn, but for a dataplane that is being handed over: who
// takes that back asks for a pass.
func (p *Plane) myTurn() bool {
	p.mu.Lock()
	offers := p.offers
	p.mu.Unlock()
	select {
	case p.turn <- struct{}{}:
		return true
	case <-offers: // also one that had waited for its turn before us
		return false
	}
}

func (p *Plane) undone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures > 0
}

// backoff is the wait before what failed is tried again.
func (p *Plane) backoff() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(firstRetry<<min(max(p.failures-1, 0), 10), lastRetry)
}

// beat does what is due every second.
func (p *Plane) beat(beats int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.paths.Age()
	p.tables.Court.Moved()
	p.checkSpaces()
	if beats%int(resolveEvery/tick) == 0 {
		p.remindKernel(true)
	}
}

// Close stops the workers, closes every port and gives all memory back. TUN
// devices that were to be kept stay, and so do the host port and its routes.
func (p *Plane) Close() error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	errs := faults{}
	for _, e := range p.ports {
		errs.add(p.detach(ctx, e))
	}
	p.engine.Stop()
	for path := range p.spaces {
		p.closeSpace(path)
	}
	if c, ok := p.opener.(interface{ Close() error }); ok {
		errs.add(c.Close())
	}
	if p.steering != nil {
		errs.add(p.steering.Close())
	}
	errs.add(p.forget())
	errs.add(p.arena.Close())
	if err := errs.err(); err != nil {
		return fmt.Errorf("close dataplane: %w", err)
	}
	return nil
}

// Package converge keeps a node's dataplane at what a store, the attachments of the
// node and the node itself say, all of it together:
//
//	store ──► Follower ──Deliver──┐            ┌─► guard ──► policy ──┐
//	attachments ──► Book ─────────┼──► Core ───┼─► network ─► routes ─┴──► Stream ──► forwarder
//	the node ──SetLocal───────────┤      ▲     └─► hosts ───────────────► Kernel       │
//	names ──► domains.Keeper ─────┘      └──────── acknowledged, refused ◄─────┘
//
// It is level-triggered: an event says what is so now, and what it takes to get
// there is calculated from what was told before. One commit is under way at a time,
// and what changes meanwhile is the next. Nothing is sent before the store has told
// all that it holds, so that a forwarder keeps what the agent's former life has sent
// until the new one knows better. Should the forwarder refuse a commit, everything
// is calculated anew and sent whole. The kernel does not wait for a forwarder that is
// away.
package converge

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/control/felix"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/control/network"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore"
)

// A Report is what is to be said of an object: what is wrong with it, on every node
// alike, and what is wrong with it on this one. Empty is well.
type Report struct {
	Faults []string // for whoever wrote the object
	Here   string   // what keeps it from being in force on this node
	Ours   bool     // it is this node's: nobody else says whether it is in force
	Again  bool     // all of it was reported before: only what the object has lost is to be said
}

// well reports whether nothing is wrong.
func (r Report) well() bool { return len(r.Faults) == 0 && r.Here == "" }

// Options say whom a Core serves. Node, Book and Log are needed.
type Options struct {
	Node   string
	Book   *attach.Book
	Log    *slog.Logger
	Kernel Kernel          // judges what is the node's own; nil: nobody does
	Words  *hosts.Words    // comes to know the rules that the kernel has; nil: nobody asks
	Store  []nft.Failsafe  // by which ports of whom the agent reaches its store
	Felix  felix.Local     // what is said of settings on the node itself, above all others
	Names  *domains.Keeper // learns addresses of names of hosts; nil: nobody does, and they have none
	// Report is called by the goroutine of Run when what is to be said of an object
	// changes, which it may read; it must not wait.
	Report func(datastore.Key, v3.Object, Report)
}

// Kernel is who judges what processes of the node send and get, and what its own
// stack forwards: an nft.Table, behind whatever opens it.
type Kernel interface {
	// Apply brings a change into force, or nothing of it; then the next one is whole. One
	// that is whole and has no endpoints takes away all that there is.
	Apply(nft.Change) error
}

// batches is how many of Deliver's may wait for a Core.
const batches = 16

// Core is what the package is about. Make it with New; Deliver, SetLocal, Connect,
// Heard and Session may be called by any goroutine.
type Core struct {
	Options
	events chan []datastore.Event
	kick   chan struct{} // holds one: there is something in the inbox
	ask    chan chan Stats
	inbox  inbox

	world
	guard    *guard.Guard
	folds    []<-chan struct{} // of former guards
	network  *network.Network
	hosts    *hosts.Hosts
	local    *network.Local // nil: nobody has said
	links    []hosts.Interface
	bare     bool             // the kernel was told that there is nothing to judge
	kernel   error            // why the kernel has not taken the last change
	judging  bool             // it has what an agent of this life gave it
	retry    <-chan time.Time // when to try it again
	applying <-chan error     // the kernel is at work: how that ends
	alone    bool             // the kernel has what the forwarder was not told
	blocked  time.Time        // since when there is something to send, and the forwarder takes nothing
	late     <-chan time.Time // when to look whether it still does not
	stream   *dataplane.Stream

	told    datastore.Revision // of the store: until then everything was taken
	synced  bool               // the store has told all that it holds
	away    error              // why the store does not answer
	dirty   bool               // there may be something to send
	whole   bool               // what is sent next is everything
	version uint64             // of the book that network knows
	heard   uint64             // of the book, when it was told of all attachments
	flight  *flight
	again   <-chan time.Time // when to try anew after a refusal
	refused int              // commits in a row

	conditions map[string]*v1.Condition     // of the forwarder: those that are not well
	standing   map[attach.Key]attach.Status // of attachments, but for conditions
	attached   map[attach.Key]attach.Attachment
	doors      map[string]attach.Key // whose ports are
	notes      notes
	names      names

	stats Stats
}

// inbox is what others have said since the Core has looked.
type inbox struct {
	sync.Mutex
	local      *network.Local
	interfaces []hosts.Interface // with local
	stream     *dataplane.Stream
	conditions []*v1.Condition
	anew       bool // conditions of before a session are void
}

// New makes a Core that knows nothing yet.
func New(o Options) *Core {
	if o.Words == nil {
		o.Words = &hosts.Words{}
	}
	if o.Report == nil {
		o.Report = func(datastore.Key, v3.Object, Report) {}
	}
	c := &Core{
		Options: o, events: make(chan []datastore.Event, batches), kick: make(chan struct{}, 1), ask: make(chan chan Stats),
		world: newWorld(), conditions: map[string]*v1.Condition{}, standing: map[attach.Key]attach.Status{}, doors: map[string]attach.Key{},
		notes: newNotes(), names: newNames(), stats: Stats{began: time.Now()},
	}
	c.begin()
	return c
}

// Deliver takes what a Follower tells, and waits while too much of it is waiting.
func (c *Core) Deliver(ctx context.Context, events []datastore.Event) {
	select {
	case c.events <- events:
	case <-ctx.Done():
	}
}

// SetLocal says what the node is like, and which interfaces it has. Who hands it over
// does not change it.
func (c *Core) SetLocal(l network.Local, all []hosts.Interface) {
	c.put(func(i *inbox) { i.local, i.interfaces = &l, all })
}

// Connect says by which Stream the forwarder is reached, whose options have Heard
// and Session.
func (c *Core) Connect(s *dataplane.Stream) { c.put(func(i *inbox) { i.stream = s }) }

// Heard takes a condition of the forwarder.
func (c *Core) Heard(x *v1.Condition) {
	c.put(func(i *inbox) { i.conditions = append(i.conditions, x) })
}

// Session takes that a connection to the forwarder begins or ends: one that begins
// tells of all conditions anew.
func (c *Core) Session(s dataplane.Session) {
	if s.Connected {
		c.put(func(i *inbox) { i.conditions, i.anew = nil, true })
		c.Log.Info("connected to the forwarder", "server", s.Server, "generation", s.Generation)
		return
	}
	c.Log.Warn("not connected to the forwarder, which goes on with what it has", "error", s.Err)
}

func (c *Core) put(what func(*inbox)) {
	c.inbox.Lock()
	what(&c.inbox)
	c.inbox.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// begin makes guard and network anew, with all that is known but policy's sources.
func (c *Core) begin() {
	if c.guard != nil && c.guard.Folding() != nil {
		c.folds = append(c.folds, c.guard.Folding())
	}
	c.guard, c.network = guard.New(c.Node), network.New(c.Node)
	c.hosts = hosts.New(c.Node, c.guard.Sets, c.guard.Rule, c.Words)
	c.whole, c.dirty, c.alone, c.names.anew = true, true, false, true
	c.feedAll()
	c.openBook()
	c.reset()
}

// Run converges until ctx ends, and gives its cause; or until nothing helps any
// more, because another client has the forwarder.
func (c *Core) Run(ctx context.Context) error {
	defer c.end()
	for {
		c.flush(ctx)
		select {
		case e := <-c.events:
			c.take(e)
		case <-c.kick:
			c.look()
		case <-c.Book.Changed():
			c.openBook()
		case <-c.folding():
			c.dirty = true
		case <-c.learned():
			c.dirty = true
		case <-c.retry:
			c.retry, c.dirty = nil, true
		case err := <-c.applying:
			c.applying = nil
			c.landKernel(err)
		case <-c.late:
			c.late = nil
		case err := <-c.landed():
			if err := c.land(ctx, err); err != nil {
				return err
			}
		case <-c.again:
			c.again = nil
			c.begin()
		case reply := <-c.ask:
			reply <- c.tell()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end waits for what was begun in the background.
func (c *Core) end() {
	for _, f := range append(c.folds, c.guard.Folding()) {
		if f != nil {
			<-f
		}
	}
	if c.applying != nil {
		<-c.applying
	}
	if c.flight != nil {
		<-c.flight.landed // ctx has ended: it does not take long
	}
}

// take takes what a store tells, and what else it has told meanwhile.
func (c *Core) take(events []datastore.Event) {
	for {
		began := time.Now()
		for i := range events {
			c.event(&events[i])
		}
		c.stats.Calculating += time.Since(began)
		select {
		case events = <-c.events:
		default:
			return
		}
	}
}

// event takes one event.
func (c *Core) event(e *datastore.Event) {
	if e.Revision != "" {
		c.told = e.Revision
	}
	switch e.Type {
	case datastore.Changed:
		c.stats.Events++
		c.upsert(e.Key, e.Object)
	case datastore.Deleted:
		c.stats.Events++
		c.remove(e.Key)
	case datastore.Refusing:
		c.refusing(e)
	case datastore.Begin:
		c.stats.Resyncs++
	case datastore.InSync:
		if !c.synced || c.away != nil {
			c.Log.Info("in sync with the store", "objects", len(c.objects))
		}
		c.synced, c.away, c.dirty = true, nil, true
	case datastore.Lost:
		if c.away == nil || c.away.Error() != e.Err.Error() {
			c.Log.Warn("the store is away; what it has told stays in force", "error", e.Err)
		}
		c.away = e.Err
	}
}

// look empties the inbox.
func (c *Core) look() {
	c.inbox.Lock()
	in := &c.inbox
	local, links, stream, conditions, anew := in.local, in.interfaces, in.stream, in.conditions, in.anew
	in.local, in.stream, in.conditions, in.anew = nil, nil, nil, false
	c.inbox.Unlock()
	if local != nil {
		c.local, c.links, c.dirty = local, links, true
		c.reset()
	}
	if stream != nil {
		c.stream, c.dirty = stream, true
	}
	c.hear(anew, conditions)
}

// openBook tells the network of the attachments.
func (c *Core) openBook() {
	all, version := c.Book.All()
	c.network.SetAttachments(all)
	c.attached, c.version, c.dirty = all, version, true
	maps.DeleteFunc(c.standing, func(k attach.Key, _ attach.Status) bool { _, there := all[k]; return !there })
	clear(c.doors)
	for k, a := range all {
		c.doors[a.Port] = k
	}
	c.setHosts()
}

// hear notes the forwarder's conditions, and tells attachments whose ports they are
// about.
func (c *Core) hear(anew bool, conditions []*v1.Condition) {
	changed := map[string]bool{}
	if anew {
		for object := range c.conditions {
			changed[object] = true
		}
		clear(c.conditions)
	}
	for _, x := range conditions {
		if changed[x.GetObject()] = true; x.GetOk() {
			delete(c.conditions, x.GetObject())
		} else {
			c.conditions[x.GetObject()] = x
		}
	}
	c.tellDoors(changed)
}

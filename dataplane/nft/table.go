package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
)

// DefaultTable is the name of our table, of the family inet.
const DefaultTable = "margay"

// Options are what a table is told once.
type Options struct {
	Table string // its name; empty: DefaultTable
	// Comment is what people read beside a rule of an id, and Prefix what its lines in
	// the kernel's log begin with, up to 126 bytes, as Settings.LogPrefix has it. Nil: the id.
	// They are asked when a rule is written.
	Comment func(rule uint32) string
	Prefix  func(template string, rule uint32) string
	// Repaired is told that somebody else had changed our table, and what became of
	// writing it anew. RolledBack is told that what was tried has ended
	// unconfirmed. Both are called by Watch, and must not call the table. Nil: nobody.
	Repaired   func(error)
	RolledBack func()
}

func nameless(id uint32) string { return fmt.Sprintf("rule %d ", id) }

// Errors of a table, beside those of the kernel.
var (
	ErrRolledBack = errors.New("what was tried was not confirmed in time, and the former state is in force: give the whole state")
	ErrNoTrial    = errors.New("nothing is being tried")
	ErrNotWhole   = errors.New("a table begins with a change that has all that is desired")
)

// Table is our table in the kernel of one network namespace. Its methods may be
// called at the same time.
type Table struct {
	options Options
	wire    *wire
	monitor *wire

	mu    sync.Mutex
	image *image
	sides int
	side  *side  // what was given last; nil: nothing was
	trial *trial // nil: nothing is being tried
	lost  bool   // changes were rolled back: a whole one must come
	stats Stats
}

// Stats count what the kernel was sent.
type Stats struct {
	Transactions uint64 // that came into force
	Parts        uint64 // of them: each makes or takes away a chain or a set, adds a rule, or brings up to 512 elements
	Refused      uint64 // transactions that did not
}

// Stats tell of the table since Open.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats
}

func (t *Table) commit(b *batch) error {
	if err := t.wire.commit(b); err != nil {
		t.stats.Refused++
		return err
	}
	t.stats.Transactions++
	t.stats.Parts += uint64(b.messages)
	return nil
}

// side is one state in full: while one is tried, there are two.
type side struct {
	view *view
	sets map[classifier.SetID]*set
}

// trial is what goes on with the former side unless it is confirmed.
type trial struct {
	former   *side
	deadline time.Time
}

// Open finds the kernel's nftables in the network namespace of the calling thread.
// It changes nothing: a table of a former process judges on until the first Apply.
func Open(o Options) (*Table, error) {
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if o.Comment == nil {
		o.Comment = nameless
	}
	if o.Prefix == nil {
		o.Prefix = func(_ string, id uint32) string { return nameless(id) }
	}
	w, err := dial()
	if err != nil {
		return nil, err
	}
	if err := w.probe(); err != nil {
		w.close()
		return nil, err
	}
	m, err := dialMonitor(w.port)
	if err != nil {
		w.close()
		return nil, err
	}
	return &Table{options: o, wire: w, monitor: m, image: newImage()}, nil
}

// Close lets go of the kernel, and leaves the table in force. Watch must have ended.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wire.close()
	t.monitor.close()
}

// Apply brings a change into force, or nothing of it. It fails with ErrRolledBack
// where a trial has ended unconfirmed since the last whole change: changes of what
// is not in force mean nothing.
func (t *Table) Apply(c Change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.expire(); err != nil {
		return err
	}
	if c.Whole || t.side == nil {
		return t.whole(c)
	}
	if t.lost {
		return ErrRolledBack
	}
	return t.change(c)
}

// whole puts a state in the place of all that the table has.
func (t *Table) whole(c Change) error {
	if c.Desired == nil {
		return ErrNotWhole
	}
	next, err := t.build(c, &side{sets: map[classifier.SetID]*set{}})
	if err != nil {
		return err
	}
	if err := t.rewrite(next, nil); err != nil {
		return err
	}
	t.side, t.trial, t.lost = next, nil, false
	return nil
}

// build makes a side of its own of what is there and a change.
func (t *Table) build(c Change, from *side) (*side, error) {
	next := &side{sets: map[classifier.SetID]*set{}}
	for id, s := range from.sets {
		next.sets[id] = &set{s.name, s.Clone()}
	}
	scratch := newBatch("")
	for i := range c.Sets {
		if err := c.Sets[i].check(); err != nil {
			return nil, err
		}
		s := next.sets[c.Sets[i].ID]
		if s == nil {
			s = newSet(c.Sets[i].Name)
			next.sets[c.Sets[i].ID] = s
		}
		scratch.changeSet(func(int) string { return "" }, s, &c.Sets[i], new([]memberUndo))
	}
	for _, id := range c.Gone {
		delete(next.sets, id)
	}
	desired := c.Desired
	if desired == nil {
		desired = from.view.desired
	}
	if err := desired.check(&view{}, next.sets); err != nil {
		return nil, err
	}
	t.sides++
	var err error
	next.view, err = newView(fmt.Sprintf("v%d.", t.sides), desired, &view{}, &t.options)
	return next, err
}

// rewrite writes the table anew, with a side, and one that is tried, and whatever
// it held before is gone.
func (t *Table) rewrite(s *side, tried *side) error {
	b := newBatch(t.options.Table)
	b.newTable() // so that there is one to delete
	b.deleteTable()
	b.newTable()
	next, err := t.compose(s, tried)
	if err != nil {
		return err
	}
	if tried != nil {
		b.makeSets(tried)
		b.gate(time.Until(t.trial.deadline))
	}
	b.makeSets(s)
	b.turn(newImage(), next)
	if err := t.commit(b); err != nil {
		return err
	}
	t.image = next
	return nil
}

// compose is the image of a side, and of one that is tried.
func (t *Table) compose(s *side, tried *side) (*image, error) {
	var gated *view
	images := []*image{s.view.image}
	if tried != nil {
		gated = tried.view
		images = append(images, gated.image)
	}
	b, err := base(s.view, gated, gateName)
	return merged(append(images, b)...), err
}

func (b *batch) makeSets(s *side) {
	for _, id := range slices.Sorted(maps.Keys(s.sets)) {
		b.makeSet(s.nameOf(id), s.sets[id])
	}
}

// nameOf is what a set's two halves are called.
func (s *side) nameOf(id classifier.SetID) func(family int) string {
	return func(family int) string { return s.view.side + setName(id, family) }
}

// gateName is the set that has the families of packets that go to what is tried.
const gateName = "trial"

// gate makes that set; the kernel empties it by itself when the time is over.
func (b *batch) gate(within time.Duration) {
	b.newSet(gateName, kind{datatype: nftables.TypeNFProto}, "until the trial ends", unix.NFT_SET_TIMEOUT)
	b.open(within)
}

// open lets packets go to what is tried, for a time that begins now.
func (b *batch) open(within time.Duration) {
	b.emptySet(gateName)
	within = max(within, time.Millisecond)
	b.elements(unix.NFT_MSG_NEWSETELEM, gateName, []element{
		{key: []byte{unix.NFPROTO_IPV4}, timeout: within}, {key: []byte{unix.NFPROTO_IPV6}, timeout: within},
	})
}

// change brings what differs into force, with work that follows it.
func (t *Table) change(c Change) (err error) {
	b := newBatch(t.options.Table)
	s := t.side
	sets := maps.Clone(s.sets)
	var undo []memberUndo
	defer func() {
		if err != nil {
			takeBack(undo)
		}
	}()
	for i := range c.Sets {
		ch := &c.Sets[i]
		if err := ch.check(); err != nil {
			return err
		}
		if sets[ch.ID] == nil {
			sets[ch.ID] = newSet(ch.Name)
			b.makeSet(s.nameOf(ch.ID), sets[ch.ID])
		}
		b.changeSet(s.nameOf(ch.ID), sets[ch.ID], ch, &undo)
	}
	next := &side{view: s.view, sets: sets}
	image := t.image
	if c.Desired != nil {
		if err := c.Desired.check(s.view, sets); err != nil {
			return err
		}
		if next.view, err = newView(s.view.side, c.Desired, s.view, &t.options); err != nil {
			return err
		}
		if image, err = t.composeWith(next); err != nil {
			return err
		}
		b.turn(t.image, image)
	}
	for _, id := range c.Gone {
		if sets[id] != nil {
			b.deleteSet(s.nameOf(id)(4))
			b.deleteSet(s.nameOf(id)(6))
			delete(sets, id)
		}
	}
	if b.empty() {
		return nil
	}
	if err := t.commit(b); err != nil {
		return err
	}
	t.side, t.image = next, image
	return nil
}

// composeWith is the image with another side in the place of what was given last.
func (t *Table) composeWith(next *side) (*image, error) {
	if t.trial != nil {
		return t.compose(t.trial.former, next)
	}
	return t.compose(next, nil)
}

// Remove takes the table away: nothing judges any more.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := newBatch(t.options.Table)
	b.newTable()
	b.deleteTable()
	if err := t.commit(b); err != nil {
		return err
	}
	t.side, t.trial, t.lost, t.image = nil, nil, false, newImage()
	return nil
}

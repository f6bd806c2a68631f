package domains

import (
	"errors"
	"sync"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// Keeper joins a Reader and a Book with who puts their outcome in force:
//
//	Stream ──Hear──► Keeper ──Ready, Take──► policy.Calculation.SetDomain ─► commit ─► acknowledged
//	   ▲                └── says nothing new ──┐                                           │
//	   └──────────── packets that may go on ◄──┴──────────────── Batch.InForce ◄───────────┘
//
// Its methods may be called by many goroutines.
type Keeper struct {
	release func(ids []uint64)
	ready   chan struct{}
	now     func() time.Time

	mu     sync.Mutex
	book   *Book
	reader *Reader
	ids    []uint64 // of packets that wait for what the next Batch says
	last   *Batch   // taken, and not in force yet
	timer  *time.Timer
	counts Counts
}

// Counts are of packets that were heard, by what became of them.
type Counts struct {
	Queries    uint64
	Learned    uint64 // answers about names that a pattern matches
	Others     uint64 // answers about other names, or without an address
	Unasked    uint64 // answers that nobody had asked for: late, forged, or asked before anybody heard
	Gaps       uint64 // segments of TCP connections that were not heard whole
	Unreadable uint64
}

// NewKeeper makes one. release has packets go on, by their ids; it must not wait.
func NewKeeper(l Limits, release func(ids []uint64)) *Keeper {
	return &Keeper{release: release, ready: make(chan struct{}, 1), now: time.Now, book: NewBook(l), reader: NewReader()}
}

// Ready has something when there is something to Take.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

func (k *Keeper) kick() {
	select {
	case k.ready <- struct{}{}:
	default:
	}
}

// Want has the keeper learn the names of patterns, and forget those of others: as
// policy.Changes tell of them.
func (k *Keeper) Want(fresh, gone []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range gone {
		k.book.Drop(p)
	}
	var errs []error
	for _, p := range fresh {
		errs = append(errs, k.book.Want(p))
	}
	if len(fresh) > 0 {
		k.kick()
	}
	return errors.Join(errs...)
}

// Hear takes what was overheard, and has it go on if nothing need be put in force
// before.
func (k *Keeper) Hear(o *v1.Overheard) {
	if id := o.GetId(); k.hear(o) && id != 0 {
		k.release([]uint64{id})
	}
}

// hear says whether the packet may go on.
func (k *Keeper) hear(o *v1.Overheard) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	found, err := k.reader.Hear(now, o)
	var relevant []Found
	for _, f := range found {
		if k.book.Matters(f.Name) {
			relevant = append(relevant, f)
		}
	}
	k.count(o, len(relevant), err)
	if len(relevant) == 0 {
		return true
	}
	k.book.Learn(now, relevant)
	waits := &k.ids
	switch {
	case k.book.Pending():
		k.kick()
	case k.last != nil: // perhaps what it says is on its way
		waits = &k.last.ids
	default:
		return true
	}
	if id := o.GetId(); id != 0 {
		*waits = append(*waits, id)
	}
	return false
}

func (k *Keeper) count(o *v1.Overheard, relevant int, err error) {
	c := &k.counts
	switch {
	case errors.Is(err, ErrUnasked):
		c.Unasked++
	case errors.Is(err, ErrGap):
		c.Gaps++
	case err != nil:
		c.Unreadable++
	case o.GetQuery():
		c.Queries++
	case relevant > 0:
		c.Learned++
	default:
		c.Others++
	}
}

// A Batch is what has changed, to be put in force.
type Batch struct {
	Changes []Change
	keeper  *Keeper
	ids     []uint64
}

// Take gives what has changed since the last Take, nil if nothing has. Where several
// are under way, they come into force in the order in which they were taken.
func (k *Keeper) Take() *Batch {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if next, ok := k.book.Expire(now); ok {
		k.wake(max(next.Sub(now), time.Second))
	}
	changes := k.book.Changes(now)
	if len(changes) == 0 && len(k.ids) == 0 {
		return nil
	}
	k.last = &Batch{Changes: changes, keeper: k, ids: k.ids}
	k.ids = nil
	return k.last
}

// wake has Ready say something in a while.
func (k *Keeper) wake(after time.Duration) {
	if k.timer == nil {
		k.timer = time.AfterFunc(after, k.kick)
		return
	}
	k.timer.Reset(after)
}

// InForce has the packets go on that waited for the batch: it is in force, or never
// will be.
func (b *Batch) InForce() {
	k := b.keeper
	k.mu.Lock()
	ids := b.ids
	b.ids = nil
	if k.last == b {
		k.last = nil
	}
	k.mu.Unlock()
	if len(ids) > 0 {
		k.release(ids)
	}
}

// Stop ends what Take has set going.
func (k *Keeper) Stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer != nil {
		k.timer.Stop()
	}
}

// Stats tell of the book, Counts of what was heard.
func (k *Keeper) Stats() (Stats, Counts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.book.Stats(), k.counts
}

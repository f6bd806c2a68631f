package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Options say what a Trust goes by.
type Options struct {
	Path string // the file of the identity
	// Where the store is, for people.
	Where string
	// Replaced says that tools put another store in the place of the former as a matter
	// of course, as they do with folders out of a repository: one that holds objects, and
	// is not of another cluster, is believed.
	Replaced bool
	// Version is this program's, for ClusterInformation.
	Version string
	Log     *slog.Logger
}

// retry is how long a Trust waits after it could not say what the cluster is.
const retry = 10 * time.Second

// Trust is a store to follow, of which nothing is told before it is the one that the
// node knows. One Follower has it, over all objects; everyone else has its Writer.
type Trust struct {
	datastore.Store
	Options

	kick chan struct{} // holds one: the cluster's information is to be looked at

	mu      sync.Mutex
	open    chan struct{} // closed while the store is believed
	is      bool          // so
	refused error         // why the store is not believed
	known   Identity      // of what was believed last
}

// New makes a Trust, which believes nothing yet.
func New(store datastore.Store, o Options) *Trust {
	return &Trust{Store: store, Options: o, kick: make(chan struct{}, 1), open: make(chan struct{})}
}

// List is as Store says; it fails with ErrUnavailable for a store that is not to be
// believed.
func (t *Trust) List(ctx context.Context, scope datastore.Scope) (*datastore.Listing, error) {
	l, err := t.Store.List(ctx, scope)
	if err != nil {
		return nil, err
	}
	if err := t.judge(l); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	t.look()
	return l, nil
}

// Watch is as Store says. When it ends the store may have become another: nothing is
// written until it was listed again.
func (t *Trust) Watch(ctx context.Context, scope datastore.Scope, from datastore.Revision, deliver func([]datastore.Event)) error {
	defer t.shut(nil)
	return t.Store.Watch(ctx, scope, from, func(events []datastore.Event) {
		for _, e := range events {
			if e.Key == key && e.Type != datastore.Refusing {
				t.look()
			}
		}
		deliver(events)
	})
}

// judge believes the store that a listing is of, or says why not, and notes which one
// it is.
func (t *Trust) judge(l *datastore.Listing) error {
	known, err := Read(t.Path)
	is := identityOf(l, t.Where)
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
	case known.Store == "" || known.Store == is.Store:
	case t.Replaced && !bare(l) && (is.Cluster == "" || known.Cluster == "" || is.Cluster == known.Cluster):
		t.Log.Warn("the store was replaced by another one, which holds objects: following that", "is", is, "was", known)
	default:
		err = fmt.Errorf("%w: it is another one than before: %v, not %v", datastore.ErrUnavailable, is, known)
	}
	if err != nil {
		err = fmt.Errorf("%w; nothing is taken from it, and what is in force stays: restore the former one's data, or see to it that this one holds all that it should, and say so on this node with margay-agent accept", err)
		t.shut(err)
		return err
	}
	t.note(known, is)
	return nil
}

// note writes down which store is believed, if that is news, and lets it be written to.
// What cannot be written down is told, and tried at the next listing.
func (t *Trust) note(known, is Identity) {
	if known.Cluster != "" && is.Cluster != "" && is.Cluster != known.Cluster && is.Store == known.Store {
		t.Log.Warn("somebody has given the cluster another clusterGUID", "is", is.Cluster, "was", known.Cluster)
	}
	if is.Cluster == "" {
		is.Cluster = known.Cluster
	}
	if is.Store != "" && is != known {
		if err := Write(t.Path, is); err != nil {
			t.Log.Warn("the agent will believe any store at its next start", "error", err)
		} else {
			t.Log.Info("the node follows", "store", is.Store, "cluster", is.Cluster, "where", is.Where)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known, t.refused = is, nil; !t.is {
		t.is = true
		close(t.open)
	}
}

// shut lets nobody write any more.
func (t *Trust) shut(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = why
	if t.is {
		t.is, t.open = false, make(chan struct{})
	}
}

// Refused is why the store is not believed; nil where it is, or does not answer.
func (t *Trust) Refused() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused
}

// Wait waits until the store is believed, or ctx ends, whose cause it gives then.
func (t *Trust) Wait(ctx context.Context) error {
	t.mu.Lock()
	open := t.open
	t.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look asks Run to look at the cluster's information.
func (t *Trust) look() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// Run keeps the cluster's information in the store, and what it says on disk, until ctx
// ends, whose cause it gives.
func (t *Trust) Run(ctx context.Context) error {
	var again <-chan time.Time
	var said string
	version := t.Version
	for {
		select {
		case <-t.kick:
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		again = nil
		err := t.inform(ctx, version)
		switch {
		case err == nil:
			version, said = "", "" // what another agent writes later stands
		case t.believed() && ctx.Err() == nil:
			if again = time.After(retry); err.Error() != said {
				said = err.Error()
				t.Log.Warn("the store does not say which cluster it is of", "again in", retry, "error", err)
			}
		}
	}
}

// inform says in the store which cluster it is of, and notes what it says.
func (t *Trust) inform(ctx context.Context, version string) error {
	t.mu.Lock()
	guid := t.known.Cluster
	t.mu.Unlock()
	if _, err := Inform(ctx, t.Writer(), guid, version); err != nil {
		return err
	}
	l, err := t.Store.List(ctx, datastore.Scope{Kind: v3.KindClusterInformation})
	if err != nil {
		return err
	}
	t.mu.Lock()
	known, is := t.known, identityOf(l, t.Where)
	same := t.is && (known.Store == "" || known.Store == is.Store)
	t.mu.Unlock()
	if !same {
		return nil // the Follower finds out, and judges all of it
	}
	t.note(known, is)
	return nil
}

// believed reports whether the store is.
func (t *Trust) believed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.is
}

// errNotBelieved is why nothing is written.
var errNotBelieved = errors.New("it was not listed yet, or is not the one that this node follows")

// Writer is the store for those who write what the node is and does: nothing goes
// into a store that is not believed, and none of it is told.
func (t *Trust) Writer() datastore.Store { return &writer{t.Store, t} }

// writer refuses while its store is not believed.
type writer struct {
	datastore.Store
	trust *Trust
}

// check fails while the store is not believed.
func (w *writer) check() error {
	if !w.trust.believed() {
		return fmt.Errorf("%w: %w", datastore.ErrUnavailable, errNotBelieved)
	}
	return nil
}

// List is as Store says.
func (w *writer) List(ctx context.Context, scope datastore.Scope) (*datastore.Listing, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	return w.Store.List(ctx, scope)
}

// Create is as Store says.
func (w *writer) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	return w.Store.Create(ctx, o)
}

// Update is as Store says.
func (w *writer) Update(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	return w.Store.Update(ctx, o)
}

// UpdateStatus is as Store says.
func (w *writer) UpdateStatus(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	return w.Store.UpdateStatus(ctx, o)
}

// Delete is as Store says.
func (w *writer) Delete(ctx context.Context, key datastore.Key, only datastore.Precondition) error {
	if err := w.check(); err != nil {
		return err
	}
	return w.Store.Delete(ctx, key, only)
}

package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"margay.dev/margay/datastore"
)

// missed is how many heartbeats may fail in a row before a watch ends.
const missed = 2

// watch is one Watch: etcd's client resumes it by itself, for ever and in silence,
// also at an etcd that was made anew and is behind, where it would wait for
// revisions that come once more. So a heartbeat asks what the client does not.
type watch struct {
	*Store
	scope   datastore.Scope
	deliver func([]datastore.Event)
	name    string       // of the store that is watched; "" before its first object
	seen    atomic.Int64 // the highest revision that etcd has told of
}

// Watch is as Store says.
func (s *Store) Watch(ctx context.Context, scope datastore.Scope, from datastore.Revision, deliver func([]datastore.Event)) error {
	at, name, err := parse(from)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w := &watch{Store: s, scope: scope, deliver: deliver, name: name}
	w.seen.Store(at)
	if w.name, err = w.same(ctx, w.name); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	inner, end := context.WithCancelCause(ctx)
	beat := make(chan struct{})
	go func() {
		defer close(beat)
		w.heartbeat(inner, end)
	}()
	err = w.run(inner, at)
	end(err)
	<-beat
	if cause := context.Cause(inner); ctx.Err() == nil && cause != nil {
		err = cause // also where the heartbeat was first
	}
	return fmt.Errorf("watch: %w", err)
}

// run hands out what happens after a revision.
func (w *watch) run(ctx context.Context, at int64) error {
	from := w.below(w.scope)
	stream := w.client.Watch(clientv3.WithRequireLeader(ctx), from, clientv3.WithPrefix(), clientv3.WithRev(at+1),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	for r := range stream {
		if err := r.Err(); err != nil {
			return w.fail(ctx, "follow etcd", err)
		}
		w.notice(r.Header.GetRevision())
		switch {
		case r.Created:
			w.deliver([]datastore.Event{{Type: datastore.Bookmark, Revision: revision(at, w.name)}})
		case r.IsProgressNotify():
			w.deliver([]datastore.Event{{Type: datastore.Bookmark, Revision: revision(r.Header.GetRevision(), w.name)}})
		default:
			if events := w.events(r.Events); len(events) > 0 {
				w.deliver(events)
			}
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("follow etcd: %w: %w", datastore.ErrUnavailable, context.Cause(ctx))
	}
	return fmt.Errorf("follow etcd: %w: the client was closed", datastore.ErrUnavailable)
}

// notice keeps the highest revision.
func (w *watch) notice(r int64) {
	for seen := w.seen.Load(); r > seen && !w.seen.CompareAndSwap(seen, r); seen = w.seen.Load() {
	}
}

// events are those of etcd that are in scope, in our words.
func (w *watch) events(all []*clientv3.Event) []datastore.Event {
	events := make([]datastore.Event, 0, len(all))
	for _, e := range all {
		at := revision(e.Kv.ModRevision, w.name)
		path := string(e.Kv.Key)
		key := w.key(path)
		if known := key != (datastore.Key{}); known && !w.scope.Holds(key) {
			continue
		}
		if e.Type == clientv3.EventTypeDelete {
			events = append(events, datastore.Event{Type: datastore.Deleted, Key: key, Where: path, Revision: at})
			continue
		}
		event := datastore.Event{Type: datastore.Changed, Key: key, Where: path, Revision: at}
		o, refused := w.read(e.Kv)
		event.Object = o
		if refused != nil {
			event.Type, event.Err = datastore.Refusing, refused.Err
		}
		events = append(events, event)
	}
	return events
}

// heartbeat ends a watch whose store is away, or is another.
func (w *watch) heartbeat(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(w.cfg.Heartbeat.Duration)
	defer tick.Stop()
	name, failed := w.name, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := w.same(ctx, name)
		if err == nil {
			name, failed = now, 0
			continue
		}
		if failed++; failed >= missed || errors.Is(err, datastore.ErrCompacted) {
			end(err)
			return
		}
	}
}

// same asks whether the store is still the one of a name, and gives its name now:
// one without a name gets one with its first object. A revision that is behind what
// was seen before is of another store, or of an old copy.
func (w *watch) same(ctx context.Context, name string) (string, error) {
	seen := w.seen.Load()
	at, now, err := w.now(ctx)
	switch {
	case err != nil:
		return "", err
	case at < seen:
		return "", fmt.Errorf("%w: etcd is at revision %d, and was at %d: it was made anew, or restored", datastore.ErrCompacted, at, seen)
	case name != "" && now != name:
		return "", fmt.Errorf("%w: the store is another one: it was made anew, or restored", datastore.ErrCompacted)
	}
	return now, nil
}

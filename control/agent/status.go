package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/converge"
	"margay.dev/margay/datastore"
)

// Conditions that agents write. What an object has in common on every node is told
// only where it is bad, so that not every agent writes to every object.
const (
	// Understood is False where an object says what cannot be put in force, anywhere:
	// the message says what, and what stands in for it. It goes when that is mended.
	Understood = "Understood"
	// InForce is of an object of one node, by that node's agent: whether what it says is
	// so there.
	InForce = "InForce"
	// InForceOn stands before a node's name where an object of all nodes, or of another,
	// has no effect there: False, and gone when it has.
	InForceOn = "InForce."
)

// Reasons of conditions.
const (
	reasonFault   = "Faulty"
	reasonMissing = "NotInForce"
	reasonDone    = "Acknowledged"
)

// Bounds of what is written.
const (
	maxMessage  = 2048 // bytes of a condition's message
	statusPause = 5 * time.Second
)

// writer writes conditions to the store, in the background, and until they are
// there.
type writer struct {
	node  string
	store datastore.Store
	log   *slog.Logger
	kick  chan struct{}

	mu      sync.Mutex
	pending map[datastore.Key]converge.Report
}

func newWriter(node string, store datastore.Store, log *slog.Logger) *writer {
	return &writer{node: node, store: store, log: log, kick: make(chan struct{}, 1), pending: map[datastore.Key]converge.Report{}}
}

// report notes what is to be said of an object, unless o says so already.
func (w *writer) report(key datastore.Key, o v3.Object, r converge.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, waits := w.pending[key]; waits {
		r.Again = false
	}
	list := slices.Clone(*o.Conditions())
	if delete(w.pending, key); !w.describe(&list, o.GetGeneration(), r) {
		return
	}
	w.pending[key] = r
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// describe puts conditions into those of an object, and reports whether any has changed.
// Agents that see different faults of an object must not take turns for ever: who has said
// what it sees says it again only where nobody says any.
func (w *writer) describe(list *[]metav1.Condition, generation int64, r converge.Report) (changed bool) {
	put := func(kind string, ok bool, reason, message string) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: cut(message), ObservedGeneration: generation}
		if ok {
			c.Status = metav1.ConditionTrue
		}
		changed = meta.SetStatusCondition(list, c) || changed
	}
	drop := func(kind string) { changed = meta.RemoveStatusCondition(list, kind) || changed }
	said := meta.FindStatusCondition(*list, Understood)
	switch faulty := len(r.Faults) > 0; {
	case faulty && !(r.Again && said != nil && said.ObservedGeneration == generation):
		put(Understood, false, reasonFault, strings.Join(r.Faults, "; "))
	case !faulty && !r.Again:
		drop(Understood)
	}
	switch {
	case r.Ours && r.Here == "":
		put(InForce, true, reasonDone, "node "+w.node+" has acknowledged it")
	case r.Ours:
		put(InForce, false, reasonMissing, r.Here)
	case r.Here != "":
		put(InForceOn+w.node, false, reasonMissing, r.Here)
	default:
		drop(InForceOn + w.node)
	}
	return changed
}

// cut shortens a message to what a condition may have.
func cut(text string) string {
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-3], "") + "..."
	}
	return text
}

// run writes until ctx ends. What cannot be written is tried again.
func (w *writer) run(ctx context.Context) error {
	for {
		again := w.writeAll(ctx)
		select {
		case <-w.kick:
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// writeAll writes what is pending, and says when to try again what could not be
// written; nil if nothing is left.
func (w *writer) writeAll(ctx context.Context) <-chan time.Time {
	for {
		w.mu.Lock()
		var key datastore.Key
		var r converge.Report
		left := len(w.pending)
		for key, r = range w.pending {
			break
		}
		delete(w.pending, key)
		w.mu.Unlock()
		if left == 0 {
			return nil
		}
		err := w.write(ctx, key, r)
		if err == nil || ctx.Err() != nil {
			continue
		}
		w.log.Debug("a condition is not written", "object", key, "again in", statusPause, "error", err)
		w.mu.Lock()
		if _, newer := w.pending[key]; !newer {
			w.pending[key] = r
		}
		w.mu.Unlock()
		return time.After(statusPause)
	}
}

// write writes the conditions of one object. One that is gone, or cannot be used, or
// is of a kind without status, needs none.
func (w *writer) write(ctx context.Context, key datastore.Key, r converge.Report) error {
	for {
		o, err := w.store.Get(ctx, key)
		if err == nil && w.describe(o.Conditions(), o.GetGeneration(), r) {
			_, err = w.store.UpdateStatus(ctx, o)
		}
		switch {
		case errors.Is(err, datastore.ErrConflict) && ctx.Err() == nil:
			continue // somebody came between
		case errors.Is(err, datastore.ErrNotFound), errors.Is(err, datastore.ErrInvalid):
			return nil
		}
		return err
	}
}

package pending

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// retry is how long a Keeper waits after it could not undo a change.
const retry = time.Second

// Keeper undoes the changes of a store whose time is over. Any number of them may
// keep one store.
//
// Time is counted from when a change was seen first, and from its making by the
// clock, whichever ends sooner: a clock that is set back, or is not that of who made
// the change, makes nobody wait longer than the change says; one that is set
// forward has it undone early, which is the safe mistake.
type Keeper struct {
	Store datastore.Store
	Log   *slog.Logger
}

// Run keeps the store until the context ends, and gives the cause of that. It goes
// on waiting for what it knows of while the store is away.
func (k *Keeper) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stops := make(map[types.UID]context.CancelFunc)
	names := make(map[datastore.Key]types.UID)
	f := datastore.Follower{Store: k.Store, Scope: datastore.Scope{Kind: v3.KindPendingChange}, Deliver: func(events []datastore.Event) {
		for _, e := range events {
			if e.Type != datastore.Changed && e.Type != datastore.Deleted {
				continue
			}
			before := names[e.Key]
			c, _ := e.Object.(*v3.PendingChange)
			if c != nil && c.UID == before {
				continue // its time runs, whatever was written beside
			}
			if stop := stops[before]; stop != nil {
				stop()
			}
			delete(stops, before)
			delete(names, e.Key)
			if c == nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			stops[c.UID], names[e.Key] = stop, c.UID
			group.Go(func() { k.keep(own, c) })
		}
	}}
	return f.Run(ctx)
}

// keep waits until a change's time is over, and undoes it; the context ends when
// the change is confirmed.
func (k *Keeper) keep(ctx context.Context, c *v3.PendingChange) {
	log := k.Log.With("change", c.Name)
	// A creation time has whole seconds: up to one is given, so that none is taken.
	wait := min(c.Spec.Within.Duration, time.Until(c.CreationTimestamp.Add(time.Second+c.Spec.Within.Duration)))
	log.Info("a change is undone unless it is confirmed", "in", wait.Round(time.Second), "objects", len(c.Spec.Before)+len(c.Spec.Created))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := Undo(ctx, k.Store, c)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			log.Warn("a change was undone: nobody confirmed it in time")
			return
		}
		log.Error("cannot undo a change that nobody confirmed; trying again", "in", retry, "error", err)
		wait = retry
	}
}

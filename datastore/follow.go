package datastore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How long a Follower waits before it asks a store again that has failed it: the
// first time, and at most. The wait doubles, and is spread over half of it, so that
// the agents of a store that comes back do not come all at once.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// Follower tells what a store holds and how that changes, as one stream that
// outlives the store's outages: Begin, the objects, InSync, then changes. When the
// store is away it says Lost and tries again; when it is back, or has forgotten
// what happened meanwhile, it lists anew and tells only what is different. It is
// for one goroutine.
//
// What cannot be used (Refusing) is never told as Deleted: who has a former version
// of it keeps that until the store has a usable one, or none.
//
// A store that was made anew and has nothing in it yet is not believed: that is
// told as Lost, and what was told before stays, until something is in it again.
type Follower struct {
	Store Store
	Scope Scope

	// Deliver takes events that belong together. It ends before the next call,
	// and the slice is its own.
	Deliver func([]Event)

	// Pause waits before a store is asked again that failed the given number of
	// times in a row, at least 1; it fails when the context ends. None is a wait that
	// grows from a tenth of a second to ten.
	Pause func(ctx context.Context, failed int) error

	told    map[Key]string // the resource version of each object that was told of
	refused map[Key]bool   // what was told that it cannot be used, last
	store   string         // which store told it
}

// Run follows until the context ends, and gives the cause of that.
func (f *Follower) Run(ctx context.Context) error {
	pause := f.Pause
	if pause == nil {
		pause = backOff
	}
	failed := 0
	for {
		at, err := f.list(ctx)
		if err == nil {
			err = f.Store.Watch(ctx, f.Scope, at, func(events []Event) {
				failed = 0
				f.change(events)
			})
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, ErrCompacted) {
			f.Deliver([]Event{{Type: Lost, Err: err}})
		}
		failed++
		if err := pause(ctx, failed); err != nil {
			return context.Cause(ctx)
		}
	}
}

// list tells what the store holds, as far as it differs from what was told.
func (f *Follower) list(ctx context.Context) (Revision, error) {
	l, err := f.Store.List(ctx, f.Scope)
	if err != nil {
		return "", err
	}
	if len(l.Objects)+len(l.Refused) == 0 && len(f.told) > 0 && l.Store != f.store {
		return "", fmt.Errorf("list: %w: it is empty, and another one than before: restore its data, or apply the objects anew; %d objects are kept until then", ErrUnavailable, len(f.told))
	}
	another := l.Store != f.store // and its versions say nothing beside those of the former
	f.store = l.Store
	events := []Event{{Type: Begin}}
	told, refused := make(map[Key]string, len(l.Objects)), make(map[Key]bool, len(l.Refused))
	for _, r := range l.Refused {
		refused[r.Key] = r.Key != Key{}
	}
	for _, o := range l.Objects {
		key := KeyOf(o)
		told[key] = o.GetResourceVersion()
		mended := f.refused[key] && !refused[key]
		if before, ok := f.told[key]; !ok || another || mended || before != told[key] {
			events = append(events, Event{Type: Changed, Key: key, Object: o, Revision: l.Revision})
		}
	}
	for _, r := range l.Refused {
		events = append(events, Event{Type: Refusing, Key: r.Key, Where: r.Where, Err: r.Err, Revision: l.Revision})
		if before, ok := f.told[r.Key]; ok && told[r.Key] == "" {
			told[r.Key] = before
		}
	}
	gone := func(key Key) {
		if _, ok := told[key]; !ok && !refused[key] {
			events = append(events, Event{Type: Deleted, Key: key, Revision: l.Revision})
		}
	}
	for key := range f.told {
		gone(key)
	}
	for key, was := range f.refused {
		if _, had := f.told[key]; was && !had {
			gone(key)
		}
	}
	f.told, f.refused = told, refused
	f.Deliver(append(events, Event{Type: InSync, Revision: l.Revision}))
	return l.Revision, nil
}

// change tells what a watch has told.
func (f *Follower) change(events []Event) {
	var news []Event
	for _, e := range events {
		switch e.Type {
		case Changed:
			f.told[e.Key] = e.Object.GetResourceVersion()
			delete(f.refused, e.Key)
		case Deleted:
			delete(f.told, e.Key)
			delete(f.refused, e.Key)
		case Refusing:
			f.refused[e.Key] = e.Key != Key{}
		case Bookmark:
			continue
		}
		news = append(news, e)
	}
	if len(news) > 0 {
		f.Deliver(news)
	}
}

// backOff waits longer each time.
func backOff(ctx context.Context, failed int) error {
	wait := min(firstPause<<min(failed-1, 10), lastPause)
	wait = wait/2 + rand.N(wait/2)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}

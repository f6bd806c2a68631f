package contract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// heard collects what a watch or a follower tells.
type heard struct {
	mu     sync.Mutex
	events []datastore.Event
	more   chan struct{} // holds one
}

// watch begins a watch and gives what it tells; stop ends it, and gives the error.
func watch(t *testing.T, s datastore.Store, scope datastore.Scope, from datastore.Revision) (h *heard, stop func() error) {
	h = &heard{more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- s.Watch(ctx, scope, from, h.take) }()
	stop = sync.OnceValue(func() error { cancel(); return <-end })
	t.Cleanup(func() { _ = stop() })
	return h, stop
}

// take hears events.
func (h *heard) take(events []datastore.Event) {
	h.mu.Lock()
	h.events = append(h.events, events...)
	h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// all is what was heard so far.
func (h *heard) all() []datastore.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// until waits until what was heard is as it should be.
func (h *heard) until(t *testing.T, what string, is func([]datastore.Event) bool) []datastore.Event {
	t.Helper()
	ctx := background(t)
	for {
		if all := h.all(); is(all) {
			return all
		}
		select {
		case <-h.more:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s; heard %s", what, words(h.all()))
		}
	}
}

// words are events for people, without bookmarks.
func words(events []datastore.Event) string {
	var all []string
	for _, e := range events {
		switch e.Type {
		case datastore.Changed:
			all = append(all, fmt.Sprintf("%v is %v", e.Key, nets(e.Object)))
		case datastore.Deleted:
			all = append(all, fmt.Sprintf("%v is gone", e.Key))
		case datastore.Refusing:
			all = append(all, fmt.Sprintf("%v is refused", e.Key))
		}
	}
	return strings.Join(all, "; ")
}

// nets are those of a set; 0 for anything else.
func nets(o v3.Object) string {
	if s, ok := o.(*v3.NetworkSet); ok {
		return s.Spec.Nets[0]
	}
	return "0"
}

// watching changes this and that, and hears of it.
func watching(t *testing.T, s Subject) {
	ctx := background(t)
	object(t)(s.Store.Create(ctx, set("x", "old", 0)))
	from := listing(t)(s.Store.List(ctx, datastore.Scope{})).Revision
	all, stop := watch(t, s.Store, datastore.Scope{}, from)
	other := s.Other()
	some, _ := watch(t, other, datastore.Scope{Kind: v3.KindNetworkSet, Namespace: "x"}, listing(t)(other.List(ctx, datastore.Scope{})).Revision)
	own, _ := watch(t, s.Store, datastore.Scope{Kind: v3.KindNetworkSet, Namespace: "x"}, from)
	spaced, _ := watch(t, s.Store, datastore.Scope{Namespace: "x"}, from)
	begun := func(e []datastore.Event) bool { return len(e) > 0 }
	for _, h := range []*heard{all, own, spaced} {
		if first := h.until(t, "a watch stands", begun)[0]; first.Type != datastore.Bookmark || first.Revision != from {
			t.Errorf("a watch begins with %+v", first)
		}
	}
	some.until(t, "a watch stands", begun)
	object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	object(t)(s.Store.Create(ctx, set("y", "a", 2)))
	object(t)(s.Store.Update(ctx, set("x", "a", 3)))
	object(t)(s.Store.Update(ctx, set("x", "a", 3)))
	object(t)(s.Store.Create(ctx, tier("t", 1)))
	if err := s.Store.Delete(ctx, setKey("x", "a"), datastore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	object(t)(s.Store.Create(ctx, set("x", "last", 4)))
	const inX, rest, end = "NetworkSet x/a is 10.0.1.0/24; ", "NetworkSet x/a is 10.0.3.0/24; ", "NetworkSet x/a is gone; NetworkSet x/last is 10.0.4.0/24"
	for name, tt := range map[string]struct {
		h    *heard
		want string
	}{
		"of all":  {all, inX + "NetworkSet y/a is 10.0.2.0/24; " + rest + "Tier t is 0; " + end},
		"of some": {own, inX + rest + end},
		"in x":    {spaced, inX + rest + end},
	} {
		tt.h.until(t, name+" all is told", func(e []datastore.Event) bool { return words(e) == tt.want })
	}
	// Another process may be told of what came in between only as it has become.
	some.until(t, "the last is told", func(e []datastore.Event) bool { return strings.HasSuffix(words(e), "x/last is 10.0.4.0/24") })
	if w := words(some.all()); strings.Contains(w, "y/a") || strings.Contains(w, "Tier") {
		t.Errorf("told out of scope: %s", w)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped, and %v", err)
	}
}

// watchFromBefore watches from a revision long ago, and from one in the middle.
func watchFromBefore(t *testing.T, s Subject) {
	ctx := background(t)
	from := []datastore.Revision{listing(t)(s.Store.List(ctx, datastore.Scope{})).Revision}
	for i := range 5 {
		object(t)(s.Store.Create(ctx, set("x", fmt.Sprint("s", i), i)))
		from = append(from, listing(t)(s.Store.List(ctx, datastore.Scope{})).Revision)
	}
	var told []string
	for i := range 5 {
		told = append(told, fmt.Sprintf("NetworkSet x/s%d is 10.0.%d.0/24", i, i))
	}
	for i, r := range from {
		h, _ := watch(t, s.Store, datastore.Scope{}, r)
		want := strings.Join(told[i:], "; ")
		events := h.until(t, "the past is told", func(e []datastore.Event) bool { return len(e) > 0 && words(e) == want })
		if last := events[len(events)-1]; i < 5 && last.Type == datastore.Changed && last.Revision != from[5] {
			t.Errorf("the last change is of %s, and the list after it of %s", last.Revision, from[5])
		}
	}
}

// forgotten watches from a revision that the store knows nothing of any more.
func forgotten(t *testing.T, s Subject) {
	ctx := background(t)
	from := listing(t)(s.Store.List(ctx, datastore.Scope{})).Revision
	f := follow(t, s.Store)
	object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	object(t)(s.Store.Update(ctx, set("x", "a", 2)))
	s.Forget()
	for _, r := range []datastore.Revision{from, "", "x", "18446744073709551616/x", "-1/"} {
		err := s.Store.Watch(ctx, datastore.Scope{}, r, func([]datastore.Event) {})
		if !errors.Is(err, datastore.ErrCompacted) {
			t.Errorf("watched from %q: %v", r, err)
		}
	}
	object(t)(s.Store.Create(ctx, set("x", "b", 3)))
	f.holds(t, "NetworkSet x/a 10.0.2.0/24", "NetworkSet x/b 10.0.3.0/24")
}

// follower is a follower's picture of a store.
type follower struct {
	*heard
}

// follow follows a store until the test ends.
func follow(t *testing.T, s datastore.Store) *follower {
	f := &follower{&heard{more: make(chan struct{}, 1)}}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- (&datastore.Follower{Store: s, Deliver: f.take}).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-end })
	return f
}

// picture is what events leave.
func picture(events []datastore.Event) string {
	objects := make(map[datastore.Key]string)
	for _, e := range events {
		switch e.Type {
		case datastore.Changed:
			objects[e.Key] = e.Key.String() + " " + nets(e.Object)
		case datastore.Deleted:
			delete(objects, e.Key)
		}
	}
	var all []string
	for _, o := range objects {
		all = append(all, o)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// holds waits until the follower's picture is what is wanted.
func (f *follower) holds(t *testing.T, want ...string) {
	t.Helper()
	f.until(t, strings.Join(want, "; ")+" is there", func(e []datastore.Event) bool { return picture(e) == strings.Join(want, "; ") })
}

// closed uses a store after its end.
func closed(t *testing.T, s Subject) {
	other := s.Other()
	h, stop := watch(t, other, datastore.Scope{}, listing(t)(other.List(background(t), datastore.Scope{})).Revision)
	h.until(t, "a watch stands", func(e []datastore.Event) bool { return len(e) > 0 })
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- other.Watch(t.Context(), datastore.Scope{}, "", func([]datastore.Event) {}) }()
	if _, err := other.Create(background(t), set("x", "a", 1)); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("created in a closed store: %v", err)
	}
	if _, err := other.List(background(t), datastore.Scope{}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("listed a closed store: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("watched a closed store")
	}
	if err := stop(); err == nil {
		t.Error("a watch went on")
	}
	object(t)(s.Store.Create(background(t), set("x", "a", 1)))
}

package etcd_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/contract/wire"
)

// slowHouse is an etcd, a way to it that obeys, and one that does not need to.
func slowHouse(t *testing.T, timeout time.Duration) (w *wire.Wire, slow, straight datastore.Store) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "etcd.sock")
	endpoint, _ := serve(t, filepath.Join(dir, "data"), socket)
	w = wire.Lay(t, socket)
	return w, openFor(t, w.Endpoint, "/o", timeout), open(t, endpoint, "/o")
}

// setKey is the key of a network set.
func setKey(name string) datastore.Key {
	return datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x", Name: name}
}

// An etcd that is slow is slow: all is done, and nobody is told that it is away.
func TestSlow(t *testing.T) {
	w, slow, straight := slowHouse(t, 30*time.Second)
	w.Set(wire.Slow)
	create(t, slow, set("a", "10.0.0.0/8"))
	p := follow(t, slow)
	p.holds(t, "a=10.0.0.0/8")
	for _, nets := range []string{"10.1.0.0/16", "10.2.0.0/16"} {
		if _, outcome, err := datastore.Apply(t.Context(), slow, set("a", nets)); err != nil || outcome != datastore.Configured {
			t.Fatalf("applied: %s, %v", outcome, err)
		}
	}
	create(t, straight, set("b", "10.3.0.0/16"))
	p.holds(t, "a=10.2.0.0/16 b=10.3.0.0/16")
	if o, err := slow.Get(t.Context(), setKey("b")); err != nil || o.GetName() != "b" {
		t.Errorf("got %v, %v", o, err)
	}
	if err := slow.Delete(t.Context(), setKey("b"), datastore.Precondition{}); err != nil {
		t.Error(err)
	}
	p.holds(t, "a=10.2.0.0/16")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lost) > 0 {
		t.Errorf("it was told that the store is away: %v", p.lost)
	}
}

// An etcd that stops answering is away in the time that a request has: every method
// ends, followers keep what they have, and learn what was missed when it goes on.
func TestStalled(t *testing.T) {
	w, slow, straight := slowHouse(t, 200*time.Millisecond)
	create(t, straight, set("a", "10.0.0.0/8"))
	p := follow(t, slow)
	p.holds(t, "a=10.0.0.0/8")
	l, err := straight.List(t.Context(), datastore.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	w.Set(wire.Still)
	_, got := slow.Get(t.Context(), setKey("a"))
	_, listed := slow.List(t.Context(), datastore.Scope{})
	_, created := slow.Create(t.Context(), set("b", "10.0.0.0/8"))
	_, updated := slow.Update(t.Context(), set("a", "10.9.0.0/16"))
	_, judged := slow.UpdateStatus(t.Context(), set("a", "10.0.0.0/8"))
	_, _, applied := datastore.Apply(t.Context(), slow, set("a", "10.9.0.0/16"))
	for what, err := range map[string]error{
		"got": got, "listed": listed, "created": created, "updated": updated, "judged": judged, "applied": applied,
		"deleted": slow.Delete(t.Context(), setKey("a"), datastore.Precondition{}),
		"watched": slow.Watch(t.Context(), datastore.Scope{}, l.Revision, func([]datastore.Event) {}),
	} {
		if !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("%s at an etcd that says nothing: %v", what, err)
		}
	}
	p.until(t, "it is told that it is away", func() bool { return len(p.lost) > 0 })
	p.holds(t, "a=10.0.0.0/8")
	create(t, straight, set("c", "10.4.0.0/16"))
	if err := straight.Delete(t.Context(), setKey("a"), datastore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	w.Cut() // so that what was kept back is never done
	w.Set(wire.Open)
	p.holds(t, "c=10.4.0.0/16")
}

// A write of which the answer is lost says that it may have been done; who applies the
// same again finds it done, or does it.
func TestLostAnswer(t *testing.T) {
	w, slow, straight := slowHouse(t, 300*time.Millisecond)
	create(t, slow, set("first", "10.0.0.0/8")) // it is connected
	w.Set(wire.Dumb)
	if _, err := slow.Create(t.Context(), set("a", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), "may have been") {
		t.Errorf("created, and no answer: %v", err)
	}
	w.Cut()
	w.Set(wire.Open)
	made, err := straight.Get(t.Context(), setKey("a"))
	if err != nil {
		t.Fatalf("it was not written: %v", err)
	}
	apply := func() (o v3.Object, outcome datastore.Outcome) {
		for {
			var err error
			if o, outcome, err = datastore.Apply(t.Context(), slow, set("a", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) {
				if err != nil {
					t.Fatal(err)
				}
				return o, outcome
			}
		}
	}
	if o, outcome := apply(); outcome != datastore.Unchanged || o.GetUID() != made.GetUID() || o.GetGeneration() != 1 {
		t.Errorf("applied again: %s, %+v", outcome, o)
	}
}

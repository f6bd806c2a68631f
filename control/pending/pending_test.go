package pending_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
)

// errKilled is what a store says of which nothing is left.
var errKilled = errors.New("killed")

// store fails after a number of writes, as if who writes had been killed there.
type store struct {
	datastore.Store
	left int // writes; below 0: any number
}

func (s *store) spend() error {
	if s.left == 0 {
		return errKilled
	}
	s.left--
	return nil
}

func (s *store) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := s.spend(); err != nil {
		return nil, err
	}
	return s.Store.Create(ctx, o)
}

func (s *store) Update(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := s.spend(); err != nil {
		return nil, err
	}
	return s.Store.Update(ctx, o)
}

func (s *store) UpdateStatus(ctx context.Context, o v3.Object) (v3.Object, error) {
	if err := s.spend(); err != nil {
		return nil, err
	}
	return s.Store.UpdateStatus(ctx, o)
}

func (s *store) Delete(ctx context.Context, k datastore.Key, only datastore.Precondition) error {
	if err := s.spend(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, k, only)
}

func open(t *testing.T) *store {
	t.Helper()
	s, err := file.Open(file.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &store{s, -1}
}

func tier(name string, order float64) *v3.Tier {
	o := &v3.Tier{}
	o.Name, o.Spec.Order = name, &order
	return o
}

func set(name string, nets ...string) *v3.NetworkSet {
	o := &v3.NetworkSet{}
	o.Name, o.Namespace, o.Spec.Nets = name, "shop", nets
	return o
}

func put(t *testing.T, s datastore.Store, objects ...v3.Object) {
	t.Helper()
	for _, o := range objects {
		if _, _, err := datastore.Apply(t.Context(), s, o); err != nil {
			t.Fatal(err)
		}
	}
}

// holds is all that a store holds, without what it alone says of it.
func holds(t *testing.T, s datastore.Store) string {
	t.Helper()
	l, err := s.List(t.Context(), datastore.Scope{})
	if err != nil || len(l.Refused) > 0 {
		t.Fatalf("%v, %v", l, err)
	}
	var all []any
	for _, o := range l.Objects {
		var fields map[string]any
		text, err := json.Marshal(o)
		if err == nil {
			err = json.Unmarshal(text, &fields)
		}
		if err != nil {
			t.Fatal(err)
		}
		meta := fields["metadata"].(map[string]any)
		for _, name := range []string{"uid", "resourceVersion", "generation", "creationTimestamp"} {
			delete(meta, name)
		}
		all = append(all, fields)
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// keys are those of the change that the tests make: it changes, deletes and adds.
var keys = []datastore.Key{{Kind: "Tier", Name: "changed"}, {Kind: "NetworkSet", Namespace: "shop", Name: "deleted"}, {Kind: "Tier", Name: "added"}}

// change is the change, as margayctl makes it.
func change(ctx context.Context, s datastore.Store) error {
	if _, err := pending.Begin(ctx, s, "c", time.Minute, keys); err != nil {
		return err
	}
	if _, _, err := datastore.Apply(ctx, s, tier("changed", 9)); err != nil {
		return err
	}
	if err := s.Delete(ctx, keys[1], datastore.Precondition{}); err != nil {
		return err
	}
	_, err := s.Create(ctx, tier("added", 3))
	return err
}

// pendings are the changes that a store holds.
func pendings(t *testing.T, s datastore.Store) (all []*v3.PendingChange) {
	t.Helper()
	l, err := s.List(t.Context(), datastore.Scope{Kind: v3.KindPendingChange})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range l.Objects {
		all = append(all, o.(*v3.PendingChange))
	}
	return all
}

// Wherever who makes a change is killed, and wherever each of those who undo it,
// in the end everything is as it was.
func TestUndoneFromAnyPoint(t *testing.T) {
	for writes := 0; ; writes++ {
		s := open(t)
		put(t, s, tier("changed", 1), tier("other", 2), set("deleted", "10.0.0.0/8", "fd00::/8"))
		before := holds(t, s)
		s.left = writes
		err := change(t.Context(), s)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		for budget := 0; len(pendings(t, s)) > 0; budget++ {
			if budget > 20 {
				t.Fatalf("killed after %d writes, it is never undone", writes)
			}
			s.left = budget
			if e := pending.Undo(t.Context(), s, pendings(t, s)[0]); e != nil && !errors.Is(e, errKilled) {
				t.Fatal(e)
			}
		}
		if after := holds(t, s); after != before {
			t.Errorf("killed after %d writes, it came to\n%s\nfrom\n%s", writes, after, before)
		}
		if err == nil {
			return
		}
	}
}

func TestConfirmedChangeStands(t *testing.T) {
	s := open(t)
	put(t, s, tier("changed", 1), set("deleted", "fd00::/8"))
	if err := change(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	record := pendings(t, s)[0]
	if _, err := pending.Begin(t.Context(), s, "d", time.Minute, keys[2:]); !errors.Is(err, pending.ErrPending) {
		t.Errorf("a second change of an object: %v, want ErrPending", err)
	}
	if name, err := pending.Confirm(t.Context(), s, ""); err != nil || name != "c" {
		t.Fatalf("confirmed %q: %v", name, err)
	}
	after := holds(t, s)
	if err := pending.Undo(t.Context(), s, record); err != nil {
		t.Fatal(err)
	}
	if now := holds(t, s); now != after {
		t.Errorf("undone after it was confirmed:\n%s", now)
	}
	if _, err := pending.Confirm(t.Context(), s, ""); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("confirmed nothing: %v", err)
	}
}

// A keeper undoes what nobody confirms, and leaves what somebody does.
func TestKeeper(t *testing.T) {
	s := open(t)
	put(t, s, tier("changed", 1), tier("kept", 1))
	before := holds(t, s)
	if _, err := pending.Begin(t.Context(), s, "lost", time.Second, keys[:1]); err != nil {
		t.Fatal(err)
	}
	put(t, s, tier("changed", 9))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for range 2 { // of two nodes
		k := pending.Keeper{Store: s, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		go func() { done <- k.Run(ctx) }()
	}
	if _, err := pending.Begin(t.Context(), s, "good", time.Second, []datastore.Key{{Kind: "Tier", Name: "kept"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Confirm(t.Context(), s, "good"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); len(pendings(t, s)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is never undone")
		}
	}
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if after := holds(t, s); after != before {
		t.Errorf("it came to\n%s\nfrom\n%s", after, before)
	}
}

// A change that has begun to be undone cannot be confirmed any more, however much is
// undone of it: half of it is what nobody has confirmed.
func TestHalfUndoneIsNotConfirmed(t *testing.T) {
	for budget := 1; ; budget++ {
		s := open(t)
		put(t, s, tier("changed", 1), set("deleted", "10.0.0.0/8", "fd00::/8"))
		before := holds(t, s)
		if err := change(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		record := pendings(t, s)[0]
		s.left = budget
		err := pending.Undo(t.Context(), s, record)
		s.left = -1
		if err == nil {
			return
		}
		if _, err := pending.Confirm(t.Context(), s, ""); !errors.Is(err, pending.ErrOver) {
			t.Errorf("confirmed when %d writes of its undoing were made: %v", budget, err)
		}
		if err := pending.Undo(t.Context(), s, record); err != nil {
			t.Fatal(err)
		}
		if after := holds(t, s); after != before {
			t.Errorf("undone in two steps it came to\n%s\nfrom\n%s", after, before)
		}
	}
}

// What is still written of a change when its time is over does not stay: who makes
// it hears of that, and puts it back.
func TestMadeTooLate(t *testing.T) {
	for when, over := range map[string]func(t *testing.T, s *store){
		"while it is undone": func(t *testing.T, s *store) {
			s.left = 2
			if err := pending.Undo(t.Context(), s, pendings(t, s)[0]); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			s.left = -1
		},
		"when it was undone": func(t *testing.T, s *store) {
			if err := pending.Undo(t.Context(), s, pendings(t, s)[0]); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(when, func(t *testing.T) {
			s := open(t)
			put(t, s, tier("changed", 1), set("deleted", "10.0.0.0/8", "fd00::/8"))
			before := holds(t, s)
			c, err := pending.Begin(t.Context(), s, "c", time.Minute, keys)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.Pending(t.Context()), c.Made(t.Context())); err != nil {
				t.Errorf("in time: %v", err)
			}
			over(t, s)
			put(t, s, tier("changed", 9), tier("added", 3)) // somebody was slow
			for what, err := range map[string]error{"goes on": c.Pending(t.Context()), "is made": c.Made(t.Context())} {
				if !errors.Is(err, pending.ErrOver) {
					t.Errorf("its time is over, and it %s: %v", what, err)
				}
			}
			for _, record := range pendings(t, s) { // its keeper tries again
				if err := pending.Undo(t.Context(), s, record); err != nil {
					t.Fatal(err)
				}
			}
			if after := holds(t, s); after != before {
				t.Errorf("it came to\n%s\nfrom\n%s", after, before)
			}
		})
	}
}

// between does something before a change is written down, as somebody else might.
type between struct {
	datastore.Store
	do func()
}

func (s *between) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	s.do()
	return s.Store.Create(ctx, o)
}

// Of two that begin a change of one object at once the one that is written down later
// does not begin, though there was none when it looked.
func TestTwoBeginAtOnce(t *testing.T) {
	s := open(t)
	object := tier("platform", 1)
	put(t, s, object)
	keys := []datastore.Key{datastore.KeyOf(object)}
	late := &between{s, func() {
		if _, err := pending.Begin(t.Context(), s, "first", time.Minute, keys); err != nil {
			t.Fatal(err)
		}
	}}
	if _, err := pending.Begin(t.Context(), late, "second", time.Minute, keys); !errors.Is(err, pending.ErrPending) {
		t.Errorf("the second that begins: %v", err)
	}
	if all := pendings(t, s); len(all) != 1 || all[0].Name != "first" {
		t.Errorf("what is pending: %v", all)
	}
}

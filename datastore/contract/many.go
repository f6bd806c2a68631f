package contract

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// garbage plants what no store would write, and sees that all else goes on.
func garbage(t *testing.T, s Subject) {
	ctx := background(t)
	const head = `{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":"%s","namespace":"x"}`
	planted := map[string]string{
		"newer":   fmt.Sprintf(head, "newer") + `,"spec":{"nets":["10.0.0.0/8"],"exceptOnSundays":true}}`,
		"invalid": fmt.Sprintf(head, "invalid") + `,"spec":{"nets":["ten"]}}`,
		"typed":   fmt.Sprintf(head, "typed") + `,"spec":{"nets":{"10.0.0.0/8":1}}}`,
		"good":    fmt.Sprintf(head, "good") + `,"spec":{"nets":["10.0.9.0/24"]}}`,
	}
	object(t)(s.Store.Create(ctx, set("x", "mine", 1)))
	object(t)(s.Store.Create(ctx, set("x", "turns", 2)))
	f := follow(t, s.Store)
	f.holds(t, "NetworkSet x/mine 10.0.1.0/24", "NetworkSet x/turns 10.0.2.0/24")
	for name, text := range planted {
		s.Plant(setKey("x", name), text)
	}
	s.Plant(setKey("x", "turns"), fmt.Sprintf(head, "turns")+`,"spec":{"exceptOnSundays":true}}`)
	refused := func(name string) func([]datastore.Event) bool {
		return func(events []datastore.Event) bool {
			return slices.ContainsFunc(events, func(e datastore.Event) bool {
				return e.Type == datastore.Refusing && e.Key == setKey("x", name) && errors.Is(e.Err, datastore.ErrInvalid) && e.Where != ""
			})
		}
	}
	for _, name := range []string{"newer", "invalid", "typed", "turns"} {
		f.until(t, name+" is refused", refused(name))
	}
	// what was there before is not taken back
	f.holds(t, "NetworkSet x/good 10.0.9.0/24", "NetworkSet x/mine 10.0.1.0/24", "NetworkSet x/turns 10.0.2.0/24")
	other := s.Other()
	l := listing(t)(other.List(ctx, datastore.Scope{}))
	if len(l.Objects) != 2 || len(l.Refused) != 4 {
		t.Errorf("%d objects are listed, and %v refused", len(l.Objects), l.Refused)
	}
	if _, err := other.Get(ctx, setKey("x", "newer")); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("got something newer: %v", err)
	}
	if _, err := s.Store.Create(ctx, set("x", "typed", 4)); !errors.Is(err, datastore.ErrExists) {
		t.Errorf("created over garbage: %v", err)
	}
	if _, outcome, err := datastore.Apply(ctx, s.Store, set("x", "newer", 5)); err != nil || outcome != datastore.Configured {
		t.Errorf("applied over garbage: %s, %v", outcome, err)
	}
	object(t)(s.Store.Update(ctx, set("x", "turns", 6)))
	for _, name := range []string{"invalid", "typed"} {
		if err := s.Store.Delete(ctx, setKey("x", name), datastore.Precondition{}); err != nil {
			t.Errorf("delete garbage: %v", err)
		}
	}
	f.holds(t, "NetworkSet x/good 10.0.9.0/24", "NetworkSet x/mine 10.0.1.0/24", "NetworkSet x/newer 10.0.5.0/24", "NetworkSet x/turns 10.0.6.0/24")
	if l := listing(t)(s.Store.List(ctx, datastore.Scope{})); len(l.Refused) != 0 {
		t.Errorf("still refused: %v", l.Refused)
	}
}

// writers count in one object, each by compare-and-swap: no count is lost.
func writers(t *testing.T, s Subject) {
	ctx := background(t)
	const each = 8
	object(t)(s.Store.Create(ctx, set("x", "a", 0)))
	var wg sync.WaitGroup
	for _, store := range []datastore.Store{s.Store, s.Store, s.Other()} {
		wg.Go(func() {
			for done := 0; done < each; {
				o, err := store.Get(ctx, setKey("x", "a"))
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(o.GetAnnotations()["n"])
				o.SetAnnotations(map[string]string{"n": strconv.Itoa(n + 1)})
				switch _, err := store.Update(ctx, o); {
				case err == nil:
					done++
				case !errors.Is(err, datastore.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := object(t)(s.Store.Get(ctx, setKey("x", "a"))).GetAnnotations()["n"]; n != strconv.Itoa(3*each) {
		t.Errorf("%s of %d counts are there", n, 3*each)
	}
}

// deleters delete what they have seen, while others change it: what is deleted is what
// was seen last.
func deleters(t *testing.T, s Subject) {
	ctx := background(t)
	key, other := setKey("x", "a"), s.Other()
	for round := range 12 {
		last := object(t)(s.Store.Create(ctx, set("x", "a", 0))).GetResourceVersion()
		var changing sync.WaitGroup
		changing.Go(func() {
			for i := range 6 { // then it is left alone, so that it goes in the end
				o, err := other.Update(ctx, set("x", "a", i+1))
				if err != nil {
					if !errors.Is(err, datastore.ErrNotFound) {
						t.Error(err)
					}
					return
				}
				last = o.GetResourceVersion()
			}
		})
		for deleted := ""; deleted == ""; {
			seen := object(t)(s.Store.Get(ctx, key)).GetResourceVersion()
			switch err := s.Store.Delete(ctx, key, datastore.Precondition{ResourceVersion: seen}); {
			case err == nil:
				deleted = seen
				changing.Wait()
				if deleted != last {
					t.Errorf("round %d: deleted at version %s, and it was at %s", round, deleted, last)
				}
			case !errors.Is(err, datastore.ErrConflict):
				t.Fatal(err)
			}
		}
	}
}

// random does what a model does, which is a map.
func random(t *testing.T, s Subject) {
	ctx := background(t)
	r := rand.New(rand.NewPCG(1, 2))
	model := make(map[string]v3.Object)
	f := follow(t, s.Store)
	for i := range 150 {
		name := fmt.Sprint("s", r.IntN(4))
		o := set("x", name, r.IntN(3))
		before := model[name]
		if before != nil && r.IntN(2) == 0 {
			o.SetResourceVersion(before.GetResourceVersion())
		} else if r.IntN(4) == 0 {
			o.SetResourceVersion("7")
		}
		var got v3.Object
		var err, want error
		matches := before != nil && (o.ResourceVersion == "" || o.ResourceVersion == before.GetResourceVersion())
		op := r.IntN(3)
		switch op {
		case 0:
			if got, err = s.Store.Create(ctx, o); before != nil {
				want = datastore.ErrExists
			}
		case 1:
			got, err = s.Store.Update(ctx, o)
		case 2:
			err = s.Store.Delete(ctx, setKey("x", name), datastore.Precondition{ResourceVersion: o.ResourceVersion})
		}
		switch {
		case op > 0 && before == nil:
			want = datastore.ErrNotFound
		case op > 0 && !matches:
			want = datastore.ErrConflict
		}
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("step %d, operation %d on %s, version %q over %v: %v, want %v", i, op, name, o.ResourceVersion, before, err, want)
		}
		switch {
		case want != nil:
		case op == 2:
			delete(model, name)
		default:
			model[name] = got
		}
	}
	var all []string
	for name, o := range model {
		all = append(all, "NetworkSet x/"+name+" "+nets(o))
		if got := object(t)(s.Other().Get(ctx, setKey("x", name))); !same(t, got, o) || got.GetGeneration() != o.GetGeneration() || got.GetResourceVersion() != o.GetResourceVersion() {
			t.Errorf("%+v is there, want %+v", got, o)
		}
	}
	slices.Sort(all)
	f.holds(t, all...)
}

// following is told what other processes do.
func following(t *testing.T, s Subject) {
	ctx := background(t)
	object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	other := s.Other()
	f := follow(t, s.Store)
	f.holds(t, "NetworkSet x/a 10.0.1.0/24")
	events := f.until(t, "it is in sync", func(e []datastore.Event) bool {
		return slices.ContainsFunc(e, func(e datastore.Event) bool { return e.Type == datastore.InSync })
	})
	if events[0].Type != datastore.Begin {
		t.Errorf("it begins with %+v", events[0])
	}
	object(t)(other.Update(ctx, set("x", "a", 2)))
	f.holds(t, "NetworkSet x/a 10.0.2.0/24")
	object(t)(other.Create(ctx, set("x", "b", 3)))
	f.holds(t, "NetworkSet x/a 10.0.2.0/24", "NetworkSet x/b 10.0.3.0/24")
	if err := other.Delete(ctx, setKey("x", "a"), datastore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	f.holds(t, "NetworkSet x/b 10.0.3.0/24")
	if w := words(f.all()); strings.Contains(w, "refused") {
		t.Errorf("something was refused: %s", w)
	}
}

// many are planted at once, many pages of them: who follows already is told of all, who
// begins then lists all, and what is applied to some of them is told and nothing else.
func many(t *testing.T, s Subject) {
	n, some := 10_000, 20
	if testing.Short() {
		n, some = 600, 10 // more than a page, still
	}
	ctx := background(t)
	early := tally(t, s.Store)
	early.until(t, "it is in sync", func() bool { return early.synced > 0 })
	key := func(i int) datastore.Key { return setKey("n"+strings.Repeat("-n", i%7), fmt.Sprint("s", i)) }
	all := make(map[datastore.Key]string, n)
	for i := range n {
		k := key(i)
		all[k] = fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":%q,"namespace":%q},"spec":{"nets":["10.0.0.0/8","fd00::/8"]}}`, k.Name, k.Namespace)
	}
	s.Fill(all)
	early.until(t, "all are told", func() bool { return len(early.nets) == n })
	other := s.Other()
	l := listing(t)(other.List(ctx, datastore.Scope{}))
	if len(l.Objects) != n || len(l.Refused) != 0 {
		t.Errorf("%d objects are listed, and %v refused", len(l.Objects), l.Refused)
	}
	if !slices.IsSortedFunc(l.Objects, func(a, b v3.Object) int { return datastore.KeyOf(a).Compare(datastore.KeyOf(b)) }) {
		t.Error("the list is in no order")
	}
	if l := listing(t)(other.List(ctx, datastore.Scope{Kind: v3.KindNetworkSet, Namespace: key(3).Namespace})); len(l.Objects) != (n+3)/7 {
		t.Errorf("%d objects are listed of a seventh of %d", len(l.Objects), n)
	}
	late := tally(t, other)
	late.until(t, "all are listed", func() bool { return late.synced == 1 && late.changes == n })
	early.restart()
	late.restart()
	for i := range some {
		k := key(i * n / some)
		if _, outcome, err := datastore.Apply(ctx, s.Store, set(k.Namespace, k.Name, 9)); err != nil || outcome != datastore.Configured {
			t.Fatalf("apply %v: %s, %v", k, outcome, err)
		}
		if _, outcome, err := datastore.Apply(ctx, s.Store, set("new", k.Name, 9)); err != nil || outcome != datastore.Created {
			t.Fatalf("apply a new one: %s, %v", outcome, err)
		}
	}
	for who, c := range map[string]*count{"who was there before": early, "who came then": late} {
		c.until(t, who+" is told", func() bool { return c.changes == 2*some && len(c.nets) == n+some })
		c.mu.Lock()
		changed := 0
		for _, nets := range c.nets {
			if nets == "10.0.9.0/24" {
				changed++
			}
		}
		if changed != 2*some || c.refused+c.deleted > 0 {
			t.Errorf("%s has %d that are changed, want %d; %d were refused, %d deleted", who, changed, 2*some, c.refused, c.deleted)
		}
		c.mu.Unlock()
	}
}

// count is what a follower is told, where that is much.
type count struct {
	mu                                sync.Mutex
	nets                              map[datastore.Key]string
	changes, refused, deleted, synced int
	more                              chan struct{} // holds one
}

// tally follows a store until the test ends, and counts.
func tally(t *testing.T, s datastore.Store) *count {
	c := &count{nets: make(map[datastore.Key]string), more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- (&datastore.Follower{Store: s, Deliver: c.take}).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-end })
	return c
}

// take counts events.
func (c *count) take(events []datastore.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		switch e.Type {
		case datastore.Changed:
			c.nets[e.Key] = nets(e.Object)
			c.changes++
		case datastore.Deleted:
			delete(c.nets, e.Key)
			c.deleted++
		case datastore.Refusing:
			c.refused++
		case datastore.InSync:
			c.synced++
		}
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// restart counts changes from none.
func (c *count) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes = 0
}

// until waits until a count is as it should be.
func (c *count) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := background(t)
	for {
		c.mu.Lock()
		ok := is()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("waited in vain until %s: %d objects, %d changes, %d refused, %d deleted", what, len(c.nets), c.changes, c.refused, c.deleted)
		}
	}
}

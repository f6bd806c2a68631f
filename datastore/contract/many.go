package contract

import (
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

// many are planted at once, more than a page, and are all there.
func many(t *testing.T, s Subject) {
	n := 2000
	if testing.Short() {
		n = 600 // more than a page, still
	}
	f := follow(t, s.Store)
	f.holds(t)
	for i := range n {
		key := setKey(fmt.Sprint("n", i%7), fmt.Sprint("s", i))
		s.Plant(key, fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":%q,"namespace":%q},"spec":{"nets":["10.0.0.0/8","fd00::/8"]}}`, key.Name, key.Namespace))
	}
	count := func(events []datastore.Event) int { return len(strings.Split(picture(events), "; ")) }
	f.until(t, "all are told", func(e []datastore.Event) bool { return len(e) >= n && count(e) == n })
	l := listing(t)(s.Other().List(background(t), datastore.Scope{}))
	if len(l.Objects) != n || len(l.Refused) != 0 {
		t.Errorf("%d objects are listed, and %v refused", len(l.Objects), l.Refused)
	}
}

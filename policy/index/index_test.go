package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"margay.dev/margay/api/selector"
)

// watched is an index whose matches are kept as it tells of them.
type watched struct {
	*Index[int, string]
	picks map[string]map[int]bool
}

func watch(t testing.TB) watched {
	w := watched{picks: make(map[string]map[int]bool)}
	w.Index = New(func(owner string, thing int) {
		if w.picks[owner] == nil {
			w.picks[owner] = make(map[int]bool)
		}
		if w.picks[owner][thing] {
			t.Fatalf("%s is told twice to pick %d", owner, thing)
		}
		w.picks[owner][thing] = true
	}, func(owner string, thing int) {
		if !w.picks[owner][thing] {
			t.Fatalf("%s is told to drop %d, which it did not pick", owner, thing)
		}
		delete(w.picks[owner], thing)
	})
	return w
}

func parse(t testing.TB, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// model is what was said to the index.
type model struct {
	items   map[int]map[string]string
	parents map[int][]string
	lent    map[string]map[string]string
	owners  map[string]*selector.Selector
}

func (m *model) labels(i int) selector.Map {
	labels := selector.Map{}
	for _, p := range slices.Backward(m.parents[i]) {
		maps.Copy(labels, m.lent[p])
	}
	maps.Copy(labels, m.items[i])
	return labels
}

// check asks every selector about every thing.
func (m *model) check(t *testing.T, w watched) {
	t.Helper()
	for owner, s := range m.owners {
		for i := range m.items {
			if want := s.Evaluate(m.labels(i)); want != w.picks[owner][i] {
				t.Fatalf("%s %q picks %d with %v: told %v, want %v", owner, s, i, m.labels(i), !want, want)
			}
		}
		for i := range w.picks[owner] {
			if _, ok := m.items[i]; !ok {
				t.Fatalf("%s picks %d, which is gone", owner, i)
			}
		}
	}
	for owner, picks := range w.picks {
		if m.owners[owner] == nil && len(picks) > 0 {
			t.Fatalf("%s is gone and picks %v", owner, picks)
		}
	}
	for i := range m.items {
		n := 0
		for owner := range w.Owners(i) {
			if n++; !w.picks[owner][i] {
				t.Fatalf("%s is an owner for %d and does not pick it", owner, i)
			}
		}
		for _, picks := range w.picks {
			if picks[i] {
				n--
			}
		}
		if n != 0 {
			t.Fatalf("%d owners for %d too many", n, i)
		}
	}
}

var texts = []string{
	"", "global()", "a == '0'", "a == '1' && b == '0'", "a in {'0', '2'} && has(c)", "a != '1'", "a not in {'0'} && b == '1'", "!has(a)",
	"!has(b) && a == '0'", "a == '0' || b == '1'", "a starts with '1'", "has(a) && has(b) && has(c)", "a == '0' && a == '1'", "!(a == '0' && b == '0')",
	"a in {}", "c contains '1' || !has(c) && b != '0'", "a == '1' && has(b)", "b in {'0', '1', '2'}",
}

// FuzzIndex does what the bytes say and asks everything each time.
func FuzzIndex(f *testing.F) {
	for seed := range byte(8) {
		dice := rand.New(rand.NewPCG(uint64(seed), 7))
		script := make([]byte, 400)
		for i := range script {
			script[i] = byte(dice.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		w := watch(t)
		m := &model{make(map[int]map[string]string), make(map[int][]string), make(map[string]map[string]string), make(map[string]*selector.Selector)}
		labels := func(code byte) map[string]string {
			out := map[string]string{}
			for i, name := range []string{"a", "b", "c"} {
				if v := code >> (2 * i) & 3; v < 3 {
					out[name] = fmt.Sprint(v)
				}
			}
			return out
		}
		for ; len(script) >= 3 && len(script) < 1500; script = script[3:] {
			op, which, what := script[0], script[1], script[2]
			switch op % 6 {
			case 0, 1:
				i := int(which % 8)
				m.items[i], m.parents[i] = labels(what), []string{"p", "q", "r"}[op%4:max(op%4, op/8%4)]
				w.SetItem(i, m.items[i], m.parents[i])
			case 2:
				delete(m.items, int(which%8))
				w.RemoveItem(int(which % 8))
			case 3:
				name := string("pqr"[which%3])
				m.lent[name] = labels(what)
				w.SetParent(name, m.lent[name])
			case 4:
				owner := fmt.Sprint("owner ", which%6)
				m.owners[owner] = parse(t, texts[int(what)%len(texts)])
				w.SetSelector(owner, m.owners[owner])
			case 5:
				owner := fmt.Sprint("owner ", which%6)
				delete(m.owners, owner)
				w.RemoveSelector(owner)
			}
			m.check(t, w)
		}
		for i := range 8 {
			w.RemoveItem(i)
		}
		for i := range 6 {
			w.RemoveSelector(fmt.Sprint("owner ", i))
		}
		for _, p := range "pqr" {
			w.SetParent(string(p), nil)
		}
		if n := len(w.items) + len(w.parents) + len(w.owners) + len(w.entries) + len(w.postings) + len(w.anchored) + len(w.loose) + len(w.looseBy); n > 0 {
			t.Fatalf("%d things are left when all is taken away", n)
		}
	})
}

// TestWorkFollowsTheChange counts how often selectors are asked.
func TestWorkFollowsTheChange(t *testing.T) {
	const selectors = 1_000
	many, few := 10_000, 100 // things; few where selectors pick most of them
	tests := map[string]struct {
		things   int
		selector func(i int) string
		most     uint64 // evaluations of one change of the label "app"
	}{
		"one value each":                           {many, func(i int) string { return fmt.Sprintf("app == 'a%d'", i) }, 4},
		"one value each, of one namespace":         {many, func(i int) string { return fmt.Sprintf("app == 'a%d' && ns == 'n0'", i) }, 4},
		"one value, of a thousand namespaces":      {many, func(i int) string { return fmt.Sprintf("app == 'a1' && ns == 'n%d'", i) }, 4},
		"what all have, and one value":             {many, func(i int) string { return fmt.Sprintf("orchestrator == 'k8s' && app == 'a%d'", i) }, 4},
		"thirty values in thirty namespaces":       {many, func(i int) string { return fmt.Sprintf("app == 'a%d' && ns == 'n%d'", i%32, i/32) }, 40},
		"other labels, which nothing hangs on":     {few, func(i int) string { return fmt.Sprintf("!has(l%d)", i) }, 0},
		"other labels, of this thing":              {few, func(i int) string { return fmt.Sprintf("ns == 'n%d' && x != '%d'", i%4, i) }, 0},
		"a thousand with one text":                 {few, func(i int) string { return "app != 'a1' || has(x)" }, 2},
		"either of two values":                     {many, func(i int) string { return fmt.Sprintf("app in {'a%d', 'b%d'}", i, i) }, 4},
		"what a negation needs":                    {many, func(i int) string { return fmt.Sprintf("!(app != 'a%d')", i) }, 4},
		"impossible ones":                          {many, func(i int) string { return fmt.Sprintf("app == 'a%d' && app == 'b'", i) }, 0},
		"all that ask for the label: that is work": {few, func(i int) string { return fmt.Sprintf("app != 'a%d'", i) }, selectors + 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := watch(t)
			for i := range tt.things {
				w.SetItem(i, thing(i, 0), []string{"p"})
			}
			for i := range selectors {
				w.SetSelector(fmt.Sprint(i), parse(t, tt.selector(i)))
			}
			for _, to := range []int{1, 0, 999} {
				before := w.Evaluations()
				w.SetItem(5, thing(5, to), []string{"p"})
				if n := w.Evaluations() - before; n > tt.most {
					t.Errorf("%d evaluations for one label of one thing, want at most %d", n, tt.most)
				}
			}
			before := w.Evaluations()
			w.SetItem(5, thing(5, 999), []string{"p"})
			w.SetParent("p", map[string]string{"nobody": "asks"})
			if n := w.Evaluations() - before; n > 0 {
				t.Errorf("%d evaluations for no change, and for a label that nobody names", n)
			}
		})
	}
}

// thing has labels as pods do, with app a(i+to).
func thing(i, to int) map[string]string {
	return map[string]string{"app": fmt.Sprintf("a%d", (i+to)%1000), "ns": fmt.Sprintf("n%d", i%1000), "orchestrator": "k8s"}
}

// TestNewSelectorsLookWhereTheyMust counts what a new selector is asked about.
func TestNewSelectorsLookWhereTheyMust(t *testing.T) {
	w := watch(t)
	for i := range 10_000 {
		w.SetItem(i, thing(i, 0), nil)
	}
	w.SetItem(10_000, map[string]string{"rare": "x"}, nil)
	for text, most := range map[string]uint64{
		"app == 'a7'": 10, "app == 'a7' && orchestrator == 'k8s'": 10, "has(rare)": 1, "has(rare) && has(app)": 1, "has(nowhere)": 0,
		"rare in {'x', 'y'}": 1, "app == 'nothing'": 0, "app == 'a' && app == 'b'": 0, "!has(app)": 10_001, "app != 'a7'": 10_001,
	} {
		before := w.Evaluations()
		w.SetSelector("new", parse(t, text))
		if n := w.Evaluations() - before; n > most {
			t.Errorf("%s: %d evaluations, want at most %d", text, n, most)
		}
	}
}

package classifier_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

// However a list is edited, it is judged as the oracle judges what came of it,
// also from its image and where rules name sets that no rule has named before;
// the program of before goes on as it was.
func TestEditedProgramsAgreeWithTheOracle(t *testing.T) {
	refused := uint64(0)
	for seed := range 30 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := classifiertest.NewWorld(rng, seed%2 == 0)
		list := classifiertest.Rules(rng, 1+rng.IntN(60))
		if seed%3 > 0 {
			list = w.Rules(rng, 1+rng.IntN(60))
		} else {
			w.V6 = false
		}
		donors := slices.Clone(list)
		if seed%3 > 0 {
			donors = append(donors, w.Rules(rng, 5)...)
			w.Learn(donors)
		}
		first := w.Compile(t, rng, list, classifier.Options{Editable: true})
		p, now := first, list
		for range 16 {
			edits, after := classifiertest.Edits(rng, now, donors, 1+rng.IntN(24))
			next, err := p.Edit(w.Literals, edits...)
			if errors.Is(err, classifier.ErrCompile) {
				refused++
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent, err := classifier.Load(next.Image())
			if err != nil {
				t.Fatal(err)
			}
			w.Tell(next)
			w.Tell(sent)
			w.Agree(t, rng, after, next, 60)
			w.Agree(t, rng, after, sent, 60)
			w.Agree(t, rng, now, p, 20)
			p, now = next, after
		}
		w.Agree(t, rng, list, first, 20)
	}
	if refused == 0 || refused == 30**rounds {
		t.Errorf("%d of %d sequences needed a compile", refused, 30**rounds)
	}
}

func TestEditRefuses(t *testing.T) {
	rule := classifier.Rule{ID: 1, Action: classifier.Allow}
	sets := rule
	sets.Source.Sets = []classifier.SetID{9}
	raw := classifiertest.Load(t, []classifier.Rule{rule, rule}, classifier.Options{Editable: true})
	over := classifiertest.Load(t, []classifier.Rule{sets}, classifier.Options{})
	tests := map[string]struct {
		p       *classifier.Program
		edits   []classifier.Edit
		compile bool
	}{
		"a position behind the end":    {raw, []classifier.Edit{{Position: 3, Rule: rule}}, false},
		"a negative position":          {raw, []classifier.Edit{{Position: -1, Rule: rule}}, false},
		"a removal at the end":         {raw, []classifier.Edit{{Position: 2, Remove: true}}, false},
		"a third removal of two":       {raw, []classifier.Edit{{Remove: true}, {Remove: true}, {Remove: true}}, false},
		"a rule with a fault":          {raw, []classifier.Edit{{Rule: classifier.Rule{}}}, false},
		"too many rules":               {raw, slices.Repeat([]classifier.Edit{{Rule: rule}}, classifier.MaxAdded+1), true},
		"sets in a list without":       {raw, []classifier.Edit{{Rule: sets}}, true},
		"loaded with edits":            {edited(t, raw), []classifier.Edit{{Remove: true}}, true},
		"a list that is not editable":  {classifiertest.Load(t, []classifier.Rule{rule}, classifier.Options{}), []classifier.Edit{{Remove: true}}, true},
		"prefixes and nothing to name": {over, []classifier.Edit{{Rule: classifier.Rule{Action: classifier.Deny, Source: classifier.Side{Nets: classifiertest.Net(rand.New(rand.NewPCG(1, 1)))}}}}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := tt.p.Edit(nil, tt.edits...)
			if p != nil || err == nil || errors.Is(err, classifier.ErrCompile) != tt.compile {
				t.Errorf("got %v, %v; want an error, ErrCompile in it: %v", p, err, tt.compile)
			}
		})
	}
}

// edited is a program with a rule more, as its image has it.
func edited(t *testing.T, p *classifier.Program) *classifier.Program {
	t.Helper()
	q, err := p.Edit(nil, classifier.Edit{Rule: classifier.Rule{ID: 2, Action: classifier.Deny}})
	if err != nil {
		t.Fatal(err)
	}
	q, err = classifier.Load(q.Image())
	if err != nil || !q.Edited() {
		t.Fatalf("edited: %v, %v", q.Edited(), err)
	}
	return q
}

// What was added and removed again leaves nothing behind.
func TestEditsThatCancelOut(t *testing.T) {
	list := []classifier.Rule{{ID: 1, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{1}}}}
	c, err := classifier.Compile(list, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	p.AddClass(7, []classifier.SetID{1, 2}) // what a program was told of is not in its image
	q, err := p.Edit(nil, classifier.Edit{Rule: list[0]})
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.Edit(nil, classifier.Edit{Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	if !q.Edited() || r.Edited() || !bytes.Equal(r.Image(), c.Image) || bytes.Equal(q.Image(), c.Image) {
		t.Errorf("edited: %v, and then %v; the image is that of before: %v, and then %v", q.Edited(), r.Edited(), bytes.Equal(q.Image(), c.Image), bytes.Equal(r.Image(), c.Image))
	}
}

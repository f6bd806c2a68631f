package classifier_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

// However a list was edited, its order is that of the list which came of it.
func TestOrder(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 9))
		w := classifiertest.NewWorld(rng, false)
		now := w.Rules(rng, rng.IntN(40))
		donors := slices.Clone(now)
		p := w.Compile(t, rng, now, classifier.Options{Editable: true})
		for range 8 {
			want := make([]classifier.Verdict, len(now))
			for i, r := range now {
				want[i] = classifier.NewVerdict(r.Action, r.ID, 0)
			}
			if got := slices.Collect(p.Order()); !slices.Equal(got, want) {
				t.Fatalf("seed %d: order is %v, want %v", seed, got, want)
			}
			for range p.Order() {
				break // who has seen enough may go
			}
			if len(donors) == 0 {
				break
			}
			edits, after := classifiertest.Edits(rng, now, donors, 1+rng.IntN(24))
			next, err := p.Edit(w.Literals, edits...)
			if errors.Is(err, classifier.ErrCompile) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			p, now = next, after
		}
	}
}

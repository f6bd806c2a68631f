package classifier_test

import (
	"math/rand/v2"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

// Whatever rule a list has, also by an edit, is among those that its program tells of.
func TestProgramsTellOfAllTheirRules(t *testing.T) {
	added := 0
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 9))
		list := classifiertest.Rules(rng, 1+rng.IntN(40))
		p := classifiertest.Load(t, list, classifier.Options{Editable: true})
		edits, after := classifiertest.Edits(rng, list, classifiertest.Rules(rng, 10), 10)
		edited, err := p.Edit(nil, edits...)
		if err != nil {
			edited, after = p, list
		} else {
			added++
		}
		tells := map[classifier.Verdict]bool{}
		for v := range edited.All() {
			tells[v] = true
		}
		for i := range after {
			if want := classifier.NewVerdict(after[i].Action, after[i].ID, 0); !tells[want] {
				t.Errorf("seed %d: rule %v is not told of", seed, want)
			}
		}
		for range p.All() {
			break
		}
	}
	if added == 0 {
		t.Error("no list could be edited")
	}
}

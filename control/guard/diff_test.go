package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
)

// someRules is a list over few ids, so that lists have much in common.
func someRules(rng *rand.Rand, n int) (list []classifier.Rule) {
	for range n {
		r := classifier.Rule{ID: uint32(rng.IntN(6)), Action: classifier.Allow}
		if rng.IntN(4) == 0 {
			r.Source.Nets = []netip.Prefix{netip.MustParsePrefix([]string{"10.0.0.0/8", "fd00::/8"}[rng.IntN(2)])}
		}
		list = append(list, r)
	}
	return list
}

// edited makes edits, one after the other.
func edited(t *testing.T, list []classifier.Rule, edits []classifier.Edit) (after, gone []classifier.Rule) {
	t.Helper()
	after = slices.Clone(list)
	for i, e := range edits {
		switch {
		case e.Position < 0 || e.Position > len(after) || e.Remove && e.Position == len(after):
			t.Fatalf("edit %d is at %d of %d", i, e.Position, len(after))
		case e.Remove:
			gone = append(gone, after[e.Position])
			after = slices.Delete(after, e.Position, e.Position+1)
		default:
			after = slices.Insert(after, e.Position, e.Rule)
		}
	}
	return after, gone
}

// common is the most rules that stand in both lists in the same order, by the
// table that everybody knows.
func common(a, b []classifier.Rule) int {
	best := make([][]int, len(a)+1)
	best[0] = make([]int, len(b)+1)
	for i := range a {
		best[i+1] = make([]int, len(b)+1)
		for j := range b {
			if best[i+1][j+1] = max(best[i][j+1], best[i+1][j]); equal(&a[i], &b[j]) {
				best[i+1][j+1] = best[i][j] + 1
			}
		}
	}
	return best[len(a)][len(b)]
}

func checkDiff(t *testing.T, before, after []classifier.Rule) {
	t.Helper()
	edits, gone, ok := diff(before, after)
	least := len(before) + len(after) - 2*common(before, after)
	if !ok {
		if least <= maxEdits {
			t.Fatalf("%d edits are too many", least)
		}
		return
	}
	if len(edits) != least {
		t.Errorf("%d edits, %d would do", len(edits), least)
	}
	got, removed := edited(t, before, edits)
	same := func(a, b classifier.Rule) bool { return equal(&a, &b) }
	if !slices.EqualFunc(got, after, same) || !slices.EqualFunc(removed, gone, same) {
		t.Errorf("edits of %v come to %v and remove %v, want %v and %v", before, got, removed, after, gone)
	}
}

func TestDiff(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		before := someRules(rng, rng.IntN(20))
		checkDiff(t, before, someRules(rng, rng.IntN(20)))
		after := slices.Clone(before)
		for range rng.IntN(4) {
			at := rng.IntN(len(after) + 1)
			after = slices.Insert(after, at, someRules(rng, 1)[0])
			at = rng.IntN(len(after))
			after = slices.Delete(after, at, at+1)
		}
		checkDiff(t, before, after)
	}
	rng := rand.New(rand.NewPCG(1, 6))
	long := someRules(rng, 600)
	checkDiff(t, long, someRules(rng, 600)) // too many
	checkDiff(t, nil, long[:maxEdits+1])    // too many
	checkDiff(t, long, long[:1])            // many, but they only go
	checkDiff(t, long, append(slices.Clone(long[:300]), long[340:]...))
}

func TestEqualRules(t *testing.T) {
	base := func() classifier.Rule {
		side := func() classifier.Side {
			return classifier.Side{
				Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, NotNets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
				Sets: []classifier.SetID{1}, NotSets: []classifier.SetID{2}, Ports: []classifier.Range{{First: 3, Last: 4}},
			}
		}
		return classifier.Rule{ID: 1, Action: classifier.Deny, Protocols: []classifier.Range{{First: 6, Last: 6}}, Source: side(), Destination: side()}
	}
	a := base()
	if b := base(); !equal(&a, &b) {
		t.Error("a rule is not equal to itself")
	}
	for name, change := range map[string]func(r *classifier.Rule){
		"id":        func(r *classifier.Rule) { r.ID++ },
		"action":    func(r *classifier.Rule) { r.Action = classifier.Allow },
		"protocols": func(r *classifier.Rule) { r.Protocols[0].Last++ },
		"nets":      func(r *classifier.Rule) { r.Source.Nets[0] = netip.MustParsePrefix("fd00::/8") },
		"not nets":  func(r *classifier.Rule) { r.Destination.NotNets = nil },
		"sets":      func(r *classifier.Rule) { r.Destination.Sets[0]++ },
		"not sets":  func(r *classifier.Rule) { r.Source.NotSets[0]++ },
		"ports":     func(r *classifier.Rule) { r.Source.Ports[0].First-- },
	} {
		b := base()
		if change(&b); equal(&a, &b) {
			t.Errorf("rules of other %s are equal", name)
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{1, 3})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		list := func(ids []byte) (out []classifier.Rule) {
			for _, id := range ids[:min(len(ids), 300)] {
				out = append(out, classifier.Rule{ID: uint32(id % 8), Action: classifier.Allow})
			}
			return out
		}
		checkDiff(t, list(a), list(b))
	})
}

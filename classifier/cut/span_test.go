package cut

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// someSpans draws spans of the values up to 63, and says which values they have.
func someSpans(rng *rand.Rand) (spans []Span, in [64]bool) {
	for at := rng.Uint32N(9); at < 64; at += 1 + rng.Uint32N(9) {
		s := Span{at, min(63, at+rng.Uint32N(9))}
		spans = append(spans, s)
		for at = s.Lo; at <= s.Hi; at++ {
			in[at] = true
		}
		at--
	}
	return spans, in
}

// values are what spans have of the values up to 63, which they must name once each.
func values(t *testing.T, spans []Span) (in [64]bool) {
	t.Helper()
	if !slices.IsSortedFunc(spans, func(a, b Span) int { return int(a.Lo) - int(b.Lo) }) {
		t.Fatalf("%v do not ascend", spans)
	}
	for _, s := range spans {
		for v := s.Lo; v <= s.Hi; v++ {
			if in[v] {
				t.Fatalf("%v overlap", spans)
			}
			in[v] = true
		}
	}
	return in
}

func TestSpansAreTheirValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 * *rounds {
		a, inA := someSpans(rng)
		b, inB := someSpans(rng)
		none, both := values(t, Complement(a, 63)), values(t, Intersect(a, b))
		for v := range 64 {
			if none[v] == inA[v] || both[v] != (inA[v] && inB[v]) {
				t.Fatalf("%v, %v: they leave out %v, and have in common %v", a, b, Complement(a, 63), Intersect(a, b))
			}
		}
	}
}

package converge

import (
	"math"
	"testing"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	sum := 0.0
	for _, v := range []float64{0, 0.5, 1, 1.1, 3, 10, 299_999, 300_000, 300_001, 1e9} {
		h.Observe(v)
		sum += v
	}
	got := h.Cumulative()
	for b, want := range map[float64]uint64{1: 3, 3: 5, 10: 6, 30: 6, 100_000: 6, 300_000: 8} {
		if got[b] != want {
			t.Errorf("%d values are not above %v, want %d", got[b], b, want)
		}
	}
	if len(got) != 12 || h.Count != 10 || math.Abs(h.Sum-sum) > 1 {
		t.Errorf("%d bounds, %d values of together %v", len(got), h.Count, h.Sum)
	}
}

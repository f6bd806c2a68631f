package harness

import (
	"math"
	"slices"
)

// Estimate is what windows of one side came to.
type Estimate struct {
	Median, Q1, Q3 float64
	Runs           int // windows; 0 for a published figure
}

// Summary is the median and quartiles of values, nil if there are none.
// Quartiles are interpolated between neighbours (Hyndman and Fan's type 7).
func Summary(values []float64) *Estimate {
	if len(values) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(values))
	return &Estimate{Median: quantile(s, 0.5), Q1: quantile(s, 0.25), Q3: quantile(s, 0.75), Runs: len(s)}
}

// Percentile is that of values, from 0 to 100, as Summary's quartiles are; nil if
// there are none.
func Percentile(values []float64, percent float64) *Estimate {
	if len(values) == 0 {
		return nil
	}
	v := quantile(slices.Sorted(slices.Values(values)), percent/100)
	return &Estimate{Median: v, Q1: v, Q3: v, Runs: len(values)}
}

// Published is a figure that was measured elsewhere, at another time.
func Published(v float64) *Estimate { return &Estimate{Median: v, Q1: v, Q3: v} }

// Exactly is a figure that was measured once, or counted.
func Exactly(v float64) *Estimate { return &Estimate{Median: v, Q1: v, Q3: v, Runs: 1} }

// quantile of sorted values, q from 0 to 1.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	lo := int(math.Floor(at))
	hi := min(lo+1, len(sorted)-1)
	return sorted[lo] + (at-float64(lo))*(sorted[hi]-sorted[lo])
}

func (e *Estimate) spread() *[2]float64 {
	if e.Runs == 0 {
		return nil
	}
	return &[2]float64{e.Q1, e.Q3}
}

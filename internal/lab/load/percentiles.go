package load

import (
	"slices"
	"time"
)

// RTT is how long round trips took.
type RTT struct {
	Sent     int           `json:"sent"`
	Received int           `json:"received"`
	Min      time.Duration `json:"min_ns"`
	P50      time.Duration `json:"p50_ns"`
	P90      time.Duration `json:"p90_ns"`
	P99      time.Duration `json:"p99_ns"`
	Max      time.Duration `json:"max_ns"`
}

// summarize sorts the round trips and picks from them.
func summarize(sent int, trips []time.Duration) RTT {
	out := RTT{Sent: sent, Received: len(trips)}
	if len(trips) == 0 {
		return out
	}
	slices.Sort(trips)
	out.Min, out.Max = trips[0], trips[len(trips)-1]
	out.P50, out.P90, out.P99 = rank(trips, 50), rank(trips, 90), rank(trips, 99)
	return out
}

// rank is the nearest-rank percentile of sorted, which is not empty.
func rank(sorted []time.Duration, percent int) time.Duration {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

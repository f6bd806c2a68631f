package harness

import (
	"encoding/json"
	"fmt"
	"math"
)

// Metric is what a result is about.
type Metric struct {
	Name string
	Unit string
	More bool // more is better; else less is
}

// Result is one comparison: a case of ours against one peer, or alone. Its JSON
// is one line of output; the field names bind whoever reads it.
type Result struct {
	Scenario  string   `json:"scenario"`
	Case      string   `json:"case"` // slash-separated
	Metric    string   `json:"metric"`
	Unit      string   `json:"unit"`
	Ours      *float64 `json:"ours"` // median; null if we could not run
	Peer      string   `json:"peer"` // empty: no peer for this metric
	PeerValue *float64 `json:"peer_value"`
	Ratio     *float64 `json:"ratio"`         // above 1: ours is better
	Why       string   `json:"why,omitempty"` // why a value is null, or in doubt
	// Budget is what the design allows ours, and Met whether it keeps to it.
	Budget     *float64    `json:"budget,omitempty"`
	MinRatio   *float64    `json:"min_ratio,omitempty"` // a budget of the ratio instead
	Met        *bool       `json:"met,omitempty"`
	Runs       int         `json:"runs"`        // accepted windows of ours
	Spread     *[2]float64 `json:"spread"`      // first and third quartile of ours
	PeerSpread *[2]float64 `json:"peer_spread"` // null for a published figure
	Allocs     *float64    `json:"allocs_per_op"`
	// Noise is what disturbed the accepted windows.
	Noise *Noise `json:"noise,omitempty"`
	// Extra is further figures of ours (and of the peer, named peer_...).
	Extra map[string]float64 `json:"extra,omitempty"`
	Machine
}

// Machine is where and from what a result came.
type Machine struct {
	Commit string `json:"commit"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Score  Score  `json:"score"`
}

// Noise tells how quiet it was.
type Noise struct {
	Quiet    bool    `json:"quiet"`    // every window kept to the limits
	Wait     float64 `json:"wait"`     // worst share of a window spent waiting for a CPU, or that others took
	Slow     float64 `json:"slow"`     // how much slower than at its best the core was, at worst
	Steal    float64 `json:"steal"`    // share of CPU time that the hypervisor took meanwhile
	Repeated int     `json:"repeated"` // windows thrown away
	Load     float64 `json:"load"`     // processes that ran or wanted to (1 minute average)
}

// New makes a result of ours against peer. A nil estimate is a side that could
// not run; why tells the reason. Budget 0 means none.
func New(caseName string, m Metric, ours *Estimate, peer string, theirs *Estimate, budget float64, why string) Result {
	r := Result{Case: caseName, Metric: m.Name, Unit: m.Unit, Peer: peer, Why: why}
	if ours != nil {
		r.Ours, r.Runs, r.Spread = &ours.Median, ours.Runs, ours.spread()
	}
	if theirs != nil {
		r.PeerValue, r.PeerSpread = &theirs.Median, theirs.spread()
	}
	if ours != nil && theirs != nil {
		r.Ratio = ratio(ours.Median, theirs.Median, m.More)
	}
	if budget != 0 {
		r.Want(m, budget)
	}
	return r
}

// Want says what the design allows ours, also where that is none at all.
func (r *Result) Want(m Metric, budget float64) {
	r.Budget = &budget
	if r.Ours != nil {
		met := *r.Ours <= budget
		if m.More {
			met = *r.Ours >= budget
		}
		r.Met = &met
	}
}

// WantRatio says that the design asks for a ratio of at least least.
func (r *Result) WantRatio(least float64) {
	r.MinRatio = &least
	if r.Ratio != nil {
		met := *r.Ratio >= least
		r.Met = &met
	}
}

// ratio is how many times better a is than b; nil where that means nothing.
func ratio(a, b float64, more bool) *float64 {
	if !more {
		a, b = b, a
	}
	q := a / b
	if math.IsNaN(q) || math.IsInf(q, 0) {
		return nil
	}
	return &q
}

// line is the result as one line of JSON, its figures to four digits or so.
func (r Result) line() ([]byte, error) {
	r.Ours, r.PeerValue, r.Ratio, r.Budget, r.Allocs = short(r.Ours), short(r.PeerValue), short(r.Ratio), short(r.Budget), short(r.Allocs)
	r.Spread, r.PeerSpread = shortPair(r.Spread), shortPair(r.PeerSpread)
	if r.Noise != nil {
		n := *r.Noise
		n.Wait, n.Slow, n.Steal, n.Load = round(n.Wait), round(n.Slow), round(n.Steal), round(n.Load)
		r.Noise = &n
	}
	extra := make(map[string]float64, len(r.Extra))
	for k, v := range r.Extra {
		extra[k] = round(v)
	}
	r.Extra = extra
	r.Score = Score{round(r.Score.CPU), round(r.Score.Memmove)}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write result %s: %w", r.Case, err)
	}
	return append(b, '\n'), nil
}

func short(v *float64) *float64 {
	if v == nil {
		return nil
	}
	s := round(*v)
	return &s
}

func shortPair(v *[2]float64) *[2]float64 {
	if v == nil {
		return nil
	}
	return &[2]float64{round(v[0]), round(v[1])}
}

// round keeps four significant digits, and all digits before the point.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	scale := math.Pow(10, max(0, 3-math.Floor(math.Log10(math.Abs(v)))))
	return math.Round(v*scale) / scale
}

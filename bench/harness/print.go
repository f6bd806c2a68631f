package harness

import (
	"fmt"
	"io"
	"strconv"

	"margay.dev/margay/internal/render"
)

// JSON prints each result as a line as soon as it is there.
func JSON(w io.Writer) func(Result) error {
	return func(r Result) error {
		b, err := r.line()
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
}

// Table collects results for people.
type Table struct {
	results []Result
}

// Add keeps a result.
func (t *Table) Add(r Result) error {
	t.results = append(t.results, r)
	return nil
}

// Write prints what was collected, and what disturbed it.
func (t *Table) Write(w io.Writer) error {
	if len(t.results) == 0 {
		return nil
	}
	out := render.NewTable("CASE", "METRIC", ">OURS", ">SPREAD", "PEER", ">PEER VALUE", ">RATIO", ">BUDGET", ">ALLOCS", ">RUNS", "REMARK")
	for _, r := range t.results {
		out.Row(r.Scenario+"/"+r.Case, r.Metric, figure(r.Ours), spread(r.Spread), r.Peer, figure(r.PeerValue),
			figure(r.Ratio), budget(r), figure(r.Allocs), strconv.Itoa(r.Runs), remark(r))
	}
	m := t.results[0].Machine
	fmt.Fprintf(w, "commit %s, kernel %s, %s, score %.0f / %.1f\n", m.Commit, m.Kernel, m.CPU, m.Score.CPU, m.Score.Memmove)
	return out.Write(w)
}

func figure(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(round(*v), 'f', -1, 64)
}

func spread(v *[2]float64) string {
	if v == nil {
		return ""
	}
	return figure(&v[0]) + ".." + figure(&v[1])
}

// budget is what was allowed, and whether ours keeps to it.
func budget(r Result) string {
	word := figure(r.Budget)
	if r.MinRatio != nil {
		word = "ratio " + figure(r.MinRatio)
	}
	switch {
	case r.Met == nil:
		return word
	case *r.Met:
		return word + " ok"
	}
	return word + " MISSED"
}

func remark(r Result) string {
	switch {
	case r.Why != "":
		return r.Why
	case r.Noise != nil && !r.Noise.Quiet:
		return fmt.Sprintf("disturbed: waited, or others ran, %s; core slower by %s; load %.1f",
			render.Percent(r.Noise.Wait), render.Percent(r.Noise.Slow), r.Noise.Load)
	}
	return ""
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// endless is a scenario with more cases than any time is enough for.
func endless(cases int) Scenario {
	return Scenario{Name: "endless", Run: func(ctx context.Context, s *Session) error {
		for i := range cases {
			name := fmt.Sprintf("case=%d", i)
			if !s.Wants(name) {
				continue
			}
			if ctx.Err() != nil {
				s.Report(New(name, Metric{Name: "n"}, nil, "", nil, 0, "no time"))
				continue
			}
			turns := s.Meter.Compare(ctx, s.Share(ctx, cases-i, time.Second), Side{Window: func(d time.Duration) float64 {
				time.Sleep(d)
				return 1
			}})
			why := ""
			if turns.Sides[0] == nil {
				why = "no time"
			}
			s.Report(New(name, Metric{Name: "n"}, turns.Sides[0], "", nil, 0, why))
		}
		return ctx.Err()
	}}
}

func collect(o *Options) *[]Result {
	var all []Result
	o.Out = func(r Result) error { all = append(all, r); return nil }
	o.Log = io.Discard
	return &all
}

func TestQuickRunEndsInTimeAndNamesWhatItLeftOut(t *testing.T) {
	o := Options{Quick: true, Limit: 3 * time.Second}
	got := collect(&o)
	start := time.Now()
	if err := Run(t.Context(), o, endless(9000)); err != nil {
		t.Fatalf("running out of time is no failure: %v", err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v, was given %v", took, o.Limit)
	}
	if len(*got) != 9000 {
		t.Fatalf("%d cases were reported, want all 9000", len(*got))
	}
	ran := 0
	for _, r := range *got {
		if r.Ours != nil {
			ran++
		} else if r.Why == "" {
			t.Errorf("%s did not run and nobody says why", r.Case)
		}
	}
	if ran == 0 || ran == 9000 {
		t.Errorf("%d of 9000 cases ran in the time for some", ran)
	}
}

func TestQuickLimitLeavesRoomBelowFiftySeconds(t *testing.T) {
	var limit, left time.Duration
	probe := Scenario{Name: "probe", Run: func(ctx context.Context, s *Session) error {
		end, _ := ctx.Deadline()
		limit, left = s.Limit, time.Until(end)
		s.Report(Result{})
		return nil
	}}
	o := Options{Quick: true}
	collect(&o)
	if err := Run(t.Context(), o, probe); err != nil {
		t.Fatal(err)
	}
	if limit <= 0 || limit > 45*time.Second || left > limit {
		t.Errorf("a quick scenario is given %v (%v left), want at most 45 s: the rest is for its end", limit, left)
	}
}

func TestFilterChoosesCases(t *testing.T) {
	tests := map[string]struct {
		filter string
		want   []string
	}{
		"everything":        {"", []string{"case=0", "case=1", "case=2"}},
		"part of a case":    {"=1", []string{"case=1"}},
		"with the scenario": {"endless/case=2", []string{"case=2"}},
		"nothing":           {"graph", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := Options{Filter: tt.filter, Limit: 5 * time.Second, Quick: true}
			got := collect(&o)
			err := Run(t.Context(), o, endless(3))
			var names []string
			for _, r := range *got {
				names = append(names, r.Case)
				if r.Scenario != "endless" || r.Kernel == "" {
					t.Errorf("%+v does not say whence it is", r)
				}
			}
			if !slices.Equal(names, tt.want) {
				t.Errorf("ran %v, want %v", names, tt.want)
			}
			if (err != nil) != (tt.want == nil) {
				t.Errorf("error is %v: running nothing is one", err)
			}
		})
	}
}

func TestOneScenariosFaultStopsNoOther(t *testing.T) {
	broken := Scenario{Name: "broken", Run: func(context.Context, *Session) error { return errors.New("no device") }}
	o := Options{Quick: true, Limit: 5 * time.Second}
	got := collect(&o)
	err := Run(t.Context(), o, broken, endless(1))
	if err == nil || !strings.Contains(err.Error(), "run broken: no device") {
		t.Errorf("error is %v", err)
	}
	if len(*got) != 1 {
		t.Errorf("the scenario after it reported %d results, want 1", len(*got))
	}
}

func TestShareOfTheTime(t *testing.T) {
	with := func(left time.Duration) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		t.Cleanup(cancel)
		return ctx
	}
	tests := map[string]struct {
		ctx   context.Context
		quick bool
		n     int
		want  time.Duration
	}{
		"no deadline":            {t.Context(), false, 10, 5 * time.Second},
		"no deadline, but quick": {t.Context(), true, 10, time.Second},
		"time enough":            {with(time.Hour), false, 10, 5 * time.Second},
		"time is short":          {with(10 * time.Second), false, 10, time.Second},
		"time is over":           {with(0), false, 10, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &Session{Options: Options{Quick: tt.quick}}
			if got := s.Share(tt.ctx, tt.n, 5*time.Second); got > tt.want || got < tt.want*8/10 {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

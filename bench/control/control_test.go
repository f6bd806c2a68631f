package control

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage/stagetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// ran runs the scenario, or a part of it.
func ran(t *testing.T, forwarder, filter string) map[string]harness.Result {
	t.Helper()
	got := map[string]harness.Result{}
	o := harness.Options{Quick: true, Filter: filter, Log: io.Discard, Forwarder: forwarder}
	o.Out = func(r harness.Result) error { got[r.Case+" "+r.Metric] = r; return nil }
	small := harness.Scenario{Name: "control", Run: func(ctx context.Context, s *harness.Session) error {
		return play(ctx, s, steps(s, 3, size{endpoints: 200, policies: 100}, size{endpoints: 400, policies: 200}))
	}}
	if err := harness.Run(t.Context(), o, small); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEveryCaseIsMeasured(t *testing.T) {
	hostnettest.OfProcesses(t)
	got := ran(t, stagetest.Programs(t), "")
	for _, want := range []string{
		"change/endpoints=200 ms_p99_by_store", "change/endpoints=200 ms_p99_by_margayctl", "label/endpoints=200 ns_computed",
		"label/endpoints=400 bytes_to_forwarder", "rules=12500 ms", "cold/endpoints=400/policies=200 ms_to_in_sync", "cold/endpoints=400/policies=200 rss",
	} {
		if r := got[want]; r.Ours == nil || *r.Ours <= 0 {
			t.Errorf("%s: %+v", want, r)
		}
	}
}

func TestWithoutProgramsTheReasonIsReported(t *testing.T) {
	hostnettest.NeedRoot(t)
	all := ran(t, filepath.Join(t.TempDir(), "none"), "")
	if len(all) != 4 {
		t.Errorf("%d cases are reported, want each of the 4", len(all))
	}
	for name, r := range all {
		if r.Ours != nil || !strings.Contains(r.Why, "make build") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

package idle

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

// watched runs the scenario for two windows.
func watched(t *testing.T, forwarder string) []harness.Result {
	t.Helper()
	var got []harness.Result
	o := harness.Options{Quick: true, Log: io.Discard, Forwarder: forwarder}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	short := harness.Scenario{Name: "idle", Run: func(ctx context.Context, s *harness.Session) error { return run(ctx, s, 2, 2) }}
	if err := harness.Run(t.Context(), o, short); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestIdleForwarderIsMeasured(t *testing.T) {
	bin := stagetest.Forwarder(t)
	got := map[string]float64{}
	for _, r := range watched(t, bin) {
		if r.Ours == nil {
			t.Fatalf("%+v", r)
		}
		got[r.Metric] = *r.Ours
	}
	if s := got["cpu_share"]; s <= 0 || s > 50 {
		t.Errorf("an idle forwarder takes %v %% of a core", s)
	}
	if all, own := got["rss"], got["rss_without_packets"]; own <= 1 || all <= own {
		t.Errorf("%v MiB, %v without the packet memory", all, own)
	}
}

func TestWithoutForwarderTheReasonIsReported(t *testing.T) {
	hostnettest.NeedRoot(t)
	got := watched(t, filepath.Join(t.TempDir(), "none"))
	if len(got) != 1 || got[0].Ours != nil || !strings.Contains(got[0].Why, "make build") {
		t.Errorf("%+v", got)
	}
}

package classify

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/classbench"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/classifier"
)

// runQuick runs the scenario and returns its results by case and metric.
func runQuick(t *testing.T, o harness.Options) map[string]harness.Result {
	t.Helper()
	got := map[string]harness.Result{}
	o.Quick, o.Limit, o.Log = true, time.Minute, io.Discard
	o.Out = func(r harness.Result) error {
		got[r.Case+" "+r.Metric] = r
		return nil
	}
	if err := harness.Run(t.Context(), o, Scenario(os.DirFS(".."))); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestScenarioRuns(t *testing.T) {
	got := runQuick(t, harness.Options{Filter: "acl1_1k/"})
	for _, burst := range bursts(true) {
		for _, w := range classifier.Walkers() {
			name := walkCase("acl1_1k", burst, w.String())
			nanos, wrong := got[name+" ns_per_lookup"], got[name+" wrong"]
			if nanos.Ours == nil || wrong.Ours == nil || *wrong.Ours != 0 || !*wrong.Met {
				t.Errorf("%s: %+v, %+v", name, nanos, wrong)
			}
			if nanos.PeerValue == nil && nanos.Why == "" {
				t.Errorf("%s has no peer and does not say why", name)
			}
			if nanos.PeerValue != nil && (*wrong.PeerValue != 0 || nanos.Ratio == nil || nanos.Extra["peer_scalar"] == 0) {
				t.Errorf("%s: the peer's figures are %+v, %+v", name, nanos, wrong)
			}
		}
		for _, w := range classifier.MissingWalkers() {
			if r := got[walkCase("acl1_1k", burst, w.String())+" ns_per_lookup"]; r.Ours != nil || r.Why == "" {
				t.Errorf("%v is missing, and the result is %+v", w, r)
			}
		}
	}
	for _, metric := range []string{"build_ms", "memory_mb"} {
		if r := got["acl1_1k/table "+metric]; r.Ours == nil || *r.Ours <= 0 || r.Budget == nil {
			t.Errorf("%s: %+v", metric, r)
		}
	}
}

// Files of the user's own: a set, and a trace that is missing, lacks its answers,
// or has those that the generator of ClassBench writes.
func TestFilesOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var rules strings.Builder
	for i := range 40 {
		fmt.Fprintf(&rules, "@10.0.0.0/8 10.%d.0.0/16 0 : 65535 0 : 65535 0x06/0xFF\n", i/2)
	}
	set := write("own", rules.String())
	header := "167772161\t167837697\t1\t2\t6" // 10.0.0.1 to 10.1.0.1: rule 2, and 3 too
	for name, trace := range map[string]string{"without answers": write("a", header), "of the rule drawn": write("b", header+"\t3"), "true": write("c", header+"\t2")} {
		got, err := load(t, set, trace)
		if err != nil || len(got.trace) != 1 || got.trace[0].Answer != 2 || len(got.list) != 40 {
			t.Errorf("a trace %s: %+v, %v", name, got, err)
		}
	}
	if got, err := load(t, set, ""); err != nil || len(got.trace) != headers(40) || classbench.NewScan(got.list).Check(got.trace, 100) != 0 {
		t.Errorf("a trace that is missing: %v", err)
	}
	got := runQuick(t, harness.Options{Rules: set, Trace: write("e", header), Filter: "own/burst=32"})
	if r := got["own/burst=32/portable ns_per_lookup"]; r.MinRatio == nil || r.Ours == nil {
		t.Errorf("a set without a budget has to keep up with the peer: %+v", r)
	}
	for name, o := range map[string]harness.Options{
		"a trace of no set":     {Trace: set},
		"a set that is missing": {Rules: filepath.Join(dir, "none")},
		"a trace that is":       {Rules: set, Trace: filepath.Join(dir, "none")},
		"a set that is none":    {Rules: write("d", header)},
		"a trace that is none":  {Rules: set, Trace: set},
	} {
		o.Quick, o.Limit, o.Log, o.Out = true, time.Minute, io.Discard, func(harness.Result) error { return nil }
		if err := harness.Run(t.Context(), o, Scenario(nil)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func load(t *testing.T, rules, trace string) (*set, error) {
	all, err := sources(nil, rules, trace)
	if err != nil || len(all) != 1 || all[0].name != "own" {
		t.Fatal(all, err)
	}
	return all[0].load(t.Logf)
}

func TestWrongAnswersAreCounted(t *testing.T) {
	s := &set{trace: []classbench.Header{{Answer: 0}, {Answer: 5}, {Answer: classbench.None}, {Answer: classbench.None}}}
	out := []classifier.Verdict{
		classifier.NewVerdict(classifier.Allow, 0, 0), classifier.NewVerdict(classifier.Allow, 4, 0), 0, classifier.NewVerdict(classifier.Allow, 0, 0),
	}
	if got := s.wrong(out); got != 2 {
		t.Errorf("%d, want the second and the fourth", got)
	}
}

func TestFastestPassesAreKept(t *testing.T) {
	s := &side{}
	s.add([]float64{10, 30}, 1, 4)
	s.add([]float64{20, 20}, 0, 4)
	if got := s.best(4); got != 7.5 {
		t.Errorf("best %v, want (10+20)/4", got)
	}
	if e := s.estimate(4); e.Q3 != 10 || e.Runs != 2 || s.wrong != 1 {
		t.Errorf("%+v, %d wrong", e, s.wrong)
	}
	slow := &side{fastest: []float64{100}}
	if fastestOf([]*side{slow, s}, 4) != s || fastestOf(nil, 4) != nil {
		t.Error("not the fastest")
	}
}

// A smaller policy: every walker decides as the list does, for both
// families, in bursts and alone, also after members have come and gone.
func TestPoliciesAreJudgedRight(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			p := newPolicy(ipv6, 4000, []setSizes{{2, 0, 0}, {60, 1, 9}, {10, 10, 99}, {1, 900, 999}})
			p.flows = p.flows[:400]
			e, err := newEngine(p)
			if err != nil {
				t.Fatal(err)
			}
			want, nanos := p.answers(400)
			hits := map[int]bool{}
			for _, rule := range want {
				hits[rule] = true
			}
			if nanos <= 0 || len(hits) < 20 || !hits[-1] {
				t.Errorf("%d rules decide %d flows: they show little", len(hits), len(want))
			}
			check := func() {
				t.Helper()
				for _, w := range classifier.Walkers() {
					for _, burst := range []int{1, 31, 32} {
						j := newJudge(p, e.table, e.prog.By(w), burst, want)
						if wrong, err := j.pass(make([]float64, 1)); wrong != 0 || err != nil {
							t.Errorf("%v in bursts of %d: %d of %d wrong, %v", w, burst, wrong, len(want), err)
						}
					}
				}
			}
			check()
			b := &bench{Session: &harness.Session{Options: harness.Options{Out: func(r harness.Result) error {
				if r.Ours == nil || *r.Ours <= 0 || r.Extra["p99"] < *r.Ours {
					t.Errorf("%+v", r)
				}
				return nil
			}}}}
			if err := b.reportChanges("policy", p, e); err != nil {
				t.Error(err)
			}
			check()
			want[0]++
			if wrong, _ := newJudge(p, e.table, e.prog, 32, want).pass(make([]float64, 1)); wrong != 1 {
				t.Errorf("%d verdicts found wrong, want the one", wrong)
			}
		})
	}
}

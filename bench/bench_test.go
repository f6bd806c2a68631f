package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"margay.dev/margay/bench/harness"
)

// fakes are two scenarios: one that measures nothing much, one that breaks.
func fakes() []harness.Scenario {
	return []harness.Scenario{
		{Name: "fine", About: "nothing much", Run: func(_ context.Context, s *harness.Session) error {
			for _, name := range []string{"a/x=1", "a/x=2"} {
				if s.Wants(name) {
					s.Report(harness.New(name, harness.Metric{Name: "ns", Unit: "ns"}, harness.Exactly(5), "peer", harness.Exactly(10), 0, ""))
				}
			}
			return nil
		}},
		{Name: "broken", About: "breaks", Run: func(context.Context, *harness.Session) error { return errors.New("no device") }},
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		args   string
		status int
		out    string // is in what it prints
		log    string // is in what it says
		lines  int    // of output; 0 is not looked at
	}{
		"list names every scenario":   {"list", statusDone, "fine      nothing much\nbroken    breaks\n", "", 3},
		"a table":                     {"run fine", statusDone, "fine/a/x=1  ns         5", "fine: done", 4},
		"JSON lines":                  {"run fine -o json --quick", statusDone, `"case":"a/x=2"`, "", 2},
		"a filter":                    {"run fine -o json --filter x=2", statusDone, `"case":"a/x=2"`, "", 1},
		"nothing passes the filter":   {"run fine -o json --filter x=3", statusFailed, "", "no case of it was run", 0},
		"one breaks, others go on":    {"run broken fine -o json", statusFailed, `"case":"a/x=1"`, "run broken: no device", 2},
		"all of them":                 {"run all -o json", statusFailed, `"case":"a/x=1"`, "run broken: no device", 2},
		"a name that is not there":    {"run graf", statusUsage, "", `no scenario "graf": have fine, broken, or all`, 0},
		"no name":                     {"run", statusUsage, "", "requires at least 1 arg", 0},
		"an output that is not known": {"run fine -o xml", statusUsage, "", `output is "xml", want table or json`, 0},
		"a flag that is not known":    {"run fine --slow", statusUsage, "", "unknown flag: --slow", 0},
		"a profile":                   {"run fine --cpuprofile " + filepath.Join(dir, "cpu"), statusDone, "fine/a/x=1", "", 4},
		"a profile to no place":       {"run fine --cpuprofile " + filepath.Join(dir, "no", "cpu"), statusUsage, "", "make the CPU profile: open", 0},
		"its version":                 {"--version", statusDone, "margay-bench ", "", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, log bytes.Buffer
			b := &bench{out: &out, log: &log, scenarios: fakes}
			if got := b.run(t.Context(), strings.Fields(tt.args)); got != tt.status {
				t.Errorf("status %d, want %d\n%s", got, tt.status, log.String())
			}
			if !strings.Contains(out.String(), tt.out) || !strings.Contains(log.String(), tt.log) {
				t.Errorf("printed\n%s\nsaid\n%s\nwant %q and %q in them", out.String(), log.String(), tt.out, tt.log)
			}
			if n := strings.Count(out.String(), "\n"); tt.lines != 0 && n != tt.lines {
				t.Errorf("printed %d lines, want %d:\n%s", n, tt.lines, out.String())
			}
			if strings.Contains(tt.args, "json") {
				for line := range strings.Lines(out.String()) {
					if !json.Valid([]byte(line)) {
						t.Errorf("%q is not JSON", line)
					}
				}
			}
		})
	}
	if st, err := os.Stat(filepath.Join(dir, "cpu")); err != nil || st.Size() == 0 {
		t.Errorf("the profile: %v, %v; want something in it", st, err)
	}
}

func TestScenariosAreThoseOfTheDesign(t *testing.T) {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.Name)
		if s.About == "" || s.Run == nil {
			t.Errorf("scenario %s says nothing of itself or cannot run", s.Name)
		}
	}
	if got := strings.Join(names, " "); got != "graph fib label classifier policy pods-tcp pods-scaling nodes-tcp latency idle veth-forward scaling restart reload handover control" {
		t.Errorf("scenarios are %s", got)
	}
}

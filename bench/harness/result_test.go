package harness

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestRatioAboveOneMeansOursIsBetter(t *testing.T) {
	tests := map[string]struct {
		ours, peer float64
		more       bool
		want       float64 // 0: none
	}{
		"less time":               {10, 20, false, 2},
		"more time":               {20, 10, false, 0.5},
		"more throughput":         {20, 10, true, 2},
		"less throughput":         {10, 20, true, 0.5},
		"level":                   {7, 7, false, 1},
		"nothing against nothing": {0, 0, false, 0},
		"against a peer of zero":  {1, 0, true, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := New("c", Metric{"m", "u", tt.more}, Exactly(tt.ours), "p", Exactly(tt.peer), 0, "")
			switch {
			case tt.want == 0 && r.Ratio != nil:
				t.Errorf("ratio is %v, want none", *r.Ratio)
			case tt.want != 0 && (r.Ratio == nil || *r.Ratio != tt.want):
				t.Errorf("ratio is %v, want %v", figure(r.Ratio), tt.want)
			}
		})
	}
}

func TestBudgets(t *testing.T) {
	yes, no := true, false
	tests := map[string]struct {
		r    Result
		want *bool
	}{
		"cost within":       {New("c", Metric{"m", "ns", false}, Exactly(20), "", nil, 20, ""), &yes},
		"cost above":        {New("c", Metric{"m", "ns", false}, Exactly(20.1), "", nil, 20, ""), &no},
		"rate reached":      {New("c", Metric{"m", "Gbit/s", true}, Exactly(21), "", nil, 20, ""), &yes},
		"rate not reached":  {New("c", Metric{"m", "Gbit/s", true}, Exactly(19), "", nil, 20, ""), &no},
		"none is allowed":   {want(New("c", Metric{"m", "packets", false}, Exactly(0), "", nil, 0, ""), 0), &yes},
		"and there is one":  {want(New("c", Metric{"m", "packets", false}, Exactly(1), "", nil, 0, ""), 0), &no},
		"ours did not run":  {New("c", Metric{"m", "ns", false}, nil, "", nil, 20, "broken"), nil},
		"no budget":         {New("c", Metric{"m", "ns", false}, Exactly(20), "", nil, 0, ""), nil},
		"ratio reached":     {wantRatio(New("c", Metric{"m", "ns", false}, Exactly(10), "p", Exactly(9.6), 0, ""), 0.95), &yes},
		"ratio not reached": {wantRatio(New("c", Metric{"m", "ns", false}, Exactly(10), "p", Exactly(9.4), 0, ""), 0.95), &no},
		"no ratio":          {wantRatio(New("c", Metric{"m", "ns", false}, Exactly(10), "p", nil, 0, "gone"), 0.95), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.r.Met; (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("met is %s, want %s", said(got), said(tt.want))
			}
		})
	}
}

func want(r Result, budget float64) Result {
	r.Want(Metric{r.Metric, r.Unit, false}, budget)
	return r
}

func wantRatio(r Result, least float64) Result { r.WantRatio(least); return r }

func said(b *bool) string {
	v, _ := json.Marshal(b)
	return string(v)
}

func TestRoundKeepsFourDigits(t *testing.T) {
	for in, want := range map[float64]float64{
		0: 0, 1.23456: 1.235, 12.3456: 12.35, 123456.7: 123457, 0.000123456: 0.0001235, -17.4449: -17.44,
	} {
		if got := round(in); got != want {
			t.Errorf("round(%v) is %v, want %v", in, got, want)
		}
	}
}

// results are one of each shape.
func results() []Result {
	m := Machine{Commit: "1f2e3d4c5b6a", Kernel: "6.18.0", CPU: "AMD EPYC x2", Score: Score{649.123, 14.9}}
	ns := Metric{"ns_per_packet", "ns", false}
	allocs := 0.0
	ours := &Estimate{Median: 18.76543, Q1: 18.5, Q3: 19.25, Runs: 101}
	a := New("ip4/64B/dst=1k/vec=256", ns, ours, "plain-loop", &Estimate{Median: 14.1, Q1: 14, Q3: 14.5, Runs: 101}, 20, "")
	a.Allocs, a.Noise = &allocs, &Noise{Quiet: true, Wait: 0.004, Slow: 0.1, Repeated: 3, Load: 1.25}
	b := New("ip4/64B/dst=1k/vec=256", ns, ours, "vpp-published", Published(17.5), 20, "")
	b.Allocs = &allocs
	c := New("tcp/streams=1", Metric{"gbit_per_s", "Gbit/s", true}, ours, "kernel-veth", nil, 0, "kernel-veth: no such device")
	c.WantRatio(0.75)
	d := New("tcp/streams=8", Metric{"gbit_per_s", "Gbit/s", true}, nil, "bare-pump", Exactly(14), 0, "ours: find the forwarder")
	e := New("cpu", Metric{"cpu_share", "% of a core", false}, Exactly(4.5), "", nil, 3, "")
	e.Extra = map[string]float64{"seconds": 10.00017, "median": 4.25}
	e.Noise = &Noise{Wait: 0.25, Slow: 0.5, Load: 9}
	all := []Result{a, b, c, d, e}
	for i, scenario := range []string{"graph", "graph", "pods-tcp", "pods-tcp", "idle"} {
		all[i].Scenario, all[i].Machine = scenario, m
	}
	return all
}

func TestOutputIsAsPromised(t *testing.T) {
	var lines, table bytes.Buffer
	write, tab := JSON(&lines), &Table{}
	for _, r := range results() {
		if err := write(r); err != nil {
			t.Fatal(err)
		}
		if err := tab.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Write(&table); err != nil {
		t.Fatal(err)
	}
	golden(t, "results.jsonl", lines.Bytes())
	golden(t, "results.txt", table.Bytes())
	for line := range bytes.Lines(lines.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for _, name := range []string{
			"scenario", "case", "metric", "unit", "ours", "peer", "peer_value", "ratio",
			"runs", "spread", "allocs_per_op", "commit", "kernel", "cpu",
		} {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s is missing in %s", name, line)
			}
		}
		if fields["peer_value"] == nil && fields["peer"] != "" && fields["why"] == nil {
			t.Errorf("the peer's value is null and nobody says why: %s", line)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update and read the difference):\n%s", path, got)
	}
}

func TestSummaryInterpolatesQuartiles(t *testing.T) {
	tests := map[string]struct {
		in   []float64
		want *Estimate
	}{
		"nothing":          {nil, nil},
		"one":              {[]float64{5}, &Estimate{5, 5, 5, 1}},
		"two":              {[]float64{4, 2}, &Estimate{3, 2.5, 3.5, 2}},
		"four, unsorted":   {[]float64{4, 1, 3, 2}, &Estimate{2.5, 1.75, 3.25, 4}},
		"five":             {[]float64{1, 2, 3, 4, 5}, &Estimate{3, 2, 4, 5}},
		"one far out":      {[]float64{1, 1, 1, 1, 1000}, &Estimate{1, 1, 1, 5}},
		"negative and all": {[]float64{-2, 0, 2}, &Estimate{0, -1, 1, 3}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(tt.in)
			got := Summary(tt.in)
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if !slices.Equal(before, tt.in) {
				t.Error("the values were put in another order under their owner's hands")
			}
		})
	}
}

func TestPercentiles(t *testing.T) {
	hundred := make([]float64, 101)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for percent, want := range map[float64]float64{0: 0, 50: 50, 99: 99, 99.5: 99.5, 100: 100} {
		if got := Percentile(hundred, percent); got.Median != want || got.Runs != 101 {
			t.Errorf("%v %%: %+v, want %v", percent, got, want)
		}
	}
	if got := Percentile(nil, 99); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
}

package lookup

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/fib/fibtest"
)

// A comparison of tables that answer differently would compare nothing.
func TestTablesAgree(t *testing.T) {
	for name, routes := range map[string][]netip.Prefix{"IPv4": fibtest.Internet4(2000, 1), "IPv6": fibtest.Internet6(2000, 1)} {
		t.Run(name, func(t *testing.T) {
			in := newInput(fibtest.Spread(routes, 1000, 2))
			var want []fib.NextHopID
			for _, c := range contenders() {
				l, err := load(t.Context(), c, routes)
				if err != nil {
					t.Fatal(err)
				}
				if l.took <= 0 || l.bytes <= 0 {
					t.Errorf("%s took %v and %v bytes a route", c.name, l.took, l.bytes)
				}
				w, got := &walk{table: l, in: in, n: 1000}, []fib.NextHopID(nil)
				for len(got) < 1000 {
					n := w.vector()
					got = append(got, w.out[:n]...)
				}
				if w.at != 0 {
					t.Errorf("%s: the walk did not begin again", c.name)
				}
				if want == nil {
					want = got
				}
				for i := range want {
					if got[i] != want[i] || got[i] == 0 {
						t.Fatalf("%v: %s says %d, ours %d", in.addrs[i], c.name, got[i], want[i])
					}
				}
			}
		})
	}
}

func TestScenarioRuns(t *testing.T) {
	metrics := map[string]int{}
	o := harness.Options{Quick: true, Limit: time.Minute, Filter: "routes=1k", Log: io.Discard}
	o.Out = func(r harness.Result) error {
		metrics[r.Metric]++
		if r.Ours == nil || r.Ratio == nil {
			t.Errorf("%+v", r)
		}
		if r.Metric == "ns_per_lookup" && (r.Allocs == nil || *r.Allocs != 0) {
			t.Errorf("%s against %s: a lookup allocates", r.Case, r.Peer)
		}
		return nil
	}
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	// Two families against two peers, and two numbers of destinations.
	if metrics["load_time"] != 4 || metrics["bytes_per_route"] != 4 || metrics["ns_per_lookup"] != 8 {
		t.Errorf("results by metric: %v", metrics)
	}
}

func TestNoTimeIsSaid(t *testing.T) {
	var got []harness.Result
	o := harness.Options{Limit: time.Second, Filter: "ip4/routes=1M", Log: io.Discard}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scenario()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Ours != nil || got[0].Why == "" {
		t.Errorf("a million routes in a second: %+v", got)
	}
}

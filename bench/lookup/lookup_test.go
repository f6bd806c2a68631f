package lookup

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/fib/fibtest"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
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

// What our label table and the peers find must be of the same prefixes: an
// address has a class where they have a value, and the other way round.
func TestLabelsAgree(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			changes := memberships(ipv6, 1, []setSizes{{300, 1, 9}, {2, 5000, 6000}})
			ours := labelled{t: label.New(nil)}
			if err := ours.load(changes); err != nil || ours.took <= 0 || ours.bytes <= 0 {
				t.Fatalf("%+v, %v", ours, err)
			}
			prefixes := prefixesOf(changes)
			if len(prefixes) == len(changes) {
				t.Error("no prefix is in two sets")
			}
			addrs := fibtest.Spread(prefixes, 500, 2)
			for i := range 500 {
				addrs = append(addrs, addrs[i].Next())
			}
			in, found := newInput(addrs), 0
			find := classes{t: ours.t, batch: new(label.Batch), out: new([graph.VectorMax]label.Class)}
			single := find
			single.single = true
			peer, err := load(t.Context(), contenders()[1], prefixes)
			if err != nil {
				t.Fatal(err)
			}
			var vector, one, theirs [250]fib.NextHopID
			for lo := 0; lo < len(addrs); lo += 250 {
				find.find(in, lo, lo+250, vector[:])
				single.find(in, lo, lo+250, one[:])
				peer.find(in, lo, lo+250, theirs[:])
				for i := range vector {
					if vector[i] != one[i] || (vector[i] != 0) != (theirs[i] != 0) {
						t.Fatalf("%v: class %d in a vector, %d alone; %s has %d", addrs[lo+i], vector[i], one[i], peer.name, theirs[i])
					}
					if one[i] != 0 {
						found++
					}
				}
			}
			if found == len(addrs) || found < 500 {
				t.Errorf("%d of %d addresses have a class", found, len(addrs))
			}
		})
	}
}

func TestMembershipsHaveTheShape(t *testing.T) {
	all := memberships(true, 1, shape())
	if n := len(all); n < 430_000 || n > 480_000 || all[n-1].Set != 3704 || !all[0].Prefix.Addr().Is6() {
		t.Errorf("%d memberships in %d sets, the first %v", n, all[n-1].Set, all[0])
	}
	if twice := 1 - float64(len(prefixesOf(all)))/float64(len(all)); twice < 0.1 || twice > 0.3 {
		t.Errorf("%.2f of the members are in another set too", twice)
	}
}

func TestLabelScenarioRuns(t *testing.T) {
	metrics := map[string]int{}
	o := harness.Options{Quick: true, Limit: time.Minute, Filter: "ip4/sets", Log: io.Discard}
	o.Out = func(r harness.Result) error {
		metrics[r.Metric]++
		if r.Ours == nil || r.Ratio == nil {
			t.Errorf("%+v", r)
		}
		if strings.HasSuffix(r.Metric, "lookup") && (r.Allocs == nil || *r.Allocs != 0) {
			t.Errorf("%s against %s: a lookup allocates", r.Case, r.Peer)
		}
		return nil
	}
	if err := harness.Run(t.Context(), o, Labels()); err != nil {
		t.Fatal(err)
	}
	// One family against two peers, and two numbers of addresses.
	for metric, n := range map[string]int{"load_time": 2, "bytes_per_member": 2, "change_p50": 2, "change_p99": 2, "ns_per_lookup": 4, "ns_per_single_lookup": 4} {
		if metrics[metric] != n {
			t.Errorf("%d results of %s, want %d", metrics[metric], metric, n)
		}
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

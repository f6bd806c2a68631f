// Package lookup is the scenarios "fib" and "label", beside both of gaissmai/bart's
// tables: longest-prefix match over tables like the Internet's, and the class of
// an address over sets like a large installation's. Both tell what a lookup
// costs, how much heap a route or a member takes, and how long a table takes to
// load; label also what a member costs that joins or leaves.
package lookup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib/fibtest"
	"margay.dev/margay/fastpath/graph"
)

const (
	caseTime = 4 * time.Second
	loadTime = 12 * time.Second // that three tables of a million routes may need on a busy machine
)

// size is a table of one family.
type size struct {
	ipv6   bool
	routes int
}

func (z size) String() string {
	family := "ip4"
	if z.ipv6 {
		family = "ip6"
	}
	return family + "/routes=" + count(z.routes)
}

func count(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%dM", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}

// sizes are the greatest first: they have budgets, and a quick run may end early.
func sizes() (all []size) {
	for _, n := range []int{1_000_000, 1_000, 100_000} {
		all = append(all, size{false, n}, size{true, n})
	}
	return all
}

func spreads(quick bool) []int {
	if quick {
		return []int{1_000, 1_000_000}
	}
	return []int{1_000, 64_000, 1_000_000}
}

// Scenario is fib.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "fib",
		About: "longest-prefix match: cost of a lookup, bytes of a route, time to load, against bart",
		Run:   run,
	}
}

func run(ctx context.Context, s *harness.Session) error {
	var wanted []size
	for _, z := range sizes() {
		if wants(s, z) {
			wanted = append(wanted, z)
		}
	}
	for i, z := range wanted {
		if err := measure(ctx, s, z, len(wanted)-i); err != nil {
			return fmt.Errorf("%s: %w", z, err)
		}
	}
	return nil
}

func wants(s *harness.Session, z size) bool {
	for _, dst := range spreads(s.Quick) {
		if s.Wants(lookupCase(z, dst)) {
			return true
		}
	}
	return s.Wants(z.String() + "/table")
}

func lookupCase(z size, dst int) string { return fmt.Sprintf("%s/dst=%s", z, count(dst)) }

// measure loads every table of a size and lets them take turns; left is how many
// sizes share the time that is left.
func measure(ctx context.Context, s *harness.Session, z size, left int) error {
	if harness.Left(ctx, loadTime) < loadTime*time.Duration(z.routes)/1_000_000 || ctx.Err() != nil {
		skip(s, z)
		return nil
	}
	s.Say("load %s into %d tables", z, len(contenders()))
	draw := fibtest.Internet4
	if z.ipv6 {
		draw = fibtest.Internet6
	}
	routes := draw(z.routes, 1)
	var tables []loaded
	for _, c := range contenders() {
		t, err := load(ctx, c, routes)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			skip(s, z)
			return nil
		}
		tables = append(tables, t)
	}
	if s.Wants(z.String() + "/table") {
		reportTables(s, z, tables)
	}
	all := spreads(s.Quick)
	for _, dst := range all {
		if !s.Wants(lookupCase(z, dst)) {
			continue
		}
		lookups(ctx, s, z, dst, tables, routes, s.Share(ctx, left*len(all), caseTime))
	}
	return nil
}

func skip(s *harness.Session, z size) {
	s.Report(harness.New(z.String()+"/table", metricLoad(), nil, "bart", nil, 0, "no time was left for this size: run it alone with --filter"))
}

func metricLoad() harness.Metric  { return harness.Metric{Name: "load_time", Unit: "s"} }
func metricBytes() harness.Metric { return harness.Metric{Name: "bytes_per_route", Unit: "B"} }
func metricNanos() harness.Metric { return harness.Metric{Name: "ns_per_lookup", Unit: "ns"} }

// reportTables tells what each table cost to have.
func reportTables(s *harness.Session, z size, tables []loaded) {
	budgetLoad, budgetBytes := 0.0, 0.0
	if z == (size{false, 1_000_000}) {
		budgetLoad, budgetBytes = 2, 100
	}
	ours := tables[0]
	for _, t := range tables[1:] {
		s.Report(harness.New(z.String()+"/table", metricLoad(), harness.Exactly(ours.took.Seconds()), t.name,
			harness.Exactly(t.took.Seconds()), budgetLoad, ""))
		s.Report(harness.New(z.String()+"/table", metricBytes(), harness.Exactly(ours.bytes), t.name,
			harness.Exactly(t.bytes), budgetBytes, ""))
	}
}

// lookups lets the tables look up the same destinations in turns, vector by vector.
func lookups(ctx context.Context, s *harness.Session, z size, dst int, tables []loaded, routes []netip.Prefix, d time.Duration) {
	in := newInput(fibtest.Spread(routes, dst, 2))
	var sides []harness.Side
	for _, t := range tables {
		w := &walk{table: t, in: in, n: dst}
		sides = append(sides, harness.Side{Name: t.name, Window: w.window})
	}
	turns := s.Meter.Compare(ctx, d, sides...)
	ours := turns.Sides[0]
	if ours == nil {
		skip(s, z)
		return
	}
	first := &walk{table: tables[0], in: in, n: dst}
	allocs := harness.Allocations(1000*graph.VectorMax, func() {
		for range 1000 {
			first.vector()
		}
	})
	var told []string
	for i, t := range tables {
		told = append(told, fmt.Sprintf("%s %.1f", t.name, turns.Sides[i].Median))
		if i == 0 {
			continue
		}
		r := harness.New(lookupCase(z, dst), metricNanos(), ours, t.name, turns.Sides[i], 0, "")
		r.Allocs, r.Noise = &allocs, &turns.Noise
		s.Report(r)
	}
	s.Say("%-30s ns: %s", lookupCase(z, dst), strings.Join(told, ", "))
}

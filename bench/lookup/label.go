package lookup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/fib/fibtest"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
)

// population is a label table of one family.
type population struct {
	name string
	draw func() []label.Change
}

func populations() []population {
	oneSet := func(prefixes []netip.Prefix) (all []label.Change) {
		for _, p := range prefixes {
			all = append(all, label.Change{Set: 1, Prefix: p})
		}
		return all
	}
	return []population{
		{"ip4/sets=3704", func() []label.Change { return memberships(false, 1, shape()) }},
		{"ip6/sets=3704", func() []label.Change { return memberships(true, 1, shape()) }},
		{"ip4/cidrs=1M", func() []label.Change { return oneSet(fibtest.Internet4(1_000_000, 1)) }},
		{"ip6/cidrs=1M", func() []label.Change { return oneSet(fibtest.Internet6(1_000_000, 1)) }},
	}
}

// Labels is the scenario label.
func Labels() harness.Scenario {
	return harness.Scenario{
		Name: "label",
		About: "address to class: cost of a lookup, of a member that joins or leaves, bytes of a member, time to load; " +
			"against bart, which holds the prefixes alone",
		Run: runLabels,
	}
}

func runLabels(ctx context.Context, s *harness.Session) error {
	var wanted []population
	for _, p := range populations() {
		if wantsLabels(s, p) {
			wanted = append(wanted, p)
		}
	}
	for i, p := range wanted {
		if err := measureLabels(ctx, s, p, len(wanted)-i); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func wantsLabels(s *harness.Session, p population) bool {
	for _, c := range append(labelCases(p, s.Quick), p.name+"/table", p.name+"/change") {
		if s.Wants(c) {
			return true
		}
	}
	return false
}

// labelCases are the cases of lookups, by the number of addresses.
func labelCases(p population, quick bool) (names []string) {
	for _, n := range spreads(quick) {
		names = append(names, p.name+"/addrs="+count(n))
	}
	return names
}

// classes is our table in the scenario's terms; single asks one address at a time.
type classes struct {
	t      *label.Table
	batch  *label.Batch
	single bool
	out    *[graph.VectorMax]label.Class
}

func (c classes) find(in *input, lo, hi int, out []fib.NextHopID) {
	v := c.t.View()
	switch {
	case c.single && in.d4 != nil:
		for i, a := range in.d4[lo:hi] {
			out[i] = fib.NextHopID(v.Lookup4(a))
		}
		return
	case c.single:
		for i, a := range in.d6[lo:hi] {
			out[i] = fib.NextHopID(v.Lookup6(a[0], a[1]))
		}
		return
	case in.d4 != nil:
		c.batch.Lookup4(v, in.d4[lo:hi], c.out[:hi-lo])
	default:
		c.batch.Lookup6(v, in.d6[lo:hi], c.out[:hi-lo])
	}
	for i, class := range c.out[:hi-lo] {
		out[i] = fib.NextHopID(class)
	}
}

// measureLabels loads a population and its prefixes into the peers, and lets them
// take turns; left is how many populations share the time that is left.
func measureLabels(ctx context.Context, s *harness.Session, p population, left int) error {
	if harness.Left(ctx, loadTime) < loadTime/2 || ctx.Err() != nil {
		skipLabels(s, p)
		return nil
	}
	changes := p.draw()
	s.Say("load %d members: %s", len(changes), p.name)
	ours := labelled{t: label.New(nil)}
	if err := ours.load(changes); err != nil {
		return err
	}
	prefixes, peers := prefixesOf(changes), []loaded(nil)
	for _, c := range contenders()[1:] {
		peer, err := load(ctx, c, prefixes)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			skipLabels(s, p)
			return nil
		}
		peers = append(peers, peer)
	}
	if s.Wants(p.name + "/table") {
		reportLabels(s, p, ours, peers, float64(len(prefixes))/float64(len(changes)))
	}
	if s.Wants(p.name + "/change") {
		if err := reportChanges(s, p, ours.t, peers, changes); err != nil {
			return err
		}
	}
	all := spreads(s.Quick)
	for i, name := range labelCases(p, s.Quick) {
		if s.Wants(name) {
			in := newInput(fibtest.Spread(prefixes, all[i], 2))
			findLabels(ctx, s, name, in, ours.t, peers, s.Share(ctx, left*len(all), caseTime))
		}
	}
	return nil
}

func skipLabels(s *harness.Session, p population) {
	s.Report(harness.New(p.name+"/table", metricLoad(), nil, "bart", nil, 0, "no time was left for it: run it alone with --filter"))
}

// labelled is our table with what it took to load.
type labelled struct {
	t     *label.Table
	took  time.Duration
	bytes float64 // of heap, per member
}

func (l *labelled) load(changes []label.Change) error {
	before, start := heap(), time.Now()
	if err := l.t.Apply(changes); err != nil {
		return err
	}
	l.t.Reclaim()
	l.took = time.Since(start)
	l.bytes = float64(heap()-before) / float64(len(changes))
	return nil
}

// prefixesOf are those that occur, each once.
func prefixesOf(changes []label.Change) (all []netip.Prefix) {
	seen := make(map[netip.Prefix]struct{}, len(changes))
	for _, c := range changes {
		if _, twice := seen[c.Prefix]; !twice {
			seen[c.Prefix] = struct{}{}
			all = append(all, c.Prefix)
		}
	}
	return all
}

// reportLabels tells what each table cost to have. The peers hold fewer prefixes
// than there are members: so many per member.
func reportLabels(s *harness.Session, p population, ours labelled, peers []loaded, prefixes float64) {
	load, size := 0.0, 0.0
	if strings.Contains(p.name, "sets=") {
		load, size = 1, 150
	}
	bytes := harness.Metric{Name: "bytes_per_member", Unit: "B"}
	for _, t := range peers {
		s.Report(harness.New(p.name+"/table", metricLoad(), harness.Exactly(ours.took.Seconds()), t.name,
			harness.Exactly(t.took.Seconds()), load, ""))
		s.Report(harness.New(p.name+"/table", bytes, harness.Exactly(ours.bytes), t.name, harness.Exactly(t.bytes*prefixes), size, ""))
	}
}

// findLabels lets the tables look up the same addresses in turns: ours in
// vectors, as nodes do, and one by one.
func findLabels(ctx context.Context, s *harness.Session, name string, in *input, t *label.Table, peers []loaded, d time.Duration) {
	find := classes{t: t, batch: new(label.Batch), out: new([graph.VectorMax]label.Class)}
	single := find
	single.single = true
	walks := []*walk{{table: find, in: in, n: len(in.addrs)}, {table: single, in: in, n: len(in.addrs)}}
	sides := []harness.Side{{Name: "vector", Window: walks[0].window}, {Name: "single", Window: walks[1].window}}
	for _, p := range peers {
		w := &walk{table: p, in: in, n: len(in.addrs)}
		sides = append(sides, harness.Side{Name: p.name, Window: w.window})
	}
	turns := s.Meter.Compare(ctx, d, sides...)
	if turns.Sides[0] == nil {
		s.Report(harness.New(name, metricNanos(), nil, "bart", nil, 0, "no time was left for it: run it alone with --filter"))
		return
	}
	told := ""
	for i, side := range sides {
		told += fmt.Sprintf(" %s %.1f", side.Name, turns.Sides[i].Median)
	}
	s.Say("%-24s ns:%s", name, told)
	budgets := []float64{0, 0}
	if strings.HasPrefix(name, "ip4/sets") && strings.HasSuffix(name, "=1k") {
		budgets[0] = 8 // warm
	}
	for i, metric := range []string{"ns_per_lookup", "ns_per_single_lookup"} {
		allocs := harness.Allocations(1000*graph.VectorMax, func() {
			for range 1000 {
				walks[i].vector()
			}
		})
		for j, p := range peers {
			r := harness.New(name, harness.Metric{Name: metric, Unit: "ns"}, turns.Sides[i], p.name, turns.Sides[2+j], budgets[i], "")
			r.Allocs, r.Noise = &allocs, &turns.Noise
			s.Report(r)
		}
	}
}

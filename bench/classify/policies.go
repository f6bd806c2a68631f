package classify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/label"
)

// linearName is the peer of policies: the list read from the top, when the sets
// that hold the addresses are known already.
const linearName = "linear"

const changesTimed = 4000

func policyName(ipv6 bool) string {
	if ipv6 {
		return "policy_ip6"
	}
	return "policy_ip4"
}

func changeCase(name string) string { return name + "/change" }

func metricChange() harness.Metric { return harness.Metric{Name: "us_per_change", Unit: "us"} }

// engine is a policy in force: the label table, and the program that it tells of
// new classes.
type engine struct {
	table  *label.Table
	prog   *classifier.Program
	millis float64 // to compile, load and hear of all classes
	bytes  int     // of the image, and of what lookups of classes read
	report classifier.Report
}

// ClassBorn tells the program of a class.
func (e *engine) ClassBorn(c label.Class, sets []classifier.SetID) {
	if e.prog != nil {
		e.prog.AddClass(uint32(c), sets)
	}
}

// ClassDied needs nothing: no address has the class any more.
func (e *engine) ClassDied(label.Class) {}

func newEngine(p *policy) (*engine, error) {
	e := &engine{}
	e.table = label.New(e)
	if err := e.table.Apply(p.members); err != nil {
		return nil, err
	}
	e.table.Reclaim()
	var together [][]classifier.SetID
	for _, sets := range e.table.All() {
		together = append(together, sets)
	}
	start := time.Now()
	made, err := classifier.Compile(p.list, classifier.Options{Combinations: together})
	if err != nil {
		return nil, err
	}
	prog, err := classifier.Load(made.Image)
	if err != nil {
		return nil, err
	}
	for class, sets := range e.table.All() {
		prog.AddClass(uint32(class), sets)
	}
	e.report, e.prog, e.millis = made.Report, prog, time.Since(start).Seconds()*1000
	m := e.table.Memory()
	e.bytes = len(made.Image) + m.Trie + m.Classes
	return e, nil
}

// answers are those of the first flows, by a walk over the list, and the
// nanoseconds that one took.
func (p *policy) answers(n int) (want []int, nanos float64) {
	h := newHolders(p.members)
	for i := range p.flows[:n] {
		f := &p.flows[i]
		source, destination := h.of(f.source), h.of(f.destination)
		start := time.Now()
		first := p.first(f, source, destination)
		nanos += float64(time.Since(start).Nanoseconds())
		want = append(want, first)
	}
	return want, nanos / float64(n)
}

// wantsPolicy says whether any case of a policy is wanted.
func (b *bench) wantsPolicy(name string) bool { return b.wants(name) || b.Wants(changeCase(name)) }

// measurePolicy runs a policy; left is how many sets and policies share the time
// that is left.
func (b *bench) measurePolicy(ctx context.Context, ipv6 bool, left int) error {
	p, name := newPolicy(ipv6, policyRules, policySets()), policyName(ipv6)
	e, err := newEngine(p)
	if err != nil {
		return err
	}
	b.Say("%s: %d rules, %d members, %d classes; built in %.1f ms: %d boxes in %d trees, %.1f MB",
		name, len(p.list), len(p.members), e.table.Classes(), e.millis, e.report.Boxes, e.report.Trees, float64(e.report.Bytes)/1e6)
	if b.Wants(tableCase(name)) {
		b.Report(harness.New(tableCase(name), metricBuild(), harness.Exactly(e.millis), "", nil, 250, ""))
		b.Report(harness.New(tableCase(name), metricMemory(), harness.Exactly(float64(e.bytes)/1e6), "", nil, 12, ""))
	}
	want, linear := p.answers(policyAsked)
	for i, burst := range []int{32, 1} {
		if b.wantsBurst(name, burst) {
			b.contestPolicy(ctx, b.Share(ctx, 2*left-i, caseTime), p, e, burst, want, linear)
		}
	}
	if b.Wants(changeCase(name)) && ctx.Err() == nil {
		return b.reportChanges(name, p, e)
	}
	return nil
}

func (b *bench) contestPolicy(ctx context.Context, d time.Duration, p *policy, e *engine, burst int, want []int, linear float64) {
	name, n := policyName(p.ipv6), len(p.flows)
	var walkers []*side
	for _, w := range classifier.Walkers() {
		walkers = append(walkers, &side{name: w.String(), pass: newJudge(p, e.table, e.prog.By(w), burst, want).pass})
	}
	why := ""
	if contest(ctx, d, n, walkers) != nil {
		why = "no time was left for all of it"
	}
	var told []string
	for _, w := range walkers {
		c := walkCase(name, burst, w.name)
		if !b.Wants(c) {
			continue
		}
		if len(w.whole) == 0 {
			b.Report(harness.New(c, metricNanos(), nil, linearName, harness.Exactly(linear), 0, why))
			continue
		}
		r := harness.New(c, metricNanos(), w.estimate(n), linearName, harness.Exactly(linear), policyBudget(p.ipv6, burst), why)
		r.Extra = map[string]float64{"median": w.median()}
		b.Report(r)
		wrong := harness.New(c, metricWrong(), harness.Exactly(float64(w.wrong)), "", nil, 0, why)
		wrong.Want(metricWrong(), 0)
		b.Report(wrong)
		told = append(told, fmt.Sprintf("%s %.1f (%.1f)", w.name, w.best(n), w.median()))
	}
	b.Say("%s/burst=%-3d ns, both addresses looked up: %s; %s %.0f", name, burst, strings.Join(told, ", "), linearName, linear)
}

// reportChanges times members that leave a set and come back, and those that join
// another one, whose class the program has to hear of.
func (b *bench) reportChanges(name string, p *policy, e *engine) error {
	r := rand.New(rand.NewPCG(seed, 9))
	var micros []float64
	for range changesTimed / 2 {
		there := p.members[r.IntN(len(p.members))]
		if there.Leave = r.IntN(2) == 0; !there.Leave {
			there.Set = 1 + classifier.SetID(r.IntN(3000))
		}
		back := there
		back.Leave = !there.Leave
		for _, c := range []label.Change{there, back} {
			start := time.Now()
			if err := e.table.Apply([]label.Change{c}); err != nil {
				return err
			}
			micros = append(micros, float64(time.Since(start).Nanoseconds())/1000)
		}
		e.table.Reclaim()
	}
	result := harness.New(changeCase(name), metricChange(), harness.Summary(micros), "", nil, 5, "")
	result.Extra = map[string]float64{"p99": harness.Percentile(micros, 99).Median}
	b.Report(result)
	return nil
}

// Package classify is the scenario "classifier": rule sets as ClassBench makes
// them, judged by each of our walkers and by DPDK's librte_acl with each of its
// methods, in turns, one at a time and in bursts.
//
// Beside them stands the shape of a large cluster's policy, for IPv4 and for IPv6:
// rules over sets of addresses, judged from the addresses on.
//
// A figure is the sum over chunks of a trace of what each chunk's fastest pass
// took, a header; the upper end of its spread is the median of whole passes.
package classify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"margay.dev/margay/bench/classify/rteacl"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/classifier"
)

const (
	peerName = "rte_acl"
	caseTime = 6 * time.Second
	patience = 10 * time.Minute // twice what a peer's build may take, if no end is set
)

// Scenario is classifier. The files hold testdata/NAME.gz and testdata/NAME_trace.gz
// of the sets that come with it.
func Scenario(files fs.FS) harness.Scenario {
	return harness.Scenario{
		Name:  "classifier",
		About: "ordered rules: cost of a decision, time and memory of a build, against DPDK's librte_acl",
		Run:   func(ctx context.Context, s *harness.Session) error { return run(ctx, s, files) },
	}
}

func bursts(quick bool) []int {
	if quick {
		return []int{32, 1}
	}
	return []int{32, 1, 256}
}

// bench is one run: the driver of the peer, or why there is none.
type bench struct {
	*harness.Session
	driver string
	why    string
}

func run(ctx context.Context, s *harness.Session, files fs.FS) error {
	all, err := sources(files, s.Rules, s.Trace)
	if err != nil {
		return err
	}
	b := &bench{Session: s}
	if b.driver, err = rteacl.Build(ctx); err != nil {
		b.why = err.Error()
		s.Say("no peer: %v", err)
	}
	jobs := b.jobs(all, s.Rules == "")
	for i, j := range jobs {
		if ctx.Err() != nil {
			b.skip(j.name)
			continue
		}
		if err := j.run(ctx, len(jobs)-i); err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	return nil
}

// job is a set or a policy to measure; left is how many jobs share the time that
// is left.
type job struct {
	name string
	run  func(ctx context.Context, left int) error
}

// jobs are those of which some case is wanted.
func (b *bench) jobs(sets []source, policies bool) (jobs []job) {
	for _, src := range sets {
		if b.wants(src.name) {
			jobs = append(jobs, job{src.name, func(ctx context.Context, left int) error { return b.measure(ctx, src, left) }})
		}
	}
	for _, ipv6 := range []bool{false, true} {
		if name := policyName(ipv6); policies && b.wantsPolicy(name) {
			jobs = append(jobs, job{name, func(ctx context.Context, left int) error { return b.measurePolicy(ctx, ipv6, left) }})
		}
	}
	return jobs
}

func (b *bench) wants(name string) bool {
	for _, burst := range bursts(b.Quick) {
		if b.wantsBurst(name, burst) {
			return true
		}
	}
	return b.Wants(tableCase(name))
}

func (b *bench) wantsBurst(name string, burst int) bool {
	for _, w := range classifier.Walkers() {
		if b.Wants(walkCase(name, burst, w.String())) {
			return true
		}
	}
	return false
}

func tableCase(name string) string { return name + "/table" }

func walkCase(name string, burst int, walker string) string {
	return fmt.Sprintf("%s/burst=%d/%s", name, burst, walker)
}

func metricNanos() harness.Metric  { return harness.Metric{Name: "ns_per_lookup", Unit: "ns"} }
func metricBuild() harness.Metric  { return harness.Metric{Name: "build_ms", Unit: "ms"} }
func metricMemory() harness.Metric { return harness.Metric{Name: "memory_mb", Unit: "MB"} }
func metricWrong() harness.Metric  { return harness.Metric{Name: "wrong", Unit: "headers"} }

// measure runs a set; left is how many sets share the time that is left.
func (b *bench) measure(ctx context.Context, src source, left int) error {
	s, err := src.load(b.Say)
	if err != nil {
		return err
	}
	c, err := compile(s)
	if err != nil {
		return err
	}
	p, why := b.peer(ctx, s)
	if p != nil {
		defer p.Close()
	}
	b.reportTable(s, c, p, why)
	all := bursts(b.Quick)
	for i, burst := range all {
		if !b.wantsBurst(s.name, burst) {
			continue
		}
		share := b.Share(ctx, left*len(all)-i, caseTime)
		if why = b.contest(ctx, share, s, c, p, burst, why); why != "" && p != nil {
			p.Close()
			p = nil
		}
	}
	return nil
}

// peer starts the peer with a set, or says why it cannot.
func (b *bench) peer(ctx context.Context, s *set) (*rteacl.Peer, string) {
	if b.driver == "" {
		return nil, b.why
	}
	p, err := rteacl.Start(ctx, harness.Left(ctx, patience)/2, b.driver, s.list, s.trace, chunkSize)
	if err != nil {
		b.Say("%s: no peer: %v", s.name, err)
		return nil, err.Error()
	}
	return p, ""
}

func (b *bench) skip(name string) {
	b.Report(harness.New(tableCase(name), metricBuild(), nil, peerName, nil, 0, "no time was left for this set: run it alone with --filter"))
}

func (b *bench) reportTable(s *set, c compiled, p *rteacl.Peer, why string) {
	if !b.Wants(tableCase(s.name)) {
		return
	}
	var build, memory *harness.Estimate
	if p != nil {
		build, memory = harness.Exactly(p.Built.Seconds()*1000), harness.Exactly(float64(p.Bytes)/1e6)
	}
	budget := buildBudget(len(s.list))
	b.Report(harness.New(tableCase(s.name), metricBuild(), harness.Exactly(c.millis), peerName, build, budget.millis, why))
	b.Report(harness.New(tableCase(s.name), metricMemory(), harness.Exactly(float64(c.bytes)/1e6), peerName, memory, budget.megabytes, why))
	b.Say("%s: %d rules, %d headers, %d decided by a rule but the last; built in %.1f ms, %.2f MB", s.name, len(s.list), len(s.trace),
		spent(s.trace, len(s.list)), c.millis, float64(c.bytes)/1e6)
}

// contest measures and reports a burst size. It returns why there is no peer any
// more, if there is none.
func (b *bench) contest(ctx context.Context, d time.Duration, s *set, c compiled, p *rteacl.Peer, burst int, why string) string {
	peers := theirs(p, burst)
	var walkers, sides []*side
	for _, w := range classifier.Walkers() {
		o := newOurs(s, c.prog.By(w), burst)
		walkers = append(walkers, &side{name: w.String(), pass: o.pass})
	}
	for i := range max(len(walkers), len(peers)) { // ours and theirs in turn
		if i < len(walkers) {
			sides = append(sides, walkers[i])
		}
		if i < len(peers) {
			sides = append(sides, peers[i])
		}
	}
	err := contest(ctx, d, len(s.trace), sides)
	if err != nil && ctx.Err() != nil {
		err = errors.New("no time was left for all of it")
	}
	if err != nil {
		why, peers = err.Error(), nil
	}
	b.reportContest(s, burst, walkers, peers, why)
	return why
}

func (b *bench) reportContest(s *set, burst int, walkers, peers []*side, why string) {
	n := len(s.trace)
	peer := fastestOf(peers, n)
	var told []string
	for _, p := range append(walkers[:len(walkers):len(walkers)], peers...) {
		if len(p.whole) > 0 {
			told = append(told, fmt.Sprintf("%s %.1f (%.1f)", p.name, p.best(n), p.median()))
		}
	}
	for _, w := range walkers {
		b.reportWalker(s, burst, w, peer, peers, why)
	}
	for _, w := range classifier.MissingWalkers() {
		r := harness.New(walkCase(s.name, burst, w.String()), metricNanos(), nil, peerName, estimateOf(peer, n), 0, "this CPU has no "+w.Needs())
		if b.Wants(r.Case) {
			b.Report(r)
		}
	}
	b.Say("%s/burst=%-3d ns: %s", s.name, burst, strings.Join(told, ", "))
}

func estimateOf(s *side, headers int) *harness.Estimate {
	if s == nil {
		return nil
	}
	return s.estimate(headers)
}

func (b *bench) reportWalker(s *set, burst int, w, peer *side, peers []*side, why string) {
	name, n := walkCase(s.name, burst, w.name), len(s.trace)
	if !b.Wants(name) {
		return
	}
	if len(w.whole) == 0 {
		b.Report(harness.New(name, metricNanos(), nil, peerName, nil, 0, why))
		return
	}
	r := harness.New(name, metricNanos(), w.estimate(n), peerName, estimateOf(peer, n), walkBudget(s.name, burst, w.name), why)
	if r.Budget == nil {
		r.WantRatio(1)
	}
	r.Extra = map[string]float64{"median": w.median()}
	for _, p := range peers {
		r.Extra["peer_"+p.name], r.Extra["peer_"+p.name+"_median"] = p.best(n), p.median()
	}
	b.Report(r)
	wrong := harness.New(name, metricWrong(), harness.Exactly(float64(w.wrong)), peerName, nil, 0, why)
	if peer != nil {
		v := float64(peer.wrong)
		wrong.PeerValue = &v
	}
	wrong.Want(metricWrong(), 0)
	b.Report(wrong)
}

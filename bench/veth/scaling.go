package veth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"margay.dev/margay/bench/harness"
)

// Scaling is the scenario of that name.
func Scaling() harness.Scenario {
	return harness.Scenario{
		Name:  "scaling",
		About: "frames between two veths by 1, 2, 4 ... workers, a queue each, beside the same peers; needs two CPUs a worker",
		Run:   runScaling,
	}
}

// mostWorkers is as many as the forwarder's memory can have frames for.
const mostWorkers = 32

// workerCounts are the numbers of workers to try on so many CPUs: powers of two, 8
// at least, so that what a machine is too small for is told.
func workerCounts(cpus int) (all []int) {
	for n := 1; n <= 8 || 2*n <= cpus && n <= mostWorkers; n *= 2 {
		all = append(all, n)
	}
	return all
}

func scalingCase(l load, workers int) string { return fmt.Sprintf("%v/workers=%d", l, workers) }

// scalingPlan says how much is run, and with how many workers.
func scalingPlan(s *harness.Session, cpus int) (p plan, counts []int) {
	p = plan{rounds: 5, window: 200 * time.Millisecond}
	if s.Quick {
		p.rounds, p.window = 3, 60*time.Millisecond
	}
	all := workerCounts(cpus)
	for _, l := range everyLoad() {
		if slices.ContainsFunc(all, func(n int) bool { return s.Wants(scalingCase(l, n)) }) {
			p.loads = append(p.loads, l)
		}
	}
	for _, n := range all {
		if slices.ContainsFunc(p.loads, func(l load) bool { return s.Wants(scalingCase(l, n)) }) {
			counts = append(counts, n)
		}
	}
	return p, counts
}

// runScaling keeps the beds of all numbers of workers up at once, so that every
// round has each of them and what the machine does over time falls on all alike.
func runScaling(ctx context.Context, s *harness.Session) error {
	cpus, err := allowed()
	if err != nil {
		return err
	}
	p, counts := scalingPlan(s, len(cpus))
	if len(counts) == 0 {
		return nil
	}
	var rigs []*rig
	for _, n := range counts {
		r := newRig(ctx, s.Forwarder, n, p.loads)
		defer r.close()
		rigs = append(rigs, r)
	}
	takeTurns(ctx, s, rigs, p)
	for _, l := range p.loads {
		reportScaling(s, rigs, l)
	}
	return nil
}

// reportScaling compares ours with each peer for every number of workers: in
// frames, and in how many times what each carries with one worker.
func reportScaling(s *harness.Session, rigs []*rig, l load) {
	times := harness.Metric{Name: "times_one_worker", Unit: "ratio", More: true}
	one, ones := rigs[0], judge(rigs[0].all, l, saturated)
	for _, r := range rigs {
		name := scalingCase(l, r.workers)
		if !s.Wants(name) {
			continue
		}
		got := judge(r.all, l, saturated)
		for peer := 1; peer < len(r.all); peer++ {
			b := beside(name, r.all, peer, l, got)
			s.Report(b)
			if one.workers != 1 || r == one || r.bed == nil {
				continue // one worker is not asked for, or is this, or so many cannot be
			}
			reason := cmp.Or(b.Why, why(one.all[0], one.all[peer], l))
			t := harness.New(name, times, over(got.Sides[0], ones.Sides[0]), b.Peer, over(got.Sides[peer], ones.Sides[peer]), 0, reason)
			t.Noise = b.Noise
			s.Report(t)
		}
	}
}

// over is an estimate in units of another's median; nil where either is missing.
func over(e, unit *harness.Estimate) *harness.Estimate {
	if e == nil || unit == nil || unit.Median == 0 {
		return nil
	}
	m := unit.Median
	return &harness.Estimate{Median: e.Median / m, Q1: e.Q1 / m, Q3: e.Q3 / m, Runs: e.Runs}
}

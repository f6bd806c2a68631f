// Package idle is the scenario "idle": what a forwarder takes of the machine with
// two pods and an uplink up and nothing to do.
package idle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
)

const (
	topology = `
pools: [10.79.0.0/16, "fd79::/48"]
nodes: [{name: near}, {name: far}]
links:
  - name: up
    ends: [{node: near, addresses: [172.31.79.1/24, "fd31:79::1/64"]}, {node: far, addresses: [172.31.79.2/24, "fd31:79::2/64"]}]
pods:
  - {name: a, node: near, addresses: [10.79.0.10, "fd79::10"]}
  - {name: b, node: near, addresses: [10.79.0.11, "fd79::11"]}
`
	settle = 2 * time.Second // until what follows from raising has ended
	window = time.Second

	shareBudget = 3 // percent of a core
)

// Scenario is idle.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "idle",
		About: "CPU and memory of a forwarder with pods and an uplink up and nothing to do",
		Run:   func(ctx context.Context, s *harness.Session) error { return run(ctx, s, 10, 60) },
	}
}

// run watches for some windows; fewest of them are enough for a quick run.
func run(ctx context.Context, s *harness.Session, fewest, most int) error {
	if !slices.ContainsFunc([]string{"cpu", "memory"}, s.Wants) {
		return nil
	}
	s.Say("raise a node with two pods and an uplink")
	l, err := stage.Raise(ctx, "idle", topology, s.Forwarder)
	if err != nil {
		r := harness.New("cpu", metricShare(), nil, "", nil, shareBudget, err.Error())
		s.Report(r)
		return nil
	}
	defer func() { _ = l.Down() }() // a later run clears what is left
	pid := l.PID("near")
	if s.Quick {
		most = fewest
	}
	if s.Wants("cpu") {
		if err := watch(ctx, s, pid, most); err != nil {
			return err
		}
	}
	if s.Wants("memory") {
		return weigh(s, pid)
	}
	return nil
}

func metricShare() harness.Metric { return harness.Metric{Name: "cpu_share", Unit: "% of a core"} }

// watch reports the CPU time of the process over n windows all together, which
// single peaks do not hide in, with the quartiles of the windows as spread.
func watch(ctx context.Context, s *harness.Session, pid, n int) error {
	s.Say("watch it for %v", time.Duration(n)*window)
	var shares []float64
	sleep(ctx, settle)
	start := time.Now()
	first, err := stage.CPU(pid)
	if err != nil {
		return err
	}
	at, then := start, first
	for range n {
		if sleep(ctx, window); ctx.Err() != nil {
			break
		}
		now, err := stage.CPU(pid)
		if err != nil {
			return err
		}
		shares = append(shares, 100*(now-then).Seconds()/time.Since(at).Seconds())
		at, then = time.Now(), now
	}
	ours := harness.Summary(shares)
	if ours == nil {
		return fmt.Errorf("watch the forwarder: %w", context.Cause(ctx))
	}
	median := ours.Median
	ours.Median = 100 * (then - first).Seconds() / at.Sub(start).Seconds()
	r := harness.New("cpu", metricShare(), ours, "poll-mode-by-definition", harness.Published(100), shareBudget, "")
	r.Extra = map[string]float64{"median": median, "seconds": at.Sub(start).Seconds(), "max": slices.Max(shares)}
	s.Report(r)
	return nil
}

func weigh(s *harness.Session, pid int) error {
	m, err := stage.MemoryOf(pid)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	metric := func(name string) harness.Metric { return harness.Metric{Name: name, Unit: "MiB"} }
	s.Report(harness.New("memory", metric("rss"), harness.Exactly(float64(m.Total)/mib), "", nil, 0, ""))
	s.Report(harness.New("memory", metric("rss_without_packets"), harness.Exactly(float64(m.Total-m.Packets)/mib), "", nil, 0, ""))
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Package pods is the scenario "pods-tcp": TCP between two pods of one node, by
// the forwarder, by a pump that does nothing else, and by the kernel's own router.
//
// iperf3 drives all three in turn, run by run. The forwarder is the real process,
// its pods TUN devices in namespaces; the pump is two such devices; the kernel
// routes between two veth pairs. CPU seconds are those of iperf3 at both ends and
// of the process between them; the kernel's work is mostly in those of iperf3.
package pods

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"margay.dev/margay/bench/harness"
)

const (
	// otherLimit is the share of the machine that others may take in a run.
	otherLimit = 0.05
	// setupTime is what a run of iperf3 takes beside the seconds it measures.
	setupTime = 700 * time.Millisecond
)

// Scenario is pods-tcp.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "pods-tcp",
		About: "TCP between two pods of a node (TUN), against a bare pump and the kernel's routed veth",
		Run:   func(ctx context.Context, s *harness.Session) error { return run(ctx, s, planOf(s)) },
	}
}

// plan says how much is run.
type plan struct {
	streams []int
	seconds int // of each run
	rounds  int // undisturbed runs of each path and number of streams; up to three times as many are made
}

func planOf(s *harness.Session) plan {
	p := plan{seconds: 3, rounds: 9}
	if s.Quick {
		p = plan{seconds: 1, rounds: 5}
	}
	for _, n := range []int{1, 8} {
		if s.Wants(caseName(n)) {
			p.streams = append(p.streams, n)
		}
	}
	return p
}

func caseName(streams int) string { return fmt.Sprintf("tcp/streams=%d", streams) }

// contestant is a path and what was measured over it.
type contestant struct {
	name    string
	path    *path
	why     string // it is not there
	samples map[int][]sample
}

func run(ctx context.Context, s *harness.Session, p plan) error {
	if len(p.streams) == 0 {
		return nil
	}
	all := contestants(ctx, s)
	defer func() {
		for _, c := range all {
			if c.path != nil {
				c.path.close()
			}
		}
	}()
	start := time.Now()
	round := time.Duration(len(all)*len(p.streams)) * (time.Duration(p.seconds)*time.Second + setupTime)
	for i := range 3 * p.rounds {
		if enough(all, p) || ctx.Err() != nil || i > 0 && harness.Left(ctx, round) < round {
			break
		}
		for _, streams := range p.streams {
			takeTurns(ctx, s, all, streams, p.seconds)
		}
		round = time.Since(start) / time.Duration(i+1)
	}
	for _, streams := range p.streams {
		report(s, all, streams)
	}
	return nil
}

// contestants raises every path; ours is the first.
func contestants(ctx context.Context, s *harness.Session) []*contestant {
	all := []*contestant{{name: "ours"}, {name: "bare-pump"}, {name: "kernel-veth"}}
	if _, err := exec.LookPath("iperf3"); err != nil {
		for _, c := range all {
			c.why = "iperf3 is not installed: apt-get install iperf3"
		}
		return all
	}
	for i, raise := range []func() (*path, error){
		func() (*path, error) { return oursPath(ctx, s.Forwarder) }, pumpPath, kernelPath,
	} {
		c := all[i]
		c.samples = map[int][]sample{}
		s.Say("raise %s", c.name)
		var err error
		if c.path, err = raise(); err != nil {
			c.why = c.name + ": " + err.Error()
			s.Say("%s", c.why)
		}
	}
	return all
}

// enough says whether every path has its undisturbed runs.
func enough(all []*contestant, p plan) bool {
	for _, c := range all {
		for _, streams := range p.streams {
			quiet := 0
			for _, x := range c.samples[streams] {
				if x.other <= otherLimit {
					quiet++
				}
			}
			if c.path != nil && quiet < p.rounds {
				return false
			}
		}
	}
	return true
}

func takeTurns(ctx context.Context, s *harness.Session, all []*contestant, streams, seconds int) {
	for _, c := range all {
		if c.path == nil || ctx.Err() != nil {
			continue
		}
		got, err := c.path.measure(ctx, streams, seconds)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				c.why = fmt.Sprintf("%s: %v", c.name, err)
				s.Say("%s", c.why)
			}
			continue
		}
		c.samples[streams] = append(c.samples[streams], got)
		s.Say("%-14s %-12s %6.2f Gbit/s  %.3f CPU s/GB  others took %.0f%%", caseName(streams), c.name, got.gbit, got.cpuGB, 100*got.other)
	}
}

// report compares ours with each peer, in rate and in cost.
func report(s *harness.Session, all []*contestant, streams int) {
	rates := judge(all, streams, func(x sample) float64 { return x.gbit })
	costs := judge(all, streams, func(x sample) float64 { return x.cpuGB })
	for i, c := range all[1:] {
		why := ""
		for _, side := range []*contestant{all[0], c} {
			if len(side.samples[streams]) == 0 && why == "" {
				if why = side.why; why == "" {
					why = "no time was left for " + side.name
				}
			}
		}
		rate := harness.New(caseName(streams), rateMetric(),
			rates.Sides[0], c.name, rates.Sides[i+1], 0, why)
		rate.Noise = &rates.Noise
		if streams == 1 {
			rate.WantRatio(wanted(c.name))
		}
		s.Report(rate)
		cost := harness.New(caseName(streams), harness.Metric{Name: "cpu_s_per_gb", Unit: "s/GB"},
			costs.Sides[0], c.name, costs.Sides[i+1], 0, why)
		cost.Noise = &costs.Noise
		s.Report(cost)
	}
}

func judge(all []*contestant, streams int, of func(sample) float64) harness.Turns {
	windows := make([][]harness.Window, len(all))
	for i, c := range all {
		for _, x := range c.samples[streams] {
			windows[i] = append(windows[i], harness.Window{Value: of(x), Wait: x.other})
		}
	}
	return harness.Judge(windows, harness.Limits{Wait: otherLimit, Slow: 1, Fewest: 3})
}

// wanted is the share of a peer's rate that the design asks of us.
func wanted(peer string) float64 {
	switch {
	case peer == "bare-pump" || runtime.NumCPU() >= 16:
		return 0.95
	}
	return 0.75
}

// Package tcp has paths carry TCP, run by run in turn, and compares what they
// carry and what it costs.
//
// iperf3 drives them. CPU seconds are those of iperf3 at both ends and of the
// processes between them; the kernel's work is mostly in those of iperf3.
package tcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
)

const (
	// otherLimit is the share of the machine that others may take in a run.
	otherLimit = 0.05
	// SetupTime is what a run of iperf3 takes beside the seconds it measures.
	SetupTime = 700 * time.Millisecond
)

// Contestant is somebody between a client and a server.
type Contestant struct {
	Name  string
	Raise func(context.Context) (*stage.Path, error)
	// Least is the share of its rate that the design asks of ours with one
	// stream, as a ratio; 0 asks nothing.
	Least float64
}

// Case is what is carried.
type Case struct {
	IPv6    bool
	Streams int // at once
}

// String is the case's name in results.
func (c Case) String() string {
	if c.IPv6 {
		return fmt.Sprintf("tcp/ipv6/streams=%d", c.Streams)
	}
	return fmt.Sprintf("tcp/streams=%d", c.Streams)
}

// plan says how much is run.
type plan struct {
	cases   []Case
	seconds int // of each run
	rounds  int // undisturbed runs of each path and case; up to three times as many are made
}

// planOf is what a session wants.
func planOf(s *harness.Session) plan {
	p := plan{seconds: 3, rounds: 9}
	if s.Quick {
		p = plan{seconds: 1, rounds: 5}
	}
	for _, c := range []Case{{false, 1}, {false, 8}, {true, 1}, {true, 8}} {
		if s.WantsMore(c.String()) || !c.IPv6 && s.Wants(c.String()) {
			p.cases = append(p.cases, c)
		}
	}
	return p
}

// contestant is one with its path, if it could be raised, and what was measured.
type contestant struct {
	Contestant
	path    *stage.Path
	why     string // it is not there
	samples map[Case][]Sample
}

// Contest runs what a session wants by one and by eight streams, IPv4 and IPv6,
// and reports the first contestant, ours, against each of the others.
func Contest(ctx context.Context, s *harness.Session, contestants ...Contestant) error {
	return contest(ctx, s, planOf(s), contestants)
}

func contest(ctx context.Context, s *harness.Session, p plan, contestants []Contestant) error {
	if len(p.cases) == 0 {
		return nil
	}
	all := raise(ctx, s, contestants)
	defer func() {
		for _, c := range all {
			if c.path != nil {
				c.path.Close()
			}
		}
	}()
	start := time.Now()
	round := time.Duration(len(all)*len(p.cases)) * (time.Duration(p.seconds)*time.Second + SetupTime)
	for i := range 3 * p.rounds {
		if enough(all, p) || ctx.Err() != nil || i > 0 && harness.Left(ctx, round) < round {
			break
		}
		for _, c := range p.cases {
			takeTurns(ctx, s, all, c, p.seconds)
		}
		round = time.Since(start) / time.Duration(i+1)
	}
	for _, c := range p.cases {
		report(s, all, c)
	}
	return nil
}

// raise raises every path.
func raise(ctx context.Context, s *harness.Session, contestants []Contestant) (all []*contestant) {
	for _, c := range contestants {
		r := &contestant{Contestant: c, samples: map[Case][]Sample{}}
		all = append(all, r)
		s.Say("raise %s", c.Name)
		err := Installed()
		if err == nil {
			r.path, err = c.Raise(ctx)
		}
		if err != nil {
			r.why = fmt.Sprintf("%s: %v", c.Name, err)
			s.Say("%s", r.why)
		}
	}
	return all
}

// enough says whether every path has its undisturbed runs.
func enough(all []*contestant, p plan) bool {
	for _, c := range all {
		for _, what := range p.cases {
			quiet := 0
			for _, x := range c.samples[what] {
				if x.Other <= otherLimit {
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

func takeTurns(ctx context.Context, s *harness.Session, all []*contestant, what Case, seconds int) {
	for _, c := range all {
		if c.path == nil || ctx.Err() != nil {
			continue
		}
		got, err := Measure(ctx, c.path, what, seconds)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				c.why = fmt.Sprintf("%s: %v", c.Name, err)
				s.Say("%s", c.why)
			}
			continue
		}
		c.samples[what] = append(c.samples[what], got)
		s.Say("%-18v %-14s %6.2f Gbit/s  %.3f CPU s/GB  others took %.0f%%", what, c.Name, got.Gbit, got.CPUGB, 100*got.Other)
	}
}

// Rate is the metric of what is carried.
func Rate() harness.Metric { return harness.Metric{Name: "gbit_per_s", Unit: "Gbit/s", More: true} }

// report compares ours with each peer, in rate and in cost.
func report(s *harness.Session, all []*contestant, what Case) {
	rates := judge(all, what, func(x Sample) float64 { return x.Gbit })
	costs := judge(all, what, func(x Sample) float64 { return x.CPUGB })
	for i, c := range all[1:] {
		why := reason(what, all[0], c)
		rate := harness.New(what.String(), Rate(), rates.Sides[0], c.Name, rates.Sides[i+1], 0, why)
		rate.Noise = &rates.Noise
		if what.Streams == 1 && c.Least != 0 {
			rate.WantRatio(c.Least)
		}
		s.Report(rate)
		cost := harness.New(what.String(), harness.Metric{Name: "cpu_s_per_gb", Unit: "s/GB"},
			costs.Sides[0], c.Name, costs.Sides[i+1], 0, why)
		cost.Noise = &costs.Noise
		s.Report(cost)
	}
}

// reason is why a comparison has no value; empty if it has.
func reason(what Case, sides ...*contestant) string {
	for _, side := range sides {
		switch {
		case len(side.samples[what]) > 0:
		case side.why != "":
			return side.why
		default:
			return "no time was left for " + side.Name
		}
	}
	return ""
}

func judge(all []*contestant, what Case, of func(Sample) float64) harness.Turns {
	windows := make([][]harness.Window, len(all))
	for i, c := range all {
		for _, x := range c.samples[what] {
			windows[i] = append(windows[i], harness.Window{Value: of(x), Wait: x.Other})
		}
	}
	return harness.Judge(windows, harness.Limits{Wait: otherLimit, Slow: 1, Fewest: 3})
}

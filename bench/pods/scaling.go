package pods

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/tcp"
)

// Scaling is pods-scaling: the same pairs of pods by more and more workers.
func Scaling() harness.Scenario {
	return harness.Scenario{
		Name:  "pods-scaling",
		About: "TCP between several pairs of pods by 1, 2, 4 ... workers, against the kernel's routed veth; tells something from 8 cores on",
		Run:   runScaling,
	}
}

// mostPairs is how many pairs of pods talk at once at most, of the pairs that the
// machine has room for: each keeps about two cores busy beside the workers.
const mostPairs = 8

func pairsFor(cores int) int { return max(2, min(mostPairs, cores*3/8)) }

// workersFor are the numbers of workers to try: powers of two, up to half of the cores.
func workersFor(cores int) (all []int) {
	for n := 1; n == 1 || n <= cores/2; n *= 2 {
		all = append(all, n)
	}
	return all
}

func scalingCase(pairs, workers int) string {
	return fmt.Sprintf("tcp/pairs=%d/workers=%d", pairs, workers)
}

func runScaling(ctx context.Context, s *harness.Session) error {
	if err := tcp.Installed(); err != nil {
		return err
	}
	pairs := pairsFor(runtime.NumCPU())
	kernel, err := stage.KernelPairs(pairs)
	if err != nil {
		return fmt.Errorf("raise the kernel's paths: %w", err)
	}
	defer kernel[0].Close()
	rounds, seconds := 5, 3
	if s.Quick {
		rounds, seconds = 3, 1
	}
	for _, workers := range workersFor(runtime.NumCPU()) {
		name := scalingCase(pairs, workers)
		switch {
		case !s.Wants(name):
		case harness.Left(ctx, caseTime) < caseTime:
			s.Report(harness.New(name, tcp.Rate(), nil, "kernel-veth", nil, 0, "no time was left for this case: run it alone with --filter"))
		default:
			if err := scale(ctx, s, name, kernel, workers, rounds, seconds); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// caseTime is what raising a case and its first round may take.
const caseTime = 8 * time.Second

// scale lets ours, by so many workers, and the kernel take turns.
func scale(ctx context.Context, s *harness.Session, name string, kernel []*stage.Path, workers, rounds, seconds int) error {
	ours, err := stage.OursPairs(ctx, "tcp", s.Forwarder, len(kernel), workers)
	if err != nil {
		return err
	}
	defer ours[0].Close()
	windows := make([][]harness.Window, 2)
	round := 2 * (time.Duration(seconds)*time.Second + tcp.SetupTime)
	for i := 0; i < rounds && (i == 0 || harness.Left(ctx, round) >= round); i++ {
		for side, paths := range [][]*stage.Path{ours, kernel} {
			rate, err := together(ctx, paths, seconds)
			if err != nil {
				return err
			}
			windows[side] = append(windows[side], harness.Window{Value: rate})
		}
	}
	turns := harness.Judge(windows, harness.Limits{Wait: 1, Slow: 1, Fewest: 1})
	s.Say("%-28s %6.1f Gbit/s, the kernel %6.1f", name, turns.Sides[0].Median, turns.Sides[1].Median)
	s.Report(harness.New(name, tcp.Rate(), turns.Sides[0], "kernel-veth", turns.Sides[1], 0, ""))
	return nil
}

// together is what all paths carry at once, one stream each, in Gbit/s.
func together(ctx context.Context, paths []*stage.Path, seconds int) (sum float64, err error) {
	rates, errs := make([]float64, len(paths)), make([]error, len(paths))
	var all sync.WaitGroup
	for i, p := range paths {
		all.Go(func() {
			var got tcp.Sample
			got, errs[i] = tcp.Measure(ctx, p, tcp.Case{Streams: 1}, seconds)
			rates[i] = got.Gbit
		})
	}
	all.Wait()
	for _, r := range rates {
		sum += r
	}
	return sum, errors.Join(errs...)
}

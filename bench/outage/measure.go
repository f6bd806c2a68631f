package outage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/internal/lab/load"
)

// tally is what a trial came to.
type tally struct {
	blocked []float64 // of each event: milliseconds that traffic was blocked
	gaps    []float64 // of each event: milliseconds in which some path delivered nothing
	took    []float64 // of each event: milliseconds until who made it was done
	resumed []float64 // of each event: milliseconds until every connection went on

	seconds    float64
	sent, lost uint64 // datagrams
	disorder   load.Disorder
	lived      load.Lived

	control struct {
		sent, lost uint64
		gap        float64 // milliseconds, of all events the longest
	}
}

// try has something happen some times, or as often as there is time, under load.
func (b *bed) try(ctx context.Context, s *harness.Session, t trial, events int) (got tally, err error) {
	happen, end, err := t.begin(ctx, b)
	if err != nil {
		return got, err
	}
	defer end()
	paths, err := b.ours()
	if err != nil {
		return got, err
	}
	ours, err := startTraffic(ctx, paths, b.patience)
	if err != nil {
		return got, fmt.Errorf("load the forwarder: %w", err)
	}
	control, err := startTraffic(ctx, both(b.routed.Ends[0], b.routed.Ends[1], b.routed.Addr), b.patience)
	if err != nil {
		ours.stop(0)
		return got, fmt.Errorf("load the control: %w", err)
	}
	w := watch{ours: ours.datagrams, control: control.datagrams}
	if err = errors.Join(ours.flows(ctx), control.flows(ctx)); err == nil {
		err = w.events(ctx, s, t.name, events, ours, happen)
	}
	wait := farewell
	if err != nil && ctx.Err() == nil { // nobody forwards what is on its way
		wait = 0
	}
	control.stop(wait)
	got.lived = ours.stop(wait)
	w.sum(&got)
	return got, err
}

// watch marks when events begin.
type watch struct {
	ours, control *load.Steady
	marks         []marks
	took, resumed []float64
}

// marks is a moment.
type marks struct {
	at            time.Time
	ours, control load.Mark
}

func (w *watch) mark() {
	w.marks = append(w.marks, marks{time.Now(), w.ours.Mark(), w.control.Mark()})
}

// events has it happen. An event ends where the next begins: when all traffic has
// flowed again for a while.
func (w *watch) events(ctx context.Context, s *harness.Session, name string, n int, ours traffic, happen func(ctx context.Context, i int) error) error {
	s.Say("%s: %d times, under load", name, n)
	w.mark()
	var longest time.Duration
	said := time.Now()
	for i := range n {
		if i > 0 && time.Since(said) > sayEvery {
			said = time.Now()
			s.Say("%s: %d of %d, the longest blocked for %.1f ms", name, i, n, harness.Percentile(w.blocked(), 100).Median)
		}
		if ctx.Err() != nil || harness.Left(ctx, noLimit) < longest { // one that is cut short tells nothing
			return nil
		}
		start := time.Now()
		if err := happen(ctx, i); err != nil {
			return err
		}
		took := time.Since(start)
		if err := ours.flows(ctx); err != nil {
			return fmt.Errorf("wait until traffic flows again: %w", err)
		}
		if err := ours.resumes(ctx); err != nil {
			return err
		}
		w.took, w.resumed = append(w.took, ms(took)), append(w.resumed, ms(time.Since(start)))
		time.Sleep(settle)
		w.mark()
		time.Sleep(arrival)
		longest = max(longest, time.Since(start))
	}
	return nil
}

// each calls f with what every path of a load went through in each event.
func (w *watch) each(of *load.Steady, mark func(marks) load.Mark, f func([]load.Fate)) {
	for i := 1; i < len(w.marks); i++ {
		f(of.Between(mark(w.marks[i-1]), mark(w.marks[i])))
	}
}

func (w *watch) blocked() (out []float64) {
	w.each(w.ours, func(m marks) load.Mark { return m.ours }, func(fates []load.Fate) {
		out = append(out, blocked(fates))
	})
	return out
}

// blocked is for how long, in milliseconds, the path that lost most was blocked.
func blocked(fates []load.Fate) float64 {
	worst := uint64(0)
	for _, f := range fates {
		worst = max(worst, f.Lost)
	}
	return 1000 * float64(worst) / rate
}

// sum adds the events up, when all that was on its way has come.
func (w *watch) sum(got *tally) {
	if len(w.marks) < 2 {
		return
	}
	got.took, got.resumed, got.blocked = w.took, w.resumed, w.blocked()
	got.seconds = w.marks[len(w.marks)-1].at.Sub(w.marks[0].at).Seconds()
	got.disorder = w.ours.Disorder()
	w.each(w.ours, func(m marks) load.Mark { return m.ours }, func(fates []load.Fate) {
		sent, lost, gap := total(fates)
		got.sent, got.lost, got.gaps = got.sent+sent, got.lost+lost, append(got.gaps, gap)
	})
	c := &got.control
	w.each(w.control, func(m marks) load.Mark { return m.control }, func(fates []load.Fate) {
		sent, lost, gap := total(fates)
		c.sent, c.lost, c.gap = c.sent+sent, c.lost+lost, max(c.gap, gap)
	})
}

// total is over all paths; gap is the longest, in milliseconds.
func total(fates []load.Fate) (sent, lost uint64, gap float64) {
	for _, f := range fates {
		sent, lost, gap = sent+f.Sent, lost+f.Lost, max(gap, ms(f.Gap))
	}
	return sent, lost, gap
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// names of the metrics of every trial.
const (
	blockedMedian = "blocked_p50"
	blockedP99    = "blocked_p99"
	blockedMost   = "blocked_max"
	packetsLost   = "packets_lost"
	resets        = "tcp_resets"
)

// report tells all that a trial came to, or why it came to nothing.
func report(s *harness.Session, t trial, got tally, why string) {
	if why == "" {
		why = got.doubt()
	}
	one := func(metric, unit string, ours *harness.Estimate, extra map[string]float64) {
		if len(got.blocked) == 0 {
			ours, extra = nil, nil
		}
		m := harness.Metric{Name: metric, Unit: unit}
		r := harness.New(t.name, m, ours, "", nil, 0, why)
		if most, has := t.budgets[metric]; has {
			r.Want(m, most)
		}
		r.Extra = extra
		s.Report(r)
	}
	counted := func(n uint64) *harness.Estimate {
		e := harness.Exactly(float64(n))
		e.Runs = len(got.blocked)
		return e
	}
	one(blockedMedian, "ms", harness.Summary(got.blocked), got.times())
	one(blockedP99, "ms", harness.Percentile(got.blocked, 99), nil)
	one(blockedMost, "ms", harness.Percentile(got.blocked, 100), nil)
	one(packetsLost, "packets", counted(got.lost), got.counts())
	one(resets, "connections", counted(uint64(got.lived.Resets)), got.bytes())
}

// times are further figures of the events.
func (got tally) times() map[string]float64 {
	if len(got.blocked) == 0 {
		return nil
	}
	gap, took := harness.Summary(got.gaps), harness.Summary(got.took)
	return map[string]float64{
		"gap_p50_ms": gap.Median, "gap_max_ms": harness.Percentile(got.gaps, 100).Median, "control_gap_max_ms": got.control.gap,
		"event_p50_ms": took.Median, "event_max_ms": harness.Percentile(got.took, 100).Median,
	}
}

// counts are further counts of datagrams. offered_share is what part of the rate
// was sent: less than 1 where the sender waited for a CPU.
func (got tally) counts() map[string]float64 {
	if len(got.blocked) == 0 {
		return nil
	}
	return map[string]float64{
		"sent": float64(got.sent), "rate_per_path": rate, "offered_share": float64(got.sent) / (4 * rate * got.seconds),
		"late": float64(got.disorder.Late), "twice": float64(got.disorder.Twice),
		"control_sent": float64(got.control.sent), "control_lost": float64(got.control.lost),
	}
}

// bytes are further counts of the connections.
func (got tally) bytes() map[string]float64 {
	if len(got.blocked) == 0 {
		return nil
	}
	lived := got.lived
	return map[string]float64{
		"connections": float64(lived.Connections), "bytes_sent": float64(lived.Sent), "bytes_bent": float64(lived.Bent),
		"bytes_missing":  float64(lived.Sent - min(lived.Sent, lived.Received)),
		"resumed_p50_ms": harness.Summary(got.resumed).Median, "resumed_max_ms": harness.Percentile(got.resumed, 100).Median,
	}
}

// doubt says why figures that are there are not to be trusted, or what else is wrong.
func (got tally) doubt() string {
	lived, control := got.lived, got.control
	switch {
	case lived.Bent > 0:
		return fmt.Sprintf("%d bytes came by TCP that are not what was sent", lived.Bent)
	case lived.First != nil:
		return fmt.Sprintf("a connection was lost: %v", lived.First)
	case lived.Received < lived.Sent:
		return fmt.Sprintf("%d bytes sent by TCP had not come %v after the end", lived.Sent-lived.Received, farewell)
	case got.lost > 0 && control.lost > 0:
		return fmt.Sprintf("the control, to which nothing happens, lost %d of %d packets too: the load was too high for this machine just then",
			control.lost, control.sent)
	case got.lost > 0 && control.gap > stillness:
		return fmt.Sprintf("the control, to which nothing happens, stood still for %.0f ms: this machine had other things to do just then", control.gap)
	}
	return ""
}

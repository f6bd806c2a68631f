package harness

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// WindowTime is how long one window should last: short enough to fall
	// between two turns of the kernel's scheduler on a busy machine.
	WindowTime = 2 * time.Millisecond

	// wantRuns is how many accepted windows of each side tell all there is to learn.
	wantRuns = 101
)

// Side is one side of a comparison.
type Side struct {
	Name string
	// Window works for about d and says what one operation cost, in the unit
	// of the metric. It runs in the caller's goroutine, locked to a thread.
	Window func(d time.Duration) float64
}

// Turns is what windows of both sides, taken in turn, came to.
type Turns struct {
	Sides []*Estimate // in the order they were given; nil if none ran
	Noise Noise
}

// Window is one measurement, and what disturbed it.
type Window struct {
	Value float64
	// Wait is the share of it that its thread waited for a CPU; of work that
	// several processes do, the share of the machine that others took.
	Wait float64
	Slow float64 // how much slower than at its best the core was around it
}

// Limits are how disturbed a window may be.
type Limits struct {
	Wait, Slow float64
	Fewest     int // windows; disturbed ones are better than fewer
}

// limits of windows that one thread takes.
func limits() Limits { return Limits{Wait: 0.01, Slow: 0.15, Fewest: 7} }

// disturbed is how far a window is from the limits: at most 1 is within them.
func (l Limits) disturbed(w Window) float64 { return max(w.Wait/l.Wait, w.Slow/l.Slow) }

func (l Limits) accept(w Window) bool { return l.disturbed(w) <= 1 }

// Meter takes windows. It knows how fast the core was at its best.
type Meter struct {
	probe probe
}

// Compare lets sides take turns, a few at least, until time is up or their windows
// are enough. Where ctx ended before, an estimate may be nil.
// Disturbed windows are left out as long as there are others.
func (m *Meter) Compare(ctx context.Context, atMost time.Duration, sides ...Side) Turns {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	q := newQuiet()
	defer q.close()
	for _, s := range sides {
		s.Window(WindowTime) // caches, branch predictors, pages
	}
	all := make([][]Window, len(sides))
	end := time.Now().Add(atMost)
	steal := readStolen()
	speed := m.probe.run()
	for round := 0; ctx.Err() == nil && (round < limits().Fewest || time.Now().Before(end) && !enough(all)); round++ {
		for i, s := range sides {
			before := speed
			q.begin()
			v := s.Window(WindowTime)
			wait := q.end()
			speed = m.probe.run()
			all[i] = append(all[i], Window{v, wait, m.probe.slow(max(before, speed))})
		}
	}
	t := Judge(all, limits())
	t.Noise.Steal = steal.since()
	return t
}

// enough says whether no side needs more windows.
func enough(all [][]Window) bool {
	for _, ws := range all {
		n := 0
		for _, w := range ws {
			if limits().accept(w) {
				n++
			}
		}
		if n < wantRuns {
			return false
		}
	}
	return true
}

// Judge keeps the quiet windows of each side, or the least disturbed where those
// are too few.
func Judge(all [][]Window, l Limits) Turns {
	t := Turns{Noise: Noise{Quiet: true, Load: load()}}
	for _, ws := range all {
		slices.SortStableFunc(ws, func(a, b Window) int { return cmp.Compare(l.disturbed(a), l.disturbed(b)) })
		n := 0
		for n < len(ws) && (l.accept(ws[n]) || n < l.Fewest) {
			n++
		}
		var values []float64
		for _, w := range ws[:n] {
			values = append(values, w.Value)
			t.Noise.Wait, t.Noise.Slow = max(t.Noise.Wait, w.Wait), max(t.Noise.Slow, w.Slow)
			t.Noise.Quiet = t.Noise.Quiet && l.accept(w)
		}
		t.Noise.Repeated += len(ws) - n
		t.Sides = append(t.Sides, Summary(values))
	}
	return t
}

// Allocations is how many heap objects one of n operations makes, on average
// over one call of f, which does n. Nothing else may run.
func Allocations(n int, f func()) float64 {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

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

	waitLimit  = 0.01 // share of a window that its thread may wait for a CPU
	wantRuns   = 101  // accepted windows of each side after which there is nothing more to learn
	fewestRuns = 7    // accepted windows below which disturbed ones are better than none
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

// window is one that was measured.
type window struct{ value, wait float64 }

// Compare lets sides take turns until time is up or their windows are enough.
// Windows in which the thread waited are left out as long as there are others.
func Compare(ctx context.Context, atMost time.Duration, sides ...Side) Turns {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	q := newQuiet()
	defer q.close()
	for _, s := range sides {
		s.Window(WindowTime) // caches, branch predictors, pages
	}
	all := make([][]window, len(sides))
	end := time.Now().Add(atMost)
	steal := q.steal()
	for time.Now().Before(end) && ctx.Err() == nil && !enough(all) {
		for i, s := range sides {
			q.begin()
			v := s.Window(WindowTime)
			all[i] = append(all[i], window{v, q.end()})
		}
	}
	t := judge(all)
	t.Noise.Steal, t.Noise.Load = steal.since(), load()
	return t
}

func accepted(w window) bool { return w.wait <= waitLimit }

func enough(all [][]window) bool {
	for _, ws := range all {
		n := 0
		for _, w := range ws {
			if accepted(w) {
				n++
			}
		}
		if n < wantRuns {
			return false
		}
	}
	return true
}

// judge keeps the quiet windows, or the least disturbed where those are too few.
func judge(all [][]window) Turns {
	t := Turns{Noise: Noise{Quiet: true}}
	for _, ws := range all {
		slices.SortStableFunc(ws, func(a, b window) int { return cmp.Compare(a.wait, b.wait) })
		n := 0
		for n < len(ws) && (accepted(ws[n]) || n < fewestRuns) {
			n++
		}
		var values []float64
		for _, w := range ws[:n] {
			values = append(values, w.value)
			t.Noise.Wait = max(t.Noise.Wait, w.wait)
		}
		t.Noise.Repeated += len(ws) - n
		t.Sides = append(t.Sides, Summary(values))
	}
	t.Noise.Quiet = t.Noise.Wait <= waitLimit
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

package harness

import (
	"context"
	"testing"
	"time"
)

func TestJudgeLeavesOutWhatWasDisturbed(t *testing.T) {
	quiet := func(v float64) Window { return Window{Value: v} }
	l := Limits{Wait: 0.01, Slow: 0.15, Fewest: 2}
	tests := map[string]struct {
		in     []Window
		median float64 // of what is kept
		runs   int
		noise  Noise
	}{
		"all quiet":                   {[]Window{quiet(1), quiet(2), quiet(3)}, 2, 3, Noise{Quiet: true}},
		"one waited":                  {[]Window{{90, 0.5, 0}, quiet(2), quiet(4)}, 3, 2, Noise{Quiet: true, Repeated: 1}},
		"one on a slow core":          {[]Window{quiet(2), {90, 0, 0.16}, quiet(4)}, 3, 2, Noise{Quiet: true, Repeated: 1}},
		"at the limits":               {[]Window{{1, 0.01, 0.15}, {3, 0.01, 0.15}}, 2, 2, Noise{Quiet: true, Wait: 0.01, Slow: 0.15}},
		"too few quiet: the next one": {[]Window{{50, 0.4, 0}, quiet(2), {4, 0.02, 0}}, 3, 2, Noise{Wait: 0.02, Repeated: 1}},
		"fewer than wanted at all":    {[]Window{{7, 0.4, 0.2}}, 7, 1, Noise{Wait: 0.4, Slow: 0.2}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Judge([][]Window{tt.in, {}}, l)
			got.Noise.Load = 0
			if got.Sides[0] == nil || got.Sides[0].Median != tt.median || got.Sides[0].Runs != tt.runs {
				t.Errorf("kept %+v, want %d windows with median %v", got.Sides[0], tt.runs, tt.median)
			}
			if got.Noise != tt.noise {
				t.Errorf("noise is %+v, want %+v", got.Noise, tt.noise)
			}
			if got.Sides[1] != nil {
				t.Errorf("a side without windows came to %+v", got.Sides[1])
			}
		})
	}
}

func TestCompareLetsSidesTakeTurns(t *testing.T) {
	var order []int
	side := func(i int) Side {
		return Side{Window: func(time.Duration) float64 { order = append(order, i); return float64(10 * (i + 1)) }}
	}
	got := (&Meter{}).Compare(t.Context(), 10*time.Second, side(0), side(1))
	for i, s := range got.Sides {
		if s == nil || s.Median != float64(10*(i+1)) || s.Runs < wantRuns {
			t.Errorf("side %d came to %+v", i, s)
		}
	}
	for i, at := range order {
		if at != i%2 {
			t.Fatalf("window %d was of side %d", i, at)
		}
	}
}

func TestCompareEndsInTime(t *testing.T) {
	slow := Side{Window: func(time.Duration) float64 { time.Sleep(5 * time.Millisecond); return 1 }}
	tests := map[string]struct {
		atMost  time.Duration
		context time.Duration
	}{
		"by the time it was given": {400 * time.Millisecond, time.Minute},
		"with its context":         {time.Minute, 400 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.context)
			defer cancel()
			start := time.Now()
			got := (&Meter{}).Compare(ctx, tt.atMost, slow)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if got.Sides[0] == nil || got.Sides[0].Runs >= wantRuns {
				t.Errorf("came to %+v in so short a time", got.Sides[0])
			}
		})
	}
}

// A thread that shares one CPU with others waits for it, and the meter knows.
func TestWaitingIsNoticed(t *testing.T) {
	q := newQuiet()
	defer q.close()
	if q.file == nil {
		t.Skip("this kernel keeps no schedstat of threads")
	}
	if got := number([]byte("123 456 7"), 1); got != 456 {
		t.Errorf("field 1 is %d, want 456", got)
	}
	if got := number([]byte("123"), 1); got != 0 {
		t.Errorf("a field that is not there is %d, want 0", got)
	}
	q.begin()
	q.waited -= uint64(time.Hour) // as if it had waited that long since
	if got := q.end(); got < 1 {
		t.Errorf("an hour of waiting is %v of a moment", got)
	}
}

func TestProbeKnowsASlowCore(t *testing.T) {
	var p probe
	for range 100 {
		p.run()
	}
	if p.best <= 0 {
		t.Fatalf("the work took %v", p.best)
	}
	if got := p.slow(p.best); got != 0 {
		t.Errorf("the best is slower than itself by %v", got)
	}
	if got := p.slow(p.best + p.best/2); got < 0.49 || got > 0.51 {
		t.Errorf("half as long again is slower by %v, want 0.5", got)
	}
}

func TestAllocationsAreCounted(t *testing.T) {
	var keep []*[64]byte
	tests := map[string]struct {
		f    func()
		want float64
	}{
		"none":         {func() {}, 0},
		"two of a ten": {func() { keep = append(keep[:0], new([64]byte), new([64]byte)) }, 0.2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Allocations(10, tt.f)
			for range 5 { // another goroutine of the test may allocate meanwhile
				got = min(got, Allocations(10, tt.f))
			}
			if got != tt.want {
				t.Errorf("%v an operation, want %v", got, tt.want)
			}
		})
	}
}

func TestSpeedOfThisMachine(t *testing.T) {
	m := ThisMachine(t.Context())
	if m.Score.CPU <= 0 || m.Score.Memmove <= 0 || m.Kernel == "" || m.CPU == "" || m.Commit == "" {
		t.Errorf("the machine is %+v", m)
	}
}

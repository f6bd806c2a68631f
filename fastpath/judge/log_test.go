package judge

import (
	"slices"
	"testing"
	"time"
)

// Each rule is logged at the rate that is set, by each worker.
func TestLogRateIsWhatItIsSetTo(t *testing.T) {
	tests := map[string]struct {
		rate               LogRate
		once, second, hour int // lines: at once, a second later, an hour later
	}{
		"none is the default":   {LogRate{}, 10, 1, 10},
		"one at a time":         {LogRate{Burst: 1, Every: time.Second}, 1, 1, 1},
		"few and seldom":        {LogRate{Burst: 3, Every: time.Minute}, 3, 0, 3},
		"many and often":        {LogRate{Burst: 20, Every: 100 * time.Millisecond}, 20, 10, 20},
		"all, whatever a burst": {LogRate{Burst: 1}, 30, 30, 30},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := &Log{Rate: tt.rate}
			l.Expect(slices.Values([]uint32{7}))
			for _, w := range []*writer{l.join(), l.join()} {
				now := time.Duration(0)
				for _, step := range []struct {
					after time.Duration
					want  int
				}{{0, tt.once}, {time.Second, tt.second}, {time.Hour, tt.hour}} {
					now += step.after
					for range 30 {
						w.put(int64(now), &Logged{Rule: 7})
					}
					if n := l.Read(func(*Logged) {}); n != step.want {
						t.Errorf("at %v %d of 30 packets are logged, want %d", now, n, step.want)
					}
				}
			}
		})
	}
}

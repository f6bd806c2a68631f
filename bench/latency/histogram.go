package latency

import (
	"math"
	"math/bits"
	"time"
)

const (
	// fine is how many buckets a doubling of the time is cut into: a figure is
	// off by at most one part in 256.
	fine     = 128
	fineBits = 7
	buckets  = (64 - fineBits) * fine
)

// histogram counts durations, without memory but its own.
type histogram struct {
	counts [buckets]uint32
	total  uint64
}

// bucket is where a duration is counted: one bucket a nanosecond at first, then
// fine for each doubling.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-fineBits-1, 0)
	return shift*fine + int(v>>shift)
}

// middle is the duration that stands for all of a bucket.
func middle(b int) time.Duration {
	if b < 2*fine {
		return time.Duration(b)
	}
	shift := b/fine - 1
	return time.Duration(b-shift*fine)<<shift + time.Duration(1)<<shift/2
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)]++
	h.total++
}

// rank is the duration that a share of all do not exceed (nearest rank), 0 where
// there are none.
func (h *histogram) rank(share float64) time.Duration {
	want := max(1, uint64(math.Ceil(share*float64(h.total)-1e-6))) // 0.999 of 1,000 is 999, whatever floats make of it
	seen := uint64(0)
	for b, n := range h.counts {
		if seen += uint64(n); seen >= want {
			return middle(b)
		}
	}
	return 0
}

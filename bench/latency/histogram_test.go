package latency

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"
)

// sortedRank is what the histogram shall tell, by a sorted list.
func sortedRank(all []time.Duration, share float64) time.Duration {
	s := slices.Sorted(slices.Values(all))
	return s[max(1, int(math.Ceil(share*float64(len(s))-1e-6)))-1]
}

func TestRanksAgreeWithASortedList(t *testing.T) {
	var even, wild []time.Duration
	for i := range 1000 {
		even = append(even, time.Duration(i+1)*time.Microsecond)
		wild = append(wild, time.Duration(1)<<(i%60)+time.Duration(i))
	}
	for name, all := range map[string][]time.Duration{
		"one": {42}, "zero": {0}, "even": even, "wild": wild, "the longest": {math.MaxInt64}, "backwards": {-5},
	} {
		agree(t, name, all)
	}
	h := new(histogram)
	if got := h.rank(0.99); got != 0 {
		t.Errorf("of nothing, p99 is %v", got)
	}
	for _, d := range even {
		h.add(d)
	}
	if got := h.rank(0.999); got < 995*time.Microsecond || got > 1003*time.Microsecond {
		t.Errorf("of 1 to 1,000 us, p99.9 is %v, want 999 us", got)
	}
}

// agree holds the histogram against the list, to the width of its buckets.
func agree(t *testing.T, name string, all []time.Duration) {
	t.Helper()
	h := new(histogram)
	for _, d := range all {
		h.add(d)
	}
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		got, want := h.rank(share), max(0, sortedRank(all, share))
		if off := math.Abs(float64(got) - float64(want)); off > float64(want)/256 {
			t.Errorf("%s: %g of all are within %v, want %v", name, share, got, want)
		}
	}
}

func FuzzHistogram(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []time.Duration
		for ; len(b) >= 8; b = b[8:] {
			all = append(all, time.Duration(binary.BigEndian.Uint64(b)&math.MaxInt64))
		}
		if len(all) > 0 {
			agree(t, "fuzzed", all)
		}
	})
}

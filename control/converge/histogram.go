package converge

// Histogram counts values by how large they are. Those of a Core are copied with its
// Stats. The zero value has none.
type Histogram struct {
	Count uint64
	Sum   float64
	under [12]uint64 // by bound: 1, 3, 10, 30 and so on; what is above all is in Count alone
}

// Observe counts a value.
func (h *Histogram) Observe(v float64) {
	h.Count++
	h.Sum += v
	for i := range h.under {
		if v <= bound(i) {
			h.under[i]++
			return
		}
	}
}

// Cumulative is how many values were not above each bound.
func (h *Histogram) Cumulative() map[float64]uint64 {
	out, sum := make(map[float64]uint64, len(h.under)), uint64(0)
	for i, n := range h.under {
		sum += n
		out[bound(i)] = sum
	}
	return out
}

// bound is the greatest value that counts under an index.
func bound(i int) float64 {
	b := 1.0
	for range i / 2 {
		b *= 10
	}
	if i%2 == 1 {
		b *= 3
	}
	return b
}

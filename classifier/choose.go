package classifier

import (
	"math"
	"math/bits"
	"slices"
)

// window is a cut with the score that it cannot exceed.
type window struct {
	cut
	bound float64
}

// sampleSize is how many entries of a long list stand for all when cuts are compared.
const sampleSize = 512

// choose finds the cut that shortens the lists most for what it copies, as long
// as tables and copies take at most allow bytes. Score: halvings of the list
// that a packet meets, if packets come evenly from the entries, less a charge
// for copies and for cells. It reports false where none is worth a step.
func (c *cutter) choose(list []entry, allow float64) (cut, bool) {
	n, scale := len(list), 1.0
	if n > sampleSize {
		list = sampled(list)
		scale = float64(n) / float64(len(list))
	}
	maxWidth := max(2, min(uint(bits.Len(uint(n))), 14))
	c.scores = c.scores[:0]
	for f := range numFields {
		c.windows(list, f, maxWidth, scale, allow)
	}
	slices.SortFunc(c.scores, func(a, b window) int {
		switch {
		case a.bound > b.bound:
			return -1
		case a.bound < b.bound:
			return 1
		}
		return 0
	})
	best, found := window{bound: minScore}, false
	for i := range c.scores {
		w := &c.scores[i]
		if w.bound <= best.bound {
			break
		}
		if s := c.score(list, w.cut, scale); s > best.bound {
			best, found = window{w.cut, s}, true
		}
	}
	return best.cut, found
}

// minScore is the fewest halvings worth a step.
const minScore = 0.15

// sampled takes entries of a long list at even distances.
func sampled(list []entry) []entry {
	out := make([]entry, sampleSize)
	for i := range out {
		out[i] = list[i*len(list)/sampleSize]
	}
	return out
}

// windows appends the cuts of a field that may be worth their score, each with
// a bound for it: no window's cells can be shorter than all entries spread
// evenly over as many cells as its useful bits make.
func (c *cutter) windows(list []entry, f int, maxWidth uint, scale, allow float64) {
	var byOpen [33]float64 // entries by how many low bits they leave open
	var useful, fixed, first uint32
	all, seen := ^uint32(0), false
	for _, e := range list {
		if e>>f&1 != 0 {
			byOpen[32]++
			all = 0
			continue
		}
		it := &c.items[e>>numFields]
		open := bits.Len32(it.hi[f] - it.lo[f])
		byOpen[open]++
		mask := ^uint32(0) << open
		if !seen {
			first, seen = it.lo[f], true
		}
		useful |= (it.lo[f] ^ first) & mask
		fixed |= mask
		all &= mask
	}
	useful |= fixed &^ all
	useful &= uint32(1<<c.bits[f] - 1)
	n := float64(len(list))
	logN := log2(n)
	for low := uint(bits.TrailingZeros32(useful)); low < uint(c.bits[f]); low++ {
		if useful>>low&1 == 0 {
			continue
		}
		for width := uint(1); width <= maxWidth && low+width <= uint(c.bits[f]); width++ {
			if useful>>(low+width-1)&1 == 0 {
				continue
			}
			full := 0.0
			for open, k := range byOpen {
				if k != 0 {
					full += k * float64(uint32(1)<<min(max(open-int(low), 0), int(width)))
				}
			}
			cells := float64(uint32(1) << width)
			if full*scale*boxSize+cells*cellSize > allow {
				continue
			}
			even := full / float64(uint32(1)<<bits.OnesCount32(useful>>low&(1<<width-1)))
			bound := logN - log2(max(even, 1)) - c.price(full/n, cells/(n*scale), width)
			if bound > minScore {
				c.scores = append(c.scores, window{cut{f, low, width}, bound})
			}
		}
	}
}

// score is a cut's score over the list.
func (c *cutter) score(list []entry, w cut, scale float64) float64 {
	mask := uint32(1)<<w.width - 1
	counts := c.counts[:mask+1]
	clear(counts)
	everywhere := uint32(0)
	for _, e := range list {
		first, n := c.placesOf(e, w)
		if n > mask {
			everywhere++
			continue
		}
		for j := range n {
			counts[(first+j)&mask]++
		}
	}
	square, full := 0.0, 0.0
	for _, k := range counts {
		y := float64(k + everywhere)
		square += y * y
		full += y
	}
	n := float64(len(list))
	return log2(n) - log2(square/full) - c.price(full/n, float64(mask+1)/(n*scale), w.width)
}

// price is what a cut costs: copies, for each doubling of the entries; cells,
// where there are more than entries; and wide tables for their cache lines.
func (c *cutter) price(copies, cells float64, width uint) float64 {
	p := 0.02 * float64(width)
	if copies > 1 {
		p += c.shape.charge * log2(copies)
	}
	if cells > 1 {
		p += 0.5 * log2(cells)
	}
	return p
}

// log2 is the logarithm to within 0.09, by the exponent and a straight line:
// enough to compare, and ten times as fast as the true one.
func log2(x float64) float64 {
	return float64(int64(math.Float64bits(x))-1023<<52) / (1 << 52)
}

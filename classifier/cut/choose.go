package cut

import (
	"math"
	"math/bits"
)

// window is a cut with a guess at its score.
type window struct {
	cut   Cut
	guess float64
}

// sampleSize is how many entries of a long list stand for all when cuts are compared.
const sampleSize = 512

// choose finds the cut that shortens the lists most for what it copies, as long
// as tables and copies take at most allow bytes. Score: halvings of the list
// that a packet meets, if packets come evenly from the entries, less a charge
// for copies and for cells. It reports false where none is worth a step.
func (c *cutter) choose(list []entry, allow float64) (best Cut, found bool) {
	n, scale := len(list), 1.0
	if n > sampleSize {
		list = sampled(list)
		scale = float64(n) / float64(len(list))
	}
	maxWidth := max(2, min(uint(bits.Len(uint(n)))+2, 14))
	c.scores = c.scores[:0]
	for f := range NumFields {
		c.windows(list, f, maxWidth, scale, allow)
	}
	score := minScore
	for range triesOf(n) {
		next := -1
		for i := range c.scores {
			if next < 0 || c.scores[i].guess > c.scores[next].guess {
				next = i
			}
		}
		if next < 0 || c.scores[next].guess == 0 {
			break
		}
		w := c.scores[next].cut
		c.scores[next].guess = 0
		if s := c.score(list, w, scale); s > score {
			best, score, found = w, s, true
		}
	}
	return best, found
}

// triesOf is how many cuts of a list of n are looked at closely, those with the
// highest guesses. More make better trees by little, and builds slower by much;
// the long lists near the root are few, and matter most.
func triesOf(n int) int {
	switch {
	case n > 128:
		return 48
	case n > 16:
		return 16
	}
	return 8
}

// minScore is the fewest halvings worth a step.
const minScore = 0.15

// minGain is the least that the outermost bits of a window are worth.
const minGain = 0.05

// sampled takes entries of a long list at even distances.
func sampled(list []entry) []entry {
	out := make([]entry, sampleSize)
	for i := range out {
		out[i] = list[i*len(list)/sampleSize]
	}
	return out
}

// survey is what a field of a list is like, bit by bit.
type survey struct {
	wild   [32]float64 // entries that are found on both sides of a cut by this bit alone
	gain   [32]float64 // the score of such a cut
	useful uint32      // bits that tell entries from others, well enough to begin or end a window
}

// look surveys a field.
func (c *cutter) look(list []entry, f int) (s survey) {
	var opens [33]uint32 // entries by how many low bits they leave open
	var ones [32]uint32
	all, known, either, both := ^uint32(0), uint32(0), uint32(0), ^uint32(0)
	for _, e := range list {
		low, value := 32, uint32(0)
		if e>>f&1 == 0 {
			it := &c.Items[e>>NumFields]
			low, value = bits.Len32(it.Hi[f]-it.Lo[f]), it.Lo[f]
		}
		opens[low]++
		mask := ^uint32(0) << low
		either |= value & mask
		both &= value | ^mask
		known |= mask
		all &= mask
		for m := value & mask; m != 0; m &= m - 1 {
			ones[bits.TrailingZeros32(m)]++
		}
	}
	s.useful = (known&^all | either&^both) & (1<<c.bits[f] - 1)
	n, wild := float64(len(list)), float64(opens[32])
	for b := 31; b >= 0; b-- {
		s.wild[b] = wild // those that leave more than b bits open
		wild += float64(opens[b])
		if s.useful>>b&1 != 0 {
			one := s.wild[b] + float64(ones[b])
			zero := n + s.wild[b] - one
			if s.gain[b] = log2(n) - log2((one*one+zero*zero)/(one+zero)); s.gain[b] < minGain {
				s.useful &^= 1 << b
			}
		}
	}
	return s
}

// windows appends the cuts of a field that may be worth their score, each with
// what it would score if its bits knew nothing of each other.
func (c *cutter) windows(list []entry, f int, maxWidth uint, scale, allow float64) {
	s := c.look(list, f)
	n := float64(len(list))
	most := log2(n)
	for low := uint(bits.TrailingZeros32(s.useful)); low < uint(c.bits[f]); low++ {
		if s.useful>>low&1 == 0 {
			continue
		}
		sum, full, cells := 0.0, n, 1.0
		for width := uint(1); width <= maxWidth && low+width <= uint(c.bits[f]); width++ {
			top := low + width - 1
			sum += s.gain[top]
			full += cells * s.wild[top]
			cells *= 2
			if s.useful>>top&1 == 0 || width > 4 && width&1 != 0 && width != maxWidth || full*scale*BoxSize+cells*CellSize > allow {
				continue
			}
			if guess := min(sum, most) - c.price(full/n, cells/(n*scale), width); guess > 0 {
				c.scores = append(c.scores, window{Cut{f, low, width}, guess})
			}
		}
	}
}

// score is a cut's score over the list.
func (c *cutter) score(list []entry, w Cut, scale float64) float64 {
	mask := uint32(1)<<w.Width - 1
	if len(c.counts) <= int(mask) {
		c.counts = make([]uint32, mask+1)
	}
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
	return log2(n) - log2(square/full) - c.price(full/n, float64(mask+1)/(n*scale), w.Width)
}

// price is what a cut costs: copies, for each doubling of the entries; cells,
// where there are more than entries; and wide tables for their cache lines.
func (c *cutter) price(copies, cells float64, width uint) float64 {
	p := 0.02 * float64(width)
	if copies > 1 {
		p += c.shape.Charge * log2(copies)
	}
	if cells > 1 {
		p += 0.25 * log2(cells)
	}
	return p
}

// log2 is the logarithm to within 0.09, by the exponent and a straight line:
// enough to compare, and ten times as fast as the true one.
func log2(x float64) float64 {
	return float64(int64(math.Float64bits(x))-1023<<52) / (1 << 52)
}

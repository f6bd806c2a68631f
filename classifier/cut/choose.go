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

// sampled takes entries of a long list at even distances.
func sampled(list []entry) []entry {
	out := make([]entry, sampleSize)
	for i := range out {
		out[i] = list[i*len(list)/sampleSize]
	}
	return out
}

// openness is how many low bits entries leave open in a field, and how many
// entries each leave so many.
type openness struct {
	bits  [33]uint8
	count [33]uint32
	kinds int
}

func (o *openness) add(bits int, n uint32) {
	for i := range o.kinds {
		if int(o.bits[i]) == bits {
			o.count[i] += n
			return
		}
	}
	o.bits[o.kinds], o.count[o.kinds] = uint8(bits), n
	o.kinds++
}

// places is how many cells of a window the entries fill, together.
func (o *openness) places(low, width uint) float64 {
	full := uint64(0)
	for i := range o.kinds {
		full += uint64(o.count[i]) << min(max(int(o.bits[i])-int(low), 0), int(width))
	}
	return float64(full)
}

// survey looks at a field of a list: what the entries leave open, which bits
// tell some of them from others, and the score of each bit by itself.
func (c *cutter) survey(list []entry, f int) (open openness, useful uint32, gain [32]float64) {
	var ones, fixed [32]uint32
	var either, known uint32
	both, all := ^uint32(0), ^uint32(0)
	for _, e := range list {
		if e>>f&1 != 0 {
			open.add(32, 1)
			all = 0
			continue
		}
		it := &c.Items[e>>NumFields]
		low := bits.Len32(it.Hi[f] - it.Lo[f])
		open.add(low, 1)
		mask := ^uint32(0) << low
		either |= it.Lo[f] & mask
		both &= it.Lo[f] | ^mask
		known |= mask
		all &= mask
	}
	useful = (known&^all | either&^both) & (1<<c.bits[f] - 1)
	for _, e := range list {
		if e>>f&1 != 0 {
			continue
		}
		it := &c.Items[e>>NumFields]
		low := bits.Len32(it.Hi[f] - it.Lo[f])
		for m := useful >> low << low; m != 0; m &= m - 1 {
			b := bits.TrailingZeros32(m)
			fixed[b]++
			ones[b] += it.Lo[f] >> b & 1
		}
	}
	n := float64(len(list))
	for m := useful; m != 0; m &= m - 1 {
		b := bits.TrailingZeros32(m)
		wild := n - float64(fixed[b])
		one, zero := wild+float64(ones[b]), wild+float64(fixed[b]-ones[b])
		gain[b] = log2(n) - log2((one*one+zero*zero)/(one+zero))
	}
	return open, useful, gain
}

// windows appends the cuts of a field that may be worth their score, each with
// what it would score if its bits knew nothing of each other.
func (c *cutter) windows(list []entry, f int, maxWidth uint, scale, allow float64) {
	open, useful, gain := c.survey(list, f)
	n := float64(len(list))
	most := log2(n)
	for low := uint(bits.TrailingZeros32(useful)); low < uint(c.bits[f]); low++ {
		if useful>>low&1 == 0 {
			continue
		}
		sum := 0.0
		for width := uint(1); width <= maxWidth && low+width <= uint(c.bits[f]); width++ {
			sum += gain[low+width-1]
			if useful>>(low+width-1)&1 == 0 || width > 4 && width&1 != 0 && width != maxWidth {
				continue
			}
			full, cells := open.places(low, width), float64(uint32(1)<<width)
			if full*scale*BoxSize+cells*CellSize > allow {
				continue
			}
			guess := min(sum, most) - c.price(full/n, cells/(n*scale), width)
			if guess > 0 {
				c.scores = append(c.scores, window{Cut{f, low, width}, guess})
			}
		}
	}
}

// score is a cut's score over the list.
func (c *cutter) score(list []entry, w Cut, scale float64) float64 {
	mask := uint32(1)<<w.Width - 1
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

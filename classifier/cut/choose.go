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
	open := entry(fieldMask)
	for _, e := range list {
		open &= e
	}
	widest := uint(bits.Len(uint(n+n/4))) + 1 // two to five cells for an entry
	b := bounds{scale: scale, allow: allow, maxWidth: min(widest, MaxWidth), tries: triesOf(n)}
	b.widths = wider&(2<<b.maxWidth-1) | 1<<b.maxWidth
	for width := uint(1); width <= b.maxWidth; width++ {
		b.prices[width] = c.price(1, float64(uint(1)<<width)/float64(n), width)
	}
	c.scores = c.scores[:0]
	for f := range NumFields {
		if open>>f&1 == 0 {
			c.windows(list, f, &b)
		}
	}
	score := minScore
	for _, w := range c.scores {
		if s := c.score(list, w.cut, scale); s > score {
			best, score, found = w.cut, s, true
		}
	}
	return best, found
}

// bounds are what windows are kept to.
type bounds struct {
	scale, allow float64     // entries for each that is looked at; bytes
	maxWidth     uint        // of a cut, in bits
	widths       uint32      // a bit for each width that is tried
	prices       [16]float64 // of cuts without copies, by width
	tries        int         // how many windows are wanted
	least        float64     // of the guesses that are wanted still
}

// wider are the widths that are tried beside the widest: of those over 4 every other.
const wider uint32 = 0b101_0101_0101_1110

// offer puts a window among those with the highest guesses, which are sorted.
func (c *cutter) offer(w window, b *bounds) {
	if len(c.scores) < b.tries {
		c.scores = append(c.scores, w)
	}
	i := len(c.scores) - 1
	for ; i > 0 && c.scores[i-1].guess < w.guess; i-- {
		c.scores[i] = c.scores[i-1]
	}
	if c.scores[i] = w; len(c.scores) == b.tries {
		b.least = c.scores[b.tries-1].guess
	}
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
	var ones tally
	all, known, either, both := ^uint32(0), uint32(0), uint32(0), ^uint32(0)
	for _, e := range list {
		if e>>f&1 != 0 {
			opens[32]++
			all = 0
			continue
		}
		it := &c.Items[e>>NumFields]
		low := bits.Len32(it.Hi[f] - it.Lo[f])
		opens[low]++
		mask := ^uint32(0) << low
		value := it.Lo[f] & mask
		either |= value
		both &= value | ^mask
		known |= mask
		all &= mask
		ones.add(value)
	}
	s.useful = (known&^all | either&^both) & (1<<c.bits[f] - 1)
	n, wild := float64(len(list)), float64(opens[32])
	count := ones.counts()
	for b := 31; b >= 0; b-- {
		s.wild[b] = wild // those that leave more than b bits open
		wild += float64(opens[b])
		if s.useful>>b&1 != 0 {
			one := s.wild[b] + float64(count[b])
			zero := n + s.wild[b] - one
			if s.gain[b] = log2(n) - log2((one*one+zero*zero)/(one+zero)); s.gain[b] < minGain {
				s.useful &^= 1 << b
			}
		}
	}
	return s
}

// tally counts, of up to sampleSize numbers, those that have a bit, for each bit
// at once: digit i of bit b's count is bit b of word i.
type tally [16]uint32

func (t *tally) add(v uint32) {
	for i := 0; v != 0; i++ {
		digit := t[i&15]
		t[i&15] = digit ^ v
		v &= digit
	}
}

func (t *tally) counts() (n [32]uint32) {
	for i, digits := range t {
		for ; digits != 0; digits &= digits - 1 {
			n[bits.TrailingZeros32(digits)] |= 1 << i
		}
	}
	return n
}

// windows offers the cuts of a field that may be worth their score, each with
// what it would score if its bits knew nothing of each other.
func (c *cutter) windows(list []entry, f int, b *bounds) {
	s := c.look(list, f)
	n := float64(len(list))
	most, each, ends := log2(n), 1/n, s.useful // windows begin and end at such bits
	for ; ends != 0; ends &= ends - 1 {
		low := uint(bits.TrailingZeros32(ends))
		sum, full, cells := 0.0, n, 1.0
		for width := uint(1); width <= b.maxWidth && low+width <= uint(c.bits[f]); width++ {
			top := (low + width - 1) & 31
			sum += s.gain[top]
			full += cells * s.wild[top]
			cells *= 2
			if ends>>top&(b.widths>>width)&1 == 0 {
				continue
			}
			guess := min(sum, most) - b.prices[width&15]
			if guess <= b.least {
				continue
			}
			if full*b.scale*BoxSize+cells*CellSize > b.allow {
				break
			}
			if guess -= c.shape.Charge * log2(full*each); guess > b.least {
				c.offer(window{Cut{f, low, width}, guess}, b)
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

// widthPrice is what a bit of a cut's width costs, in cache lines.
const widthPrice = 0.02

// price is what a cut costs: copies, for each doubling of the entries; cells,
// where there are more than entries; and wide tables for their cache lines.
func (c *cutter) price(copies, cells float64, width uint) float64 {
	p := widthPrice * float64(width)
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

package classifier

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"

	"margay.dev/margay/classifier/cut"
)

// What the steps of a walk cost, in nanoseconds of the portable walker, about.
const (
	costTree  = 3
	costLevel = 2
	costLeaf  = 2
	costBox   = 3
)

// nearCache is how many bytes of tables are read about as fast as few.
const nearCache = 512 << 10

// cost is what one of the keys costs, if the tables were so many times as large.
func (p *Program) cost(keys []Key, times float64) float64 {
	steps := 0
	for i := range keys {
		steps += p.steps(&keys[i])
	}
	per := float64(steps) / float64(max(len(keys), 1))
	if size := times * p.bytes() / nearCache; size > 1 {
		per *= 1 + 0.6*math.Log2(size)
	}
	return per
}

// bytes is what the trees take.
func (p *Program) bytes() float64 { return float64(len(p.cells)*cellSize + len(p.boxes)*boxSize) }

// steps adds up what one key costs.
func (p *Program) steps(k *Key) (sum int) {
	best := uint32(len(p.verdicts) - 1)
	for i := range p.trees {
		if p.trees[i].min >= best {
			continue
		}
		sum += costTree
		c := p.trees[i].root
		for int64(c) >= 0 {
			c = p.cells[uint32(c)+uint32(k[c>>wordShift&1]>>(c>>cutShift&63))&uint32(c>>maskShift)]
			sum += costLevel
		}
		first, count := c&firstMask, c>>countShift&countMask
		if count > 0 {
			sum += costLeaf
		}
		best = min(best, uint32(c>>fallbackShift)&rankMask)
		boxes := p.boxes[first : first+count]
		for j := range boxes {
			sum += costBox
			if boxes[j].holds(k) {
				best = min(best, boxes[j].rank())
				break
			}
		}
	}
	return sum
}

// points are keys inside items of rules that are drawn evenly.
func (w *work) points(n int) []Key {
	rng := rand.New(rand.NewPCG(1, uint64(len(w.items))))
	keys := make([]Key, n)
	for i := range keys {
		it := &w.items[w.draw(rng.IntN(w.ranks()), rng.Uint32())]
		var v [cut.NumFields]uint32
		for f := range v {
			hi := it.Hi[f]
			if f <= cut.Destination && w.mode == Classes { // no packet has a local class that nobody has
				hi = min(hi, max(w.sides[f].rows.count(), it.Lo[f]+1)-1)
			}
			v[f] = it.Lo[f] + uint32(rng.Uint64N(uint64(hi-it.Lo[f])+1))
		}
		keys[i] = NewKey(v[cut.Source], v[cut.Destination], uint8(v[cut.Protocol]), uint16(v[cut.SourcePort]), uint16(v[cut.DestinationPort]))
	}
	return keys
}

// ranks is up to where rules have items.
func (w *work) ranks() int { return int(w.items[len(w.items)-1].Rank) + 1 }

// sample takes half of so many items evenly from all, and half evenly from rules.
func (w *work) sample(size int) []cut.Item {
	picked := make([]int, 0, size)
	for i := range size / 2 {
		picked = append(picked, 2*i*len(w.items)/size, w.draw((2*i+1)*w.ranks()/size, uint32(i)))
	}
	slices.Sort(picked)
	picked = slices.Compact(picked)
	items := make([]cut.Item, len(picked))
	for i, at := range picked {
		items[i] = w.items[at]
	}
	return items
}

// draw picks an item of the rule at a rank, or of the next that has any.
func (w *work) draw(rank int, any uint32) int {
	first, _ := slices.BinarySearchFunc(w.items, uint32(rank), func(it cut.Item, rank uint32) int { return cmp.Compare(it.Rank, rank) })
	end, _ := slices.BinarySearchFunc(w.items, w.items[first].Rank+1, func(it cut.Item, rank uint32) int { return cmp.Compare(it.Rank, rank) })
	return first + int(any)%(end-first)
}

// roomFor is how many bytes trees of n items should take, so that they are near
// the processor: a good deal on short lists, little beside the items on long ones.
func roomFor(n int) float64 {
	return 160<<10 + 88*float64(min(n, 10000)) + 42*float64(max(n-10000, 0))
}

// charges are what is tried for copies. The first is near the best for most lists.
var charges = [...]float64{0.9, 0.5}

// leafSize is how many boxes a leaf may have before it is worth another table.
const leafSize = 4

// On lists of so many items a build takes so long that fewer shapes are tried;
// on short ones there is nothing to gain.
const (
	shortList = 32
	longList  = 2000
	hugeList  = 60000
)

// assemble builds the trees in several ways and keeps the cheapest. The splits
// into trees are compared on a part of the items; the best two of a long list on
// all, or the best three of a short one, and another charge.
func (w *work) assemble() *Program {
	if len(w.items) <= shortList {
		return w.build(cut.Shape{Charge: charges[0], Leaf: leafSize})
	}
	part := *w
	part.times, w.times = 1, 1
	if size := min(max(len(w.items)/16, 300), longList); len(w.items) > size {
		part.items = w.sample(size)
		part.times = float64(len(w.items)) / float64(size)
	}
	var shapes []cut.Shape
	for _, split := range part.ground().Splits() {
		shapes = append(shapes, cut.Shape{Split: split, Charge: charges[0], Leaf: leafSize})
	}
	if len(shapes) > 1 {
		shapes = part.rank(shapes).shapes
	}
	switch {
	case len(w.items) > hugeList:
		shapes = shapes[:1]
	case len(w.items) > longList:
		shapes = shapes[:min(2, len(shapes))]
	default:
		other := shapes[0]
		other.Charge = charges[1]
		shapes = append(shapes[:min(3, len(shapes))], other)
	}
	return w.rank(shapes).programs[0]
}

// trials are shapes that were built, what came of them, and what that costs.
type trials struct {
	shapes   []cut.Shape
	programs []*Program
	costs    []float64
}

// Len, Less and Swap are what sort asks for.
func (t *trials) Len() int           { return len(t.shapes) }
func (t *trials) Less(i, j int) bool { return t.costs[i] < t.costs[j] }
func (t *trials) Swap(i, j int) {
	t.shapes[i], t.shapes[j] = t.shapes[j], t.shapes[i]
	t.programs[i], t.programs[j] = t.programs[j], t.programs[i]
	t.costs[i], t.costs[j] = t.costs[j], t.costs[i]
}

// rank builds each shape, side by side, and sorts them, the cheapest first. What
// takes more room than it should costs more.
func (w *work) rank(shapes []cut.Shape) *trials {
	keys := w.points(min(1000, 4*len(w.items)))
	t := &trials{shapes, make([]*Program, len(shapes)), make([]float64, len(shapes))}
	var builds sync.WaitGroup
	for i := range shapes {
		builds.Go(func() {
			t.programs[i] = w.build(shapes[i])
			t.costs[i] = t.programs[i].cost(keys, w.times)
			if over := t.programs[i].bytes() / (w.room * float64(len(w.items))); over > 1 {
				t.costs[i] *= over * over
			}
		})
	}
	builds.Wait()
	sort.Stable(t)
	return t
}

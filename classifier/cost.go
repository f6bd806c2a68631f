package classifier

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
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

// cost is what one of the keys costs, if the trees took so many bytes.
func (p *Program) cost(keys []Key, bytes float64) float64 {
	steps := 0
	for i := range keys {
		steps += p.steps(&keys[i])
	}
	per := float64(steps) / float64(max(len(keys), 1))
	if bytes > nearCache {
		per *= 1 + 0.6*math.Log2(bytes/nearCache)
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
		boxes := p.leafBoxes(c)
		if c&firstMask == uint64(len(p.boxes)-padBoxes) {
			boxes = nil // an empty leaf
		} else {
			sum += costLeaf
		}
		best = min(best, uint32(c>>fallbackShift)&rankMask)
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

// points are keys inside items of rules that are drawn evenly. In mode Classes each
// field is of an item of its own, drawn evenly from all: rules that allow few to come to few
// say little of who else knocks, and those that name the most sets are asked for most.
func (w *work) points(n int) []Key {
	rng := rand.New(rand.NewPCG(1, uint64(len(w.items))))
	keys := make([]Key, n)
	for i := range keys {
		it := &w.items[cut.Draw(w.items, rng.IntN(cut.Ranks(w.items)), rng.Uint32())]
		var v [cut.NumFields]uint32
		for f := range v {
			if w.mode == Classes {
				it = &w.items[rng.IntN(len(w.items))]
			}
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

// roomFor is how many bytes trees of n items should take, so that they are near
// the processor: a good deal on short lists, little beside the items on long ones.
func roomFor(n int) float64 {
	return 160<<10 + 88*float64(min(n, 10000)) + 42*float64(max(n-10000, 0))
}

// charge is what a doubling of entries costs, in halvings of the list: near the
// best for most lists.
const charge = 0.9

// leafSize is how many boxes a leaf may have before it is worth another table.
const leafSize = 4

// On short lists there is nothing to gain, and on long ones a build takes so
// long that one on all of it has to do.
const (
	shortList = 32
	longList  = 2000
)

// littlePart is how many times a part all is, for its bytes not to be taken for
// the share of what all takes.
const littlePart = 8

// partSize is the least part of a list that stands for it: enough that the splits
// into trees rank as they do on all of it.
const partSize = 300

// assemble builds the trees in several ways and keeps the cheapest. The splits
// into trees are compared on a part of the items; the best is built of all, and
// of a list that is not long another that may be as good.
func (w *work) assemble() *Program {
	if len(w.items) <= shortList {
		return w.build(cut.Shape{Charge: charge, Leaf: leafSize})
	}
	part := *w
	part.times, w.times = 1, 1
	if size := min(max(len(w.items)/16, partSize), longList); len(w.items) > size {
		part.items = cut.Sample(w.items, size)
		part.times = float64(len(w.items)) / float64(size)
	}
	var shapes []cut.Shape
	for _, split := range part.ground().Splits() {
		shapes = append(shapes, cut.Shape{Split: split, Charge: charge, Leaf: leafSize})
	}
	if len(shapes) > 1 {
		if shapes = hopeful(part.rank(shapes)); len(w.items) > longList {
			shapes = shapes[:1]
		}
	}
	return w.rank(shapes)[0].program
}

// hopeful are the best shape and the next that is not much the same, if it comes
// so near that it may be the best of all items.
func hopeful(ranked []trial) []cut.Shape {
	best := ranked[0]
	for _, t := range ranked[1:] {
		same := t.cost <= 1.005*best.cost && math.Abs(t.bytes-best.bytes) < 0.01*t.bytes
		if t.cost <= 1.05*best.cost && !same {
			return []cut.Shape{best.shape, t.shape}
		}
	}
	return []cut.Shape{best.shape}
}

// trial is a shape that was built, what came of it, and what that takes and costs.
type trial struct {
	shape       cut.Shape
	program     *Program
	bytes, cost float64 // with all items
}

// rank builds each shape, side by side, and sorts them, the cheapest first. What
// takes more room than it should costs more, and so does, of a part, what takes more
// than others: it will grow faster.
func (w *work) rank(shapes []cut.Shape) []trial {
	keys := w.points(min(1000, 4*len(w.items)))
	trials, least := make([]trial, len(shapes)), math.Inf(1)
	var builds sync.WaitGroup
	for i, s := range shapes {
		builds.Go(func() {
			p := w.build(s)
			trials[i] = trial{shape: s, program: p, bytes: w.grown(p, s)}
			trials[i].cost = p.cost(keys, trials[i].bytes)
			if over := trials[i].bytes / (w.room * w.times * float64(len(w.items))); over > 1 {
				trials[i].cost *= over * over
			}
		})
	}
	builds.Wait()
	for i := range trials {
		least = min(least, trials[i].bytes)
	}
	for i := range trials {
		if w.times > 1 {
			trials[i].cost *= 1 + 0.2*math.Log2(trials[i].bytes/least)
		}
	}
	slices.SortStableFunc(trials, func(a, b trial) int { return cmp.Compare(a.cost, b.cost) })
	return trials
}

// grown is what the trees of all items will take, by those of a part; where the
// part is little of all, by how they have grown from a part of the part.
func (w *work) grown(p *Program, s cut.Shape) float64 {
	if w.times < littlePart {
		return p.bytes() * w.times
	}
	quarter := *w
	quarter.items = cut.Sample(w.items, len(w.items)/4)
	ratio := float64(len(w.items)) / float64(len(quarter.items))
	return p.bytes() * math.Pow(w.times, math.Log(p.bytes()/quarter.build(s).bytes())/math.Log(ratio))
}

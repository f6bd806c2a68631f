package cut

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
)

// rounds makes the random tests longer: go test -args -rounds 100.
var rounds = flag.Uint64("rounds", 1, "how many times as long the random tests run")

// someItems makes items that are narrow, wide and nested, prefixes and not.
func someItems(rng *rand.Rand, n int, ground *Ground) []Item {
	crossing := rng.IntN(2) == 0
	items := make([]Item, n)
	for i := range items {
		for f := range NumFields {
			most := uint32(1<<ground.Bits[f] - 1)
			lo := rng.Uint32() & most & 0x0003071f
			kind := rng.IntN(5)
			if crossing && rng.IntN(8) > 0 {
				kind = 4
			}
			switch kind {
			case 0:
				items[i].Lo[f], items[i].Hi[f] = 0, most
			case 1: // a prefix
				open := uint32(1)<<rng.IntN(ground.Bits[f]) - 1
				items[i].Lo[f], items[i].Hi[f] = lo&^open, lo|open
			case 2:
				items[i].Lo[f], items[i].Hi[f] = lo, min(most, lo+rng.Uint32N(40))
			case 3:
				items[i].Lo[f], items[i].Hi[f] = lo, lo
			case 4: // across a boundary: equal lists on both sides of it, in regions that differ
				at := 64 * (1 + rng.Uint32N(3))
				items[i].Lo[f], items[i].Hi[f] = at-[]uint32{2, 5, 40}[rng.IntN(3)], at+rng.Uint32N(3)*8
			}
		}
		items[i].Rank = uint32(i / 2) // two items make a rule
	}
	return items
}

// answers walks a tree as docs/CLASSIFIER.md says, and returns all ranks that it finds.
func answers(forest *Forest, r Ref, point *[NumFields]uint32, none uint32) (ranks []uint32, levels int) {
	for ; r >= 0; levels++ {
		n := &forest.Nodes[r]
		r = n.Kids[point[n.Cut.Field]>>n.Cut.Shift&(1<<n.Cut.Width-1)]
	}
	l := forest.Leaves[^r]
	for _, i := range forest.Boxes[l.First : l.First+l.Count] {
		if it := &forest.Items[i]; inside(it, point) {
			ranks = append(ranks, it.Rank)
		}
	}
	if l.Fallback != none {
		ranks = append(ranks, l.Fallback)
	}
	return slices.Compact(ranks), levels
}

func inside(it *Item, point *[NumFields]uint32) bool {
	for f := range NumFields {
		if point[f] < it.Lo[f] || point[f] > it.Hi[f] {
			return false
		}
	}
	return true
}

// Whatever the shape: the lowest rank over all trees is that of the first item
// around a point, and the tree of all matches has them all.
func TestForestsAnswerLikeTheirItems(t *testing.T) {
	nodes := 0
	for seed := range 60 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 0))
		g := &Ground{Bits: [NumFields]int{32, 32, 16, 16, 8}, Each: []float64{40, 300, 5000}[seed%3]}
		if seed%2 == 0 {
			g.Bits[Source], g.Bits[Destination] = 16, 16
		}
		g.Items = someItems(rng, 2+rng.IntN(300), g)
		g.Every = rng.IntN(len(g.Items) + 1)
		g.None = uint32(len(g.Items))
		splits := g.Splits()
		forest := Grow(g, Shape{Split: splits[rng.IntN(len(splits))], Charge: rng.Float64() * 2, Leaf: rng.IntN(6)})
		nodes += len(forest.Nodes)
		for range 200 {
			compare(t, rng, g, forest)
		}
	}
	if nodes < 500 {
		t.Errorf("%d nodes in all: hardly anything was cut", nodes)
	}
}

// compare asks about one point, at an edge of some item.
func compare(t *testing.T, rng *rand.Rand, g *Ground, forest *Forest) {
	t.Helper()
	var point [NumFields]uint32
	for f := range point {
		it := &g.Items[rng.IntN(len(g.Items))]
		most := uint32(1<<g.Bits[f] - 1)
		point[f] = []uint32{it.Lo[f] - 1, it.Lo[f], it.Hi[f], it.Hi[f] + 1, rng.Uint32()}[rng.IntN(5)] & most
	}
	want, got := g.None, g.None
	var every, found []uint32
	for i := range g.Items {
		if it := &g.Items[i]; inside(it, &point) {
			if i < g.Every {
				want = min(want, it.Rank)
			} else {
				every = append(every, it.Rank)
			}
		}
	}
	for _, tree := range forest.Trees {
		ranks, levels := answers(forest, tree.Root, &point, g.None)
		if len(ranks) > 0 {
			least := slices.Min(ranks)
			got = min(got, least)
			if least < tree.Min {
				t.Fatalf("rank %d in a tree from %d on", least, tree.Min)
			}
		}
		if levels > MaxLevels {
			t.Fatalf("%d levels", levels)
		}
	}
	for _, tree := range forest.Every {
		found, _ = answers(forest, tree.Root, &point, g.None)
	}
	if got != want || !slices.Equal(found, slices.Compact(every)) {
		t.Fatalf("at %v: rank %d and %v, want %d and %v", point, got, found, want, every)
	}
}

// What a forest may take bounds it, whatever the items: cutting is given up.
func TestForestKeepsToItsRoom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	g := &Ground{Bits: [NumFields]int{32, 32, 16, 16, 8}, None: 1 << 19}
	for i := range 1000 {
		var it Item
		for f := range NumFields {
			it.Hi[f] = 1<<g.Bits[f] - 1
		}
		f := i % NumFields
		it.Lo[f] = rng.Uint32() & it.Hi[f]
		it.Hi[f] = it.Lo[f]
		it.Rank = uint32(i)
		g.Items = append(g.Items, it)
	}
	g.Every = len(g.Items)
	for _, g.Each = range []float64{0, 33, 64, 500, 20000} {
		forest := Grow(g, Shape{Charge: 0, Leaf: 4})
		room := max(g.Each, BoxSize) * float64(len(g.Items))
		if took := len(forest.Boxes)*BoxSize + forest.Cells*CellSize; float64(took) > room {
			t.Errorf("%d bytes, want at most %.0f", took, room)
		}
	}
}

// A tally counts each bit as a loop over the numbers would.
func TestTalliesCountEveryBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for n := range sampleSize + 1 {
		var got tally
		var want [32]uint32
		for range n {
			v := rng.Uint32() | rng.Uint32()
			got.add(v)
			for b := range want {
				want[b] += v >> b & 1
			}
		}
		if got.counts() != want {
			t.Fatalf("%d numbers: got %v, want %v", n, got.counts(), want)
		}
	}
}

// Of all windows offered, those with the highest guesses are kept, in their order.
func TestOffersKeepTheHighestGuesses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	for tries := 1; tries < 50; tries++ {
		var c cutter
		b := bounds{tries: tries}
		var all []float64
		for range rng.IntN(3 * tries) {
			w := window{guess: float64(1 + rng.IntN(40))}
			if all = append(all, w.guess); w.guess > b.least {
				c.offer(w, &b)
			}
		}
		slices.Sort(all)
		slices.Reverse(all)
		var got []float64
		for _, w := range c.scores {
			got = append(got, w.guess)
		}
		if want := all[:min(tries, len(all))]; !slices.Equal(got, want) {
			t.Fatalf("%d of %d offers: kept %v, want %v", tries, len(all), got, want)
		}
	}
}

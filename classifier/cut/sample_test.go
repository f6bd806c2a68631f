package cut

import (
	"math/rand/v2"
	"testing"
)

// A sample is in the order of ranks, has no item twice, and has something of
// every stretch of the list, also where one rule has most of the items.
func TestSamplesAreOfAllRules(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	for range 50 {
		var items []Item
		for rank := uint32(0); len(items) < 2000; rank += 1 + rng.Uint32N(3) {
			boxes := 1
			if rng.IntN(100) == 0 {
				boxes = 1 + rng.IntN(300)
			}
			for range boxes {
				items = append(items, Item{Lo: [NumFields]uint32{uint32(len(items))}, Rank: rank})
			}
		}
		size := 100 + rng.IntN(200)
		got := Sample(items, size)
		if len(got) > size || len(got) < size/3 {
			t.Fatalf("%d items for %d", len(got), size)
		}
		for i := range got {
			it := items[got[i].Lo[Source]]
			if it != got[i] || i > 0 && got[i-1].Lo[Source] >= it.Lo[Source] {
				t.Fatalf("item %d is %v, want one of the list behind the one before", i, got[i])
			}
		}
		for at, rank := 0, 0; rank+4*Ranks(items)/size < Ranks(items); rank += Ranks(items) / 10 {
			for at < len(got) && int(got[at].Rank) < rank {
				at++
			}
			if at == len(got) || int(got[at].Rank) > rank+4*Ranks(items)/size+3 {
				t.Fatalf("nothing from rank %d on: %d of %d", rank, size, len(items))
			}
		}
	}
}

// Whatever is drawn is of the rank, or of the next one that has items, and each item
// of it can be.
func TestDrawnItemsAreOfTheRank(t *testing.T) {
	items := []Item{{Rank: 1}, {Rank: 1}, {Rank: 1}, {Rank: 4}}
	for rank, want := range [][]int{{0, 1, 2}, {0, 1, 2}, {3}, {3}, {3}} {
		for any := range uint32(9) {
			if got := Draw(items, rank, any); got != want[int(any)%len(want)] {
				t.Errorf("rank %d, %d: item %d, want one of %v", rank, any, got, want)
			}
		}
	}
	if Ranks(items) != 5 {
		t.Errorf("%d ranks, want 5", Ranks(items))
	}
}

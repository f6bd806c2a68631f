package cut

import (
	"cmp"
	"slices"
)

// Ranks is up to where rules have items. There is at least one, and items are in the
// order of ranks, as in all that follows.
func Ranks(items []Item) int { return int(items[len(items)-1].Rank) + 1 }

// Sample takes half of so many items evenly from all, and half evenly from rules.
func Sample(items []Item, size int) []Item {
	picked := make([]int, 0, size)
	for i := range size / 2 {
		picked = append(picked, 2*i*len(items)/size, Draw(items, (2*i+1)*Ranks(items)/size, uint32(i)))
	}
	slices.Sort(picked)
	picked = slices.Compact(picked)
	out := make([]Item, len(picked))
	for i, at := range picked {
		out[i] = items[at]
	}
	return out
}

// Draw picks an item of the rule at a rank below Ranks, or of the next rule that
// has any: which of them is up to any.
func Draw(items []Item, rank int, any uint32) int {
	search := func(rank uint32) int {
		at, _ := slices.BinarySearchFunc(items, rank, func(it Item, rank uint32) int { return cmp.Compare(it.Rank, rank) })
		return at
	}
	first := search(uint32(rank))
	end := search(items[first].Rank + 1)
	return first + int(any)%(end-first)
}

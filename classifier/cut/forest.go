// Package cut grows decision trees: it divides lists of boxes by windows of bits
// of one field after the other, until few are left of each. Equal lists in like
// regions lead to the same node, so that trees are graphs.
package cut

import "slices"

// What trees can be at most.
const (
	MaxLevels = 16 // tables on the way to a leaf
	MaxTrees  = 4
	MaxWidth  = 14 // bits that a table takes
)

// What the parts of a tree take, in bytes.
const (
	CellSize = 8
	BoxSize  = 32
)

// Ref names a node (0 and up) or, complemented, a leaf.
type Ref int32

// Node is a table: the bits of the key that it takes, and where they lead.
type Node struct {
	Cut    Cut
	Kids   []Ref
	Height int // tables from here down, this one included
}

// Cut is a window of bits of one field.
type Cut struct {
	Field        int
	Shift, Width uint
}

// Leaf is what is left to compare, as a part of Forest.Boxes in the order of
// ranks, and the rank that holds when nothing of it matches.
type Leaf struct{ First, Count, Fallback uint32 }

// Tree is a root, and the lowest rank below it.
type Tree struct {
	Root Ref
	Min  uint32
}

// Forest is what Grow makes.
type Forest struct {
	Items  []Item
	Nodes  []Node
	Leaves []Leaf
	Boxes  []uint32 // indexes of Items
	Cells  int      // of all nodes
	Trees  []Tree   // together they have every item that decides
	Every  []Tree   // one tree, or none: its leaves have all that match, not only what comes first
}

// Shape is what a forest may differ in.
type Shape struct {
	Split  int     // how items are split into trees: one of Splits
	Charge float64 // what a doubling of the entries of a list costs, in halvings of those that are met
	Leaf   int     // a list of so many is not cut further
}

// Ground is what a forest grows on.
type Ground struct {
	Items []Item         // in the order of ranks: first those that decide, then those of which every match is wanted
	Every int            // where the latter begin
	None  uint32         // the rank of no rule
	Bits  [NumFields]int // how wide each field is, at most FieldOf(field).Bits
	Each  float64        // bytes that the forest may take for an item; lists are not cut where that is used up
}

// Grow makes a forest.
func Grow(g *Ground, s Shape) *Forest {
	c := &cutter{Forest: Forest{Items: g.Items}, none: g.None, shape: s, bits: g.Bits,
		byList: make(map[string]Ref, 2*len(g.Items)), byKids: map[string]Ref{}, byBox: make(map[string]uint32, len(g.Items))}
	c.Trees = c.plant(g.groups(0, g.Every, s.Split), g.Each)
	c.every = true
	c.Every = c.plant(g.groups(g.Every, len(g.Items), 0), g.Each)
	return &c.Forest
}

// plant builds a tree of each group that is not empty. Each entry may take so
// many bytes.
func (c *cutter) plant(groups [][]entry, each float64) (trees []Tree) {
	for _, g := range groups {
		if len(g) > 0 {
			first := c.Items[g[0]>>NumFields].Rank
			trees = append(trees, Tree{c.build(g, each*float64(len(g))), first})
		}
	}
	return trees
}

// splits are the ways to split rules into trees: which tree gets rules that
// are narrow on both sides, wide in the source, wide in the destination, wide in both.
var splits = [...][4]uint8{
	{0, 0, 0, 0}, {0, 1, 0, 1}, {0, 0, 1, 1}, {0, 0, 0, 1}, {0, 1, 0, 2}, {0, 0, 1, 2}, {0, 1, 2, 3},
}

// groups splits the items between two indexes into lists for a split's trees.
func (g *Ground) groups(from, to, split int) [][]entry {
	out := make([][]entry, MaxTrees)
	for i := from; i < to; i++ {
		t := splits[split][g.kind(&g.Items[i])]
		out[t] = append(out[t], entry(i<<NumFields))
	}
	return out
}

// kind says on which sides an item is wide: 1 the source, 2 the destination.
func (g *Ground) kind(it *Item) (kind int) {
	if g.wide(it, Source) {
		kind = 1
	}
	if g.wide(it, Destination) {
		kind += 2
	}
	return kind
}

// wide reports whether an item leaves so many bits of a field open that most
// cuts of the field copy it: 19 of an address, 12 of a local class.
func (g *Ground) wide(it *Item, f int) bool {
	return it.Hi[f]-it.Lo[f] >= 1<<(5+g.Bits[f]*7/16)-1
}

// Splits are the values of Shape.Split that differ for the items that decide.
func (g *Ground) Splits() (out []int) {
	var kinds [4]uint8
	for i := range g.Items[:g.Every] {
		kinds[g.kind(&g.Items[i])] = 1
	}
	var seen [][4]uint8
	for i, s := range splits {
		for kind := range s {
			s[kind] *= kinds[kind]
		}
		if !slices.Contains(seen, s) {
			seen = append(seen, s)
			out = append(out, i)
		}
	}
	return out
}

package classifier

// planted is a tree that has been built: its root, and the lowest rank in it.
type planted struct {
	root ref
	min  uint32
}

// plant builds a tree of each group that is not empty. Each entry may take so
// many bytes.
func (c *cutter) plant(groups [][]entry, each float64) (trees []planted) {
	for _, g := range groups {
		if len(g) > 0 {
			first := c.items[g[0]>>numFields].rank
			trees = append(trees, planted{c.build(g, each*float64(len(g))), first})
		}
	}
	return trees
}

// wideBits is how many open bits make an address wide: a rule that leaves so
// many is copied by most cuts of that address.
const wideBits = 19

// partitions are the ways to split rules into trees: which tree gets rules that
// are narrow on both sides, wide in the source, wide in the destination, wide in both.
var partitions = [...][4]uint8{
	{0, 0, 0, 0}, {0, 1, 0, 1}, {0, 0, 1, 1}, {0, 0, 0, 1}, {0, 1, 0, 2}, {0, 0, 1, 2}, {0, 1, 2, 3},
}

// groups splits items, from the index from on, into lists for a partition's trees.
func groups(items []item, partition, from int) [][]entry {
	out := make([][]entry, maxTrees)
	for i := from; i < len(items); i++ {
		g := partitions[partition][items[i].kind()]
		out[g] = append(out[g], entry(i<<numFields))
	}
	return out
}

// kind says on which sides an item is wide: 1 the source, 2 the destination.
func (it *item) kind() (kind int) {
	if it.wide(fieldSource) {
		kind = 1
	}
	if it.wide(fieldDestination) {
		kind += 2
	}
	return kind
}

func (it *item) wide(f int) bool { return it.hi[f]-it.lo[f] >= 1<<wideBits-1 }

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

// groups splits items, from the index from on, into lists for so many trees.
func groups(items []item, trees, from int) [][]entry {
	out := make([][]entry, maxTrees)
	for i := from; i < len(items); i++ {
		g := 0
		switch source, destination := items[i].wide(fieldSource), items[i].wide(fieldDestination); {
		case trees == 4 && destination:
			g = 2
			fallthrough
		case trees == 4:
			if source {
				g++
			}
		case trees == 2 && source && destination:
			g = 1
		}
		out[g] = append(out[g], entry(i<<numFields))
	}
	return out
}

func (it *item) wide(f int) bool { return it.hi[f]-it.lo[f] >= 1<<wideBits-1 }

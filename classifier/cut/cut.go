package cut

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// An entry of a list is an item's index and, below it, a bit for each field in
// which the item spans all of the node's region: nothing is left to ask there.
type entry uint32

const (
	fieldMask = 1<<NumFields - 1
	// MaxItems is how many items a forest may have.
	MaxItems = 1 << (32 - NumFields)
)

// region is what a walk knows of a key when it has come to a node: some bits of
// each field.
type region struct{ known, value [NumFields]uint32 }

// cutter builds the trees of one forest.
type cutter struct {
	Forest
	none  uint32 // the rank of no rule
	shape Shape
	bits  [NumFields]int // how wide each field is
	every bool           // all matches are wanted, not the first: nothing is removed below a rule that covers

	byList map[string]Ref // lists seen: a list in a like region leads to the same node
	byKids map[string]Ref // tables seen
	byBox  map[string]uint32
	key    []byte
	counts []uint32
	scores []window
}

// build makes the tree of a list and returns its root. The tables and boxes
// that it adds take at most allow bytes, or what the boxes alone take.
func (c *cutter) build(list []entry, allow float64) Ref {
	list, fallback := c.narrow(list, &region{}, fieldMask)
	return c.grow(list, fallback, &region{}, 0, allow)
}

// grow makes the subtree of a list that narrow has seen.
func (c *cutter) grow(list []entry, fallback uint32, in *region, depth int, allow float64) Ref {
	if len(list) <= c.shape.Leaf {
		return c.leaf(list, fallback)
	}
	key := string(c.listKey(list, fallback, in))
	if r, ok := c.byList[key]; ok {
		return r
	}
	r := c.divide(list, fallback, in, depth, allow)
	c.byList[key] = r
	return r
}

// divide cuts a list, or makes a leaf of it where a cut does not pay.
func (c *cutter) divide(list []entry, fallback uint32, in *region, depth int, allow float64) Ref {
	best, ok := c.choose(list, allow)
	if !ok || depth == MaxLevels-1 {
		return c.leaf(list, fallback)
	}
	parts, ends := c.deal(list, best)
	total := float64(len(parts))
	allow -= float64(len(ends) * CellSize)
	kids := make([]Ref, len(ends))
	sub := *in
	sub.known[best.Field] |= (1<<best.Width - 1) << best.Shift
	from := uint32(0)
	for i, end := range ends {
		sub.value[best.Field] = in.value[best.Field]&^((1<<best.Width-1)<<best.Shift) | uint32(i)<<best.Shift
		if in.conflicts(best, uint32(i)) {
			kids[i] = c.leaf(nil, c.none) // bits that were known before say that no key comes here
		} else {
			share := allow * float64(end-from) / max(total, 1)
			part, rest := c.narrow(parts[from:end:end], &sub, 1<<best.Field)
			if rest == c.none {
				rest = fallback
			}
			kids[i] = c.grow(part, rest, &sub, depth+1, share)
		}
		from = end
	}
	return c.table(best, kids)
}

// conflicts reports whether a value of the window is ruled out by what is known.
func (in *region) conflicts(w Cut, value uint32) bool {
	mask := in.known[w.Field] & ((1<<w.Width - 1) << w.Shift)
	return (value<<w.Shift^in.value[w.Field])&mask != 0
}

// deal sorts a list into the cells of a cut. ends[i] is where cell i's part ends.
func (c *cutter) deal(list []entry, w Cut) (parts []entry, ends []uint32) {
	mask := uint32(1)<<w.Width - 1
	ends = make([]uint32, mask+2)
	total := uint32(0)
	for _, e := range list {
		first, n := c.placesOf(e, w)
		total += n
		for j := range n {
			ends[(first+j)&mask+1]++
		}
	}
	for i := range mask {
		ends[i+1] += ends[i]
	}
	parts = make([]entry, total)
	for _, e := range list {
		first, n := c.placesOf(e, w)
		for j := range n {
			at := &ends[(first+j)&mask]
			parts[*at] = e
			*at++
		}
	}
	return parts, ends[:mask+1]
}

// placesOf is where an entry goes under a cut: the first cell and how many from
// there on, modulo the number of cells.
func (c *cutter) placesOf(e entry, w Cut) (first, n uint32) {
	mask := uint32(1)<<w.Width - 1
	if e>>w.Field&1 != 0 {
		return 0, mask + 1
	}
	it := &c.Items[e>>NumFields]
	a, b := it.Lo[w.Field]>>w.Shift, it.Hi[w.Field]>>w.Shift
	if b-a >= mask {
		return 0, mask + 1
	}
	return a & mask, b - a + 1
}

// narrow looks at a list anew in a region of which some fields have become
// smaller: entries that no key of the region is inside go, entries that span
// it are marked, and what lies below one that spans it in every field goes,
// too: that one's rank is returned, c.none if there is no such. The list is
// changed in place.
func (c *cutter) narrow(list []entry, in *region, changed entry) ([]entry, uint32) {
	kept := list[:0]
	for _, e := range list {
		e, ok := c.placed(e, in, changed)
		if !ok {
			continue
		}
		if e&fieldMask == fieldMask && !c.every {
			return kept, c.Items[e>>NumFields].Rank
		}
		kept = append(kept, e)
	}
	if !c.every {
		kept = c.unshadowed(kept)
	}
	return kept, c.none
}

// placed compares an entry with the region in the changed fields.
func (c *cutter) placed(e entry, in *region, changed entry) (entry, bool) {
	it := &c.Items[e>>NumFields]
	for f := range NumFields {
		if bit := entry(1) << f; changed&bit != 0 && e&bit == 0 {
			most := uint32(1<<c.bits[f] - 1)
			low, high := in.value[f], in.value[f]|most&^in.known[f]
			open := it.Lo[f] ^ it.Hi[f]
			prefix := open&(open+1) == 0 && it.Lo[f]&open == 0
			if it.Lo[f] > high || it.Hi[f] < low || prefix && (it.Lo[f]^low)&in.known[f]&^open != 0 {
				return e, false
			}
			if it.Lo[f] <= low && high <= it.Hi[f] {
				e |= bit
			}
		}
	}
	return e, true
}

// shades is how many entries of a list are looked at for what they contain.
const shades = 16

// unshadowed removes from a list what an earlier entry contains: any of a short
// list, of a longer one any of the largest so far that leave half of all bits open.
func (c *cutter) unshadowed(list []entry) []entry {
	enough := 0
	if len(list) > shades {
		enough = (c.bits[Source] + c.bits[Destination] + c.bits[SourcePort] + c.bits[DestinationPort] + c.bits[Protocol]) / 2
	}
	var large [shades]entry
	var size [shades]int
	n := 0
	kept := list[:0]
next:
	for _, e := range list {
		for _, a := range large[:n] {
			if c.contains(a, e) {
				continue next
			}
		}
		kept = append(kept, e)
		open := c.size(e)
		if open < enough {
			continue
		}
		least := n
		if n < shades {
			n++
		} else if least = slices.Index(size[:], slices.Min(size[:])); size[least] >= open {
			continue
		}
		large[least], size[least] = e, open
	}
	return kept
}

// size is how many bits an entry leaves open, about.
func (c *cutter) size(e entry) (open int) {
	it := &c.Items[e>>NumFields]
	for f := range NumFields {
		if e>>f&1 != 0 {
			open += c.bits[f]
		} else {
			open += bits.Len32(it.Hi[f] - it.Lo[f])
		}
	}
	return open
}

// contains reports whether all of b, as far as it is in the region, is in a.
func (c *cutter) contains(a, b entry) bool {
	x, y := &c.Items[a>>NumFields], &c.Items[b>>NumFields]
	for f := range NumFields {
		if a>>f&1 == 0 && (b>>f&1 != 0 || x.Lo[f] > y.Lo[f] || x.Hi[f] < y.Hi[f]) {
			return false
		}
	}
	return true
}

// listKey is equal for lists that lead to equal subtrees: the entries, and what
// is known of the fields that they still ask for.
func (c *cutter) listKey(list []entry, fallback uint32, in *region) []byte {
	k := binary.LittleEndian.AppendUint32(c.key[:0], fallback)
	open := entry(fieldMask)
	for _, e := range list {
		k = binary.LittleEndian.AppendUint32(k, uint32(e))
		open &= e
	}
	for f := range NumFields {
		if open>>f&1 != 0 {
			continue
		}
		sig := uint32(0)
		for _, e := range list {
			if e>>f&1 == 0 {
				it := &c.Items[e>>NumFields]
				sig |= significant(it.Lo[f], it.Hi[f])
			}
		}
		k = binary.LittleEndian.AppendUint32(k, in.known[f]&sig)
		k = binary.LittleEndian.AppendUint32(k, in.value[f]&sig)
	}
	c.key = k
	return k
}

// leaf makes or finds the leaf of a list.
func (c *cutter) leaf(list []entry, fallback uint32) Ref {
	k := c.key[:0]
	for _, e := range list {
		k = binary.LittleEndian.AppendUint32(k, uint32(e>>NumFields))
	}
	first, ok := c.byBox[string(k)]
	if !ok {
		first = uint32(len(c.Boxes))
		for _, e := range list {
			c.Boxes = append(c.Boxes, uint32(e>>NumFields))
		}
		c.byBox[string(k)] = first
	}
	k = binary.LittleEndian.AppendUint32(append(k, 'l'), fallback) // an odd length: no list's key
	c.key = k
	r, ok := c.byList[string(k)]
	if !ok {
		r = ^Ref(len(c.Leaves))
		c.Leaves = append(c.Leaves, Leaf{first, uint32(len(list)), fallback})
		c.byList[string(k)] = r
	}
	return r
}

// table makes or finds the node with these children; where all are the same
// there is nothing to ask.
func (c *cutter) table(w Cut, kids []Ref) Ref {
	same, height := true, 0
	k := append(c.key[:0], byte(w.Field), byte(w.Shift), byte(w.Width))
	for _, r := range kids {
		same = same && r == kids[0]
		height = max(height, c.height(r))
		k = binary.LittleEndian.AppendUint32(k, uint32(r))
	}
	c.key = k
	if same {
		return kids[0]
	}
	r, ok := c.byKids[string(k)]
	if !ok {
		r = Ref(len(c.Nodes))
		c.Nodes = append(c.Nodes, Node{w, kids, height + 1})
		c.Cells += len(kids)
		c.byKids[string(k)] = r
	}
	return r
}

func (c *cutter) height(r Ref) int {
	if r < 0 {
		return 0
	}
	return c.Nodes[r].Height
}

package classifier

import (
	"encoding/binary"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// lay gives every table its place and makes a program of the forest.
func lay(c *cut.Forest, list []Rule) *Program {
	p := &Program{}
	base := place(c, p)
	p.cells = make([]uint64, c.Cells)
	for i := range c.Nodes {
		for j, kid := range c.Nodes[i].Kids {
			p.cells[base[i]+uint32(j)] = cellOf(c, kid, base)
		}
	}
	for _, t := range c.Trees {
		p.trees = append(p.trees, tree{cellOf(c, t.Root, base), t.Min})
	}
	for _, t := range c.Every {
		p.logs = append(p.logs, tree{cellOf(c, t.Root, base), t.Min})
	}
	p.boxes = make([]box, len(c.Boxes), len(c.Boxes)+padBoxes)
	for i, item := range c.Boxes {
		p.boxes[i] = boxOf(&c.Items[item])
	}
	for range padBoxes {
		p.boxes = append(p.boxes, never(uint32(len(list))))
	}
	p.verdicts = make([]Verdict, len(list)+1)
	for i := range list {
		p.verdicts[i] = NewVerdict(list[i].Action, list[i].ID, 0)
	}
	return p
}

// place orders the nodes by height, so that each level lies behind what it
// leads to, and returns the first cell of each.
func place(c *cut.Forest, p *Program) []uint32 {
	order := make([]int, len(c.Nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return c.Nodes[a].Height - c.Nodes[b].Height })
	base := make([]uint32, len(c.Nodes))
	at := uint32(0)
	for _, i := range order {
		for p.levels < c.Nodes[i].Height {
			p.starts[p.levels] = at
			p.levels++
		}
		base[i] = at
		at += uint32(len(c.Nodes[i].Kids))
	}
	return base
}

// cellOf is how others name a node or a leaf.
func cellOf(c *cut.Forest, r cut.Ref, base []uint32) uint64 {
	if r < 0 {
		l := &c.Leaves[^r]
		if l.Count == 0 {
			return leafCell(uint32(len(c.Boxes)), 0, l.Fallback)
		}
		return leafCell(l.First, l.Count-1, l.Fallback)
	}
	n := &c.Nodes[r]
	f := cut.FieldOf(n.Cut.Field)
	return tableCell(base[r], f.Word, f.Offset+n.Cut.Shift, uint32(len(n.Kids)-1))
}

// counts says how many of everything the program has.
func (p *Program) counts() counts {
	n := counts{mode: p.mode, rules: p.Rules(), boxes: len(p.boxes) - padBoxes, cells: len(p.cells), linear: len(p.linear.boxes), terms: len(p.linear.terms)}
	for i, s := range p.sides {
		if s != nil {
			r := s.compiled()
			n.sides[i].sets, n.sides[i].known, n.sides[i].members = len(s.ids), int(r.count()), len(r.sets)
		}
	}
	if o := p.over; o != nil {
		n.added, n.removed, n.addedBoxes, n.addedTerms = len(o.added), len(o.removed), len(o.block.boxes), len(o.block.terms)
	}
	return n
}

// Image is the program as Load takes it, edits included, and without the classes
// that it was told of.
func (p *Program) Image() []byte {
	n := p.counts()
	at := n.parts()
	b := make([]byte, at[numParts])
	p.encodeHeader(b, &n)
	putWords(b[at[partCells]:], p.cells, 8)
	for i := range p.boxes {
		p.boxes[i].write(b[at[partBoxes]+i*boxSize:])
	}
	putWords(b[at[partVerdicts]:], p.verdicts, 4)
	for i := range p.linear.boxes {
		p.linear.boxes[i].write(b[at[partLinear]+i*boxSize:])
	}
	putWords(b[at[partTermAt]:], p.linear.termAt, 4)
	putWords(b[at[partTerms]:], p.linear.terms, 4)
	for i, s := range p.sides {
		if s != nil {
			r := s.compiled()
			putWords(b[at[partSides+3*i]:], s.ids, 4)
			putWords(b[at[partSides+3*i+1]:], r.at, 4)
			putWords(b[at[partSides+3*i+2]:], r.sets, 4)
		}
	}
	if p.over != nil {
		p.over.encode(b, at)
	}
	binary.LittleEndian.PutUint32(b[offChecksum:], checksum(b))
	return b
}

// encode writes what edits have changed.
func (o *overlay) encode(b []byte, at [numParts + 1]int) {
	putWords(b[at[partRemoved]:], o.removed, 4)
	for i := range o.added {
		binary.LittleEndian.PutUint32(b[at[partBefore]+4*i:], o.added[i].before)
		binary.LittleEndian.PutUint32(b[at[partAdded]+4*i:], uint32(o.added[i].verdict))
	}
	for i := range o.block.boxes {
		o.block.boxes[i].write(b[at[partAddedBoxes]+i*boxSize:])
	}
	putWords(b[at[partAddedTermAt]:], o.block.termAt, 4)
	putWords(b[at[partAddedTerms]:], o.block.terms, 4)
}

// encodeHeader writes all of the header but the checksum.
func (p *Program) encodeHeader(b []byte, n *counts) {
	le := binary.LittleEndian
	le.PutUint64(b[offMagic:], magic)
	le.PutUint32(b[offVersion:], version)
	if n.edited() {
		le.PutUint32(b[offVersion:], editedTo)
	}
	le.PutUint32(b[offMode:], uint32(p.mode))
	le.PutUint64(b[offSize:], uint64(len(b)))
	putWords(b[offRules:], []int{n.rules, n.boxes, n.cells, p.levels, len(p.trees), len(p.logs), n.added, n.removed}, 4)
	putWords(b[offStarts:], p.starts[:], 4)
	for i, t := range slices.Concat(p.trees, make([]tree, maxTrees-len(p.trees)), p.logs) {
		le.PutUint64(b[offRoots+i*rootSize:], t.root)
		le.PutUint32(b[offRoots+i*rootSize+8:], t.min)
	}
	extra := []int{n.linear, n.terms}
	for _, s := range n.sides {
		extra = append(extra, s.sets, s.known, s.members)
	}
	putWords(b[offExtra:], append(extra, n.addedBoxes, n.addedTerms), 4)
}

// putWords writes numbers one after the other, of 4 or 8 bytes each.
func putWords[T ~uint32 | ~uint64 | ~int](b []byte, words []T, size int) {
	for i, w := range words {
		if size == 8 {
			binary.LittleEndian.PutUint64(b[i*8:], uint64(w))
		} else {
			binary.LittleEndian.PutUint32(b[i*4:], uint32(w))
		}
	}
}

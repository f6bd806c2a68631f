package classifier

import (
	"encoding/binary"
	"slices"
)

// lay gives every table its place and makes a program of the trees.
func (c *cutter) lay(trees, logs []planted, list []Rule) *Program {
	p := &Program{trees: make([]tree, len(trees)), logs: make([]tree, len(logs))}
	base := c.place(p)
	p.cells = make([]uint64, c.cells)
	for i := range c.nodes {
		for j, kid := range c.nodes[i].kids {
			p.cells[base[i]+uint32(j)] = c.cell(kid, base)
		}
	}
	for i, t := range trees {
		p.trees[i] = tree{c.cell(t.root, base), t.min}
	}
	for i, t := range logs {
		p.logs[i] = tree{c.cell(t.root, base), t.min}
	}
	p.boxes = make([]box, len(c.boxes), len(c.boxes)+padBoxes)
	for i, item := range c.boxes {
		p.boxes[i] = c.items[item].box()
	}
	for range padBoxes {
		p.boxes = append(p.boxes, never(c.none))
	}
	p.verdicts = make([]Verdict, len(list)+1)
	for i := range list {
		p.verdicts[i] = NewVerdict(list[i].Action, list[i].ID, 0)
	}
	p.size = imageSize(len(p.cells), len(c.boxes), len(list))
	return p
}

// place orders the nodes by height, so that each level lies behind what it
// leads to, and returns the first cell of each.
func (c *cutter) place(p *Program) []uint32 {
	order := make([]int, len(c.nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return c.nodes[a].height - c.nodes[b].height })
	base := make([]uint32, len(c.nodes))
	at := uint32(0)
	for _, i := range order {
		for p.levels < c.nodes[i].height {
			p.starts[p.levels] = at
			p.levels++
		}
		base[i] = at
		at += uint32(len(c.nodes[i].kids))
	}
	return base
}

// cell is how others name a node or a leaf.
func (c *cutter) cell(r ref, base []uint32) uint64 {
	if r < 0 {
		l := &c.leaves[^r]
		return leafCell(l.first, l.count, l.fallback)
	}
	n := &c.nodes[r]
	f := fields[n.cut.field]
	return tableCell(base[r], f.word, f.offset+n.cut.shift, uint32(len(n.kids)-1))
}

// encode writes the program as an image.
func (p *Program) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, p.size)
	le.PutUint64(b[offMagic:], magic)
	le.PutUint32(b[offVersion:], version)
	le.PutUint32(b[offMode:], uint32(p.mode))
	le.PutUint64(b[offSize:], uint64(p.size))
	boxes := len(p.boxes) - padBoxes
	for at, n := range map[int]int{offRules: p.Rules(), offBoxes: boxes, offCells: len(p.cells), offLevels: p.levels, offTrees: len(p.trees), offLogTrees: len(p.logs)} {
		le.PutUint32(b[at:], uint32(n))
	}
	for i, start := range p.starts {
		le.PutUint32(b[offStarts+4*i:], start)
	}
	for first, trees := range map[int][]tree{0: p.trees, maxTrees: p.logs} {
		for i, t := range trees {
			le.PutUint64(b[offRoots+(first+i)*rootSize:], t.root)
			le.PutUint32(b[offRoots+(first+i)*rootSize+8:], t.min)
		}
	}
	at := headerSize
	for i, c := range p.cells {
		le.PutUint64(b[at+i*cellSize:], c)
	}
	at += align(len(p.cells) * cellSize)
	for i := range p.boxes {
		p.boxes[i].write(b[at+i*boxSize:])
	}
	at += align(len(p.boxes) * boxSize)
	for i, v := range p.verdicts {
		le.PutUint32(b[at+i*verdictSize:], uint32(v))
	}
	le.PutUint32(b[offChecksum:], checksum(b))
	return b
}

// write puts the box at the beginning of b.
func (x *box) write(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, x.dst)
	le.PutUint32(b[4:], x.src)
	le.PutUint16(b[8:], x.dport)
	le.PutUint16(b[10:], x.sport)
	le.PutUint16(b[12:], x.proto)
	le.PutUint16(b[14:], x.rankLow)
	le.PutUint32(b[16:], x.dstSpan)
	le.PutUint32(b[20:], x.srcSpan)
	le.PutUint16(b[24:], x.dportSpan)
	le.PutUint16(b[26:], x.sportSpan)
	le.PutUint16(b[28:], x.protoSpan)
	le.PutUint16(b[30:], x.rankHigh)
}

package classifier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrImage is what Load wraps when it refuses an image.
var ErrImage = errors.New("not a sound classifier image")

// Mode says what a program's keys hold where the addresses are.
type Mode uint32

// The modes.
const (
	Addresses Mode = iota // IPv4 addresses as they are; a list that asks for no address works for IPv6 as well
	Classes               // local classes, of either family
)

// tree is one decision tree: min is the lowest rank that it can answer with.
type tree struct {
	root uint64
	min  uint32
}

// Program is a list of rules in the form that walkers use: immutable, without
// pointers inside its tables, for any number of readers.
type Program struct {
	cells    []uint64
	boxes    []box
	verdicts []Verdict // by rank; the last is NoMatch
	trees    []tree
	logs     []tree
	levels   int
	starts   [maxLevels]uint32 // the first cell of each level
	linear   block             // the list as it is; empty if only the trees are wanted
	sides    [2]*side          // mode Classes
	over     *overlay          // what has changed since the compile
	mode     Mode
	hasLog   bool
	size     int
	walker   Walker
}

// Load verifies an image and makes a program of a copy of it. It refuses, with
// an error that wraps ErrImage, whatever a walk could leave or not end in.
func Load(image []byte) (*Program, error) {
	h, err := readHeader(image)
	if err != nil {
		return nil, fmt.Errorf("load image of %d bytes: %w: %w", len(image), ErrImage, err)
	}
	at := h.parts()
	p := &Program{levels: h.levels, starts: h.starts, mode: h.mode, size: len(image), walker: Walkers()[0]}
	p.cells = make([]uint64, h.cells, align(h.cells*cellSize)/cellSize)
	for i := range p.cells {
		p.cells[i] = binary.LittleEndian.Uint64(image[at[partCells]+i*cellSize:])
	}
	p.boxes = readBoxes(image[at[partBoxes]:], h.boxes+padBoxes)
	p.verdicts = words[Verdict](image[at[partVerdicts]:], h.rules+1)
	p.hasLog = slices.ContainsFunc(p.verdicts, func(v Verdict) bool { return v.Action() == Log })
	p.trees, p.logs = readTrees(image, h)
	p.linear.boxes = readBoxes(image[at[partLinear]:], h.linear)
	var rows [2]rows
	if h.mode == Classes {
		p.linear.termAt = words[uint32](image[at[partTermAt]:], h.rules+1)
		p.linear.terms = words[term](image[at[partTerms]:], h.terms)
		for i, n := range h.sides {
			from := partSides + 3*i
			rows[i].at = words[uint32](image[at[from+1]:], n.known+1)
			rows[i].sets = words[uint32](image[at[from+2]:], n.members)
			p.sides[i] = newSide(words[SetID](image[at[from]:], n.sets), rows[i])
		}
	}
	if h.edited() {
		p.over = readOverlay(image, &h.counts)
	}
	if err := p.verify(h); err != nil {
		return nil, fmt.Errorf("load image of %d bytes: %w: %w", len(image), ErrImage, err)
	}
	return p, nil
}

// words reads numbers of 4 bytes each. Whole lines are allocated: such slices
// begin on a line of their own, and a vector load never runs into a neighbour.
func words[T ~uint32](b []byte, n int) []T {
	out := make([]T, n, align(n*4)/4)
	for i := range out {
		out[i] = T(binary.LittleEndian.Uint32(b[i*4:]))
	}
	return out
}

// readBoxes reads boxes into whole lines.
func readBoxes(b []byte, n int) []box {
	out := make([]box, n, align(n*boxSize)/boxSize)
	for i := range out {
		out[i] = readBox(b[i*boxSize:])
	}
	return out
}

// readOverlay reads what edits have changed.
func readOverlay(image []byte, n *counts) *overlay {
	at := n.parts()
	o := &overlay{removed: words[uint32](image[at[partRemoved]:], n.removed), added: make([]addition, n.added), loaded: true}
	before, verdicts := words[uint32](image[at[partBefore]:], n.added), words[Verdict](image[at[partAdded]:], n.added)
	for i := range o.added {
		o.added[i].before, o.added[i].verdict = before[i], verdicts[i]
	}
	o.block.boxes = readBoxes(image[at[partAddedBoxes]:], n.addedBoxes)
	if n.mode == Classes {
		o.block.termAt = words[uint32](image[at[partAddedTermAt]:], n.added+1)
		o.block.terms = words[term](image[at[partAddedTerms]:], n.addedTerms)
	}
	return o
}

func readTrees(b []byte, h header) (trees, logs []tree) {
	read := func(i int) tree {
		at := b[offRoots+i*rootSize:]
		return tree{root: binary.LittleEndian.Uint64(at), min: binary.LittleEndian.Uint32(at[8:])}
	}
	for i := range h.trees {
		trees = append(trees, read(i))
	}
	if h.logs > 0 {
		logs = append(logs, read(maxTrees))
	}
	return trees, logs
}

// Mode says what keys the program wants.
func (p *Program) Mode() Mode { return p.mode }

// Rules is how many rules the list had.
func (p *Program) Rules() int { return len(p.verdicts) - 1 }

// Size is the memory that the program's tables take, in bytes.
func (p *Program) Size() int { return p.size }

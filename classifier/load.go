package classifier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	mode     Mode
	size     int
}

// Load verifies an image and makes a program of a copy of it. It refuses, with
// an error that wraps ErrImage, whatever a walk could leave or not end in.
func Load(image []byte) (*Program, error) {
	h, err := readHeader(image)
	if err != nil {
		return nil, fmt.Errorf("load image of %d bytes: %w: %w", len(image), ErrImage, err)
	}
	p := &Program{levels: h.levels, starts: h.starts, mode: h.mode, size: len(image)}
	at := headerSize
	// Whole lines are allocated: such slices begin on a line of their own, and
	// a vector load never runs into a neighbour.
	p.cells = make([]uint64, h.cells, align(h.cells*cellSize)/cellSize)
	for i := range p.cells {
		p.cells[i] = binary.LittleEndian.Uint64(image[at+i*cellSize:])
	}
	at += align(h.cells * cellSize)
	p.boxes = make([]box, h.boxes+padBoxes, align((h.boxes+padBoxes)*boxSize)/boxSize)
	for i := range p.boxes {
		p.boxes[i] = readBox(image[at+i*boxSize:])
	}
	at += align((h.boxes + padBoxes) * boxSize)
	p.verdicts = make([]Verdict, h.rules+1, align((h.rules+1)*verdictSize)/verdictSize)
	for i := range p.verdicts {
		p.verdicts[i] = Verdict(binary.LittleEndian.Uint32(image[at+i*verdictSize:]))
	}
	p.trees, p.logs = readTrees(image, h)
	if err := p.verify(h); err != nil {
		return nil, fmt.Errorf("load image of %d bytes: %w: %w", len(image), ErrImage, err)
	}
	return p, nil
}

// header is what the first bytes of an image say, checked against its length.
type header struct {
	mode                Mode
	rules, boxes, cells int
	levels              int
	trees, logs         int
	starts              [maxLevels]uint32
}

// readHeader reads the header and checks all that does not need the tables.
func readHeader(b []byte) (h header, err error) {
	if len(b) < headerSize {
		return h, fmt.Errorf("%d bytes, want at least %d", len(b), headerSize)
	}
	u32 := func(off int) int { return int(binary.LittleEndian.Uint32(b[off:])) }
	if m := binary.LittleEndian.Uint64(b[offMagic:]); m != magic {
		return h, fmt.Errorf("magic %#x, want %#x", m, uint64(magic))
	}
	if v := u32(offVersion); v != version {
		return h, fmt.Errorf("version %d, want %d", v, version)
	}
	if n := binary.LittleEndian.Uint64(b[offSize:]); n != uint64(len(b)) {
		return h, fmt.Errorf("it says %d bytes", n)
	}
	if sum, want := u32(offChecksum), int(checksum(b)); sum != want {
		return h, fmt.Errorf("checksum %#x, want %#x", sum, want)
	}
	h = header{mode: Mode(u32(offMode)), rules: u32(offRules), boxes: u32(offBoxes), cells: u32(offCells),
		levels: u32(offLevels), trees: u32(offTrees), logs: u32(offLogTrees)}
	switch {
	case h.mode > Classes:
		return h, fmt.Errorf("mode %d, want %d or %d", h.mode, Addresses, Classes)
	case h.rules > MaxRules:
		return h, fmt.Errorf("%d rules, want at most %d", h.rules, MaxRules)
	case h.boxes > maxBoxes:
		return h, fmt.Errorf("%d boxes, want at most %d", h.boxes, maxBoxes)
	case h.levels > maxLevels || h.trees > maxTrees || h.logs > 1:
		return h, fmt.Errorf("%d levels, %d trees, %d log trees, want at most %d, %d, %d", h.levels, h.trees, h.logs, maxLevels, maxTrees, 1)
	case imageSize(h.cells, h.boxes, h.rules) != len(b):
		return h, fmt.Errorf("%d cells, %d boxes and %d rules take %d bytes", h.cells, h.boxes, h.rules, imageSize(h.cells, h.boxes, h.rules))
	}
	for i := range h.starts {
		h.starts[i] = uint32(u32(offStarts + 4*i))
	}
	return h, nil
}

// checksum covers everything but itself.
func checksum(image []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(image[:offChecksum], table), table, image[offChecksum+4:])
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

func readBox(b []byte) box {
	le := binary.LittleEndian
	return box{
		dst: le.Uint32(b), src: le.Uint32(b[4:]),
		dport: le.Uint16(b[8:]), sport: le.Uint16(b[10:]), proto: le.Uint16(b[12:]), rankLow: le.Uint16(b[14:]),
		dstSpan: le.Uint32(b[16:]), srcSpan: le.Uint32(b[20:]),
		dportSpan: le.Uint16(b[24:]), sportSpan: le.Uint16(b[26:]), protoSpan: le.Uint16(b[28:]), rankHigh: le.Uint16(b[30:]),
	}
}

// verify makes one pass over everything that a walk follows. Tables lie level
// by level, and a cell leads only to tables of lower levels: so a walk ends
// after at most as many steps as there are levels.
func (p *Program) verify(h header) error {
	level := 0
	for i := range h.levels {
		if start := h.starts[i]; int(start) > h.cells || i > 0 && start < h.starts[i-1] || i == 0 && start != 0 {
			return fmt.Errorf("level %d begins at cell %d of %d", i, start, h.cells)
		}
	}
	if h.levels == 0 && h.cells != 0 {
		return fmt.Errorf("%d cells and no level", h.cells)
	}
	for i, c := range p.cells {
		for level+1 < h.levels && uint32(i) >= h.starts[level+1] {
			level++
		}
		if err := p.verifyCell(c, int(h.starts[level])); err != nil {
			return fmt.Errorf("cell %d: %w", i, err)
		}
	}
	for _, t := range [][]tree{p.trees, p.logs} {
		for i := range t {
			if err := p.verifyCell(t[i].root, h.cells); err != nil {
				return fmt.Errorf("root %d: %w", i, err)
			}
		}
	}
	for i := range p.boxes {
		if b := &p.boxes[i]; int(b.rank()) > h.rules || i >= h.boxes && *b != never(uint32(h.rules)) {
			return fmt.Errorf("box %d of %d: rank %d of %d", i, h.boxes, b.rank(), h.rules)
		}
	}
	if v := p.verdicts[h.rules]; v != 0 {
		return fmt.Errorf("verdict %#x where nothing matched, want 0", uint32(v))
	}
	return nil
}

// verifyCell checks that a cell leads only to cells below limit, or to boxes.
func (p *Program) verifyCell(c uint64, limit int) error {
	if c&leafBit != 0 {
		first, count, fallback := c&firstMask, c>>countShift&countMask, c>>fallbackShift&rankMask
		if first+count > uint64(len(p.boxes)-padBoxes) || fallback >= uint64(len(p.verdicts)) {
			return fmt.Errorf("leaf of %d boxes from %d and rank %d, of %d and %d", count, first, fallback, len(p.boxes)-padBoxes, len(p.verdicts)-1)
		}
		return nil
	}
	base, mask := c&(1<<32-1), c>>maskShift
	if c&^tableBits != 0 || mask&(mask+1) != 0 || base+mask >= uint64(limit) {
		return fmt.Errorf("table %#x, want one that ends before cell %d", c, limit)
	}
	return nil
}

// Mode says what keys the program wants.
func (p *Program) Mode() Mode { return p.mode }

// Rules is how many rules the list had.
func (p *Program) Rules() int { return len(p.verdicts) - 1 }

// Size is the memory that the program's tables take, in bytes.
func (p *Program) Size() int { return p.size }

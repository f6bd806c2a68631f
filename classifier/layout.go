package classifier

import "margay.dev/margay/classifier/cut"

// The layout of an image, in little-endian bytes. docs/CLASSIFIER.md says the
// same in words.
const (
	magic      = 0x534c435947524d00 // "\0MRGYCLS" read as a little-endian word
	version    = 3
	editedTo   = 4 // the version of an image that has edits
	headerSize = 256
	maxLevels  = cut.MaxLevels
	maxTrees   = cut.MaxTrees // beside one of Log rules

	offMagic    = 0
	offVersion  = 8
	offMode     = 12
	offSize     = 16
	offChecksum = 24 // CRC-32C of all other bytes
	offRules    = 32
	offBoxes    = 36
	offCells    = 40
	offLevels   = 44
	offTrees    = 48
	offLogTrees = 52
	offAdded    = 56  // rules that edits have added
	offRemoved  = 60  // ranks that they have removed
	offStarts   = 64  // maxLevels words of 32 bits
	offRoots    = 128 // maxTrees entries of rootSize, and one for the log tree
	rootSize    = 16
	offExtra    = 208 // counts of the sections behind the verdicts, 32 bits each
	offEdits    = 240 // boxes and terms of the added rules, 32 bits each

	cellSize    = cut.CellSize
	boxSize     = cut.BoxSize
	verdictSize = 4
	padBoxes    = 8 // behind the last box, none of them ever matches
	lineSize    = 64
)

// A cell names what comes next. With leafBit it is a leaf: boxes to compare and
// the rank that stands when none of them matches. Without, it is a table: the
// bits of the key to take, and where the table begins.
//
//	leaf    63: 1 | 62..43: fallback rank | 42..23: boxes behind the first | 22..0: first box
//	table   63: 0 | 53..40: mask | 38: word of the key | 37..32: shift | 31..0: first cell
const (
	leafBit       = 1 << 63
	fallbackShift = 43
	moreShift     = 23
	rankMask      = 1<<20 - 1
	moreMask      = 1<<20 - 1
	firstMask     = 1<<23 - 1
	nextBox       = 1<<64 - 1<<moreShift + 1 // leads from a leaf to one without its first box
	wordShift     = 38
	cutShift      = 32
	maskShift     = 40
	maxMask       = 1<<cut.MaxWidth - 1
	tableBits     = maxMask<<maskShift | 1<<wordShift | 63<<cutShift | (1<<32 - 1)
)

// maxBoxes is how many boxes a leaf cell can number, padding included.
const maxBoxes = firstMask + 1 - padBoxes

func leafCell(first, more, fallback uint32) uint64 {
	return leafBit | uint64(fallback)<<fallbackShift | uint64(more)<<moreShift | uint64(first)
}

func tableCell(base uint32, word, shift uint, mask uint32) uint64 {
	return uint64(mask)<<maskShift | uint64(word)<<wordShift | uint64(shift)<<cutShift | uint64(base)
}

// align rounds a size up to whole cache lines.
func align(n int) int { return (n + lineSize - 1) &^ (lineSize - 1) }

// counts says how many of everything an image has.
type counts struct {
	mode                Mode
	rules, boxes, cells int
	linear, terms       int
	sides               [2]struct{ sets, known, members int }

	added, removed         int // what edits have changed
	addedBoxes, addedTerms int
}

// edited reports whether there are edits.
func (n *counts) edited() bool { return n.added+n.removed > 0 }

// The sections of an image, in their order.
const (
	partCells = iota
	partBoxes
	partVerdicts
	partLinear
	partTermAt
	partTerms
	partSides       // ids, at and sets of the source side, then of the other
	partRemoved     = partSides + 6
	partBefore      = partSides + 7
	partAdded       = partSides + 8
	partAddedBoxes  = partSides + 9
	partAddedTermAt = partSides + 10
	partAddedTerms  = partSides + 11
	numParts        = partSides + 12
)

// parts are the offsets at which the sections begin; the last is the size of the image.
func (n *counts) parts() (at [numParts + 1]int) {
	sizes := [numParts]int{n.cells * cellSize, (n.boxes + padBoxes) * boxSize, (n.rules + 1) * verdictSize, n.linear * boxSize}
	if n.mode == Classes {
		sizes[partTermAt], sizes[partTerms] = (n.rules+1)*4, n.terms*4
		for i, s := range n.sides {
			sizes[partSides+3*i], sizes[partSides+3*i+1], sizes[partSides+3*i+2] = s.sets*4, (s.known+1)*4, s.members*4
		}
	}
	sizes[partRemoved], sizes[partBefore], sizes[partAdded], sizes[partAddedBoxes] = n.removed*4, n.added*4, n.added*verdictSize, n.addedBoxes*boxSize
	if n.mode == Classes && n.edited() {
		sizes[partAddedTermAt], sizes[partAddedTerms] = (n.added+1)*4, n.addedTerms*4
	}
	at[0] = headerSize
	for i, size := range sizes {
		at[i+1] = at[i] + align(size)
	}
	return at
}

package classifier

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// header is what the first bytes of an image say, checked against its length.
type header struct {
	counts
	levels, trees, logs int
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
	v := u32(offVersion)
	if v != version && v != editedTo {
		return h, fmt.Errorf("version %d, want %d or %d", v, version, editedTo)
	}
	if n := binary.LittleEndian.Uint64(b[offSize:]); n != uint64(len(b)) {
		return h, fmt.Errorf("it says %d bytes", n)
	}
	if sum, want := u32(offChecksum), int(checksum(b)); sum != want {
		return h, fmt.Errorf("checksum %#x, want %#x", sum, want)
	}
	h = header{levels: u32(offLevels), trees: u32(offTrees), logs: u32(offLogTrees)}
	h.counts = counts{mode: Mode(u32(offMode)), rules: u32(offRules), boxes: u32(offBoxes), cells: u32(offCells), linear: u32(offExtra), terms: u32(offExtra + 4)}
	for i := range h.sides {
		s, at := &h.sides[i], offExtra+8+12*i
		s.sets, s.known, s.members = u32(at), u32(at+4), u32(at+8)
	}
	h.added, h.removed, h.addedBoxes, h.addedTerms = u32(offAdded), u32(offRemoved), u32(offEdits), u32(offEdits+4)
	if h.edited() != (v == editedTo) {
		return h, fmt.Errorf("version %d with %d added and %d removed rules, want them from version %d on", v, h.added, h.removed, editedTo)
	}
	for i := range h.starts {
		h.starts[i] = uint32(u32(offStarts + 4*i))
	}
	return h, h.check(len(b))
}

// check compares the header's numbers with their limits and with each other.
func (h *header) check(size int) error {
	switch {
	case h.mode > Classes:
		return fmt.Errorf("mode %d, want %d or %d", h.mode, Addresses, Classes)
	case h.rules > MaxRules:
		return fmt.Errorf("%d rules, want at most %d", h.rules, MaxRules)
	case h.boxes > maxBoxes:
		return fmt.Errorf("%d boxes, want at most %d", h.boxes, maxBoxes)
	case h.added > MaxAdded || h.removed > MaxRemoved || h.addedBoxes > maxAddedBoxes:
		return fmt.Errorf("%d added rules of %d boxes, %d removed, want at most %d, %d, %d", h.added, h.addedBoxes, h.removed, MaxAdded, maxAddedBoxes, MaxRemoved)
	case h.levels > maxLevels || h.trees > maxTrees || h.logs > 1:
		return fmt.Errorf("%d levels, %d trees, %d log trees, want at most %d, %d, %d", h.levels, h.trees, h.logs, maxLevels, maxTrees, 1)
	}
	for _, s := range h.sides {
		if s.known > maxKnown || h.mode == Classes && s.known == 0 {
			return fmt.Errorf("%d local classes on a side, want 1 to %d", s.known, maxKnown)
		}
	}
	if want := h.parts()[numParts]; want != size {
		return fmt.Errorf("what it holds takes %d bytes", want)
	}
	return nil
}

// checksum covers everything but itself.
func checksum(image []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(image[:offChecksum], table), table, image[offChecksum+4:])
}

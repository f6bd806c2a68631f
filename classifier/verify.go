package classifier

import "fmt"

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
	return p.verifyList(h)
}

// verifyList checks the list beside the trees, the edits of it, and the sets
// that they name.
func (p *Program) verifyList(h header) error {
	if err := h.verifyBlock(&p.linear, h.rules, h.terms); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if h.edited() {
		if err := p.verifyOverlay(h); err != nil {
			return fmt.Errorf("edits: %w", err)
		}
	}
	if h.mode == Addresses {
		return nil
	}
	for i, s := range p.sides {
		r := s.rows.Load()
		if err := ascending(r.at, h.sides[i].members); err != nil {
			return fmt.Errorf("local classes of side %d: %w", i, err)
		}
		for j, set := range r.sets {
			if int(set) >= h.sides[i].sets {
				return fmt.Errorf("local classes of side %d: member %d: set %d of %d", i, j, set, h.sides[i].sets)
			}
		}
	}
	return nil
}

// verifyBlock checks rules as boxes, of so many rules and terms.
func (h *header) verifyBlock(b *block, rules, terms int) error {
	last := uint32(0)
	for i := range b.boxes {
		rank := b.boxes[i].rank()
		if rank < last || int(rank) >= rules {
			return fmt.Errorf("box %d: rank %d after %d, of %d", i, rank, last, rules)
		}
		last = rank
	}
	if h.mode == Addresses {
		return nil
	}
	if err := ascending(b.termAt, terms); err != nil {
		return fmt.Errorf("terms: %w", err)
	}
	for i, t := range b.terms {
		if s := t >> 31; int(t&termSet) >= h.sides[s].sets {
			return fmt.Errorf("term %d: set %d of %d", i, t&termSet, h.sides[s].sets)
		}
	}
	return nil
}

// verifyOverlay checks what edits have changed, and marks the ranks that are dead.
func (p *Program) verifyOverlay(h header) error {
	o := p.over
	if len(p.linear.boxes) == 0 && h.rules > 0 {
		return fmt.Errorf("there is no list of the %d rules beside the trees, which edits need", h.rules)
	}
	for i, rank := range o.removed {
		if int(rank) >= h.rules || i > 0 && rank <= o.removed[i-1] {
			return fmt.Errorf("removal %d of %d: rank %d of %d, want them ascending", i, h.removed, rank, h.rules)
		}
	}
	for i := range o.added {
		if before := o.added[i].before; int(before) > h.rules || i > 0 && before < o.added[i-1].before {
			return fmt.Errorf("added rule %d of %d: before rank %d of %d, want them ascending", i, h.added, before, h.rules)
		}
	}
	o.bury(h.rules)
	return h.verifyBlock(&o.block, h.added, h.addedTerms)
}

// ascending reports offsets that fall, or that do not go from 0 to end.
func ascending(at []uint32, end int) error {
	last := uint32(0)
	for i, x := range at {
		if x < last || i == 0 && x != 0 || i == len(at)-1 && int(x) != end {
			return fmt.Errorf("offset %d is %d after %d, of %d", i, x, last, end)
		}
		last = x
	}
	return nil
}

// verifyCell checks that a cell leads only to cells below limit, or to boxes.
func (p *Program) verifyCell(c uint64, limit int) error {
	if c&leafBit != 0 {
		first, more, fallback, boxes := c&firstMask, c>>moreShift&moreMask, c>>fallbackShift&rankMask, uint64(len(p.boxes)-padBoxes)
		if empty := first == boxes && more == 0; !empty && first+more >= boxes || fallback >= uint64(len(p.verdicts)) {
			return fmt.Errorf("leaf of box %d, %d more and rank %d, of %d and %d", first, more, fallback, boxes, len(p.verdicts)-1)
		}
		return nil
	}
	base, mask := c&(1<<32-1), c>>maskShift
	if c&^tableBits != 0 || mask&(mask+1) != 0 || base+mask >= uint64(limit) {
		return fmt.Errorf("table %#x, want one that ends before cell %d", c, limit)
	}
	return nil
}

package fib

import "fmt"

const (
	unitShift  = 3 // a unit, the size of a jump, is 8 words
	slabUnits  = blockCells >> unitShift
	rootSlabs  = (1 << rootBits) / blockCells
	slabsMin   = rootSlabs + 64
	slabsMax   = (1 << ownerShift) / slabUnits // what an index can name: 1 GiB
	jumpsPerOp = 3                             // a change needs at most one block and three jumps
)

// arena is the memory of one trie: the root, then slabs of 1 KiB, each a block
// or 32 jumps. It grows by copying: readers of the old copy keep it as it was.
type arena struct {
	words  []uint32
	next   uint32 // first slab that was never used
	blocks pool   // units
	jumps  pool   // units
	grown  func() // publishes words; called after each growth
}

func newArena(now *generation, grown func()) arena {
	return arena{
		words:  make([]uint32, slabsMin*blockCells),
		next:   rootSlabs,
		blocks: pool{now: now},
		jumps:  pool{now: now},
		grown:  grown,
	}
}

// reserve makes sure that one change finds all memory that it may need, so that
// the arena never moves, and never runs out, in the middle of one.
func (a *arena) reserve() error {
	slabs := uint32(len(a.words) / blockCells)
	for int(slabs-a.next)+len(a.blocks.free) < 2 {
		if slabs >= slabsMax {
			return fmt.Errorf("trie is full at %d MiB: withdraw or aggregate routes", slabsMax>>10)
		}
		slabs = min(slabs+growth(slabs), slabsMax)
		words := make([]uint32, slabs*blockCells)
		copy(words, a.words)
		a.words = words
		a.grown()
	}
	if len(a.jumps.free) < jumpsPerOp {
		unit := a.takeSlab()
		for i := range uint32(slabUnits) {
			a.jumps.free = append(a.jumps.free, unit+slabUnits-1-i)
		}
	}
	return nil
}

// growth is how many slabs to add to so many: a half while the copy is short
// work, then 8 MiB, then an eighth, to keep what stands empty small.
func growth(slabs uint32) uint32 {
	const step = 8 << 10
	if slabs < 2*step {
		return slabs / 2
	}
	return max(step, slabs/8)
}

// takeSlab returns the first unit of a slab; reserve has seen to it that there
// is one.
func (a *arena) takeSlab() uint32 {
	if unit, ok := a.blocks.take(); ok {
		return unit
	}
	a.next++
	return (a.next - 1) * slabUnits
}

// newBlock returns a cell for a new block whose cells all hold value.
func (a *arena) newBlock(value uint32) uint32 {
	unit := a.takeSlab()
	block := a.words[unit<<unitShift:][:blockCells]
	for i := range block {
		block[i] = value
	}
	return cellBlock | unit
}

// newJump returns a cell for a new jump that compares n bits of k.
func (a *arena) newJump(k key, n int, hit, miss uint32) uint32 {
	unit, _ := a.jumps.take()
	j := a.words[unit<<unitShift:][:1<<unitShift]
	j[jumpKey], j[jumpKey+1] = uint32(k.hi), uint32(k.hi>>32)
	j[jumpKey+2], j[jumpKey+3] = uint32(k.lo), uint32(k.lo>>32)
	j[jumpHit], j[jumpMiss], j[jumpLen] = hit, miss, uint32(n)
	return cellJump | unit
}

// jumpAt returns key and length of the jump at word w.
func (a *arena) jumpAt(w uint32) (key, int) {
	j := (*jump)(a.words[w:])
	return key{j.half(jumpKey), j.half(jumpKey + 2)}, int(j[jumpLen])
}

func (a *arena) retireJump(cell uint32) { a.jumps.retire(cell & indexMask) }

func (a *arena) quiesced(g generation) {
	a.blocks.quiesced(g)
	a.jumps.quiesced(g)
}

// bytes is the memory that the arena holds, used or not.
func (a *arena) bytes() int {
	return 4*len(a.words) + 4*cap(a.blocks.free) + 4*cap(a.jumps.free) +
		16*cap(a.blocks.waiting) + 16*cap(a.jumps.waiting)
}

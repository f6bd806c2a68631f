package fib

import "sync/atomic"

// A cell is 32 bits:
//
//	31 30 | 29 .. 25 | 24 .. 0
//	kind  | owner    | next hop (value), or unit of 32 bytes in the arena (block, jump)
//
// owner says which prefix gave the cell its value (for a block or a jump: the
// value that holds under the cell where nothing longer does): how many bits it
// reaches into the level, 0 when it comes from above. In the root, where
// nothing is above, it is the length plus one. Only the writer reads it.
const (
	cellValue uint32 = 0 << 30
	cellBlock uint32 = 1 << 30
	cellJump  uint32 = 2 << 30

	kindMask   uint32 = 3 << 30
	ownerShift        = 25
	ownerMask  uint32 = 31 << ownerShift
	indexMask  uint32 = 1<<ownerShift - 1
)

// Words of a jump. The key is compared over jumpLen bits: equal, the lookup goes
// on with the cell jumpHit, else it ends with the value jumpMiss. jumpHit is a
// value (the jump is a leaf, its key a route) or a block of depth jumpLen (the
// jump skips levels). Key and length never change while readers may see them.
const (
	jumpKey  = 0 // two halves of two words, in each the low one first: one load where memory is so too
	jumpHit  = 4
	jumpMiss = 5
	jumpLen  = 6
)

// jump is the words of one.
type jump [1 << unitShift]uint32

// half is the half of the key that begins with word i.
//
//fastpath:hot
func (j *jump) half(i int) uint64 { return uint64(j[i]) | uint64(j[i+1])<<32 }

// covers6 says whether k begins with the jump's key.
//
//fastpath:hot
func (j *jump) covers6(k key) bool {
	n, hi := j[jumpLen], k.hi^j.half(jumpKey)
	if n <= 64 {
		return hi>>((64-n)&63) == 0
	}
	return hi|(k.lo^j.half(jumpKey+2))>>((128-n)&63) == 0
}

const (
	rootBits   = 16
	blockCells = 256
)

// level is a place in the trie: the root or a block, and how many bits of the
// key lead to it.
type level struct {
	base  uint32 // word of its first cell
	depth int
}

// end is the length of the longest prefix that the level's cells can express.
func (l level) end() int {
	if l.depth == 0 {
		return rootBits
	}
	return l.depth + 8
}

// owner is what a cell of the level says when a prefix of n bits gave it its
// value; n is -1 for none.
func (l level) owner(n int) uint32 {
	switch {
	case l.depth == 0:
		return uint32(n + 1)
	case n <= l.depth:
		return 0
	}
	return uint32(n - l.depth)
}

// cell is the word of the cell that k falls into.
func (l level) cell(k key) uint32 {
	if l.depth == 0 {
		return l.base + uint32(k.hi>>(64-rootBits))
	}
	return l.base + k.octet(l.depth)
}

// span is how many cells a prefix of n bits covers; n is at most l.end().
func (l level) span(n int) uint32 { return 1 << (l.end() - max(n, l.depth)) }

// trie is one family's longest-prefix table, as its writer sees it.
type trie struct {
	arena
}

func kindOf(c uint32) uint32  { return c & kindMask }
func ownerOf(c uint32) uint32 { return c & ownerMask >> ownerShift }
func wordOf(c uint32) uint32  { return c & indexMask << unitShift }

// store puts c in force. Readers may see it at once.
func (f *trie) store(word, c uint32) {
	if f.words[word] != c {
		atomic.StoreUint32(&f.words[word], c)
	}
}

// skips reports whether the jump at word j leads to a block.
func (f *trie) skips(j uint32) bool { return kindOf(f.words[j+jumpHit]) == cellBlock }

// set routes the prefix of n bits at k to hop, a next hop. reserve went before.
func (f *trie) set(k key, n int, hop uint32) {
	at := level{}
	for n > at.end() {
		w := at.cell(k)
		c := f.words[w]
		switch kindOf(c) {
		case cellValue:
			f.store(w, f.newJump(k, n, hop, c&indexMask)|c&ownerMask)
			return
		case cellBlock:
			at = level{wordOf(c), at.end()}
		case cellJump:
			j := wordOf(c)
			jk, jn := f.jumpAt(j)
			switch same := k.common(jk) >= jn; {
			case same && f.skips(j) && n > jn:
				at = level{wordOf(f.words[j+jumpHit]), jn}
			case same && !f.skips(j) && n == jn:
				f.store(j+jumpHit, hop)
				return
			default:
				at = f.split(w, at, k, n)
			}
		}
	}
	own := at.owner(n)
	for w, end := at.cell(k), at.cell(k)+at.span(n); w < end; w++ {
		if c := f.words[w]; ownerOf(c) <= own {
			f.paint(w, c, own, hop)
		}
	}
}

// paint gives the cell at w, which holds c, a new value and owner. Under a
// block or a jump the value reaches every cell that has nothing longer.
func (f *trie) paint(w, c, own, hop uint32) {
	if kindOf(c) == cellValue {
		f.store(w, own<<ownerShift|hop)
		return
	}
	f.store(w, c&^ownerMask|own<<ownerShift)
	below := wordOf(c)
	if kindOf(c) == cellJump {
		f.store(below+jumpMiss, hop)
		if !f.skips(below) {
			return
		}
		below = wordOf(f.words[below+jumpHit])
	}
	for w := below; w < below+blockCells; w++ {
		if c := f.words[w]; ownerOf(c) == 0 {
			f.paint(w, c, 0, hop)
		}
	}
}

// split replaces the jump in cell w of level at by a block, at the depth where
// the jump's key and the prefix of n bits at k part or where the shorter of
// both ends, and returns that block. What the jump led to is under it.
func (f *trie) split(w uint32, at level, k key, n int) level {
	c := f.words[w]
	j := wordOf(c)
	jk, jn := f.jumpAt(j)
	miss := f.words[j+jumpMiss]
	to := level{depth: min(k.common(jk), n-1, jn-1) &^ 7}
	block := f.newBlock(miss)
	to.base = wordOf(block)

	slot := to.cell(jk)
	switch hit := f.words[j+jumpHit]; {
	case jn <= to.end() && kindOf(hit) == cellValue:
		for i := range to.span(jn) {
			f.words[slot+i] = to.owner(jn)<<ownerShift | hit
		}
	case jn == to.end():
		f.words[slot] = hit
	default:
		// A copy: from now on the miss of what stands here concerns this slot
		// only, and readers at the old jump have yet to compare all of the cell.
		f.words[slot] = f.newJump(jk, jn, hit, miss)
	}
	if to.depth > at.end() {
		block = f.newJump(k.masked(to.depth), to.depth, block, miss)
	}
	f.store(w, block|c&ownerMask)
	f.retireJump(c)
	return to
}

// step is one level on the way to a prefix, and the cell that led there.
type step struct {
	level
	from uint32
}

// path is the way from the root to a prefix; 16 bits and 14 times 8 at most.
type path struct {
	steps [15]step
	n     int
}

// clear takes away the route of the prefix of n bits at k. What it covered goes
// to coverHop, the next hop of the next shorter prefix, of coverBits (0 and
// -1: there is none). The trie must hold the route.
func (f *trie) clear(k key, n int, coverBits int, coverHop uint32) {
	var p path
	at := level{}
	for n > at.end() {
		w := at.cell(k)
		c := f.words[w]
		below := wordOf(c)
		next := level{below, at.end()}
		if kindOf(c) == cellJump {
			if !f.skips(below) { // the route itself
				f.store(w, f.words[below+jumpMiss]|c&ownerMask)
				f.retireJump(c)
				f.compress(&p, k)
				return
			}
			next = level{wordOf(f.words[below+jumpHit]), int(f.words[below+jumpLen])}
		}
		at = next
		p.steps[p.n] = step{at, w}
		p.n++
	}
	own := at.owner(n)
	for w, end := at.cell(k), at.cell(k)+at.span(n); w < end; w++ {
		if c := f.words[w]; ownerOf(c) == own {
			f.paint(w, c, at.owner(coverBits), coverHop)
		}
	}
	f.compress(&p, k)
}

// compress walks p upwards and replaces each block that holds nothing of its
// own by a value, and each that holds but one route or block by a jump.
func (f *trie) compress(p *path, k key) {
	for ; p.n > 0; p.n-- {
		s := p.steps[p.n-1]
		c, ok := f.shorter(s.level, k)
		if !ok {
			return
		}
		old := f.words[s.from]
		f.store(s.from, c|old&ownerMask)
		if kindOf(old) == cellJump {
			f.retireJump(old)
		}
		f.blocks.retire(s.base >> unitShift)
	}
}

// shorter returns the cell that can stand for the block at l, on the way to
// k, if there is one.
func (f *trie) shorter(l level, k key) (cell uint32, ok bool) {
	above, first, own, count := uint32(0), uint32(0), uint32(0), 0
	for i := range uint32(blockCells) {
		c := f.words[l.base+i]
		switch {
		case c < 1<<ownerShift: // a value from above
			above = c
			continue
		case count == 0:
			first, own = i, ownerOf(c)
		case own == 0 || ownerOf(c) != own || kindOf(c) != cellValue:
			return 0, false
		}
		count++
	}
	c := f.words[l.base+first]
	kk := k.masked(l.depth).withOctet(l.depth, first)
	switch {
	case count == 0:
		return above, true
	case kindOf(c) == cellJump && count == 1 && own == 0:
		return c, true
	case len(f.jumps.free) == 0: // only where reserve found the arena full
		return 0, false
	case kindOf(c) == cellValue && count == 1<<(8-own):
		return f.newJump(kk, l.depth+int(own), c&indexMask, above), true
	case kindOf(c) == cellBlock && own == 0:
		return f.newJump(kk, l.end(), c, above), true
	}
	return 0, false
}

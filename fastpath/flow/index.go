package flow

import (
	"math/bits"
	"runtime"
	"sync/atomic"
)

// Ref names one direction of a flow: the flow's index, and 1 in the lowest bit for
// replies. It is good until the worker that has it begins another vector, as an
// entry is not used again before. 0 is none.
type Ref uint32

// Values of a tag that stand for no key; those that do have the highest bit set.
const (
	tagFree    = 0
	tagClaimed = 1
)

const everyByte = 0x0101010101010101

// tagOf is the byte that stands for a hash in its bucket.
//
//fastpath:hot
func tagOf(h uint64) uint64 { return h>>57 | 128 }

// match has a high bit set for the lowest byte of tags that is tag. Bits above
// that one may be wrong: who finds another key there looks further by itself.
//
//fastpath:hot
func match(tags, tag uint64) uint64 {
	x := tags ^ tag*everyByte
	return (x - everyByte) &^ x & (everyByte << 7)
}

// chain is the n-th bucket that a key of hash h may lie in.
func (t *Table) chain(h uint64, n uint64) *bucket {
	return &t.index[(h+n*(h>>32|1))&t.mask]
}

// find looks for k in all cells that it may lie in. A dead flow is passed over:
// another with its key may lie behind it.
func (t *Table) find(k *Key, h uint64) Ref {
	for n := range uint64(chains) {
		b := t.chain(h, n)
		tags := atomic.LoadUint64(&b.tags)
		for c := range b.refs {
			if tags>>(8*c)&255 != tagOf(h) {
				continue
			}
			ref := Ref(atomic.LoadUint32(&b.refs[c]))
			e := t.entry(ref)
			if e.sides[ref&1].key == *k && word(atomic.LoadUint64(&e.core.state))&dead == 0 {
				return ref
			}
		}
		if atomic.LoadUint32(&b.spill) == 0 {
			break
		}
	}
	return 0
}

// entry is the flow of a reference.
//
//fastpath:hot
func (t *Table) entry(r Ref) *entry { return &t.entries[r>>1] }

// place puts a key into its bucket, or the next of its chain that has room. Who
// calls it holds the lock of the first bucket; cells of the others are claimed.
func (t *Table) place(h uint64, ref Ref) bool {
	for n := range uint64(chains) {
		b := t.chain(h, n)
		if c, ok := b.claim(); ok {
			put32(&b.refs[c], uint32(ref)) // exchange is behind it for everybody
			b.exchange(c, tagClaimed, tagOf(h))
			return true
		}
		atomic.AddUint32(&b.spill, 1)
	}
	t.unspill(h, chains)
	return false
}

// unspill takes back what place counted in the first n buckets.
func (t *Table) unspill(h uint64, n uint64) {
	for i := range n {
		atomic.AddUint32(&t.chain(h, i).spill, ^uint32(0))
	}
}

// displace takes a key out that place put in.
func (t *Table) displace(h uint64, ref Ref) {
	for n := range uint64(chains) {
		b := t.chain(h, n)
		for c := range b.refs {
			if b.tag(c) == tagOf(h) && atomic.LoadUint32(&b.refs[c]) == uint32(ref) {
				// A lookup takes the reference of a cell before it knows of the tag.
				put32(&b.refs[c], 0)
				b.exchange(c, tagOf(h), tagFree)
				t.unspill(h, n)
				return
			}
		}
	}
}

func (b *bucket) tag(c int) uint64 { return atomic.LoadUint64(&b.tags) >> (8 * c) & 255 }

// claim finds a free cell and keeps others from it.
func (b *bucket) claim() (c int, ok bool) {
	for {
		tags := atomic.LoadUint64(&b.tags)
		m := match(tags, tagFree)
		if m == 0 {
			return 0, false
		}
		c = bits.TrailingZeros64(m) / 8
		if atomic.CompareAndSwapUint64(&b.tags, tags, tags|tagClaimed<<(8*c)) {
			return c, true
		}
	}
}

// exchange turns the tag of cell c from one value into another, whatever happens
// to the other cells.
func (b *bucket) exchange(c int, from, to uint64) {
	atomic.AddUint64(&b.tags, (to-from)<<(8*c))
}

// lockBoth takes the locks of the buckets that two keys belong in, lower first.
func (t *Table) lockBoth(h1, h2 uint64) {
	a, b := h1&t.mask, h2&t.mask
	t.index[min(a, b)].acquire()
	if a != b {
		t.index[max(a, b)].acquire()
	}
}

func (t *Table) unlockBoth(h1, h2 uint64) {
	a, b := h1&t.mask, h2&t.mask
	t.index[a].release()
	if a != b {
		t.index[b].release()
	}
}

func (b *bucket) acquire() { spinLock(&b.lock) }

func (b *bucket) release() { atomic.StoreUint32(&b.lock, 0) }

// spinLock waits for a lock that is held for less than a microsecond, unless the
// kernel stops its holder.
func spinLock(lock *uint32) {
	for n := 0; !atomic.CompareAndSwapUint32(lock, 0, 1); n++ {
		yieldAfter(n)
	}
}

// yieldAfter lets others run after the n-th vain try, now and then: who is waited
// for may want this very thread.
func yieldAfter(n int) {
	if n%64 == 63 {
		runtime.Gosched()
	}
}

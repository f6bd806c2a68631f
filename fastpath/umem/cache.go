package umem

import (
	"runtime"
	"sync/atomic"
)

// A depot is a stack of free buffers that all caches share. It lies in the
// memfd: words[0] is its lock, words[1] the count, then the indexes. Caches
// come to it once per batch, so that a spin lock held for one copy is enough.
type depot struct{ words []uint32 }

const (
	depotLock = iota
	depotCount
	depotHead
)

func (d *depot) fill(first, n uint32) {
	for i := range n {
		d.words[depotHead+i] = first + i
	}
	d.words[depotCount] = n
}

func (d *depot) lock() {
	for spins := 0; !atomic.CompareAndSwapUint32(&d.words[depotLock], 0, 1); spins++ {
		if spins&63 == 63 {
			runtime.Gosched() // the holder may share our core
		}
	}
}

func (d *depot) unlock() { atomic.StoreUint32(&d.words[depotLock], 0) }

// take moves up to len(to) free buffers to to.
func (d *depot) take(to []uint32) int {
	d.lock()
	n := min(uint32(len(to)), d.words[depotCount])
	left := d.words[depotCount] - n
	copy(to, d.words[depotHead+left:depotHead+left+n])
	d.words[depotCount] = left
	d.unlock()
	return int(n)
}

// put moves all of from to the depot, which has room for every buffer there is.
func (d *depot) put(from []uint32) {
	d.lock()
	n := d.words[depotCount]
	copy(d.words[depotHead+n:], from)
	d.words[depotCount] = n + uint32(len(from))
	d.unlock()
}

func (d *depot) count() int {
	d.lock()
	n := d.words[depotCount]
	d.unlock()
	return int(n)
}

// A cache holds at most this many buffers; half of them move at once.
const (
	frameStock = 512
	superStock = 16
)

// A cache's words: two counts, then the stocks.
const (
	frameCount  = 0
	superCount  = 1
	frameBase   = 16
	superBase   = frameBase + frameStock
	cacheWords  = superBase + superStock
	cacheStride = cacheWords // a multiple of a cache line: 544 words
)

// Cache is one taker's stock of free buffers. It is not safe for concurrent use.
type Cache struct {
	arena *Arena
	words *[cacheStride]uint32 // in the memfd
}

func newCache(a *Arena, words []uint32) Cache {
	return Cache{arena: a, words: (*[cacheStride]uint32)(words)}
}

// Frame takes one free frame; false when there is none left anywhere.
//
//fastpath:hot
func (c *Cache) Frame() (Buf, bool) {
	n := c.words[frameCount]
	if n == 0 {
		if n = c.refillFrames(); n == 0 {
			return None, false
		}
	}
	n--
	c.words[frameCount] = n
	return Buf(c.words[frameBase+n%frameStock]), true
}

// Frames takes up to len(to) free frames and returns how many it got.
//
//fastpath:hot
func (c *Cache) Frames(to []Buf) int {
	for i := range to {
		b, ok := c.Frame()
		if !ok {
			return i
		}
		to[i] = b
	}
	return len(to)
}

// reserved is the share of all frames, one in so many, that Surplus leaves.
const reserved = 8

// Surplus is Frames for who can do without, as a fill ring: it leaves an eighth
// of all frames for packets on their way. Without it the fill rings of enough
// ports, or of one port with too few frames, would take every frame while idle,
// and not one packet that needs a fresh frame could ever be sent again.
//
//fastpath:hot
func (c *Cache) Surplus(to []Buf) int {
	free := int(c.words[frameCount]) + c.arena.frame.count() - int(c.arena.frames)/reserved
	return c.Frames(to[:max(0, min(free, len(to)))])
}

// Spare is how many frames fill rings may be promised, all together: so many
// Surplus gives them while nothing else holds frames but the caches. In an arena
// that is small for its caches, these can keep some of the promise back.
func (a *Arena) Spare() int {
	all := int(a.frames)
	return all - all/reserved - min((len(a.caches)-1)*frameStock, all/reserved)
}

// FramesFor is how many frames an arena of as many caches needs, at most, for
// spare of them to be Spare.
func (a *Arena) FramesFor(spare int) int {
	left := spare + (len(a.caches)-1)*frameStock
	return (left*reserved + reserved - 2) / (reserved - 1)
}

// Super takes one free superpacket buffer; false when there is none.
//
//fastpath:hot
func (c *Cache) Super() (Buf, bool) {
	n := c.words[superCount]
	if n == 0 {
		n = uint32(c.arena.super.take(c.words[superBase : superBase+superStock/2]))
		if n == 0 {
			return None, false
		}
	}
	n--
	c.words[superCount] = n
	return Buf(c.words[superBase+n%superStock]), true
}

// Free gives one buffer back, frame or super.
//
//fastpath:hot
func (c *Cache) Free(b Buf) {
	if !c.arena.IsFrame(b) {
		c.freeSuper(b)
		return
	}
	n := c.words[frameCount]
	if n >= frameStock {
		n = c.spillFrames()
	}
	c.words[frameBase+n%frameStock] = uint32(b)
	c.words[frameCount] = n + 1
}

// FreeChain gives a packet's n buffers back, following the segments from b.
//
//fastpath:hot
func (c *Cache) FreeChain(b Buf, n int) {
	for ; n > 1; n-- {
		next := c.arena.segs[b].Next
		c.Free(b)
		b = next
	}
	c.Free(b)
}

func (c *Cache) freeSuper(b Buf) {
	n := c.words[superCount]
	if n >= superStock {
		n = superStock / 2
		c.arena.super.put(c.words[superBase+n : superBase+superStock])
	}
	c.words[superBase+n%superStock] = uint32(b)
	c.words[superCount] = n + 1
}

func (c *Cache) refillFrames() uint32 {
	return uint32(c.arena.frame.take(c.words[frameBase : frameBase+frameStock/2]))
}

func (c *Cache) spillFrames() uint32 {
	c.arena.frame.put(c.words[frameBase+frameStock/2 : frameBase+frameStock])
	return frameStock / 2
}

// Flush gives the whole stock back to the depots, so that others can use it
// while this taker sleeps or after it ended.
func (c *Cache) Flush() {
	c.arena.frame.put(c.words[frameBase : frameBase+c.words[frameCount]])
	c.arena.super.put(c.words[superBase : superBase+c.words[superCount]])
	c.words[frameCount], c.words[superCount] = 0, 0
}

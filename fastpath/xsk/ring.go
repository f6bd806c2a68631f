package xsk

import "sync/atomic"

// A ring is shared with the kernel: an array of entries and two free-running
// 32-bit cursors, producer (next slot to write) and consumer (next slot to read).
// One side owns each cursor. producer - consumer is the fill level, also after
// the counters wrap.
//
// Each side publishes its cursor by a store with release semantics after it is
// done with the entries, and reads the other's with acquire semantics before it
// touches them. Go's sync/atomic is sequentially consistent, which is stronger
// than either, on amd64 and on arm64 (LDAR, STLR).
//
// Both cursors are cached: the other side's is read only when the cached value
// says that there is no room or nothing to take, so that the cache line is not
// fetched from the kernel's core for every burst.

// words are the parts of a ring that both sides see besides the entries.
type words struct {
	producer, consumer, flags *uint32
}

// producer is our end of a ring that we write and the kernel reads: fill and tx.
type producer[T any] struct {
	words
	entries []T
	mask    uint32
	next    uint32 // our cursor: the next slot to write
	limit   uint32 // cached kernel cursor plus size: slots below it are free
}

// consumer is our end of a ring that the kernel writes and we read: rx and completion.
type consumer[T any] struct {
	words
	entries []T
	mask    uint32
	next    uint32 // our cursor: the next slot to read
	limit   uint32 // cached kernel cursor: slots below it hold entries
}

// newProducer takes up a ring where its cursors stand; len(entries) is a power of two.
func newProducer[T any](w words, entries []T) producer[T] {
	size := uint32(len(entries))
	return producer[T]{
		words:   w,
		entries: entries,
		mask:    size - 1,
		next:    atomic.LoadUint32(w.producer),
		limit:   atomic.LoadUint32(w.consumer) + size,
	}
}

// newConsumer takes up a ring where its cursors stand; len(entries) is a power of two.
func newConsumer[T any](w words, entries []T) consumer[T] {
	return consumer[T]{
		words:   w,
		entries: entries,
		mask:    uint32(len(entries)) - 1,
		next:    atomic.LoadUint32(w.consumer),
		limit:   atomic.LoadUint32(w.producer),
	}
}

// room returns how many entries can be put, at least want if there are that many.
//
//fastpath:hot
func (r *producer[T]) room(want uint32) uint32 {
	if free := r.limit - r.next; free >= want {
		return free
	}
	r.limit = atomic.LoadUint32(r.consumer) + uint32(len(r.entries))
	return r.limit - r.next
}

// put copies v in and publishes it; the caller has seen that there is room.
//
//fastpath:hot
func (r *producer[T]) put(v []T) {
	n := copy(r.entries[r.next&r.mask:], v)
	copy(r.entries, v[n:]) // what wraps around
	r.next += uint32(len(v))
	atomic.StoreUint32(r.producer, r.next)
}

// queued returns how many entries the kernel has yet to read.
//
//fastpath:hot
func (r *producer[T]) queued() uint32 {
	return r.next - atomic.LoadUint32(r.consumer)
}

// wakeup says that the kernel waits for a system call before it looks at the ring.
//
//fastpath:hot
func (r *producer[T]) wakeup() bool {
	return atomic.LoadUint32(r.flags)&ringNeedWakeup != 0
}

// peek copies up to len(v) entries out without giving their slots back.
//
//fastpath:hot
func (r *consumer[T]) peek(v []T) int {
	have := r.limit - r.next
	if have < uint32(len(v)) {
		r.limit = atomic.LoadUint32(r.producer)
		have = r.limit - r.next
	}
	if have == 0 {
		return 0
	}
	v = v[:min(uint32(len(v)), have)]
	n := copy(v, r.entries[r.next&r.mask:])
	copy(v[n:], r.entries) // what wrapped around
	return len(v)
}

// release gives the slots of the n oldest entries back to the kernel.
//
//fastpath:hot
func (r *consumer[T]) release(n int) {
	r.next += uint32(n)
	atomic.StoreUint32(r.consumer, r.next)
}

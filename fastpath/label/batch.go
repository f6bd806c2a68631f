package label

import "margay.dev/margay/fastpath/fib"

// BatchMax is how many packets a Batch holds.
const BatchMax = fib.BatchMax

// Batch is lookups of both addresses of packets, each packet at a place from 0
// to BatchMax-1. They overlap their memory accesses: whoever has a loop over
// packets begins all lookups there, and Finish takes those that one access did
// not end on. All of a batch must be of one View.
type Batch struct{ source, destination end }

// end is the lookups of one address of each packet, and how many are open.
type end struct {
	fib.Batch
	open4, open6 int
}

// Begin4 begins the lookups of the IPv4 packet at place i.
//
//fastpath:hot
func (b *Batch) Begin4(v View, i uint8, source, destination uint32) {
	b.source.open4 = b.source.Batch.Begin4(v.trie, i, source, b.source.open4)
	b.destination.open4 = b.destination.Batch.Begin4(v.trie, i, destination, b.destination.open4)
}

// Begin6 begins the lookups of the IPv6 packet at place i. An address is its
// upper and its lower 64 bits.
//
//fastpath:hot
func (b *Batch) Begin6(v View, i uint8, source, destination [2]uint64) {
	b.source.open6 = b.source.Batch.Begin6(v.trie, i, source[0], source[1], b.source.open6)
	b.destination.open6 = b.destination.Batch.Begin6(v.trie, i, destination[0], destination[1], b.destination.open6)
}

// Finish brings all lookups to their ends, after which another batch may begin.
//
//fastpath:hot
func (b *Batch) Finish(v View) {
	b.source.finish(v)
	b.destination.finish(v)
}

//fastpath:hot
func (e *end) finish(v View) {
	e.Finish4(v.trie, e.open4)
	e.Finish6(v.trie, e.open6)
	e.open4, e.open6 = 0, 0
}

// Classes are the answers for the packet at place i, whose lookups have ended.
//
//fastpath:hot
func (b *Batch) Classes(i uint8) (source, destination Class) {
	return Class(b.source.NextHop(i)), Class(b.destination.NextHop(i))
}

// Lookup4 is the View's Lookup4 of each address in addrs, into out, which must be
// as long.
//
//fastpath:hot
func (b *Batch) Lookup4(v View, addrs []uint32, out []Class) {
	e := &b.source
	for len(addrs) > 0 {
		n, open := min(len(addrs), BatchMax), 0
		for i, a := range addrs[:n] {
			open = e.Batch.Begin4(v.trie, uint8(i), a, open)
		}
		e.Finish4(v.trie, open)
		for i := range out[:n] {
			out[i] = Class(e.NextHop(uint8(i)))
		}
		addrs, out = addrs[n:], out[n:]
	}
}

// Lookup6 is the View's Lookup6 of each address in addrs (upper, lower 64 bits),
// into out, which must be as long.
//
//fastpath:hot
func (b *Batch) Lookup6(v View, addrs [][2]uint64, out []Class) {
	e := &b.source
	for len(addrs) > 0 {
		n, open := min(len(addrs), BatchMax), 0
		for i, a := range addrs[:n] {
			open = e.Batch.Begin6(v.trie, uint8(i), a[0], a[1], open)
		}
		e.Finish6(v.trie, open)
		for i := range out[:n] {
			out[i] = Class(e.NextHop(uint8(i)))
		}
		addrs, out = addrs[n:], out[n:]
	}
}

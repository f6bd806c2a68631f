package label

import "margay.dev/margay/fastpath/fib"

// BatchMax is how many packets a Batch holds.
const BatchMax = fib.BatchMax

// Batch is lookups of both addresses of packets, each packet at a place from 0
// to BatchMax-1. They overlap their memory accesses: whoever has a loop over
// packets notes all addresses there, and Finish looks them up.
type Batch struct {
	four  noted[uint32]
	six   noted[[2]uint64]
	trie  fib.Batch
	found [2 * BatchMax]Class // by place: of the source, of the destination
}

// noted are the addresses of one family that wait for Finish: source, destination,
// source..., with the place of each pair.
type noted[A any] struct {
	addrs   [2 * BatchMax]A
	classes [2 * BatchMax]Class
	places  [BatchMax]uint8
	pairs   int
}

// note puts a pair behind the others.
//
//fastpath:hot
func (n *noted[A]) note(i uint8, source, destination A) {
	at := n.pairs & (BatchMax - 1)
	n.addrs[2*at], n.addrs[2*at+1], n.places[at] = source, destination, i
	n.pairs++
}

// settle brings the classes of all pairs to their places, and forgets the pairs.
//
//fastpath:hot
func (n *noted[A]) settle(found *[2 * BatchMax]Class) {
	for at, i := range n.places[:n.pairs] {
		found[2*int(i)], found[2*int(i)+1] = n.classes[2*at], n.classes[2*at+1]
	}
	n.pairs = 0
}

// Begin4 notes the IPv4 packet at place i.
//
//fastpath:hot
func (b *Batch) Begin4(i uint8, source, destination uint32) { b.four.note(i, source, destination) }

// Begin6 notes the IPv6 packet at place i. An address is its upper and its lower
// 64 bits.
//
//fastpath:hot
func (b *Batch) Begin6(i uint8, source, destination [2]uint64) { b.six.note(i, source, destination) }

// Finish looks up what was noted, after which another batch may begin.
//
//fastpath:hot
func (b *Batch) Finish(v View) {
	if n := 2 * b.four.pairs; n > 0 {
		b.Lookup4(v, b.four.addrs[:n], b.four.classes[:n])
		b.four.settle(&b.found)
	}
	if n := 2 * b.six.pairs; n > 0 {
		b.Lookup6(v, b.six.addrs[:n], b.six.classes[:n])
		b.six.settle(&b.found)
	}
}

// Classes are the answers for the packet at place i, whose lookups have ended.
//
//fastpath:hot
func (b *Batch) Classes(i uint8) (source, destination Class) {
	return b.found[2*int(i)], b.found[2*int(i)+1]
}

// Lookup4 is the View's Lookup4 of each address in addrs, into out, which must be
// as long.
//
//fastpath:hot
func (b *Batch) Lookup4(v View, addrs []uint32, out []Class) { fib.Lookup4(v.trie, addrs, out) }

// Lookup6 is the View's Lookup6 of each address in addrs (upper, lower 64 bits),
// into out, which must be as long.
//
//fastpath:hot
func (b *Batch) Lookup6(v View, addrs [][2]uint64, out []Class) {
	for len(addrs) > 0 {
		n, open := min(len(addrs), BatchMax), 0
		for i, a := range addrs[:n] {
			open = b.trie.Begin6(v.trie, uint8(i), a[0], a[1], open)
		}
		b.trie.Finish6(v.trie, open)
		for i := range out[:n] {
			out[i] = Class(b.trie.NextHop(uint8(i)))
		}
		addrs, out = addrs[n:], out[n:]
	}
}

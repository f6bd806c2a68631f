package classifier

// Key is what a program looks at, in two words: fields with a bit that is 0 above
// each. NewKey makes one.
//
//	0   48..33: destination port | 31..0: destination address or local class
//	1   57..50: protocol | 48..33: source port | 31..0: source address or local class
type Key [2]uint64

// NewKey packs a key. Source and destination are IPv4 addresses as big-endian
// numbers, or local classes, as the program's Mode asks.
//
//fastpath:hot
func NewKey(source, destination uint32, protocol uint8, sourcePort, destinationPort uint16) (k Key) {
	k[0], k[1] = keyWords(source, destination, protocol, sourcePort, destinationPort)
	return k
}

// keyWords are NewKey's words, for who stores them one by one: the copy of an array waits for both to be in the cache.
//
//fastpath:hot
func keyWords(source, destination uint32, protocol uint8, sourcePort, destinationPort uint16) (w0, w1 uint64) {
	return uint64(destinationPort)<<portShift | uint64(destination),
		uint64(protocol)<<protocolShift | uint64(sourcePort)<<portShift | uint64(source)
}

// Source is the source address or local class.
//
//fastpath:hot
func (k *Key) Source() uint32 { return uint32(k[1]) }

// Destination is the destination address or local class.
//
//fastpath:hot
func (k *Key) Destination() uint32 { return uint32(k[0]) }

// Protocol is the protocol's number.
func (k *Key) Protocol() uint8 { return uint8(k[1] >> protocolShift) }

// SourcePort is the source port, 0 for ICMP.
func (k *Key) SourcePort() uint16 { return uint16(k[1] >> portShift) }

// DestinationPort is the destination port, or ICMP's type and code.
func (k *Key) DestinationPort() uint16 { return uint16(k[0] >> portShift) }

// Burst is how many keys a walker takes through a tree side by side.
const Burst = 32

// Match judges keys in bursts: out[i] is the verdict of keys[i], of tier 0. out
// is at least as long as keys.
//
//fastpath:hot
func (p *Program) Match(keys []Key, out []Verdict) {
	out = out[:len(keys)]
	for len(keys) > 0 {
		n := min(len(keys), Burst)
		p.walk(keys[:n], out[:n])
		if p.mode == Addresses && p.over == nil { // what the trees give is the whole truth
			for i, rank := range out[:n] {
				out[i] = p.verdicts[rank]
			}
		} else {
			p.judge(keys[:n], out[:n])
		}
		keys, out = keys[n:], out[n:]
	}
}

// MatchOne judges one key.
//
//fastpath:hot
func (p *Program) MatchOne(k *Key) Verdict {
	rank := p.walkOne(k)
	if p.over == nil && !p.strange(k) {
		return p.verdicts[rank]
	}
	return p.settle(k, rank)
}

// rank is the rank of the rule that decides.
//
//fastpath:hot
func (p *Program) rank(k *Key) uint32 {
	best := uint32(len(p.verdicts) - 1)
	for i := range p.trees {
		if t := &p.trees[i]; t.min < best {
			best = p.leaf(p.descend(t.root, k), k, best)
		}
	}
	return best
}

// descend follows tables from a root down to a leaf's cell.
//
//fastpath:hot
func (p *Program) descend(c uint64, k *Key) uint64 {
	cells := p.cells
	for int64(c) >= 0 {
		shift := c >> cutShift & 63
		at := k[0] >> shift
		if other := k[1] >> shift; c>>wordShift&1 != 0 {
			at = other
		}
		c = cells[uint32(c)+uint32(at)&uint32(c>>maskShift)]
	}
	return c
}

// leaf is the lowest of best and the ranks that the leaf has for the key.
//
//fastpath:hot
func (p *Program) leaf(c uint64, k *Key, best uint32) uint32 {
	boxes := p.leafBoxes(c)
	for i := range boxes {
		if b := &boxes[i]; b.holds(k) {
			return min(best, b.rank())
		}
	}
	return min(best, uint32(c>>fallbackShift)&rankMask)
}

// leafBoxes are the boxes of a leaf, at least one.
//
//fastpath:hot
func (p *Program) leafBoxes(c uint64) []box {
	first := c & firstMask
	return p.boxes[first : first+c>>moreShift&moreMask+1]
}

// A run is what a burst has come to in one tree. Keys that are still on their
// way are packed to the front of live, so that no branch depends on a single key.
type run struct {
	at   [Burst]uint64 // the cell of each key; in a leaf, that of a leaf without the boxes seen
	todo [Burst]uint8  // keys that the tree is asked for
	live [Burst]uint8  // those that go on
	seen uint64        // what fetch has read
}

// far is how many boxes are so far from the core that a burst asks for those of
// all its leaves before it compares any: 128 KiB. Nearer ones it would only delay.
const far = 4096

// burst walks up to Burst keys through the trees and leaves ranks in out. Arrays
// of one size need no check of their bounds, so a shorter burst is filled up.
//
//fastpath:hot
func (p *Program) burst(keys []Key, out []Verdict) {
	if len(keys) == Burst {
		p.through((*[Burst]Key)(keys), (*[Burst]Verdict)(out), Burst)
		return
	}
	var k [Burst]Key
	var o [Burst]Verdict
	copy(k[:], keys)
	p.through(&k, &o, len(keys))
	copy(out, o[:])
}

// through walks the first n keys: tree by tree, and level by level in each, so
// that the loads of the keys overlap.
//
//fastpath:hot
func (p *Program) through(keys *[Burst]Key, out *[Burst]Verdict, n int) {
	var r run
	for i := range out {
		out[i] = Verdict(len(p.verdicts) - 1)
	}
	for i := range p.trees {
		t := &p.trees[i]
		asked := 0
		for i, best := range out[:n] {
			r.todo[asked&(Burst-1)] = uint8(i)
			asked += int((uint64(t.min) - uint64(best)) >> 63)
		}
		r.tables(p.cells, t.root, keys, asked)
		if len(p.boxes) > far {
			r.fetch(p.boxes, asked)
		}
		r.leaves(p.boxes, keys, out, asked)
	}
}

// tables takes the first n of todo from the root down to their leaves.
//
//fastpath:hot
func (r *run) tables(cells []uint64, root uint64, keys *[Burst]Key, n int) {
	left := r.enter(cells, root, keys, n)
	for left > 0 {
		n, left = left, 0
		for _, i := range r.live[:n] {
			i &= Burst - 1
			c := r.at[i]
			c = cells[uint32(c)+uint32(keys[i][c>>wordShift&1]>>(c>>cutShift&63))&uint32(c>>maskShift)]
			r.at[i] = c
			r.live[left&(Burst-1)] = i
			left += int(^c >> 63)
		}
	}
}

// enter is the step from the root, which is the same table for all. It returns
// how many keys are not at a leaf yet.
//
//fastpath:hot
func (r *run) enter(cells []uint64, root uint64, keys *[Burst]Key, n int) (left int) {
	if int64(root) < 0 {
		for i := range r.at {
			r.at[i] = root
		}
		return 0
	}
	table := cells[uint32(root):]
	table = table[:root>>maskShift+1]
	word, shift := root>>wordShift&1, root>>cutShift&63
	for _, i := range r.todo[:n] {
		i &= Burst - 1
		c := table[keys[i][word]>>(shift&63)&uint64(len(table)-1)]
		r.at[i] = c
		r.live[left&(Burst-1)] = i
		left += int(^c >> 63)
	}
	return left
}

// fetch reads of the leaf of each of todo the first box, and nothing else: so few
// instructions that the loads of all keys are on their way at once.
//
//fastpath:hot
func (r *run) fetch(boxes []box, n int) {
	sum := uint64(0)
	for _, i := range r.todo[:n] {
		sum += boxes[r.at[i&(Burst-1)]&firstMask].low[0]
	}
	r.seen = sum
}

// leaves compares the first n of todo with the boxes of their leaves, one box of
// each key at a time.
//
//fastpath:hot
func (r *run) leaves(boxes []box, keys *[Burst]Key, out *[Burst]Verdict, n int) {
	left := 0
	for _, i := range r.todo[:n] {
		i &= Burst - 1
		c := r.at[i]
		b := &boxes[c&firstMask]
		miss := -b.outside(&keys[i])
		out[i] = min(out[i], Verdict(c>>fallbackShift)&rankMask, Verdict(b.rank())|Verdict(int64(miss)>>63))
		r.live[left&(Burst-1)] = i
		left += int(miss & -(c & (moreMask << moreShift)) >> 63)
	}
	for left > 0 {
		n, left = left, 0
		for _, i := range r.live[:n] {
			i &= Burst - 1
			c := r.at[i] + nextBox
			r.at[i] = c
			b := &boxes[c&firstMask]
			miss := -b.outside(&keys[i])
			out[i] = min(out[i], Verdict(b.rank())|Verdict(int64(miss)>>63))
			r.live[left&(Burst-1)] = i
			left += int(miss & -(c & (moreMask << moreShift)) >> 63)
		}
	}
}

package classifier

// Key is what a program looks at, in two words.
//
//	0   63..32: source address or local class | 31..0: destination address or local class
//	1   39..32: protocol | 31..16: source port | 15..0: destination port; the rest is 0
type Key [2]uint64

// NewKey packs a key. Source and destination are IPv4 addresses as big-endian
// numbers, or local classes, as the program's Mode asks.
//
//fastpath:hot
func NewKey(source, destination uint32, protocol uint8, sourcePort, destinationPort uint16) Key {
	return Key{uint64(source)<<32 | uint64(destination), uint64(protocol)<<32 | uint64(sourcePort)<<16 | uint64(destinationPort)}
}

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
		if p.exact() {
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
	if p.exact() {
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
		c = cells[uint32(c)+uint32(k[c>>wordShift&1]>>(c>>cutShift&63))&uint32(c>>maskShift)]
	}
	return c
}

// leaf is the lowest of best and the ranks that the leaf has for the key.
//
//fastpath:hot
func (p *Program) leaf(c uint64, k *Key, best uint32) uint32 {
	first, count := c&firstMask, c>>countShift&countMask
	boxes := p.boxes[first : first+count]
	for i := range boxes {
		if b := &boxes[i]; b.holds(k) {
			return min(best, b.rank())
		}
	}
	return min(best, uint32(c>>fallbackShift)&rankMask)
}

// holds reports whether the key is inside the box.
//
//fastpath:hot
func (b *box) holds(k *Key) bool {
	return uint32(k[0]>>32)-b.src <= b.srcSpan && uint32(k[0])-b.dst <= b.dstSpan &&
		uint16(k[1])-b.dport <= b.dportSpan && uint16(k[1]>>16)-b.sport <= b.sportSpan && uint16(k[1]>>32)-b.proto <= b.protoSpan
}

// A run is what a burst has come to in one tree: keys that are still on their
// way are packed to the front, so that no branch depends on a single key.
type run struct {
	at   [Burst]uint64 // the cell of each key; in a leaf, the next box below the one behind the last
	todo [Burst]uint8  // keys that the tree is asked for
	live [Burst]uint8  // those that go on
}

// burst walks up to Burst keys through the trees: tree by tree, and level by
// level in each, so that the loads of the keys overlap. It leaves ranks in out.
//
//fastpath:hot
func (p *Program) burst(keys []Key, out []Verdict) {
	var r run
	keys = keys[:len(out)]
	for i := range out {
		out[i] = Verdict(len(p.verdicts) - 1)
	}
	for i := range p.trees {
		t := &p.trees[i]
		n := 0
		for i, best := range out {
			r.at[i&(Burst-1)] = t.root
			r.todo[n&(Burst-1)] = uint8(i)
			n += int((uint64(t.min) - uint64(best)) >> 63)
		}
		if int64(t.root) >= 0 {
			tables(p.cells, &r, keys, n)
		}
		leaves(p.boxes, &r, keys, out, n)
	}
}

// tables takes the first n of todo down to their leaves.
//
//fastpath:hot
func tables(cells []uint64, r *run, keys []Key, n int) {
	r.live = r.todo
	for n > 0 {
		left := 0
		for _, i := range r.live[:n] {
			c := r.at[i&(Burst-1)]
			c = cells[uint32(c)+uint32(keys[i][c>>wordShift&1]>>(c>>cutShift&63))&uint32(c>>maskShift)]
			r.at[i&(Burst-1)] = c
			r.live[left&(Burst-1)] = i
			left += int(^c >> 63)
		}
		n = left
	}
}

// leaves compares the first n of todo with the boxes of their leaves, one box of
// each key at a time.
//
//fastpath:hot
func leaves(boxes []box, r *run, keys []Key, out []Verdict, n int) {
	left := 0
	for _, i := range r.todo[:n] {
		c := r.at[i&(Burst-1)]
		first, count := c&firstMask, c>>countShift&countMask
		r.at[i&(Burst-1)] = (first+count)<<32 | first
		out[i] = min(out[i], Verdict(c>>fallbackShift)&rankMask)
		r.live[left&(Burst-1)] = i
		left += int(-count >> 63)
	}
	for left > 0 {
		n, left = left, 0
		for _, i := range r.live[:n] {
			at := r.at[i&(Burst-1)]
			b := &boxes[uint32(at)]
			miss := b.outside(&keys[i])
			at++
			r.at[i&(Burst-1)] = at
			out[i] = min(out[i], Verdict(b.rank())|Verdict(int64(miss)>>63))
			r.live[left&(Burst-1)] = i
			left += int(miss & (at&(1<<32-1) - at>>32) >> 63)
		}
	}
}

// outside is negative, taken as a signed number, if the key is not inside the
// box: all fields are compared, and no branch is taken.
//
//fastpath:hot
func (b *box) outside(k *Key) uint64 {
	return (uint64(b.srcSpan) - uint64(uint32(k[0]>>32)-b.src)) | (uint64(b.dstSpan) - uint64(uint32(k[0])-b.dst)) |
		(uint64(b.dportSpan) - uint64(uint16(k[1])-b.dport)) | (uint64(b.sportSpan) - uint64(uint16(k[1]>>16)-b.sport)) |
		(uint64(b.protoSpan) - uint64(uint16(k[1]>>32)-b.proto))
}

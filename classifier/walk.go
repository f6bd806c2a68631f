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
		p.burst(keys[:n], out[:n])
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
	rank := p.rank(k)
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

// burst walks up to Burst keys through the trees: tree by tree, and level by level in each, so
// that the loads of the keys overlap. It leaves ranks in out.
//
//fastpath:hot
func (p *Program) burst(keys []Key, out []Verdict) {
	var at [Burst]uint64        // the cell that each key has come to
	var todo, live [Burst]uint8 // keys that the tree is asked for; those not yet at a leaf
	cells := p.cells
	keys = keys[:len(out)]
	none := uint32(len(p.verdicts) - 1)
	for i := range out {
		out[i] = Verdict(none)
	}
	for t := range p.trees {
		tr := &p.trees[t]
		n := 0
		for i := range out {
			at[i&(Burst-1)] = tr.root
			todo[n&(Burst-1)] = uint8(i)
			n += int((int64(tr.min) - int64(out[i])) >> 63 & 1)
		}
		m := 0
		if int64(tr.root) >= 0 {
			m = copy(live[:], todo[:n])
		}
		for m > 0 {
			left := 0
			for _, i := range live[:m] {
				c := at[i&(Burst-1)]
				c = cells[uint32(c)+uint32(keys[i][c>>wordShift&1]>>(c>>cutShift&63))&uint32(c>>maskShift)]
				at[i&(Burst-1)] = c
				live[left&(Burst-1)] = i
				left += int(^c >> 63)
			}
			m = left
		}
		for _, i := range todo[:n] {
			out[i] = Verdict(p.leaf(at[i&(Burst-1)], &keys[i], uint32(out[i])))
		}
	}
}

package classifier

import (
	"encoding/binary"

	"margay.dev/margay/classifier/cut"
)

// Where the fields of a key lie, beside the addresses at 0, and the bit above
// each field, which is 0 in a key: its guard.
const (
	portShift     = 33
	protocolShift = 50

	addressGuard  = 1 << 32
	portGuard     = 1 << (portShift + 16)
	protocolGuard = 1 << (protocolShift + 8)
	guards        = addressGuard | portGuard | protocolGuard // of word 1; word 0 has no protocol
)

// box is one rule, or part of one, as the walkers compare it: all fields of a word
// at once, each kept from its neighbour by its guard. A local class takes the
// place of an address.
//
// A field of low is its guard less the low end, so that adding a key's field sets
// the guard if that is not below. A field of high is the guard and the high end:
// subtracting a key's field leaves the guard if that is not above.
//
// Above the guards of word 0 is the rank: its 14 lower bits in low, the others in high.
type box struct{ low, high [2]uint64 }

const (
	rankShift = 50
	rankSplit = 64 - rankShift
)

// boxOf packs an item for the walkers.
func boxOf(it *cut.Item) (b box) {
	for f := range cut.NumFields {
		at := cut.FieldOf(f)
		guard := uint64(1) << at.Bits
		b.low[at.Word] |= (guard - uint64(it.Lo[f])) << at.Offset
		b.high[at.Word] |= (guard | uint64(it.Hi[f])) << at.Offset
	}
	b.number(it.Rank)
	return b
}

// ends are the ends of the box in each field.
func (b *box) ends() (low, high [cut.NumFields]uint32) {
	for f := range cut.NumFields {
		at := cut.FieldOf(f)
		mask := uint32(uint64(1)<<at.Bits - 1)
		low[f] = -uint32(b.low[at.Word]>>at.Offset) & mask
		high[f] = uint32(b.high[at.Word]>>at.Offset) & mask
	}
	return low, high
}

// never is a box that no key is inside: it has no guards.
func never(rank uint32) (b box) {
	b.number(rank)
	return b
}

// number gives a box that has none its rank.
func (b *box) number(rank uint32) {
	b.low[0] |= uint64(rank) << rankShift
	b.high[0] |= uint64(rank) >> rankSplit << rankShift
}

// rank is the position of the box's rule in the list.
//
//fastpath:hot
func (b *box) rank() uint32 { return uint32(b.low[0]>>rankShift | b.high[0]>>rankShift<<rankSplit) }

// outside is 0 if the key is inside the box.
//
//fastpath:hot
func (b *box) outside(k *Key) uint64 {
	return (((k[0]+b.low[0])&(b.high[0]-k[0]) | protocolGuard) & (k[1] + b.low[1]) & (b.high[1] - k[1]) & guards) ^ guards
}

// holds reports whether the key is inside the box.
//
//fastpath:hot
func (b *box) holds(k *Key) bool { return b.outside(k) == 0 }

func readBox(b []byte) (x box) {
	for i := range x.low {
		x.low[i], x.high[i] = binary.LittleEndian.Uint64(b[8*i:]), binary.LittleEndian.Uint64(b[16+8*i:])
	}
	return x
}

// write puts the box at the beginning of b.
func (b *box) write(to []byte) {
	for i := range b.low {
		binary.LittleEndian.PutUint64(to[8*i:], b.low[i])
		binary.LittleEndian.PutUint64(to[16+8*i:], b.high[i])
	}
}

package graph

// VectorMax is the largest number of packets a node sees at once.
const VectorMax = 256

// slots is the number of packets a worker can have in hand at once: a full
// vector, and as many again that nodes made or took up again.
const slots = 2 * VectorMax

// Slots is the slots of a worker: Meta i of a vector v is
// v.Metas()[v.Index()[i]&SlotMask], which a hot loop writes out to keep both in
// registers.
type Slots [slots]Meta

// SlotMask keeps an index inside Slots without a check.
const SlotMask = slots - 1

// Vector is up to VectorMax packets at one stop: indexes into the slots of
// their worker, so that going from stop to stop moves two bytes a packet.
type Vector struct {
	meta *Slots
	idx  []uint16
}

// Len is the number of packets.
//
//fastpath:hot
func (v *Vector) Len() int { return len(v.idx) }

// Meta is what is known of packet i.
//
//fastpath:hot
func (v *Vector) Meta(i int) *Meta { return &v.meta[v.idx[i]&(slots-1)] }

// Metas are the slots that Index points into.
//
//fastpath:hot
func (v *Vector) Metas() *Slots { return v.meta }

// Index is the vector's packets as indexes of slots; it is read only.
//
//fastpath:hot
func (v *Vector) Index() []uint16 { return v.idx }

// list is the packets that wait for a stop.
type list struct {
	n   int
	idx *[slots]uint16
	// Of packets that wait for a transmit queue, together.
	bytes, segments uint64
}

func newList() list { return list{idx: new([slots]uint16)} }

//fastpath:hot
func (l *list) push(slot uint16) {
	l.idx[l.n&(slots-1)] = slot
	l.n++
}

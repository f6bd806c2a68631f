package graph

// VectorMax is the largest number of packets a node sees at once.
const VectorMax = 256

// slots is the number of packets a worker can have in hand at once: a full
// vector, and as many again that nodes made or took up again.
const slots = 2 * VectorMax

// Vector is up to VectorMax packets at one stop: indexes into the slots of
// their worker, so that going from stop to stop moves two bytes a packet.
type Vector struct {
	meta *[slots]Meta
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

// Slots is the packets as indexes for Worker.At; it is read only.
//
//fastpath:hot
func (v *Vector) Slots() []uint16 { return v.idx }

// list is the packets that wait for a stop.
type list struct {
	n   int
	idx [slots]uint16
}

//fastpath:hot
func (l *list) push(slot uint16) {
	l.idx[l.n&(slots-1)] = slot
	l.n++
}

package flow

import "sync/atomic"

// Decision is what was decided about a flow and what it was decided from. All of
// it is by the originator's tuple, whichever side's packet brings it up: index 0 is
// the originator's side or direction, 1 the other's. The table does not look into
// verdicts, classes and next hops.
type Decision struct {
	Verdict    [2]uint32 // of the programs of the source's and the destination's endpoint
	Class      [2]uint32 // of source and destination address
	NextHop    [2]uint32 // of the originator's packets and of replies
	Generation uint64    // of the tables it was decided by, from 1 to 1<<63 - 1
}

// Decision is what was decided about a flow. It is false while somebody decides
// anew: then look again with the next packet.
func (t *Table) Decision(ref Ref) (d Decision, ok bool) {
	e := t.entry(ref)
	stamp := atomic.LoadUint64(&e.core.stamp)
	verdict := atomic.LoadUint64(&e.core.verdict)
	d = Decision{
		Verdict:    [2]uint32{uint32(verdict), uint32(verdict >> 32)},
		Class:      [2]uint32{atomic.LoadUint32(&e.rest.class[0]), atomic.LoadUint32(&e.rest.class[1])},
		NextHop:    [2]uint32{atomic.LoadUint32(&e.core.nextHop[0]), atomic.LoadUint32(&e.core.nextHop[1])},
		Generation: stamp >> 1,
	}
	return d, stamp&1 == 0 && atomic.LoadUint64(&e.core.stamp) == stamp
}

// Stamp puts a decision in place of the one of generation was. It is false if
// another worker has been quicker: then that one's is in force. To revalidate a
// flow whose inputs have not changed is to stamp its Decision with a new Generation.
func (t *Table) Stamp(ref Ref, was uint64, d Decision) bool {
	e := t.entry(ref)
	c := &e.core
	if !atomic.CompareAndSwapUint64(&c.stamp, was<<1, was<<1|1) {
		return false
	}
	atomic.StoreUint64(&c.verdict, pair(d.Verdict[1], d.Verdict[0]))
	for i := range 2 {
		atomic.StoreUint32(&c.nextHop[i], d.NextHop[i])
		atomic.StoreUint32(&e.rest.class[i], d.Class[i])
	}
	atomic.StoreUint64(&c.stamp, d.Generation<<1)
	return true
}

// Original is the key of the originator's packets: what policy judges a flow by.
func (t *Table) Original(ref Ref) Key { return t.entry(ref).sides[0].key }

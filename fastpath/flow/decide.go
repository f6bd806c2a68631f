package flow

import "sync/atomic"

// Decision is what was decided about a flow and what it was decided from. All of
// it is by the originator's tuple, whichever side's packet brings it up: index 0 is
// the originator's side or direction, 1 the other's. The table does not look into
// verdicts, classes, next hops and who was asked.
type Decision struct {
	Verdict    [2]uint32 // of the programs of the source's and the destination's endpoint
	Class      [2]uint32 // of source and destination address
	NextHop    [2]uint32 // of the originator's packets and of replies
	Asked      [2]uint32 // whose policy was asked for each side, in the caller's numbers; 0 for nobody's
	Generation uint64    // of the tables it was decided by, from 1 to 1<<63 - 1
}

// Verdicts are both in one word, as in Result.
//
//fastpath:hot
func (d *Decision) Verdicts() uint64 { return pair(d.Verdict[1], d.Verdict[0]) }

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
		Asked:      [2]uint32{atomic.LoadUint32(&e.rest.asked[0]), atomic.LoadUint32(&e.rest.asked[1])},
		Generation: stamp >> 1,
	}
	return d, stamp&1 == 0 && atomic.LoadUint64(&e.core.stamp) == stamp
}

// Stamp puts a decision in place of the one of generation was. It is false if
// another worker has been quicker: then that one's is in force.
func (t *Table) Stamp(ref Ref, was uint64, d Decision) bool {
	e := t.entry(ref)
	c := &e.core
	if !atomic.CompareAndSwapUint64(&c.stamp, was<<1, was<<1|1) {
		return false
	}
	atomic.StoreUint64(&c.verdict, d.Verdicts())
	for i := range 2 {
		atomic.StoreUint32(&c.nextHop[i], d.NextHop[i])
		atomic.StoreUint32(&e.rest.class[i], d.Class[i])
		atomic.StoreUint32(&e.rest.asked[i], d.Asked[i])
	}
	atomic.StoreUint64(&c.stamp, d.Generation<<1)
	return true
}

// Renew stamps a flow whose decision d still holds with a later generation, and
// with the next hops of that, and makes d say so. It is false if another worker has been quicker,
// as with Stamp.
//
//fastpath:hot
func (t *Table) Renew(ref Ref, d *Decision, nextHop [2]uint32, generation uint64) bool {
	c, was, same := &t.entry(ref).core, d.Generation<<1, d.NextHop == nextHop
	d.NextHop, d.Generation = nextHop, generation
	if same { // nearly always
		return atomic.CompareAndSwapUint64(&c.stamp, was, generation<<1)
	}
	if !atomic.CompareAndSwapUint64(&c.stamp, was, was|1) {
		return false
	}
	for i := range 2 {
		atomic.StoreUint32(&c.nextHop[i], nextHop[i])
	}
	atomic.StoreUint64(&c.stamp, generation<<1)
	return true
}

// Original is the key of the originator's packets: what policy judges a flow by.
func (t *Table) Original(ref Ref) Key { return t.entry(ref).sides[0].key }

package fib

import "sync/atomic"

// View is what a reader sees of a Table: one set of tables, taken once per
// vector and not kept beyond it.
type View struct{ t *tables }

// View returns the tables in force. It costs one load.
//
//fastpath:hot
func (t *Table) View() View { return View{t.cur.Load()} }

// Resolve chooses the adjacency of a next hop for a flow with this hash. Any
// bits of the hash may carry its entropy.
//
//fastpath:hot
func (v *View) Resolve(nh NextHopID, hash uint32) AdjacencyID {
	t := v.t
	if uint(nh) >= uint(len(t.hops)) {
		return v.resolveLate(nh, hash)
	}
	w := atomic.LoadUint32(&t.hops[nh])
	if w&groupBit == 0 {
		return AdjacencyID(w)
	}
	b := uint(w&^groupBit)<<bucketBits | uint(hash*0x9e3779b1>>(32-bucketBits))
	if b >= uint(len(t.buckets)) {
		return v.resolveLate(nh, hash)
	}
	return AdjacencyID(atomic.LoadUint32(&t.buckets[b]))
}

// Single returns the adjacency of a next hop that has only one, for which no
// flow hash need be made; false where Resolve must choose.
//
//fastpath:hot
func (v *View) Single(nh NextHopID) (AdjacencyID, bool) {
	if hops := v.t.hops; uint(nh) < uint(len(hops)) {
		w := atomic.LoadUint32(&hops[nh])
		return AdjacencyID(w), w&groupBit == 0
	}
	return 0, false
}

// resolveLate is for a reader that met an index newer than its view: the tables
// in force know it, for they are published before an index into them is stored.
//
//go:noinline
func (v *View) resolveLate(nh NextHopID, hash uint32) AdjacencyID {
	late := View{v.t.cur.Load()}
	if late.t == v.t { // no such next hop
		return 0
	}
	return late.Resolve(nh, hash)
}

// Adjacency returns the adjacency in force under id: the one that drops where
// the writer has set none. It is good as long as the view.
//
//fastpath:hot
func (v *View) Adjacency(id AdjacencyID) *Adjacency {
	if a := v.Known(id); a != nil {
		return a
	}
	return v.adjacencyLate(id)
}

// Known is Adjacency for loops that must not call: nil if id is newer than the
// view, or there is none.
//
//fastpath:hot
func (v *View) Known(id AdjacencyID) *Adjacency {
	t := v.t
	if uint(id) < uint(len(t.slotOf)) {
		if s := atomic.LoadUint32(&t.slotOf[id]); uint(s) < uint(len(t.slots)) {
			return &t.slots[s]
		}
	}
	return nil
}

//go:noinline
func (v *View) adjacencyLate(id AdjacencyID) *Adjacency {
	late := View{v.t.cur.Load()}
	if late.t == v.t { // no such adjacency
		return &v.t.slots[0]
	}
	return late.Adjacency(id)
}

package fib

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"sync/atomic"
)

// Reasons to refuse a prefix, for errors.Is.
var (
	ErrPrefix  = errors.New("not a prefix that can be routed")
	ErrNextHop = errors.New("not a next hop that can be used")
)

// Table is the forwarder's FIB. New makes one. Its methods are for one writer
// at a time, except View, which any goroutine may call at any time. Readers
// work on Views.
type Table struct {
	cur    atomic.Pointer[tables]
	now    generation
	moves  uint64 // of other things than routes
	routed uint64 // changes of routes
	watch  func(netip.Prefix)
	v4, v6 family
	hops   nextHops
	adjs   adjacencies
}

// family is all that the writer keeps of one family.
type family struct {
	routes routes
	trie   trie
}

// tables are the slices in force. The struct is immutable; the elements of the
// slices change by atomic stores.
type tables struct {
	root4, root6 *[1 << rootBits]uint32
	trie4, trie6 []uint32
	hops         []uint32
	buckets      []uint32
	slotOf       []uint32
	slots        []Adjacency
	cur          *atomic.Pointer[tables] // for readers that meet an index newer than their view
}

// New returns a table without routes: every lookup answers NoRoute.
func New() *Table {
	t := &Table{}
	t.v4 = family{newRoutes(true), trie{newArena(&t.now, t.publish)}}
	t.v6 = family{newRoutes(false), trie{newArena(&t.now, t.publish)}}
	t.hops = newNextHops(&t.now)
	t.adjs = newAdjacencies(&t.now)
	t.publish()
	return t
}

// publish puts the present slices in force. It must follow each growth before
// an index into the new part is stored anywhere.
func (t *Table) publish() {
	t.cur.Store(&tables{
		root4: (*[1 << rootBits]uint32)(t.v4.trie.words), trie4: t.v4.trie.words,
		root6: (*[1 << rootBits]uint32)(t.v6.trie.words), trie6: t.v6.trie.words,
		hops: t.hops.hops, buckets: t.hops.buckets,
		slotOf: t.adjs.slotOf, slots: t.adjs.slots,
		cur: &t.cur,
	})
}

func (t *Table) family(is4 bool) *family {
	if is4 {
		return &t.v4
	}
	return &t.v6
}

// check refuses what cannot be a route. (A zone cannot occur: netip takes it
// off when it makes a prefix.)
func check(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("prefix is invalid: %w", ErrPrefix)
	case p.Addr().Is4In6():
		return fmt.Errorf("prefix %s is IPv4 mapped into IPv6, want plain IPv4: %w", p, ErrPrefix)
	case p != p.Masked():
		return fmt.Errorf("prefix %s has bits set behind its length, want %s: %w", p, p.Masked(), ErrPrefix)
	}
	return nil
}

// SetRoute sends what p is the longest match of to nh: a new route, or another
// next hop for an old one. The next hop may be filled in before (then no
// packet is lost) or after by SetNextHop. It refuses prefixes that are invalid,
// unmasked or IPv4-mapped (ErrPrefix), and next hop 0 or above MaxNextHop
// (ErrNextHop): to drop, name a next hop whose adjacency is Blackhole. A route
// that there is takes another next hop also when the table has no room.
func (t *Table) SetRoute(p netip.Prefix, nh NextHopID) error {
	if err := check(p); err != nil {
		return err
	}
	if err := nh.check(); err != nil {
		return err
	}
	f, k, n := t.family(p.Addr().Is4()), keyOf(p.Addr()), p.Bits()
	t.now++
	was := f.routes.get(k, n)
	if was == 0 {
		if err := f.trie.reserve(); err != nil {
			return fmt.Errorf("add route %s: %w", p, err)
		}
	}
	if was != uint32(nh) {
		t.moved(p)
	}
	f.routes.set(k, n, uint32(nh))
	f.trie.set(k, n, uint32(nh))
	return nil
}

// DeleteRoute takes the route of exactly p away and reports whether there was one.
func (t *Table) DeleteRoute(p netip.Prefix) bool {
	if check(p) != nil {
		return false
	}
	f, k, n := t.family(p.Addr().Is4()), keyOf(p.Addr()), p.Bits()
	if !f.routes.remove(k, n) {
		return false
	}
	t.now++
	t.moved(p)
	_ = f.trie.reserve() // when full, the trie is merely not made smaller
	coverBits, coverHop := f.routes.cover(k, n)
	f.trie.clear(k, n, coverBits, coverHop)
	return true
}

// Route returns the next hop of exactly p.
func (t *Table) Route(p netip.Prefix) (NextHopID, bool) {
	if check(p) != nil {
		return NoRoute, false
	}
	hop := t.family(p.Addr().Is4()).routes.get(keyOf(p.Addr()), p.Bits())
	return NextHopID(hop), hop != 0
}

// Routes yields every route, IPv4 first, otherwise in no order. The loop's body
// must not change the table.
func (t *Table) Routes() iter.Seq2[netip.Prefix, NextHopID] {
	return func(yield func(netip.Prefix, NextHopID) bool) {
		for _, f := range []*family{&t.v4, &t.v6} {
			r := &f.routes
			for s, m := range r.meta {
				if m == 0 {
					continue
				}
				p := r.at(s).prefix(int(m>>metaLenShift), r.is4)
				if !yield(p, NextHopID(m&metaHopMask)) {
					return
				}
			}
		}
	}
}

// Len is the number of routes of both families.
func (t *Table) Len() int { return t.v4.routes.count + t.v6.routes.count }

// Generation is the number of the last change. The owner of the table notes
// it, waits until each reader has taken a View since (or is parked without
// one), and then calls Quiesced with it.
func (t *Table) Generation() uint64 { return uint64(t.now) }

// Moves counts the changes after which a packet may go to another next hop or leave
// by another port: of routes, of what next hops lead to, of an adjacency's port. A
// link-layer address that is learnt, lost or changed is none of them.
func (t *Table) Moves() uint64 { return t.routed + t.Shifts() }

// Shifts counts those of Moves that may concern any prefix: all but changes of routes.
func (t *Table) Shifts() uint64 { return t.moves + t.hops.moves }

// Watch has each change of a route told, within the call that makes it: to whose
// addresses packets may now go to another next hop. watch must not change the table.
func (t *Table) Watch(watch func(netip.Prefix)) { t.watch = watch }

func (t *Table) moved(p netip.Prefix) {
	if t.routed++; t.watch != nil {
		t.watch(p)
	}
}

// Quiesced lets the table reuse what changes up to that generation made unreachable.
// A reader that still uses a View from before may then be led astray.
func (t *Table) Quiesced(upTo uint64) {
	g := generation(upTo)
	t.v4.trie.quiesced(g)
	t.v6.trie.quiesced(g)
	t.hops.groups.quiesced(g)
	t.adjs.free.quiesced(g)
}

// Reclaim is Quiesced up to now: for an owner who knows that no View is in use.
func (t *Table) Reclaim() { t.Quiesced(t.Generation()) }

// Memory says where a Table's bytes are.
type Memory struct {
	Trie4, Trie6       int // cells, blocks and jumps
	Routes4, Routes6   int // the writer's list of prefixes
	NextHops, Adjacent int // groups included
	Waiting            int // indexes that wait for Quiesced
}

// Memory reports the memory that the table holds, in bytes.
func (t *Table) Memory() Memory {
	routeBytes := func(r *routes) int { return 8*len(r.hi) + 8*len(r.lo) + 4*len(r.meta) }
	waits := func(ps ...*pool) (n int) {
		for _, p := range ps {
			n += len(p.waiting)
		}
		return n
	}
	return Memory{
		Trie4: t.v4.trie.bytes(), Trie6: t.v6.trie.bytes(),
		Routes4: routeBytes(&t.v4.routes), Routes6: routeBytes(&t.v6.routes),
		NextHops: t.hops.bytes(), Adjacent: 4*len(t.adjs.slotOf) + 64*len(t.adjs.slots),
		Waiting: waits(&t.v4.trie.blocks, &t.v4.trie.jumps, &t.v6.trie.blocks, &t.v6.trie.jumps,
			&t.hops.groups, &t.adjs.free),
	}
}

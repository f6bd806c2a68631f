package fib

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// NextHopID is the index of a next hop, chosen by the writer. Routes name next
// hops, so that one change of a next hop moves all its routes.
type NextHopID uint32

const (
	// NoRoute is the answer to a lookup that no prefix matches; it resolves to
	// adjacency 0, which drops.
	NoRoute NextHopID = 0

	// MaxNextHop is the highest next hop that a table takes.
	MaxNextHop NextHopID = metaHopMask

	// MaxMembers is how many members a next hop may have.
	MaxMembers = Buckets

	// Buckets is how finely a group of several members is divided: shares are
	// rounded to 1/128.
	Buckets    = 1 << bucketBits
	bucketBits = 7
)

// Member is one way of a next hop.
type Member struct {
	Adjacency AdjacencyID
	Weight    uint16 // its share of the flows, relative to the others'; at least 1
}

// A word of nextHops.hops is an adjacency, or groupBit and a group.
const groupBit uint32 = 1 << 31

// nextHops is the table of next hops. Published: hops and buckets. The rest is
// the writer's.
type nextHops struct {
	hops    []uint32
	buckets []uint32      // Buckets adjacencies per group; 0 when all members are down
	home    []AdjacencyID // the same, when all members are up
	members [][]Member
	groups  pool
	down    map[AdjacencyID]struct{}
	moves   uint64 // of buckets
}

func newNextHops(now *generation) nextHops {
	return nextHops{
		hops:   make([]uint32, 1024),
		groups: pool{now: now},
		down:   make(map[AdjacencyID]struct{}),
	}
}

func (h *nextHops) bytes() int { return 4 * (len(h.hops) + len(h.buckets) + len(h.home)) }

func (id NextHopID) check() error {
	if id == NoRoute || id > MaxNextHop {
		return fmt.Errorf("next hop is %d, want 1 to %d: %w", id, MaxNextHop, ErrNextHop)
	}
	return nil
}

// SetNextHop gives next hop id its members: none (it drops from now on), one
// (all goes there), or several: an ECMP group, whose flows are spread over
// Buckets by their hash. A change of members moves as few buckets as it can:
// when a member leaves only its own flows move, and one that joins takes just
// its share. It refuses id 0 or above MaxNextHop, more than MaxMembers members,
// weight 0, adjacency 0 and an adjacency named twice (ErrNextHop).
func (t *Table) SetNextHop(id NextHopID, members []Member) error {
	if err := id.check(); err != nil {
		return err
	}
	if err := checkMembers(members); err != nil {
		return fmt.Errorf("set next hop %d: %w", id, err)
	}
	t.now++
	if int(id) >= len(t.hops.hops) {
		t.hops.hops = grow(t.hops.hops, int(id))
		t.publish()
	}
	for _, m := range members {
		t.roomForAdjacency(m.Adjacency)
	}
	old := t.hops.hops[id]
	word := uint32(0)
	switch {
	case len(members) == 1:
		word = uint32(members[0].Adjacency)
	case len(members) > 1 && old&groupBit != 0:
		t.hops.regroup(old&^groupBit, members)
		return nil
	case len(members) > 1:
		word = groupBit | t.newGroup(AdjacencyID(old), members)
	}
	if word != old {
		t.moves++
	}
	atomic.StoreUint32(&t.hops.hops[id], word)
	if old&groupBit != 0 {
		t.hops.members[old&^groupBit] = nil
		t.hops.groups.retire(old &^ groupBit)
	}
	return nil
}

func checkMembers(members []Member) error {
	if len(members) > MaxMembers {
		return fmt.Errorf("%d members, want at most %d: %w", len(members), MaxMembers, ErrNextHop)
	}
	seen := make(map[AdjacencyID]struct{}, len(members))
	for _, m := range members {
		if err := m.Adjacency.check(); err != nil {
			return err
		}
		if m.Weight == 0 {
			return fmt.Errorf("weight of adjacency %d is 0, want at least 1: %w", m.Adjacency, ErrNextHop)
		}
		if _, twice := seen[m.Adjacency]; twice {
			return fmt.Errorf("adjacency %d is a member twice: %w", m.Adjacency, ErrNextHop)
		}
		seen[m.Adjacency] = struct{}{}
	}
	return nil
}

// newGroup returns a group that no reader can see yet. Where the next hop had
// one adjacency before, that one keeps its share of the flows.
func (t *Table) newGroup(before AdjacencyID, members []Member) uint32 {
	h := &t.hops
	g, ok := h.groups.take()
	if !ok {
		g = uint32(len(h.members))
		h.members = append(h.members, nil)
		if n := len(h.members) * Buckets; n > len(h.buckets) {
			h.buckets, h.home = grow(h.buckets, n-1), grow(h.home, n-1)
			t.publish()
		}
	}
	now, home := h.group(g)
	for i := range home {
		now[i], home[i] = uint32(before), before
	}
	h.regroup(g, members)
	return g
}

// group returns the buckets of g in force, and those when all members are up.
func (h *nextHops) group(g uint32) (now []uint32, home []AdjacencyID) {
	at := int(g) * Buckets
	return h.buckets[at : at+Buckets], h.home[at : at+Buckets]
}

// SetMemberDown takes adjacency adj out of every group at once (its carrier or
// its neighbour failed), or puts it back. Only flows of adj move; on its return
// it takes back exactly the buckets that are its own. A group whose members are
// all down drops. A next hop of one member stays as it is: there is no other
// way, and the adjacency's Kind says what becomes of the packets.
func (t *Table) SetMemberDown(adj AdjacencyID, down bool) {
	t.now++
	h := &t.hops
	if down {
		h.down[adj] = struct{}{}
	} else {
		delete(h.down, adj)
	}
	for g, members := range h.members {
		if slices.ContainsFunc(members, func(m Member) bool { return m.Adjacency == adj }) {
			h.settle(uint32(g))
		}
	}
}

// MemberDown reports whether adj was taken out of its groups.
func (t *Table) MemberDown(adj AdjacencyID) bool {
	_, down := t.hops.down[adj]
	return down
}

// Members returns the members of a next hop as SetNextHop was given them;
// the weight of an only member is reported as 1.
func (t *Table) Members(id NextHopID) []Member {
	if int(id) >= len(t.hops.hops) || t.hops.hops[id] == 0 {
		return nil
	}
	w := t.hops.hops[id]
	if w&groupBit == 0 {
		return []Member{{AdjacencyID(w), 1}}
	}
	return slices.Clone(t.hops.members[w&^groupBit])
}

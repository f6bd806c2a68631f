package fib

import (
	"fmt"
	"net/netip"
	"sync/atomic"
)

// AdjacencyID is the index of an adjacency, chosen by the writer. 0 is reserved
// for the adjacency that drops.
type AdjacencyID uint32

// MaxAdjacency is the highest adjacency that a table takes.
const MaxAdjacency AdjacencyID = 1<<22 - 1

// Kind is what an adjacency does with a packet.
type Kind uint8

// The kinds of adjacencies.
const (
	Drop       Kind = iota // no route: drop with that reason
	Attached               // an on-link prefix: resolve the destination itself
	Rewrite                // complete: prepend Header (nothing on L3 ports) and send
	Incomplete             // Gateway's address on the link is not known: resolve, then send
	Punt                   // hand to the host port
	Blackhole              // drop without a word
	Prohibit               // drop, answer "administratively prohibited"
	Local                  // an address of ours: answer or punt
)

var kindNames = [...]string{"drop", "attached", "rewrite", "incomplete", "punt", "blackhole", "prohibit", "local"}

// String is the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// HeaderSize is the room for layer 2 bytes in an adjacency: Ethernet with up to
// three VLAN tags.
const HeaderSize = 26

// Adjacency is what the graph needs to send a packet to a neighbour: one cache
// line, without pointers.
type Adjacency struct {
	Header    [HeaderSize]byte // layer 2 bytes to prepend
	HeaderLen uint8            // of them in use; 0 on layer 3 ports
	Kind      Kind
	Port      uint16   // index of the graph's port
	Flags     uint16   // the graph's own; the FIB does not read them
	MTU       uint32   // largest layer 3 packet, in bytes
	Gateway   [16]byte // address to resolve, IPv4 mapped; zero: the destination itself
	_         [12]byte
}

// end is where packets go that an adjacency sends: a port, whether or not the
// neighbour's address is known, or what the other kinds do.
func (a *Adjacency) end() (e struct {
	kind Kind
	port uint16
}) {
	switch a.Kind {
	case Attached, Rewrite, Incomplete:
		e.kind, e.port = Rewrite, a.Port
	default:
		e.kind = a.Kind
	}
	return e
}

// SetGateway stores the address of the next hop; the zero Addr clears it.
func (a *Adjacency) SetGateway(gw netip.Addr) {
	a.Gateway = [16]byte{}
	if gw.IsValid() {
		a.Gateway = gw.As16()
	}
}

// GatewayAddr returns the address of the next hop, unmapped; the zero Addr
// where the destination itself is meant.
func (a *Adjacency) GatewayAddr() netip.Addr {
	if a.Gateway == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.Gateway).Unmap()
}

// adjacencies: an id names a slot, and a change writes a fresh slot, so that no
// reader sees half of one. Slot 0 stays zero, which is Drop.
type adjacencies struct {
	slotOf []uint32
	slots  []Adjacency
	next   uint32 // first slot that was never used
	free   pool
}

func newAdjacencies(now *generation) adjacencies {
	const start = 1024
	return adjacencies{
		slotOf: make([]uint32, start),
		slots:  make([]Adjacency, start),
		next:   1,
		free:   pool{now: now},
	}
}

// grow returns a copy of s that has room for index i, at least twice as long.
func grow[T any](s []T, i int) []T {
	bigger := make([]T, max(2*len(s), i+1))
	copy(bigger, s)
	return bigger
}

// SetAdjacency puts a in force under id. Readers see the old one or the new one
// whole. The zero Adjacency frees the slot of an id that is no longer used. It
// refuses id 0, ids above MaxAdjacency, and a HeaderLen above HeaderSize.
func (t *Table) SetAdjacency(id AdjacencyID, a Adjacency) error {
	if err := id.check(); err != nil {
		return err
	}
	if a.HeaderLen > HeaderSize {
		return fmt.Errorf("set adjacency %d: header of %d bytes, want at most %d", id, a.HeaderLen, HeaderSize)
	}
	t.now++
	t.roomForAdjacency(id)
	s := &t.adjs
	slot := uint32(0)
	if a != (Adjacency{}) {
		slot = t.freshSlot()
		s.slots[slot] = a
	}
	old := s.slotOf[id]
	if s.slots[old].end() != a.end() {
		t.moves++
	}
	if old != 0 {
		s.free.retire(old)
	}
	atomic.StoreUint32(&s.slotOf[id], slot)
	return nil
}

func (id AdjacencyID) check() error {
	if id == 0 || id > MaxAdjacency {
		return fmt.Errorf("adjacency is %d, want 1 to %d: %w", id, MaxAdjacency, ErrNextHop)
	}
	return nil
}

// roomForAdjacency makes id an index that views can follow.
func (t *Table) roomForAdjacency(id AdjacencyID) {
	if int(id) >= len(t.adjs.slotOf) {
		t.adjs.slotOf = grow(t.adjs.slotOf, int(id))
		t.publish()
	}
}

// freshSlot returns a slot that no reader can see.
func (t *Table) freshSlot() uint32 {
	s := &t.adjs
	if slot, ok := s.free.take(); ok {
		return slot
	}
	if int(s.next) == len(s.slots) {
		s.slots = grow(s.slots, int(s.next))
		t.publish()
	}
	s.next++
	return s.next - 1
}

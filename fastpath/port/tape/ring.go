package tape

import (
	"encoding/binary"
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

const (
	// ringSize is the bytes that wait between a worker and a file: what a
	// Player or a Recorder keeps in memory, beside half a MiB to read or write.
	ringSize = 4 << 20
	// MaxPacket is the most bytes of a packet that passes: an IP packet of any
	// length, with Ethernet header and VLAN tag.
	MaxPacket = 1<<16 - 1 + pkt.EthernetSize + pkt.VLANSize

	// A slot begins with its packet's bytes, length on the wire, time and mark.
	slotHead = 24
	slotEdge = 1<<32 - 1 // in place of the bytes: the rest of the ring is unused
)

// slot is one packet in a ring.
type slot struct {
	data  []byte
	at    int64
	mark  uint8
	bytes uint64 // that it takes in the ring
}

// ring carries packets from one goroutine to one other, in slots that lie in one
// piece. One of the two is a worker, which must not wait; the other sleeps when
// there is nothing to be done.
type ring struct {
	buf    []byte // ringSize
	wake   chan struct{}
	asleep atomic.Bool // the one that may sleep does

	_    [64]byte // what the two ends write lies on lines of its own
	tail atomic.Uint64
	put  uint64 // the producer's tail, ahead of what it has published
	seen uint64 // the head as the producer saw it last

	_    [64]byte
	head atomic.Uint64
	got  uint64 // the consumer's head, ahead of what it has published
	more uint64 // the tail as the consumer saw it last
}

func newRing() *ring {
	return &ring{buf: make([]byte, ringSize), wake: make(chan struct{}, 1)}
}

// slotSize is what a packet of n bytes takes, in words of 8.
//
//fastpath:hot
func slotSize(n int) uint64 { return uint64(slotHead+n+7) &^ 7 }

// reserve gives room for a packet of n bytes, at most MaxPacket; nil when there
// is none. The consumer does not see it before publish.
//
//fastpath:hot
func (r *ring) reserve(n int, at int64, mark uint8) []byte {
	need := slotSize(n)
	from := r.put % ringSize
	edge := uint64(0)
	if from+need > ringSize {
		edge = ringSize - from
	}
	if r.put+edge+need-r.seen > ringSize {
		if r.seen = r.head.Load(); r.put+edge+need-r.seen > ringSize {
			return nil
		}
	}
	if edge > 0 {
		binary.NativeEndian.PutUint32(r.buf[from:], slotEdge)
		r.put += edge
		from = 0
	}
	s := r.buf[from : from+need]
	binary.NativeEndian.PutUint32(s, uint32(n))
	s[4] = mark
	binary.NativeEndian.PutUint64(s[8:], uint64(at))
	r.put += need
	return s[slotHead : slotHead+n]
}

// publish lets the consumer see what was reserved.
//
//fastpath:hot
func (r *ring) publish() { r.tail.Store(r.put) }

// next looks at the oldest packet, which stays until drop.
//
//fastpath:hot
func (r *ring) next() (s slot, ok bool) {
	for {
		if r.got == r.more {
			if r.more = r.tail.Load(); r.got == r.more {
				return slot{}, false
			}
		}
		from := r.got % ringSize
		n := binary.NativeEndian.Uint32(r.buf[from:])
		if n != slotEdge {
			at := r.buf[from:]
			s.data = at[slotHead : slotHead+n]
			s.mark, s.at, s.bytes = at[4], int64(binary.NativeEndian.Uint64(at[8:])), slotSize(int(n))
			return s, true
		}
		r.got += ringSize - from
	}
}

// drop takes s, which next gave, off the ring. The producer gets its room after
// release.
//
//fastpath:hot
func (r *ring) drop(s slot) { r.got += s.bytes }

// release gives the producer the room of what was dropped.
//
//fastpath:hot
func (r *ring) release() { r.head.Store(r.got) }

// empty says that nothing published waits. Any goroutine may call it.
func (r *ring) empty() bool { return r.head.Load() == r.tail.Load() }

// roomy says that at least half of the ring is free. Any goroutine may call it.
//
//fastpath:hot
func (r *ring) roomy() bool { return r.tail.Load()-r.head.Load() <= ringSize/2 }

// rouse wakes the goroutine that sleeps at the other end, if it does.
//
//fastpath:hot
func (r *ring) rouse() {
	if r.asleep.Load() {
		r.nudge()
	}
}

// nudge never blocks: a token that is there already will do.
func (r *ring) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// sleep waits until rouse, unless ready is true already. It says false when stop
// is closed instead. Whoever rouses acts before it looks whether we are asleep.
func (r *ring) sleep(stop <-chan struct{}, ready func() bool) bool {
	r.asleep.Store(true)
	defer r.asleep.Store(false)
	if ready() {
		return true
	}
	select {
	case <-r.wake:
		return true
	case <-stop:
		return false
	}
}

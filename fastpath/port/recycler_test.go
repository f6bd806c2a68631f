package port

import (
	"fmt"
	"math/bits"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// RecyclerConfig says what a Recycler hands out.
type RecyclerConfig struct {
	Packets [][]byte // handed out in turn, at least 1, each up to a frame less headroom
	Frames  int      // frames in circulation: the working set, a power of two
	Restore int      // bytes at the front of each packet written anew at every turn, at least 64
}

// Recycler is a queue that always has packets and takes back what it sends, at a
// cost of nanoseconds: the load of benchmarks. Frames circulate first in, first
// out, as a ring of a NIC has them; what the graph drops is replaced.
type Recycler struct {
	cfg   RecyclerConfig
	next  int        // packet to be handed out next
	ring  []umem.Buf // frames at rest
	head  uint32     // next to be handed out
	tail  uint32     // next place for one that comes back
	given uint64
	taken uint64
}

// NewRecycler makes a recycling queue.
func NewRecycler(cfg RecyclerConfig) (*Recycler, error) {
	switch {
	case len(cfg.Packets) == 0:
		return nil, fmt.Errorf("make recycler: it has no packets")
	case cfg.Frames < 1 || bits.OnesCount(uint(cfg.Frames)) != 1:
		return nil, fmt.Errorf("make recycler: frames is %d, want a power of two", cfg.Frames)
	}
	for i, p := range cfg.Packets {
		if len(p) == 0 || len(p) > chunkRoom {
			return nil, fmt.Errorf("make recycler: packet %d has %d bytes, want 1 to %d", i, len(p), chunkRoom)
		}
	}
	return &Recycler{cfg: cfg, ring: make([]umem.Buf, cfg.Frames)}, nil
}

// RxBurst hands out the next packets.
//
//fastpath:hot
func (q *Recycler) RxBurst(io *graph.IO, ms []graph.Meta) int {
	if int(q.tail-q.head) < len(ms) {
		q.refill(io, len(ms))
	}
	n := min(len(ms), int(q.tail-q.head))
	mask, restore := uint32(len(q.ring)-1), max(64, q.cfg.Restore)
	for i := range ms[:n] {
		p := q.cfg.Packets[q.next]
		if q.next++; q.next == len(q.cfg.Packets) {
			q.next = 0
		}
		b := q.ring[q.head&mask]
		q.head++
		off := io.Arena.Start(b) + umem.Headroom
		if dst := io.Mem[off : off+chunkRoom]; len(p) >= 64 {
			*(*[64]byte)(dst) = *(*[64]byte)(p) // a cache line, without a call
			if restore > 64 {
				copy(dst[64:], p[64:min(len(p), restore)])
			}
		} else {
			copy(dst, p)
		}
		m := &ms[i]
		*m = graph.Meta{} // field by field: a literal is made elsewhere and copied
		m.Off, m.Len, m.Head, m.Buf = off, uint32(len(p)), uint32(len(p)), b
		m.Bufs, m.Segments = 1, 1
	}
	q.given += uint64(n)
	return n
}

// refill brings new frames into circulation at the start, and for those that the
// graph dropped.
func (q *Recycler) refill(io *graph.IO, want int) {
	for want = min(want, len(q.ring)); q.given-q.taken+uint64(q.tail-q.head) < uint64(len(q.ring)) || int(q.tail-q.head) < want; {
		b, ok := io.Cache.Frame()
		if !ok {
			return
		}
		off := io.Arena.Start(b) + umem.Headroom
		for _, p := range q.cfg.Packets {
			if len(p) > q.cfg.Restore { // the part that stays: of the first long packet
				copy(io.Mem[off:off+chunkRoom], p)
				break
			}
		}
		q.ring[q.tail&uint32(len(q.ring)-1)] = b
		q.tail++
	}
}

// TxBurst takes packets back, of whatever port.
//
//fastpath:hot
func (q *Recycler) TxBurst(io *graph.IO, v *graph.Vector) int {
	mask := uint32(len(q.ring) - 1)
	for i := range v.Len() {
		m := v.Meta(i)
		if m.Bufs != 1 || !io.Arena.IsFrame(m.Buf) || int(q.tail-q.head) == len(q.ring) {
			io.Free(m)
			continue
		}
		q.ring[q.tail&mask] = m.Buf
		q.tail++
	}
	q.taken += uint64(v.Len())
	return 0
}

// Packets is how many were handed out and how many came back.
func (q *Recycler) Packets() (given, taken uint64) { return q.given, q.taken }

// Poll has nothing to do.
//
//fastpath:hot
func (q *Recycler) Poll(*graph.IO) bool { return false }

// FD is -1: there is nothing to wait for.
func (q *Recycler) FD() int { return -1 }

// InMemory is true.
func (q *Recycler) InMemory() bool { return true }

// Close gives the frames at rest to c.
func (q *Recycler) Close(c *umem.Cache) {
	for ; q.head != q.tail; q.head++ {
		c.Free(q.ring[q.head&uint32(len(q.ring)-1)])
	}
}

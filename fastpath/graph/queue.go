package graph

import "margay.dev/margay/fastpath/umem"

// MaxPorts is the number of port indexes; a port index is below it.
const MaxPorts = 4096

// Queue is one receive and transmit pair of a port, owned by one worker.
// Package port has the implementations.
type Queue interface {
	// RxBurst fills ms from the front with packets that came in and returns
	// how many. It sets every field of a Meta but InPort. A packet that it
	// must drop itself it hands to IO.DropRx.
	RxBurst(io *IO, ms []Meta) int
	// TxBurst sends the packets of v, whose Reason is NoReason. Of those it
	// accepted it owns the buffers and frees them in its time; at each other
	// packet it leaves Meta.Reason, and the caller still owns that packet. It
	// returns how many those are.
	TxBurst(io *IO, v *Vector) (refused int)
	// Poll does what is due between bursts: takes back sent buffers, kicks a
	// kernel that still has frames to send, keeps the fill ring full.
	// It says whether the kernel still holds frames it has yet to send.
	Poll(io *IO) (pending bool)
	// FD is what a sleeping worker waits on, or -1.
	FD() int
	// InMemory says that RxBurst costs no system call when nothing came, so
	// that the worker need not ask first whether FD is readable.
	InMemory() bool
}

// IO is what a queue needs of the worker that drives it.
type IO struct {
	Arena *umem.Arena
	Cache *umem.Cache
	Mem   []byte // Arena.Bytes
	Now   int64  // monotonic nanoseconds, read once per pass
	count *Counters
	shown *Worker // who shows to a Tap what is refused; nil while nobody looks
}

// NewIO makes an IO for a queue that no worker drives: tests and benchmarks.
func NewIO(a *umem.Arena, c *umem.Cache) *IO {
	return &IO{Arena: a, Cache: c, Mem: a.Bytes(), count: new(Counters)}
}

// DropRx counts m, a packet that its queue received and drops at once, for r, and
// lets it be looked at. Its buffers stay the queue's. Bufs and Head are 0 where none
// of its bytes has come into the arena.
//
//fastpath:hot
func (io *IO) DropRx(r Reason, m *Meta) {
	io.count.Rx += uint64(m.Segments)
	io.count.Drops[r] += uint64(m.Segments)
	if io.shown != nil {
		io.shown.refused(m, r)
	}
}

// Free gives a packet's buffers back.
//
//fastpath:hot
func (io *IO) Free(m *Meta) { io.Cache.FreeChain(m.Buf, int(m.Bufs)) }

// Gather copies bytes of m from offset from on into to, from all its buffers. It
// returns how many there were.
func (io *IO) Gather(m *Meta, from int, to []byte) int {
	part, b, got := io.Mem[m.Off:m.Off+m.Head], m.Buf, 0
	for bufs := m.Bufs; got < len(to); bufs-- {
		if from < len(part) {
			got += copy(to[got:], part[from:])
		}
		from = max(0, from-len(part))
		if bufs <= 1 {
			break
		}
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		start := io.Arena.Start(b) + uint32(s.Off)
		part = io.Mem[start : start+uint32(s.Len)]
	}
	return got
}

// Counters is the account that the queue's drops went to.
func (io *IO) Counters() *Counters { return io.count }

// NewVector gathers metas into a vector, for tests and benchmarks that call a
// node or a queue by themselves. At most VectorMax are taken.
func NewVector(metas ...Meta) *Vector {
	v := &Vector{meta: new(Slots)}
	for i, m := range metas[:min(len(metas), VectorMax)] {
		v.meta[i] = m
		v.idx = append(v.idx, uint16(i))
	}
	return v
}

package graphtest

import (
	"sync"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// Packet is a packet outside the arena.
type Packet struct {
	Bytes []byte
	// Meta is what is known of it besides its bytes. Of one that is injected
	// Flags, GSO, GSOSize, Segments, CsumStart and CsumOffset are taken; of
	// one that was collected all but the buffers' places is good.
	Meta graph.Meta
	// Pieces are the bytes in each buffer but the last, for packets that are
	// to fill several frames. Without them a packet has one frame, or a super.
	Pieces []int
	// Refuse is why the queue drops it at reception, if it does.
	Refuse graph.Reason
}

// Queue is a graph.Queue whose other side is a test.
type Queue struct {
	mu      sync.Mutex
	in, out []Packet
	at      int

	repeat, discard bool
	refuse          graph.Reason
	sent            int
}

// NewQueue makes a queue with nothing in it.
func NewQueue() *Queue { return &Queue{} }

// Inject lets packets come in. Any goroutine may call it.
func (q *Queue) Inject(ps ...Packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.in = append(q.in, ps...)
}

// Collect takes what was transmitted. Any goroutine may call it.
func (q *Queue) Collect() []Packet {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.out
	q.out = nil
	return out
}

// Loop hands ps out again and again, until End; what is transmitted from now on
// is only counted. It is for benchmarks. Any goroutine may call it.
func (q *Queue) Loop(ps ...Packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.in, q.at, q.repeat, q.discard = ps, 0, true, true
}

// Refuse makes the queue refuse every packet for r, and with NoReason none.
// Any goroutine may call it.
func (q *Queue) Refuse(r graph.Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refuse = r
}

// End lets nothing more come in. Any goroutine may call it.
func (q *Queue) End() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.repeat, q.in, q.at = false, nil, 0
}

// Sent is how many packets were transmitted.
func (q *Queue) Sent() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent
}

// Waiting is how many packets were injected and not yet received.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.in) - q.at
}

// RxBurst copies injected packets into buffers.
func (q *Queue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	got := 0
	for got < len(ms) && q.at < len(q.in) {
		p := &q.in[q.at]
		q.at++
		m := &ms[got]
		switch {
		case !put(io, p, m):
			m.Head, m.Bufs = 0, 0
			io.DropRx(graph.RxNoBuffer, m)
		case p.Refuse != graph.NoReason:
			io.DropRx(p.Refuse, m)
			io.Free(m)
		default:
			got++
		}
		if q.at == len(q.in) && q.repeat {
			q.at = 0
		}
	}
	if q.at == len(q.in) && !q.repeat {
		q.in, q.at = nil, 0
	}
	return got
}

// put lays p out in buffers and describes it by m.
func put(io *graph.IO, p *Packet, m *graph.Meta) bool {
	k := &p.Meta
	*m = graph.Meta{Len: uint32(len(p.Bytes)), Head: uint32(len(p.Bytes)), Bufs: 1, Segments: max(1, k.Segments),
		Flags: k.Flags, GSO: k.GSO, GSOSize: k.GSOSize, CsumStart: k.CsumStart, CsumOffset: k.CsumOffset}
	if len(p.Pieces) > 0 {
		return chain(io, p, m)
	}
	var ok bool
	if len(p.Bytes) <= umem.ChunkSize-umem.Headroom {
		m.Buf, ok = io.Cache.Frame()
	} else {
		m.Buf, ok = io.Cache.Super()
	}
	if !ok {
		return false
	}
	m.Off = io.Arena.Start(m.Buf) + umem.Headroom
	copy(io.Mem[m.Off:m.Off+m.Len], p.Bytes)
	return true
}

// chain spreads p over frames as its Pieces say.
func chain(io *graph.IO, p *Packet, m *graph.Meta) bool {
	rest, last := p.Bytes, umem.None
	for i := 0; i <= len(p.Pieces); i++ {
		b, ok := io.Cache.Frame()
		if !ok {
			if i > 0 {
				io.Cache.FreeChain(m.Buf, i)
			}
			return false
		}
		n := len(rest)
		if i < len(p.Pieces) {
			n = p.Pieces[i]
		}
		off := io.Arena.Start(b) + umem.Headroom
		copy(io.Mem[off:off+uint32(n)], rest)
		rest = rest[n:]
		*io.Arena.Segment(b) = umem.Segment{Next: umem.None, Off: umem.Headroom, Len: uint16(n)}
		if i == 0 {
			m.Buf, m.Off, m.Head = b, off, uint32(n)
		} else {
			io.Arena.Segment(last).Next = b
		}
		m.Bufs, last = uint8(i+1), b
	}
	return true
}

// TxBurst keeps a copy of each packet for Collect.
func (q *Queue) TxBurst(io *graph.IO, v *graph.Vector) (refused int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range v.Len() {
		m := v.Meta(i)
		if q.refuse != graph.NoReason {
			m.Reason = q.refuse
			refused++
			continue
		}
		if !q.discard {
			q.out = append(q.out, Packet{Bytes: bytesOf(io, m), Meta: *m})
		}
		q.sent++
		io.Free(m)
	}
	return refused
}

// bytesOf is a copy of a packet, from all its buffers. A chain whose lengths
// contradict the packet's is a bug of a node, and panics.
func bytesOf(io *graph.IO, m *graph.Meta) []byte {
	p := append([]byte(nil), io.Mem[m.Off:m.Off+m.Head]...)
	for b, n := m.Buf, m.Bufs; n > 1; n-- {
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		off := io.Arena.Start(b) + uint32(s.Off)
		p = append(p, io.Mem[off:off+uint32(s.Len)]...)
	}
	if len(p) != int(m.Len) {
		panic("a packet's buffers hold another number of bytes than its length says")
	}
	if start := io.Arena.Start(m.Buf); m.Off < start || m.Off+m.Head > start+io.Arena.Room(m.Buf) {
		panic("a packet reaches beyond its buffer")
	}
	return p
}

// Poll has nothing to do.
func (q *Queue) Poll(*graph.IO) bool { return false }

// FD is none: a sleeping worker looks again at its next tick.
func (q *Queue) FD() int { return -1 }

// InMemory is true.
func (q *Queue) InMemory() bool { return true }

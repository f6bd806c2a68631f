package port

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

const (
	ringBatch = 64       // entries moved at once
	patience  = 1e6      // ns without progress after which we wait for the kernel asleep
	downPause = 10 * 1e6 // ns between looks at a port that is down
)

// xskQueue is one AF_XDP socket as a queue of the graph. Every frame that the
// kernel has is lent to holder: those on the fill ring and on the way back from
// it, and those given to the tx ring and not completed.
type xskQueue struct {
	socket *xsk.Socket
	holder umem.Holder
	mtu    *atomic.Int32

	lacking  int // frames that the fill ring should have and has not
	at, got  int // what is left in rx
	down     bool
	gone     bool
	lookAt   int64 // when to look again at a port that is down
	movedAt  int64 // when the kernel last took something off the tx ring
	low      lowering
	rx       [ringBatch + xsk.MaxChunks]xsk.Desc
	addrs    [ringBatch]uint64
	frames   [ringBatch]umem.Buf
	starving bool

	starved, stalls atomic.Uint64
}

// RxBurst takes packets off the rx ring and fills up the fill ring.
//
//fastpath:hot
func (q *xskQueue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	n := 0
	for n < len(ms) {
		if q.at == q.got {
			q.at, q.got = 0, q.socket.Receive(q.rx[:])
			if q.got == 0 {
				break
			}
			q.lacking += q.got
		}
		q.at += q.packet(io, q.rx[q.at:q.got], &ms[n])
		n++
	}
	if q.lacking >= ringBatch || n == 0 && q.lacking > 0 {
		q.fill(io)
	}
	return n
}

// packet makes one packet of the first descriptors of d and returns how many.
//
//fastpath:hot
func (q *xskQueue) packet(io *graph.IO, d []xsk.Desc, m *graph.Meta) int {
	b := umem.FrameAt(d[0].Addr)
	io.Arena.Lend(b, umem.Graph)
	*m = graph.Meta{} // field by field: a literal is made elsewhere and copied
	m.Off, m.Len, m.Head, m.Buf, m.Segments = uint32(d[0].Addr), d[0].Len, d[0].Len, b, 1
	n := 1
	for d[n-1].Options&xsk.PktContd != 0 && n < len(d) {
		next := umem.FrameAt(d[n].Addr)
		io.Arena.Lend(next, umem.Graph)
		io.Arena.Segment(b).Next = next
		*io.Arena.Segment(next) = umem.Segment{
			Next: umem.None, Off: uint16(d[n].Addr % umem.ChunkSize), Len: uint16(d[n].Len),
		}
		m.Len += d[n].Len
		b = next
		n++
	}
	m.Bufs = uint8(n)
	return n
}

// fill gives the kernel frames to receive into, as many as it lacks or as can be
// spared.
//
//fastpath:hot
func (q *xskQueue) fill(io *graph.IO) {
	for q.lacking > 0 {
		want := min(q.lacking, ringBatch)
		got := io.Cache.Surplus(q.frames[:want])
		for i, b := range q.frames[:got] {
			io.Arena.Lend(b, q.holder)
			q.addrs[i] = uint64(io.Arena.Start(b))
		}
		took := q.socket.Fill(q.addrs[:got])
		for _, b := range q.frames[took:got] {
			io.Arena.Lend(b, umem.Graph)
			io.Cache.Free(b)
		}
		q.lacking -= took
		if took < want {
			q.hunger(got < want)
			return
		}
	}
	q.starving = false
}

// hunger counts the times that we ran out of frames.
//
//fastpath:hot
func (q *xskQueue) hunger(starving bool) {
	if starving && !q.starving {
		q.starved.Add(1)
	}
	q.starving = starving
}

// complete takes back the frames that the kernel has sent.
//
//fastpath:hot
func (q *xskQueue) complete(io *graph.IO) {
	for q.socket.TransmitPending() > 0 {
		n := q.socket.Complete(q.addrs[:])
		for _, addr := range q.addrs[:n] {
			b := umem.FrameAt(addr)
			io.Arena.Lend(b, umem.Graph)
			io.Cache.Free(b)
		}
		if n < len(q.addrs) {
			return
		}
	}
}

// TxBurst puts packets on the tx ring, superpackets as their segments, and has
// the kernel send them.
//
//fastpath:hot
func (q *xskQueue) TxBurst(io *graph.IO, v *graph.Vector) int {
	q.complete(io)
	if q.gone || q.down && !q.kick(io) {
		return refuseAll(v, graph.TxDown)
	}
	refused := 0
	mtu := int(q.mtu.Load())
	room := int(q.socket.TransmitFree())
	for i := range v.Len() {
		if q.low.full() {
			q.send(io)
		}
		m := v.Meta(i)
		before := q.low.n
		r := q.low.lower(io, m, room, mtu)
		if r == graph.TxFull {
			room = q.makeRoom(io)
			before = 0
			r = q.low.lower(io, m, room, mtu)
		}
		if r != graph.NoReason {
			m.Reason = r
			refused++
		}
		room -= q.low.n - before
	}
	q.send(io)
	q.kick(io)
	return refused
}

// makeRoom has the kernel send what waits, and returns the room on the tx ring.
//
//fastpath:hot
func (q *xskQueue) makeRoom(io *graph.IO) int {
	q.send(io)
	q.kick(io)
	q.complete(io)
	return int(q.socket.TransmitFree())
}

// send puts what was lowered on the tx ring, which has room for it.
//
//fastpath:hot
func (q *xskQueue) send(io *graph.IO) {
	out := q.low.out[:q.low.n]
	for i := range out {
		io.Arena.Lend(umem.FrameAt(out[i].Addr), q.holder)
	}
	took := q.socket.Transmit(out)
	for _, d := range out[took:] { // not while lower is given the ring's room
		b := umem.FrameAt(d.Addr)
		io.Arena.Lend(b, umem.Graph)
		io.Cache.Free(b)
	}
	q.low.n = 0
}

// kick has the kernel send what is on the tx ring, once. It says whether the
// port is up.
//
//fastpath:hot
func (q *xskQueue) kick(io *graph.IO) bool {
	if !q.down && !q.socket.KickNeeded() {
		return true
	}
	before := q.socket.TransmitQueued()
	errno := q.socket.Kick()
	if q.socket.TransmitQueued() != before {
		q.movedAt = io.Now
	}
	switch errno {
	case unix.ENETDOWN:
		q.down, q.lookAt = true, io.Now+downPause
	case unix.ENXIO, unix.EBADF:
		q.down, q.gone = true, true
	default: // sent, or to be kicked again by Poll: EAGAIN, EBUSY, ENOBUFS, EOVERFLOW
		q.down = false
	}
	return !q.down
}

// Poll takes back what was sent, keeps the fill ring full, and kicks a kernel
// that has not sent all. It says true while the kernel goes on taking packets
// off the tx ring; once it has stopped (port down, or its completion ring full
// of packets that receivers sit on) only the next burst or tick tries again.
//
//fastpath:hot
func (q *xskQueue) Poll(io *graph.IO) bool {
	q.complete(io)
	if q.gone {
		return false
	}
	if q.lacking > 0 {
		q.fill(io)
	}
	if q.socket.WakeNeeded() {
		q.socket.WakeReceive()
	}
	if q.socket.TransmitQueued() == 0 || q.down && io.Now < q.lookAt {
		return false
	}
	if !q.kick(io) || q.socket.TransmitQueued() == 0 {
		return false
	}
	if io.Now-q.movedAt < patience {
		return true
	}
	q.stalls.Add(1)
	return false
}

// FD is the socket, readable when packets came.
func (q *xskQueue) FD() int { return q.socket.FD() }

// InMemory is true: looking for packets reads a ring.
func (q *xskQueue) InMemory() bool { return true }

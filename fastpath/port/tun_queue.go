package port

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tundev"
	"margay.dev/margay/fastpath/umem"
)

const (
	// burstBytes bounds what one burst reads, so that it stays in the cache
	// while the graph walks it.
	burstBytes = 256 << 10
	// copyMost is the size up to which a packet is copied to a frame, so that
	// its read buffer of 68 KiB is free for the next one at once.
	copyMost = umem.ChunkSize - umem.Headroom
	maxPiece = graph.VectorMax // pieces of one writev
	maxHead  = 60 + 60         // bytes of headers in a train: IP and TCP with all options they can have
)

// tunQueue is one queue of a TUN device.
type tunQueue struct {
	fd    int
	gone  bool // the device has been deleted
	spare umem.Buf
	// refused counts the packets of this burst that stay the caller's.
	refused int
	// gro coalesces what is transmitted within a burst.
	gro    groTable
	pieces [maxPiece]tundev.Piece
	before [maxHead]byte // headers of a train's first packet, as they came

	trains, segments, badSums, vanished atomic.Uint64
}

func newTunQueue(fd int) *tunQueue { return &tunQueue{fd: fd, spare: umem.None} }

// RxBurst reads packets, each with one system call: superpackets stay where they
// were read, small ones move to a frame.
//
//fastpath:hot
func (q *tunQueue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	if q.gone {
		return 0
	}
	got, bytes := 0, 0
	for got < len(ms) && bytes < burstBytes {
		if q.spare == umem.None {
			b, ok := io.Cache.Super()
			if !ok {
				return got // packets wait in the device's queue
			}
			q.spare = b
		}
		at := io.Arena.Start(q.spare) + umem.Headroom
		b := io.Mem[at-vnetSize : at-umem.Headroom+umem.SuperSize]
		n, errno := tundev.Read(q.fd, b)
		if errno != 0 {
			q.readFault(errno)
			return got
		}
		bytes += n
		if q.accept(io, b[:min(n, len(b))], &ms[got]) {
			got++
		}
	}
	return got
}

// accept makes a packet of what was read: header and packet, at the headroom of
// the spare buffer. It says false when it dropped it.
//
//fastpath:hot
func (q *tunQueue) accept(io *graph.IO, b []byte, m *graph.Meta) bool {
	p := b[min(vnetSize, len(b)):]
	*m = graph.Meta{
		Off: io.Arena.Start(q.spare) + umem.Headroom, Len: uint32(len(p)), Head: uint32(len(p)), Buf: q.spare, Bufs: 1, Segments: 1,
	}
	if len(p) == 0 {
		io.DropRx(graph.RxRunt, m)
		return false
	}
	if len(p) > 1<<16-1 {
		io.DropRx(graph.RxOversize, m)
		return false
	}
	if !readVnet((*[vnetSize]byte)(b), p, m) {
		io.DropRx(graph.RxOffload, m)
		return false
	}
	if len(p) <= copyMost {
		if f, ok := io.Cache.Frame(); ok {
			m.Buf, m.Off = f, io.Arena.Start(f)+umem.Headroom
			copy(io.Mem[m.Off:m.Off+m.Len], p)
			return true
		}
	}
	// The buffer goes on with its packet, if there is another for the next.
	next, ok := io.Cache.Super()
	if !ok {
		io.DropRx(graph.RxNoBuffer, m)
		return false
	}
	q.spare = next
	return true
}

// readFault looks at why nothing was read.
//
//fastpath:hot
func (q *tunQueue) readFault(errno unix.Errno) {
	if errno == unix.EBADFD || errno == unix.EFAULT {
		q.vanish()
	}
}

// vanish notes that the device was deleted. Its descriptor would be ready for
// ever and keep its worker awake: one that never is takes its place.
func (q *tunQueue) vanish() {
	q.gone = true
	q.vanished.Add(1)
	silent, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return // out of descriptors: awake, but right
	}
	_ = unix.Dup3(silent, q.fd, unix.O_CLOEXEC)
	_ = unix.Close(silent)
}

// TxBurst writes each packet with one system call, TCP segments that belong
// together as one superpacket.
//
//fastpath:hot
func (q *tunQueue) TxBurst(io *graph.IO, v *graph.Vector) int {
	if q.gone {
		return refuseAll(v, graph.TxDown)
	}
	q.refused = 0
	q.gro.reset()
	for i := range v.Len() {
		q.transmit(io, v, i)
	}
	q.flushAll(io, v)
	q.count()
	return q.refused
}

// transmit writes packet i, or lets it wait for the rest of its train. What
// comes out of order ends the trains that it might overtake.
//
//fastpath:hot
func (q *tunQueue) transmit(io *graph.IO, v *graph.Vector, i int) {
	m := v.Meta(i)
	g := &q.gro
	if m.Flags&(graph.Partial|graph.Verified) != 0 && g.open == 0 {
		q.write(io, m)
		return
	}
	var s segment
	class := s.read(io, m)
	if class == notTCP {
		q.write(io, m)
		return
	}
	if class == unknownFlow {
		q.flushAll(io, v)
		q.write(io, m)
		return
	}
	t := g.find(s.flow)
	if t != nil {
		if class == mergeable && g.extend(io, v, t, &s, i) {
			if t.done {
				q.flush(io, v, t)
			}
			return
		}
		q.flush(io, v, t)
	}
	if class != mergeable || s.push || s.bad || !s.leads(io, m) {
		q.write(io, m)
		return
	}
	if t = g.free(); t.count > 0 {
		q.flush(io, v, t)
	}
	g.start(t, &s, i)
}

//fastpath:hot
func (q *tunQueue) flushAll(io *graph.IO, v *graph.Vector) {
	for t := range q.gro.used {
		q.flush(io, v, &q.gro.trains[t])
	}
}

// write sends one packet as it is and, unless it is refused, frees it.
//
//fastpath:hot
func (q *tunQueue) write(io *graph.IO, m *graph.Meta) {
	if m.Off-io.Arena.Start(m.Buf) < vnetSize {
		q.refuse(m, graph.TxOffload) // its headers have grown over the whole headroom
		return
	}
	b := io.Mem[m.Off-vnetSize : m.Off+m.Head]
	if !putVnet((*[vnetSize]byte)(b), b[vnetSize:], m) {
		q.refuse(m, graph.TxOffload)
		return
	}
	var errno unix.Errno
	if m.Bufs == 1 {
		errno = tundev.Write(q.fd, b)
	} else {
		q.pieces[0] = tundev.PieceOf(b)
		errno = tundev.WritePieces(q.fd, q.pieces[:1+q.rest(io, m, 1)])
	}
	if errno != 0 {
		q.refuse(m, q.refusal(errno))
		return
	}
	io.Free(m)
}

// rest lists the buffers of m after the first one, from pieces[at] on, and
// returns how many there are.
//
//fastpath:hot
func (q *tunQueue) rest(io *graph.IO, m *graph.Meta, at int) int {
	b, n := m.Buf, int(m.Bufs)-1
	for i := range n {
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		off := io.Arena.Start(b) + uint32(s.Off)
		q.pieces[at+i] = tundev.PieceOf(io.Mem[off : off+uint32(s.Len)])
	}
	return n
}

// refuse leaves a packet to the caller.
//
//fastpath:hot
func (q *tunQueue) refuse(m *graph.Meta, r graph.Reason) {
	m.Reason = r
	q.refused++
}

// refusal says why the kernel did not take a packet.
//
//fastpath:hot
func (q *tunQueue) refusal(errno unix.Errno) graph.Reason {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return graph.TxFull
	case unix.EBADFD:
		q.vanish()
		return graph.TxDown
	case unix.EIO, unix.ENODEV, unix.ENXIO, unix.ENETDOWN:
		return graph.TxDown
	}
	return graph.TxOffload // EINVAL: the kernel made nothing of header and packet
}

// Poll has nothing to do: every packet is the kernel's once it is written.
//
//fastpath:hot
func (q *tunQueue) Poll(*graph.IO) bool { return false }

// FD is the queue's descriptor.
func (q *tunQueue) FD() int { return q.fd }

// InMemory is false: looking for packets costs a system call.
func (q *tunQueue) InMemory() bool { return false }

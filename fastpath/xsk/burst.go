package xsk

import "golang.org/x/sys/unix"

// Desc is a chunk of a packet, laid out as the kernel's struct xdp_desc: Addr is
// the offset of its first byte in the UMEM, Len its bytes, Options the flags below.
type Desc struct {
	Addr    uint64
	Len     uint32
	Options uint32
}

// PktContd in Desc.Options says that the packet goes on in the next descriptor.
// The last chunk of a packet, and a packet of one chunk, do not have it.
const PktContd = 1 << 0

// MaxChunks is the most chunks that the kernel makes of a packet or takes for one
// (MAX_SKB_FRAGS, 17 unless the kernel was built otherwise, and the first). It
// drops longer packets handed to it, and counts them as TxInvalidDescs.
const MaxChunks = 18

const ringNeedWakeup = unix.XDP_RING_NEED_WAKEUP

// Receive moves received descriptors into d and returns how many. Packets of
// several chunks come whole as long as len(d) >= MaxChunks.
// The frames are the caller's from here on.
//
//fastpath:hot
func (s *Socket) Receive(d []Desc) int {
	n := s.rx.peek(d)
	if n == 0 {
		return 0
	}
	if w := wholePackets(d[:n]); w != 0 {
		n = w // what is cut stays in the ring
	}
	s.rx.release(n)
	return n
}

// Fill gives the kernel frames to receive into and returns how many of addrs it
// took, from the front. Any address within a chunk names the chunk.
//
//fastpath:hot
func (s *Socket) Fill(addrs []uint64) int {
	n := min(s.fill.room(uint32(len(addrs))), uint32(len(addrs)))
	if n == 0 {
		return 0
	}
	s.fill.put(addrs[:n])
	return int(n)
}

// Transmit puts descriptors on the tx ring and returns how many of d it took,
// from the front: a packet of several chunks goes whole or not at all. Their
// frames are the kernel's until Complete returns them. In copy mode nothing
// leaves before Kick.
//
//fastpath:hot
func (s *Socket) Transmit(d []Desc) int {
	n := int(min(s.tx.room(uint32(len(d))), uint32(len(d))))
	n = wholePackets(d[:n])
	if n == 0 {
		return 0
	}
	s.tx.put(d[:n])
	s.pending += uint32(n)
	return n
}

// Complete moves the addresses of sent frames into addrs and returns how many.
// They come one per descriptor, in the order sent, as they were given to Transmit.
//
//fastpath:hot
func (s *Socket) Complete(addrs []uint64) int {
	n := s.completion.peek(addrs)
	if n == 0 {
		return 0
	}
	s.completion.release(n)
	s.pending -= uint32(n)
	return n
}

// wholePackets returns how many descriptors of d make up whole packets.
//
//fastpath:hot
func wholePackets(d []Desc) int {
	n := len(d)
	for n > 0 && d[n-1].Options&PktContd != 0 {
		n--
	}
	return n
}

// TransmitFree returns how many descriptors the tx ring has room for.
//
//fastpath:hot
func (s *Socket) TransmitFree() uint32 { return s.tx.room(uint32(len(s.tx.entries))) }

// TransmitPending returns how many descriptors were given to Transmit and have not
// come back by Complete.
//
//fastpath:hot
func (s *Socket) TransmitPending() uint32 { return s.pending }

// TransmitQueued returns how many descriptors the kernel has not taken off the tx
// ring. While it is not zero, kick again: a call sends at most SocketConfig.TxBudget.
//
//fastpath:hot
func (s *Socket) TransmitQueued() uint32 { return s.tx.queued() }

// KickNeeded says that descriptors wait on the tx ring and that the kernel wants a
// Kick to see them. In copy mode it always does.
//
//fastpath:hot
func (s *Socket) KickNeeded() bool { return s.tx.queued() != 0 && s.tx.wakeup() }

// Kick has the kernel send what waits on the tx ring; it does not block. What it
// returns is 0 or one of the following; either way TransmitQueued says whether more
// waits (a descriptor that the kernel refuses ends a call with 0).
//
//   - EAGAIN: more waits. The budget is spent, the completion ring is full or the
//     device has no room: take completions, kick again.
//   - EBUSY: the device's queue dropped one packet (its frame completes); kick again.
//   - ENOBUFS: the kernel is out of socket buffers; kick again after a pause.
//   - EOVERFLOW: a packet of more than MaxChunks chunks was dropped; kick again.
//   - ENETDOWN: the port is down. What is queued stays.
//   - ENXIO: the port is gone. The frames on the rings are the caller's once the
//     socket is closed.
//
//fastpath:hot
func (s *Socket) Kick() unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// WakeNeeded says that the driver has stopped looking at the fill ring and wants
// WakeReceive once there are frames on it.
//
//fastpath:hot
func (s *Socket) WakeNeeded() bool { return s.fill.wakeup() }

// WakeReceive has the driver look at the fill ring or, under preferred busy
// polling, poll the queue once. It does not block and returns 0 or the errors of
// Kick that name the port's state (ENETDOWN, ENXIO).
//
//fastpath:hot
func (s *Socket) WakeReceive() unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

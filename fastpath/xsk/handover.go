package xsk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A forwarder hands its sockets over to another process by their descriptors:
// the kernel lets the rings of a bound socket be mapped again, and a closed
// duplicate ends nothing while the other process has its own.
//
// One rule holds for every Adopt here: on success it owns the descriptors that
// it was given, on failure the caller still does. What it made it has undone.

// ErrGone is found in the error of an Adopt whose device has been deleted.
var ErrGone = errors.New("its device is gone")

// Anchor returns the descriptor that keeps a copy UMEM's registration, to be
// passed to another process; the UMEM keeps owning it. It is -1 where there is
// none: in zero-copy mode, or once closed.
func (u *UMEM) Anchor() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mode != Copy || u.closed {
		return -1
	}
	return u.partners[0]
}

// AdoptCopyUMEM takes up a UMEM that another process made by NewCopyUMEM: area
// is the same memory, mapped here, with the same chunk and headroom; the kernel
// cannot be asked whether it is. anchor is its Anchor.
func AdoptCopyUMEM(area []byte, chunk, headroom, anchor int) (*UMEM, error) {
	u, err := newUMEM(area, chunk, headroom, Copy)
	if err != nil {
		return nil, err
	}
	if err := checkBound(anchor); err != nil {
		return nil, fault(opAdopt, device{name: "lo"}, 0, fmt.Errorf("descriptor %d: %w", anchor, err))
	}
	mode, err := readMode(anchor)
	if err == nil && mode != Copy {
		err = fmt.Errorf("its memory is in %v mode, want copy mode", mode)
	}
	if err != nil {
		return nil, fault(opAdopt, device{name: "lo"}, 0, fmt.Errorf("descriptor %d: %w", anchor, err))
	}
	u.partners = []int{anchor}
	return u, nil
}

// checkBound says why fd is not an AF_XDP socket that is, or has been, bound.
func checkBound(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("it is no socket: %w", err)
	}
	if family != unix.AF_XDP {
		return fmt.Errorf("it is a socket of family %d, want AF_XDP (%d)", family, unix.AF_XDP)
	}
	// Asked for a ring of no entries, a bound socket says that it is too late.
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 0); !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("it is an AF_XDP socket that is not bound (%w)", err)
	}
	return nil
}

// SocketState is what another process must know of a socket beside its descriptor.
type SocketState struct {
	Interface string
	Index     int
	Queue     int
	RingSize  uint32 // entries of each of the four rings
	Fallbacks []Fallback
}

// State tells what Adopt needs; it may be called while the socket is in use.
func (s *Socket) State() SocketState {
	return SocketState{
		Interface: s.device.name, Index: s.device.index, Queue: s.queue,
		RingSize: uint32(len(s.rx.entries)), Fallbacks: s.fallbacks,
	}
}

// Adopt maps the rings of a socket of this UMEM that another process opened, and
// may still be using: until Land nothing but State, FD and Close may be called.
// The kernel does not tell which device a socket is bound to; st is believed.
func (u *UMEM) Adopt(fd int, st SocketState) (_ *Socket, err error) {
	s := &Socket{fd: fd, umem: u, device: device{name: st.Interface, index: st.Index}, queue: st.Queue, fallbacks: st.Fallbacks}
	defer func() {
		if err != nil {
			err = errors.Join(fault(opAdopt, s.device, s.queue, fmt.Errorf("descriptor %d: %w", fd, err)), s.unmap())
		}
	}()
	cfg := SocketConfig{Queue: st.Queue, RingSize: st.RingSize}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if st.Index < 1 {
		return nil, fmt.Errorf("the interface's index is %d, want at least 1", st.Index)
	}
	if err := checkBound(fd); err != nil {
		return nil, err
	}
	if s.mode, err = readMode(fd); err != nil {
		return nil, err
	}
	if s.mode != u.mode {
		return nil, fmt.Errorf("it is in %v mode, its memory in %v mode", s.mode, u.mode)
	}
	if err := s.mapRings(st.RingSize); err != nil {
		return nil, whyNotMapped(err, st.RingSize)
	}
	if largerThan(fd, st.RingSize) {
		return nil, fmt.Errorf("its rings have more than %d entries", st.RingSize)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, ErrClosed
	}
	u.join(s)
	return s, nil
}

// whyNotMapped explains what the kernel says of the rings of a bound socket.
func whyNotMapped(err error, size uint32) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (%w)", ErrGone, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("it has no rings of %d entries: %w", size, err)
	}
	return err
}

// largerThan says whether a socket's rx ring has more than n entries, as far as
// whole pages tell: the kernel maps no more of a ring than there is.
func largerThan(fd int, n uint32) bool {
	at, err := getOption[unix.XDPMmapOffsets](fd, unix.XDP_MMAP_OFFSETS)
	if err != nil {
		return false
	}
	size := func(n uint32) int { return int(at.Rx.Desc) + int(n)*int(unsafe.Sizeof(Desc{})) }
	if page := unix.Getpagesize(); (size(n)-1)/page == (size(2*n)-1)/page {
		return false
	}
	m, err := unix.Mmap(fd, unix.XDP_PGOFF_RX_RING, size(2*n), unix.PROT_READ, unix.MAP_SHARED)
	return err == nil && unix.Munmap(m) == nil
}

// SocketFlight is where our cursors of a socket's rings stand. All else that a
// Socket knows follows from the rings.
type SocketFlight struct {
	Filled, Received, Sent, Completed uint32 // descriptors since the bind, modulo 2^32
}

// Flight tells where the socket stands. Nobody may be using it.
func (s *Socket) Flight() SocketFlight {
	return SocketFlight{Filled: s.fill.next, Received: s.rx.next, Sent: s.tx.next, Completed: s.completion.next}
}

// Land takes up the rings where f says that they were left, and changes nothing.
// It gives an error where they are not: f is of another socket, or older than the
// last use of it. For whom goes on nevertheless there is Resume.
func (s *Socket) Land(f SocketFlight) error {
	if err := s.Resume(); err != nil {
		return err
	}
	if now := s.Flight(); now != f {
		return fmt.Errorf("go on with queue %d of %s: its rings stand at %+v, want %+v as they were left", s.queue, s.device.name, now, f)
	}
	return nil
}

// Resume takes up the rings where they stand, whoever used them last. It gives an
// error where that cannot be, and then the socket is good for nothing but Close.
func (s *Socket) Resume() error {
	s.fill, s.tx = newProducer(s.fill.words, s.fill.entries), newProducer(s.tx.words, s.tx.entries)
	s.rx, s.completion = newConsumer(s.rx.words, s.rx.entries), newConsumer(s.completion.words, s.completion.entries)
	s.pending = s.tx.next - s.completion.next
	size := uint32(len(s.rx.entries))
	for _, n := range []uint32{s.fill.queued(), s.tx.queued(), s.rx.limit - s.rx.next, s.completion.limit - s.completion.next} {
		if n > size {
			return fmt.Errorf("go on with queue %d of %s: a ring of %d entries holds %d; close the port and open it again", s.queue, s.device.name, size, n)
		}
	}
	return nil
}

// FillPending returns how many descriptors were given to Fill and have not come
// back by Receive.
func (s *Socket) FillPending() uint32 { return s.fill.next - s.rx.next }

// OnRings appends the addresses of all frames that lie on a ring, some perhaps
// twice. Frames that the kernel works on just then are on none; there are
// FillPending and TransmitPending in all. The addresses are as they lie there.
func (s *Socket) OnRings(to []uint64) []uint64 {
	// Each ring before the one that its frames go to next: none passes unseen.
	for i := atomic.LoadUint32(s.fill.consumer); i != s.fill.next; i++ {
		to = append(to, s.fill.entries[i&s.fill.mask])
	}
	for i := s.rx.next; i != atomic.LoadUint32(s.rx.producer); i++ {
		to = append(to, s.rx.entries[i&s.rx.mask].Addr)
	}
	for i := atomic.LoadUint32(s.tx.consumer); i != s.tx.next; i++ {
		to = append(to, s.tx.entries[i&s.tx.mask].Addr)
	}
	for i := s.completion.next; i != atomic.LoadUint32(s.completion.producer); i++ {
		to = append(to, s.completion.entries[i&s.completion.mask])
	}
	return to
}

package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Mode is how the kernel moves packets between a UMEM and a device.
type Mode uint8

const (
	Copy     Mode = 1 + iota // the kernel copies, any device
	ZeroCopy                 // the device reads and writes the frames, needs a driver that can
)

func (m Mode) String() string {
	switch m {
	case Copy:
		return "copy"
	case ZeroCopy:
		return "zero-copy"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// KernelHeadroom is what the kernel keeps free at the front of a received frame
// (XDP_PACKET_HEADROOM). A packet starts this and the UMEM's own headroom after
// the beginning of its chunk.
const KernelHeadroom = unix.XDP_PACKET_HEADROOM

// ErrClosed is returned by Open on a UMEM that was closed.
var ErrClosed = errors.New("UMEM is closed")

// UMEM is memory registered with the kernel, cut into chunks of one size. The same
// memory may be registered several times with equal offsets (once per Mode); a
// frame may lie with one registration at a time.
type UMEM struct {
	area            []byte
	chunk, headroom int
	mode            Mode
	fallback        *UMEM

	mu     sync.Mutex
	closed bool
	// partners are bound sockets of this UMEM; a new one shares it with the first
	// that still is. In copy mode it is the anchor alone.
	partners []int
}

// bindFlags are what every first bind of a UMEM asks for besides its mode.
const bindFlags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_USE_SG

// NewCopyUMEM registers area for sockets in copy mode and anchors it on lo of a
// private namespace. area starts at a page and holds whole chunks; it must stay
// mapped until Close and the Close of every socket. chunk is a power of two from
// 2048 to the page size; headroom is what to keep free at the front of received
// frames, in bytes beyond KernelHeadroom.
func NewCopyUMEM(area []byte, chunk, headroom int) (*UMEM, error) {
	u, err := newUMEM(area, chunk, headroom, Copy)
	if err != nil {
		return nil, err
	}
	err = inNewNamespace(func() error {
		const loopback = 1 // lo is the first device of every namespace
		fd, err := u.anchor(loopback)
		if err != nil {
			return err
		}
		u.partners = []int{fd}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// NewZeroCopyUMEM prepares area for sockets in zero-copy mode of one driver. The
// first Open registers it, since zero-copy mode needs a device; sharing goes on
// while any of its sockets lives. A port that refuses zero-copy mode gets a socket
// of fallback and the Socket says so, or an error when fallback is nil.
// Not tested on hardware; see the package comment.
func NewZeroCopyUMEM(area []byte, chunk, headroom int, fallback *UMEM) (*UMEM, error) {
	u, err := newUMEM(area, chunk, headroom, ZeroCopy)
	if err != nil {
		return nil, err
	}
	if fallback != nil && fallback.mode != Copy {
		return nil, errors.New("fallback of a zero-copy UMEM must be a copy UMEM")
	}
	u.fallback = fallback
	return u, nil
}

func newUMEM(area []byte, chunk, headroom int, mode Mode) (*UMEM, error) {
	switch page := unix.Getpagesize(); {
	case chunk < 2048 || chunk > page || bits.OnesCount(uint(chunk)) != 1:
		return nil, fmt.Errorf("chunk size is %d, want a power of two from 2048 to %d", chunk, page)
	case len(area) == 0 || len(area)%chunk != 0:
		return nil, fmt.Errorf("area has %d bytes, want a multiple of the chunk size %d", len(area), chunk)
	case !pageAligned(area):
		return nil, fmt.Errorf("area does not start at a page of %d bytes", page)
	case headroom < 0 || headroom >= chunk-KernelHeadroom:
		return nil, fmt.Errorf("headroom is %d, want 0 to %d", headroom, chunk-KernelHeadroom-1)
	}
	return &UMEM{area: area, chunk: chunk, headroom: headroom, mode: mode}, nil
}

// anchor opens the socket that holds the registration: bound to device index of
// the present namespace, with rings that nobody uses.
func (u *UMEM) anchor(index int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fault(opOpen, device{name: "lo"}, -1, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := registerMemory(fd, u.area, u.chunk, u.headroom); err != nil {
		return -1, fault(opRegister, device{}, -1, err)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, 1); err != nil {
			return -1, fault(opRings, device{name: "lo"}, -1, err)
		}
	}
	address := &unix.SockaddrXDP{Flags: unix.XDP_COPY | bindFlags, Ifindex: uint32(index)}
	if err := unix.Bind(fd, address); err != nil {
		return -1, fault(opBind, device{name: "lo"}, 0, err)
	}
	return fd, nil
}

// Mode returns the mode that the UMEM was made for.
func (u *UMEM) Mode() Mode { return u.mode }

// Area returns the registered memory; Desc.Addr is an offset into it.
func (u *UMEM) Area() []byte { return u.area }

// Chunk returns the size of a chunk in bytes.
func (u *UMEM) Chunk() int { return u.chunk }

// Headroom returns what is kept free at the front of a received frame beyond
// KernelHeadroom, in bytes.
func (u *UMEM) Headroom() int { return u.headroom }

// Close gives up the registration. Sockets that are still open keep it alive until
// they are closed; new ones cannot be opened.
func (u *UMEM) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var err error
	if u.mode == Copy && !u.closed {
		err = unix.Close(u.partners[0]) // in zero-copy mode the sockets close themselves
	}
	u.closed, u.partners = true, nil
	return err
}

// bind gives s its queue, sharing the memory with a socket that is bound or, in
// zero-copy mode, registering it when there is none.
func (u *UMEM) bind(s *Socket) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ErrClosed
	}
	for _, partner := range u.partners {
		err := s.bindShared(partner)
		if errors.Is(err, unix.EBADF) {
			continue // its device is gone
		}
		if err == nil {
			u.join(s)
		}
		return err
	}
	if u.mode == Copy {
		return fault(opBind, s.device, s.queue, unix.EBADF)
	}
	if err := registerMemory(s.fd, u.area, u.chunk, u.headroom); err != nil {
		return fault(opRegister, device{}, -1, err)
	}
	if err := s.bindTo(unix.XDP_ZEROCOPY|bindFlags, 0); err != nil {
		return err
	}
	u.join(s)
	return nil
}

// join makes s a partner for later binds where the UMEM has no anchor of its own.
func (u *UMEM) join(s *Socket) {
	if u.mode == ZeroCopy {
		u.partners = append(u.partners, s.fd)
	}
}

// leave takes a socket that is about to close out of the partners.
func (u *UMEM) leave(s *Socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mode == ZeroCopy {
		u.partners = slices.DeleteFunc(u.partners, func(fd int) bool { return fd == s.fd })
	}
}

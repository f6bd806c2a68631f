// Package tundev is what the kernel does for a TUN device, one system call each.
// It keeps no state.
package tundev

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Path is the device that makes queues.
const Path = "/dev/net/tun"

// Offloads of TUNSETOFFLOAD, which package unix does not name.
const (
	Csum = 0x01
	TSO  = 0x02 | 0x04 | 0x08 // TCP by IPv4 and IPv6, also with ECN
	USO  = 0x20 | 0x40        // UDP by IPv4 and IPv6
)

// maxIfReq is the size of the kernel's struct ifreq.
const maxIfReq = 40

// kind is how a queue is attached.
const kind = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// ErrGone says that the device of a queue was deleted.
var ErrGone = errors.New("its device is gone")

// ifreq is a request about an interface, laid out as the kernel's.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [maxIfReq - unix.IFNAMSIZ]byte // a short or an int in native order
}

func newIfreq(name string) (r ifreq) {
	copy(r.name[:unix.IFNAMSIZ-1], name)
	return r
}

func (r *ifreq) setInt(n int32)    { *(*int32)(unsafe.Pointer(&r.data)) = n }
func (r *ifreq) setFlags(f uint16) { *(*uint16)(unsafe.Pointer(&r.data)) = f }

// Attach makes fd a queue of the multi-queue TUN device called name, with vnet
// headers. The device is made unless it exists.
func Attach(fd int, name string) error {
	r := newIfreq(name)
	r.setFlags(kind)
	return ioctlPointer(fd, unix.TUNSETIFF, unsafe.Pointer(&r))
}

// SetMTU sets the MTU, in bytes from the IP header on, of the device called name in the namespace that
// the calling thread is in.
func SetMTU(name string, mtu int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r := newIfreq(name)
	r.setInt(int32(mtu))
	return errors.Join(ioctlPointer(s, unix.SIOCSIFMTU, unsafe.Pointer(&r)), unix.Close(s))
}

// SetHeader fixes the vnet header of a queue's device: so many bytes, in little endian.
func SetHeader(fd, header int) error {
	size, little := int32(header), int32(1)
	if err := ioctlPointer(fd, unix.TUNSETVNETHDRSZ, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("set vnet header to %d bytes: %w", header, err)
	}
	if err := ioctlPointer(fd, unix.TUNSETVNETLE, unsafe.Pointer(&little)); err != nil {
		return fmt.Errorf("set vnet header to little endian: %w", err)
	}
	return nil
}

// Check says why fd is not a queue, as Attach and SetHeader make it, of the
// device called name: ErrGone where that was deleted.
func Check(fd int, name string, header int) error {
	const want, mask = kind, unix.IFF_TAP | unix.IFF_DETACH_QUEUE
	var r ifreq
	if err := ioctlPointer(fd, unix.TUNGETIFF, unsafe.Pointer(&r)); errors.Is(err, unix.EBADFD) {
		return ErrGone
	} else if err != nil {
		return fmt.Errorf("it is no queue, or its device is gone: %w", err)
	}
	if got, _, _ := bytes.Cut(r.name[:], []byte{0}); string(got) != name {
		return fmt.Errorf("it is a queue of %s", got)
	}
	if flags := *(*uint16)(unsafe.Pointer(&r.data)); flags&(want|mask) != want {
		return fmt.Errorf("it is of another kind (%#x), want a queue of a multi-queue TUN device with vnet headers (%#x)", flags, want)
	}
	var size, little int32
	if err := errors.Join(ioctlPointer(fd, unix.TUNGETVNETHDRSZ, unsafe.Pointer(&size)), ioctlPointer(fd, unix.TUNGETVNETLE, unsafe.Pointer(&little))); err != nil {
		return fmt.Errorf("look at its vnet header: %w", err)
	}
	if size != int32(header) || little != 1 {
		return fmt.Errorf("its vnet header has %d bytes (little endian: %d), want %d in little endian", size, little, header)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		return errors.New("it blocks its reader")
	}
	return nil
}

func ioctlPointer(fd int, request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

// Piece is a part of a packet as readv and writev take it (struct iovec). It
// points into the arena, which is mapped outside Go's heap and never moves, so
// that a plain number serves and the collector need not hear of it.
type Piece struct {
	base uintptr
	size uintptr
}

// PieceOf is b as a piece; b must lie in the arena and not be empty.
//
//fastpath:hot
func PieceOf(b []byte) Piece {
	return Piece{uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))}
}

// Read reads one packet into b. The descriptor does not block, so that
// the scheduler need not know of the call.
//
//fastpath:hot
func Read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// Write writes one packet that lies in one piece.
//
//fastpath:hot
func Write(fd int, b []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return errno
}

// WritePieces writes one packet that lies in several pieces.
//
//fastpath:hot
func WritePieces(fd int, p []Piece) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return errno
}

package port

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tunPath = "/dev/net/tun"
	// maxIfReq is the size of the kernel's struct ifreq.
	maxIfReq = 40

	// offloads of TUNSETOFFLOAD that package unix does not name.
	tunCsum   = 0x01
	tunTSO4   = 0x02
	tunTSO6   = 0x04
	tunTSOECN = 0x08
	tunUSO4   = 0x20
	tunUSO6   = 0x40
)

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

// attach makes fd a queue of the TUN device called name, which is made unless
// it exists.
func attach(fd int, name string) error {
	r := newIfreq(name)
	r.setFlags(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	return ioctlPointer(fd, unix.TUNSETIFF, unsafe.Pointer(&r))
}

// setDeviceMTU sets the MTU of the device called name in the namespace that
// the calling thread is in.
func setDeviceMTU(name string, mtu int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r := newIfreq(name)
	r.setInt(int32(mtu))
	return errors.Join(ioctlPointer(s, unix.SIOCSIFMTU, unsafe.Pointer(&r)), unix.Close(s))
}

// setHeader fixes size and byte order of the vnet header.
func setHeader(fd int) error {
	size, little := int32(vnetSize), int32(1)
	if err := ioctlPointer(fd, unix.TUNSETVNETHDRSZ, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("set vnet header to %d bytes: %w", vnetSize, err)
	}
	if err := ioctlPointer(fd, unix.TUNSETVNETLE, unsafe.Pointer(&little)); err != nil {
		return fmt.Errorf("set vnet header to little endian: %w", err)
	}
	return nil
}

func ioctlPointer(fd int, request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

// piece is a part of a packet as readv and writev take it (struct iovec). It
// points into the arena, which is mapped outside Go's heap and never moves, so
// that a plain number serves and the collector need not hear of it.
type piece struct {
	base uintptr
	size uintptr
}

// pieceOf is b as a piece; b must lie in the arena and not be empty.
//
//fastpath:hot
func pieceOf(b []byte) piece {
	return piece{uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))}
}

// readPacket reads one packet into b. The descriptor does not block, so that
// the scheduler need not know of the call.
//
//fastpath:hot
func readPacket(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// writePacket writes one packet that lies in one piece.
//
//fastpath:hot
func writePacket(fd int, b []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return errno
}

// writePieces writes one packet that lies in several pieces.
//
//fastpath:hot
func writePieces(fd int, p []piece) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return errno
}

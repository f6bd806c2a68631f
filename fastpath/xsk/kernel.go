package xsk

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of AF_XDP, one function each, with errors as the kernel gives
// them. Nothing here keeps state.

// setOption sets a socket option whose value is a structure.
func setOption[T any](fd, option int, value *T) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option),
		uintptr(unsafe.Pointer(value)), unsafe.Sizeof(*value), 0)
	return errnoError(errno)
}

// getOption reads a socket option whose value is a structure. A kernel that knows
// a shorter one leaves the rest zero.
func getOption[T any](fd, option int) (value T, err error) {
	size := uint32(unsafe.Sizeof(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option),
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	return value, errnoError(errno)
}

// errnoError keeps 0 from becoming an error.
func errnoError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// registerMemory makes area the UMEM of socket fd.
func registerMemory(fd int, area []byte, chunk, headroom int) error {
	reg := unix.XDPUmemReg{
		Addr:     uint64(uintptr(unsafe.Pointer(unsafe.SliceData(area)))),
		Len:      uint64(len(area)),
		Size:     uint32(chunk),
		Headroom: uint32(headroom),
	}
	err := setOption(fd, unix.XDP_UMEM_REG, &reg)
	runtime.KeepAlive(area)
	return err
}

// pageAligned says whether area starts at a page, as the kernel demands of a UMEM.
func pageAligned(area []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(area)))%uintptr(unix.Getpagesize()) == 0
}

// mapRing maps one ring of n entries of type T. The entries and the shared words
// are valid until the mapping is unmapped.
func mapRing[T any](fd int, page int64, at unix.XDPRingOffset, n uint32) (mapping []byte, w words, entries []T, err error) {
	var t T
	size := int(at.Desc) + int(n)*int(unsafe.Sizeof(t))
	mapping, err = unix.Mmap(fd, page, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, words{}, nil, err
	}
	word := func(offset uint64) *uint32 { return (*uint32)(unsafe.Pointer(&mapping[offset])) }
	w = words{producer: word(at.Producer), consumer: word(at.Consumer), flags: word(at.Flags)}
	entries = unsafe.Slice((*T)(unsafe.Pointer(&mapping[at.Desc])), n)
	return mapping, w, entries, nil
}

// ethtoolChannels is struct ethtool_channels.
type ethtoolChannels struct {
	cmd                                    uint32
	maxRx, maxTx, maxOther, maxCombined    uint32
	rxCount, txCount, otherCount, combined uint32
}

// device is a network device as the kernel knows it.
type device struct {
	name   string
	index  int
	queues int // receive or transmit queues, whichever are more; 0 when the driver does not tell
}

var errNoDevice = errors.New("neither an interface name nor an index is given")

// findDevice completes name and index from each other in the namespace netns. An
// index that is not zero wins: names can be given to another device.
func findDevice(netns int, name string, index int) (d device, err error) {
	err = inNamespace(netns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if d.name, d.index, err = resolve(fd, name, index); err == nil {
			d.queues = countQueues(fd, d.name)
		}
		return err
	})
	return d, err
}

func resolve(fd int, name string, index int) (string, int, error) {
	if index == 0 && name == "" {
		return "", 0, errNoDevice
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return name, 0, err
	}
	if index == 0 {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
		return name, int(request.Uint32()), err
	}
	request.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request); err != nil {
		return name, index, err
	}
	return request.Name(), index, nil
}

// countQueues asks the driver of the device how many queues are in use.
func countQueues(fd int, name string) int {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}
	channels := ethtoolChannels{cmd: unix.ETHTOOL_GCHANNELS}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = unsafe.Pointer(&channels)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0
	}
	return int(channels.combined + max(channels.rxCount, channels.txCount))
}

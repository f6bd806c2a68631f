package mem

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// sealed is what must be fixed about memory before somebody else reads it: its
// size, since a mapping whose file shrinks raises SIGBUS, and its bytes.
const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Seal copies data into a new memfd, named name in /proc/self/maps, that nobody
// can change any more. The caller owns the descriptor.
func Seal(name string, data []byte) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("create memory %q: %w", name, err)
	}
	for rest := data; len(rest) > 0 && err == nil; {
		var n int
		if n, err = unix.Write(fd, rest); err == nil {
			rest = rest[n:]
		}
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("write %d bytes to memory %q: %w", len(data), name, err), unix.Close(fd))
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed|unix.F_SEAL_SEAL); err != nil {
		return -1, errors.Join(fmt.Errorf("seal memory %q: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

// MapSealed maps what Seal made, to be read only and given to Unmap at the end.
// It does not own fd, which may be closed at once. Memory that its maker could
// still change or cut short is refused.
func MapSealed(fd int) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for the seals of memory fd %d: %w", fd, err)
	}
	if seals&sealed != sealed {
		return nil, fmt.Errorf("memory fd %d has seals %#x, want all of %#x: it could change while it is read", fd, seals, sealed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at memory fd %d: %w", fd, err)
	}
	if st.Size > math.MaxInt {
		return nil, fmt.Errorf("map memory fd %d: %d bytes are too many", fd, st.Size)
	}
	if st.Size == 0 {
		return []byte{}, nil // the kernel maps no less than a byte
	}
	data, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory fd %d: %w", st.Size, fd, err)
	}
	return data, nil
}

// Unmap ends what MapSealed began. data, which must be all of it, is not to be
// read any more: that would be a SIGSEGV.
func Unmap(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	return unix.Munmap(data)
}

// Package mem makes memory that outlives a process: memfds with a versioned
// header, and typed views over their bytes.
//
// Whatever a new forwarder must be able to take over from a running one
// (frames, tables, who owns which buffer) lies in such a region, never in the
// Go heap alone. A view holds no pointers, so the collector has nothing to scan.
package mem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// HeaderSize is the number of bytes in front of a region's payload: one page,
// so that the payload is page aligned and can be registered with the kernel.
const HeaderSize = 4096

const magic = "MARGAYM1"

// Errors that a caller of Attach may want to tell apart.
var (
	ErrNotOurs = errors.New("memory carries no margay header")
	ErrKind    = errors.New("memory holds another kind of table")
	ErrVersion = errors.New("memory has another layout version")
	ErrCorrupt = errors.New("memory header is corrupt")
)

// Kind tells what a region holds; a reader refuses a kind it did not ask for.
type Kind uint32

// The kinds of region in use.
const (
	KindArena Kind = iota + 1 // frames and who holds them (fastpath/umem)
	KindFlows                 // the flow table (fastpath/flow)
)

// Region is one memfd, or a file in memory (Keep), mapped shared. It is created once and then only read
// or written through Payload; its methods are safe for concurrent use but Close.
type Region struct {
	fd        int
	data      []byte
	size      int // bytes of the payload: the header may be written by others later
	fallbacks []string
}

// Create makes a region of size payload bytes, zeroed, named name in
// /proc/self/maps, holding kind in layout version.
func Create(name string, kind Kind, version uint32, size int) (*Region, error) {
	if size <= 0 || size > math.MaxInt-2*HeaderSize {
		return nil, fmt.Errorf("create memory %q: size is %d bytes, want at least 1", name, size)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create memory %q: %w", name, err)
	}
	total := HeaderSize + (size+HeaderSize-1)/HeaderSize*HeaderSize
	if err := unix.Ftruncate(fd, int64(total)); err != nil {
		return nil, errors.Join(fmt.Errorf("size memory %q to %d bytes: %w", name, total, err), unix.Close(fd))
	}
	// A mapping whose file shrinks raises SIGBUS in every process that has it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return nil, errors.Join(fmt.Errorf("seal memory %q: %w", name, err), unix.Close(fd))
	}
	r, err := mapAll(fd, total)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map memory %q: %w", name, err), unix.Close(fd))
	}
	r.collapse()
	r.size = size
	r.writeHeader(kind, version, uint64(size))
	return r, nil
}

// Attach maps the region behind fd, which must hold kind in layout version.
// On success the region owns fd, on failure the caller still does. It maps the
// pages as they are, since a kernel that sends from them cannot exchange them
// for huge ones: huge pages that the maker got it has too, and what the maker
// did not get the maker's Fallbacks tell.
func Attach(fd int, kind Kind, version uint32) (*Region, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at memory fd %d: %w", fd, err)
	}
	if st.Size < HeaderSize || st.Size > math.MaxInt-2*hugePage {
		return nil, fmt.Errorf("attach memory fd %d of %d bytes: %w", fd, st.Size, ErrNotOurs)
	}
	if seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_SHRINK == 0 && private(fd) != nil {
		return nil, fmt.Errorf("attach memory fd %d, which others may shrink: %w", fd, ErrNotOurs)
	}
	r, err := mapAll(fd, int(st.Size))
	if err != nil {
		return nil, fmt.Errorf("map memory fd %d: %w", fd, err)
	}
	if err := r.checkHeader(kind, version); err != nil {
		return nil, errors.Join(fmt.Errorf("attach memory fd %d: %w", fd, err), unmap(r.data))
	}
	return r, nil
}

// Header layout: magic[8] kind[4] version[4] payload[8] crc[4], little endian.
func (r *Region) writeHeader(kind Kind, version uint32, size uint64) {
	h := r.data[:28]
	copy(h, magic)
	binary.LittleEndian.PutUint32(h[8:], uint32(kind))
	binary.LittleEndian.PutUint32(h[12:], version)
	binary.LittleEndian.PutUint64(h[16:], size)
	binary.LittleEndian.PutUint32(h[24:], crc32.ChecksumIEEE(h[:24]))
}

func (r *Region) checkHeader(kind Kind, version uint32) error {
	h := r.data[:28]
	if string(h[:8]) != magic {
		return ErrNotOurs
	}
	if crc32.ChecksumIEEE(h[:24]) != binary.LittleEndian.Uint32(h[24:]) {
		return ErrCorrupt
	}
	if got := Kind(binary.LittleEndian.Uint32(h[8:])); got != kind {
		return fmt.Errorf("%w: has kind %d, want %d", ErrKind, got, kind)
	}
	if got := binary.LittleEndian.Uint32(h[12:]); got != version {
		return fmt.Errorf("%w: has %d, want %d", ErrVersion, got, version)
	}
	size := binary.LittleEndian.Uint64(h[16:])
	if size > uint64(len(r.data)-HeaderSize) {
		return fmt.Errorf("%w: says %d payload bytes, has %d", ErrCorrupt, size, len(r.data)-HeaderSize)
	}
	r.size = int(size)
	return nil
}

// Payload is the memory behind the header. It is valid until Close.
func (r *Region) Payload() []byte {
	return r.data[HeaderSize : HeaderSize+r.size : HeaderSize+r.size]
}

// FD is its descriptor, to be passed to another process; the region keeps owning it.
func (r *Region) FD() int { return r.fd }

// Fallbacks tells, a line each, what was asked of the kernel for the memory and
// not had. It costs speed, never correctness, and the operator must hear of it.
func (r *Region) Fallbacks() []string { return r.fallbacks }

// Close unmaps the payload and closes the descriptor. No view may be used after it.
func (r *Region) Close() error {
	if r.data == nil {
		return os.ErrClosed
	}
	fd := r.fd
	return errors.Join(r.Unmap(), unix.Close(fd))
}

// Unmap is Close that leaves the descriptor to the caller.
func (r *Region) Unmap() error {
	if r.data == nil {
		return os.ErrClosed
	}
	err := unmap(r.data)
	r.data, r.fd, r.size = nil, -1, 0
	return err
}

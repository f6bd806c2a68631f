package mem

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a huge page on every machine we build for.
const hugePage = 2 << 20

// mapAll maps total bytes of fd, large regions at a multiple of hugePage so
// that the kernel can back them with huge pages: those spare the packet path
// most of its TLB misses. A kernel that has none to give leaves it at 4 KiB.
func mapAll(fd, total int) (*Region, error) {
	if total < hugePage {
		data, err := unix.Mmap(fd, 0, total, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return &Region{fd: fd, data: data}, err
	}
	at, err := aligned(uintptr(total))
	if err != nil {
		return nil, err
	}
	p, err := unix.MmapPtr(fd, 0, at, uintptr(total), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return nil, fmt.Errorf("at a multiple of %d: %w", hugePage, err)
	}
	data := unsafe.Slice((*byte)(p), total)
	// Memory that is not to be had must be told of now: later it is a SIGBUS.
	if err := unix.Madvise(data, unix.MADV_POPULATE_WRITE); err != nil {
		return nil, errors.Join(fmt.Errorf("take %d bytes of memory: %w", total, err), unmap(data))
	}
	// Works whatever the setting of huge pages for shared memory is; where there
	// are none the path is slower by its TLB misses, and right.
	_ = unix.Madvise(data[:total/hugePage*hugePage], unix.MADV_COLLAPSE)
	return &Region{fd: fd, data: data}, nil
}

// aligned reserves size bytes of address space at a multiple of hugePage.
func aligned(size uintptr) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(-1, 0, nil, size+hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of addresses: %w", size+hugePage, err)
	}
	before := (hugePage - uintptr(p)%hugePage) % hugePage
	at := unsafe.Add(p, before)
	if before > 0 {
		_ = unix.MunmapPtr(p, before)
	}
	// What stays reserved behind the region is given back: it is page aligned.
	end := (size + uintptr(unix.Getpagesize()) - 1) &^ (uintptr(unix.Getpagesize()) - 1)
	_ = unix.MunmapPtr(unsafe.Add(at, end), hugePage-before)
	return at, nil
}

// unmap gives back what mapAll mapped.
func unmap(data []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(data)), uintptr(len(data)))
}

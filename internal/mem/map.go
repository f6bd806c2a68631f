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
// that huge pages can back them, and has the kernel give all of the memory now.
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
	return &Region{fd: fd, data: data}, nil
}

// collapse has the kernel exchange the pages of a large region for huge ones:
// those spare the packet path most of its TLB misses. A kernel that has none to
// give leaves it at 4 KiB, slower and right; Fallbacks tells.
func (r *Region) collapse() {
	total := len(r.data)
	if total < hugePage {
		return
	}
	// Works with every setting of huge pages for shared memory but "deny".
	if err := unix.Madvise(r.data[:total/hugePage*hugePage], unix.MADV_COLLAPSE); err != nil {
		r.fallbacks = append(r.fallbacks, fmt.Sprintf("pages of 4 KiB instead of huge ones in all or part of %d MiB of memory, which costs speed: collapse pages: %v: %s",
			total>>20, err, adviceCollapse(err)))
	}
}

// adviceCollapse says why the kernel refused huge pages, and what to do about it.
func adviceCollapse(err error) string {
	switch {
	case errors.Is(err, unix.ENOMEM):
		return "memory is too fragmented: start soon after boot, or write 1 to /proc/sys/vm/compact_memory before the next start"
	case errors.Is(err, unix.EBUSY):
		return "the memory limit of the control group has no room for whole huge pages: raise it"
	case errors.Is(err, unix.EAGAIN):
		return "some pages were in use meanwhile: start again"
	case errors.Is(err, unix.EINVAL):
		return "huge pages are switched off, for this process (PR_SET_THP_DISABLE), by deny in /sys/kernel/mm/transparent_hugepage/shmem_enabled, " +
			"or in this kernel, which must be 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE: switch them on and start again"
	}
	return "start again; huge pages need /sys/kernel/mm/transparent_hugepage"
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

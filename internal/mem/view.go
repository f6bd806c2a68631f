package mem

import (
	"fmt"
	"unsafe"
)

// View returns the first n elements of T in b, sharing its memory. It fails
// when b is too short or not aligned for T. T must hold no
// pointers: plain numbers, or arrays and structs of them.
func View[T any](b []byte, n int) ([]T, error) {
	var t T
	size, align := unsafe.Sizeof(t), unsafe.Alignof(t)
	if n < 0 || uintptr(n) > uintptr(len(b))/size {
		return nil, fmt.Errorf("view %d cells of %d bytes: memory has %d bytes", n, size, len(b))
	}
	if n == 0 {
		return nil, nil
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%align != 0 {
		return nil, fmt.Errorf("view cells of %d bytes: memory is not aligned to %d", size, align)
	}
	return unsafe.Slice((*T)(p), n), nil
}

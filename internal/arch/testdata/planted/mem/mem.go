// Package mem is a home of unsafe.
package mem

import "unsafe"

// Word is the size of a word in bytes.
const Word = unsafe.Sizeof(uintptr(0))

// Package port may use unsafe in its tun files, and nowhere else.
package port

import "unsafe"

// Word is the size of a word in bytes.
const Word = unsafe.Sizeof(uintptr(0))

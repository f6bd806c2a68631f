package port

import "unsafe"

// Half is half of it.
const Half = unsafe.Sizeof(uintptr(0)) / 2

package fence

import (
	"os"
	"runtime/debug"
	"testing"
	"unsafe"
)

func TestNobodyReadsPastTheEnd(t *testing.T) {
	for _, n := range []int{1, 100, os.Getpagesize(), os.Getpagesize() + 1} {
		want := make([]byte, n)
		want[n-1] = 7
		b := Copy(t, want)
		if len(b) != n || cap(b) != n || b[n-1] != 7 {
			t.Errorf("%d bytes have become %d, of which the last is %d", n, len(b), b[n-1])
		}
		if !faults(func() byte { return *(*byte)(unsafe.Add(unsafe.Pointer(&b[n-1]), 1)) }) {
			t.Errorf("the byte behind %d could be read", n)
		}
	}
}

func faults(read func() byte) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	read()
	return false
}

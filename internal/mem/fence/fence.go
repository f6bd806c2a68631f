// Package fence is memory for tests that ends where a page begins which nobody may touch: a
// read past its end is a fault, also one that no bounds check sees.
package fence

import (
	"os"
	"syscall"
	"testing"
)

// Copy is b in such memory, until the test ends.
func Copy(t testing.TB, b []byte) []byte {
	t.Helper()
	page := os.Getpagesize()
	room := (len(b) + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, room+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) }) // our own memory: nothing to be done about a failure
	if err := syscall.Mprotect(m[room:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	at := room - len(b)
	copy(m[at:room], b)
	return m[at:room:room]
}

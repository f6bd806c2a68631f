package mem

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSealedMemoryIsReadAndNeverChanged(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":     {},
		"a byte":      {7},
		"three pages": bytes.Repeat([]byte("margay"), 2048),
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := Seal("margay-test", data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := MapSealed(fd)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, want the %d that were written", len(got), len(data))
			}
			if _, err := unix.Pwrite(fd, []byte("x"), 0); err == nil {
				t.Error("sealed memory was written to")
			}
			if err := unix.Ftruncate(fd, 1<<20); err == nil {
				t.Error("sealed memory was given another size")
			}
			if err := unix.Close(fd); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Error("the mapping needs the descriptor")
			}
			if err := Unmap(got); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMemoryThatMayChangeIsRefused(t *testing.T) {
	memfd := func(t *testing.T, seals int) int {
		fd, err := unix.MemfdCreate("margay-test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for name, open := range map[string]func(*testing.T) int{
		"no seals":          func(t *testing.T) int { return memfd(t, 0) },
		"bytes not sealed":  func(t *testing.T) int { return memfd(t, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW) },
		"may still shrink":  func(t *testing.T) int { return memfd(t, unix.F_SEAL_WRITE|unix.F_SEAL_GROW) },
		"no descriptor":     func(*testing.T) int { return -1 },
		"no memory, a pipe": func(t *testing.T) int { return pipe(t) },
		"no memory, a file": func(t *testing.T) int { return file(t) },
	} {
		t.Run(name, func(t *testing.T) {
			fd := open(t)
			if fd >= 0 {
				defer unix.Close(fd)
			}
			if data, err := MapSealed(fd); err == nil {
				t.Errorf("mapped %d bytes of it", len(data))
			}
		})
	}
}

func pipe(t *testing.T) int {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(p[1]) })
	return p[0]
}

func file(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

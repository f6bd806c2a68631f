package mem

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// memoryFolder is a folder on a tmpfs.
func memoryFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "margay-mem-")
	if err != nil {
		t.Skip("needs a tmpfs at /dev/shm: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func keep(t *testing.T, path string, version uint32, size int) (*Region, bool) {
	t.Helper()
	r, found, err := Keep(path, KindFlows, version, size)
	if err != nil {
		t.Fatal(err)
	}
	return r, found
}

func TestKeptMemoryOutlivesItsUser(t *testing.T) {
	for _, size := range []int{100, 5 << 20} {
		path := filepath.Join(memoryFolder(t), "sub", "flows")
		r, found := keep(t, path, 1, size)
		if found {
			t.Error("memory was found where none was")
		}
		copy(r.Payload()[size-3:], "end")
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r, found = keep(t, path, 1, size)
		if got := string(r.Payload()[size-3:]); !found || got != "end" {
			t.Errorf("%d bytes: found %v, and they end in %q", size, found, got)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", st.Mode(), err)
		}
		_ = r.Close()
	}
}

// What is not as asked for is made anew, of zeros.
func TestKeptMemoryOfAnotherKindIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"another version": func(path string) error {
			r, _, err := Keep(path, KindFlows, 2, 5000)
			return errors.Join(err, r.Close())
		},
		"another size": func(path string) error {
			r, _, err := Keep(path, KindFlows, 1, 50_000)
			return errors.Join(err, r.Close())
		},
		"other pages, the same file": func(path string) error {
			r, _, err := Keep(path, KindFlows, 1, 5001)
			return errors.Join(err, r.Close())
		},
		"cut short": func(path string) error { return os.Truncate(path, 17) },
		"garbage":   func(path string) error { return os.WriteFile(path, make([]byte, 3*HeaderSize), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(memoryFolder(t), "flows")
			r, _ := keep(t, path, 1, 5000)
			copy(r.Payload(), "old")
			if err := errors.Join(r.Close(), spoil(path)); err != nil {
				t.Fatal(err)
			}
			r, found := keep(t, path, 1, 5000)
			defer r.Close()
			if found || r.Payload()[0] != 0 || len(r.Payload()) != 5000 {
				t.Errorf("found %v, %d bytes that begin with %q", found, len(r.Payload()), r.Payload()[:3])
			}
		})
	}
}

func TestKeptMemoryIsRefused(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		path := filepath.Join(memoryFolder(t), "flows")
		r, _ := keep(t, path, 1, 100)
		defer r.Close()
		if _, _, err := Keep(path, KindFlows, 1, 100); !errors.Is(err, ErrInUse) {
			t.Errorf("a second user: %v", err)
		}
		// Who is passed the descriptor has it together with the first, and goes on alone.
		fd, err := unix.Dup(r.FD())
		if err != nil {
			t.Fatal(err)
		}
		other, err := Attach(fd, KindFlows, 1)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		if _, _, err := Keep(path, KindFlows, 1, 100); !errors.Is(err, ErrInUse) {
			t.Errorf("a second user beside the heir: %v", err)
		}
		_ = other.Close()
		if r, found := keep(t, path, 1, 100); !found {
			t.Error("the heir's memory was not found")
		} else {
			_ = r.Close()
		}
	})
	t.Run("not in memory", func(t *testing.T) {
		dir := t.TempDir()
		var on unix.Statfs_t
		if err := unix.Statfs(dir, &on); err != nil || on.Type == unix.TMPFS_MAGIC {
			t.Skip("needs a folder for temporary files that is not in memory")
		}
		if _, _, err := Keep(filepath.Join(dir, "flows"), KindFlows, 1, 100); !errors.Is(err, ErrNotMemory) {
			t.Errorf("a file on a disk: %v", err)
		}
	})
	for name, lay := range map[string]func(path string) error{
		"a folder":        func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link":          func(path string) error { return os.Symlink("/dev/shm/elsewhere", path) },
		"others may read": func(path string) error { return os.WriteFile(path, nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(memoryFolder(t), "flows")
			if err := lay(path); err != nil {
				t.Fatal(err)
			}
			if r, _, err := Keep(path, KindFlows, 1, 100); err == nil {
				_ = r.Close()
				t.Error("was accepted")
			}
		})
	}
	for _, size := range []int{0, -1} {
		if _, _, err := Keep(filepath.Join(memoryFolder(t), "flows"), KindFlows, 1, size); err == nil {
			t.Errorf("%d bytes were accepted", size)
		}
	}
}

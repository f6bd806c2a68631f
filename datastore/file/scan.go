package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/datastore"
)

// What a folder may hold at most. What is beyond is refused, not read.
const (
	maxFiles     = 1 << 16
	maxFileBytes = 16 << 20
	maxBytes     = 256 << 20
)

// settleTries bounds how often a scan waits for files that are being written; what
// is never quiet is read as it is.
const settleTries = 20

// stamp is what changes when a file does.
type stamp struct {
	dev, inode uint64
	size       int64
	written    time.Time
}

// stampOf is a file's, as the kernel has it.
func stampOf(st os.FileInfo) stamp {
	s := stamp{size: st.Size(), written: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.dev, s.inode = uint64(sys.Dev), sys.Ino
	}
	return s
}

var errChanged = errors.New("the folder was taken away while it was read")

// scan brings the view up to what is in the folder: what has a new stamp is read.
func (s *Store) scan(ctx context.Context) error {
	if s.closed {
		return fmt.Errorf("%w: the store was closed", datastore.ErrUnavailable)
	}
	store, err := identity(s.dir)
	if err != nil {
		return fail(err)
	}
	if store != s.store {
		s.begin(store)
	}
	found, err := s.settled(ctx)
	if err != nil {
		return err
	}
	status, same, err := s.scanStatus()
	if err != nil {
		return err
	}
	files, total := make(map[string]*manifest, len(found)), int64(0)
	same = same && len(found) == len(s.files)
	for path, st := range found {
		total += st.size
		before := s.files[path]
		if before != nil && before.stamp == st {
			files[path] = before
			continue
		}
		same = false
		switch {
		case total > maxBytes:
			files[path] = refuse(before, st, path, fmt.Errorf("%w: the folder has more than %d MiB: take some of it elsewhere", datastore.ErrInvalid, maxBytes>>20))
		default:
			files[path] = read(before, st, path)
		}
	}
	// What is missing is not deleted, if the folder was taken away while it was read.
	if now, err := identity(s.dir); err != nil || now != store {
		return fail(errors.Join(errChanged, err))
	}
	s.files, s.status = files, status
	if !same {
		s.publish(look(files, status, s.view))
	}
	return nil
}

// settled looks for manifests until none that is new was written to in the last
// moment: half a manifest may be a whole one that says something else. A time of
// writing that is in the future is no reason to wait.
func (s *Store) settled(ctx context.Context) (found map[string]stamp, err error) {
	for range settleTries {
		if found, err = s.walk(); err != nil {
			return nil, err
		}
		wait := time.Duration(0)
		now := time.Now()
		for path, st := range found {
			if before := s.files[path]; s.whole[path] || before != nil && before.stamp == st {
				continue
			}
			if age := now.Sub(st.written); age >= 0 && age < s.settle {
				wait = max(wait, s.settle-age)
			}
		}
		if wait == 0 {
			return found, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", datastore.ErrUnavailable, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
	return found, nil
}

// walk finds every manifest.
func (s *Store) walk() (map[string]stamp, error) {
	found := make(map[string]stamp)
	err := filepath.WalkDir(s.dir+"/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone since its folder was read
		case err != nil:
			return err
		case path != s.dir+"/" && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || !isManifest(path):
			return nil
		}
		st, err := os.Stat(path) // of what a link leads to
		switch {
		case err != nil || !st.Mode().IsRegular():
			return nil
		case len(found) == maxFiles:
			return fmt.Errorf("more than %d manifests: write more objects to a file", maxFiles)
		}
		found[filepath.Clean(path)] = stampOf(st)
		return nil
	})
	if err != nil {
		return nil, fail(err)
	}
	return found, nil
}

// isManifest reports whether a file's name is that of a manifest.
func isManifest(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))
}

// identity tells one folder from another at the same path: one that was made anew,
// or one that is not mounted.
func identity(dir string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", fmt.Errorf("look at folder %s: %w", dir, err)
	}
	return fmt.Sprintf("%x.%x.%x.%x", st.Dev_major, st.Dev_minor, st.Ino, st.Btime.Sec), nil
}

// contents reads a file of at most maxFileBytes.
func contents(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe in its place would have us wait
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("it has more than %d MiB: split it", maxFileBytes>>20)
	}
	return text, err
}

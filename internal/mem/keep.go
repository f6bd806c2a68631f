package mem

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Errors that a caller of Keep may want to tell apart.
var (
	ErrNotMemory = errors.New("file system is not in memory")
	ErrInUse     = errors.New("in use by another process")
)

// Keep is a region of size payload bytes that outlives the process without anybody
// holding it: a file on a tmpfs, mode 0600, whose folder is made 0700. found tells
// that it is there already as asked for, kind, version and size; then it has what was
// in it when its last user ended, maybe between any two stores. Else it is made,
// zeroed, in place of what had the name. Only one process and those that it
// passes the descriptor to can have it: others get ErrInUse. On a file system
// that is not in memory it is ErrNotMemory, since the kernel would write every page
// to a disk again and again, and hold up who changes it meanwhile.
//
// Unlike a memfd the file cannot be sealed. Who may write to it can shrink it, and
// so end the process by SIGBUS: keep it where only root may write.
func Keep(path string, kind Kind, version uint32, size int) (r *Region, found bool, err error) {
	if size <= 0 || size > math.MaxInt-2*HeaderSize {
		return nil, false, fmt.Errorf("keep memory %s: size is %d bytes, want at least 1", path, size)
	}
	fd, err := openKept(path)
	if err != nil {
		return nil, false, fmt.Errorf("keep memory %s: %w", path, err)
	}
	total := HeaderSize + (size+HeaderSize-1)/HeaderSize*HeaderSize
	if r, err = reopen(fd, kind, version, size, total); err == nil {
		return r, true, nil
	}
	if r, err = renew(fd, total); err != nil {
		return nil, false, errors.Join(fmt.Errorf("keep memory %s of %d bytes: %w", path, total, err), unix.Close(fd))
	}
	r.collapse()
	r.size = size
	r.writeHeader(kind, version, uint64(size))
	return r, false, nil
}

// openKept opens the file and makes sure that it is ours alone, in memory, and a
// file.
func openKept(path string) (fd int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return -1, err
	}
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	if err := claimKept(fd); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func claimKept(fd int) error {
	if err := private(fd); err != nil {
		return err
	}
	// The lock is of the opened file, and so of all to whom the descriptor is passed.
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return nil
}

// private makes sure that nobody but us can change a file in memory.
func private(fd int) error {
	var on unix.Statfs_t
	if err := unix.Fstatfs(fd, &on); err != nil {
		return fmt.Errorf("look at its file system: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no file")
	case on.Type != unix.TMPFS_MAGIC:
		return fmt.Errorf("%w: it is of type %#x, want a tmpfs", ErrNotMemory, on.Type)
	case int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0:
		return fmt.Errorf("it belongs to user %d with mode %#o: others could change it; remove it", st.Uid, st.Mode&0o777)
	}
	return nil
}

// reopen maps the file if it is what is asked for.
func reopen(fd int, kind Kind, version uint32, size, total int) (*Region, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != int64(total) {
		return nil, errors.Join(err, ErrNotOurs)
	}
	r, err := mapAll(fd, total)
	if err != nil {
		return nil, err
	}
	if err = r.checkHeader(kind, version); err == nil && r.size != size {
		err = ErrNotOurs
	}
	if err != nil {
		return nil, errors.Join(err, unmap(r.data))
	}
	return r, nil
}

// renew empties the file and maps total bytes of zeros.
func renew(fd, total int) (*Region, error) {
	if err := unix.Ftruncate(fd, 0); err != nil {
		return nil, fmt.Errorf("empty it: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(total)); err != nil {
		return nil, fmt.Errorf("size it: %w", err)
	}
	return mapAll(fd, total)
}

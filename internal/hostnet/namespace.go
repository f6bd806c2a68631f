//go:build linux

package hostnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	threadNamespace = "/proc/thread-self/ns/net"
	namedDirectory  = "/run/netns" // where ip-netns(8) keeps its names
)

var errEnded = errors.New("function ended its goroutine inside the namespace")

// A Namespace is an open network namespace. It lives until Close, also when
// its name or last process is gone.
type Namespace struct {
	path string
	file *os.File
}

// Identity tells namespaces apart within one boot of the machine. Inodes are
// used again after a namespace is gone, cookies never; kernels before 5.14
// have no cookie and leave it 0.
type Identity struct {
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie,omitempty"`
}

// OpenNamespace opens the network namespace at path, as /run/netns/NAME or
// /proc/PID/ns/net; the empty path is the caller's own.
func OpenNamespace(path string) (*Namespace, error) {
	at := path
	if at == "" {
		at = threadNamespace
	}
	f, err := os.Open(at)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("open namespace: %s is no namespace (a name left behind in %s is removed with ip netns delete)", at, namedDirectory)
	}
	return &Namespace{path: path, file: f}, nil
}

// Close gives the descriptor back.
func (n *Namespace) Close() error { return n.file.Close() }

// FD is the open descriptor, valid until Close; it is not the caller's to close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Path is what OpenNamespace was given.
func (n *Namespace) Path() string { return n.path }

// String names the namespace in errors.
func (n *Namespace) String() string {
	if n.path == "" {
		return "(own)"
	}
	return n.path
}

// Identity reads the namespace's inode and cookie.
func (n *Namespace) Identity() (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return Identity{}, fmt.Errorf("stat namespace %s: %w", n, err)
	}
	id := Identity{Inode: st.Ino}
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			id.Cookie = c
		}
		return nil
	})
	return id, err
}

// Do runs f on a thread of its own inside the namespace; who is in it needs no right
// for that. Sockets that f opens
// stay in the namespace for good; goroutines that f starts do not run in it.
// A thread that cannot return to where it came from is discarded.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errEnded
		defer func() { result <- err }()
		runtime.LockOSThread() // left locked, the thread ends with this goroutine
		err = n.inside(f, runtime.UnlockOSThread)
	}()
	return <-result
}

// inside moves the locked thread to the namespace and back, and calls release if it did come back.
func (n *Namespace) inside(f func() error, release func()) error {
	home, err := os.Open(threadNamespace)
	if err != nil {
		release()
		return fmt.Errorf("enter namespace %s: %w", n, err)
	}
	defer home.Close()
	if err := enter(n.file); err != nil {
		release()
		return fmt.Errorf("enter namespace %s: %w (this needs CAP_SYS_ADMIN)", n, err)
	}
	err = f()
	if enter(home) == nil {
		release()
	}
	return err
}

// enter moves the locked thread to a namespace, unless it is there: who stays in his
// own needs no right to leave it, and a service may have none.
func enter(to *os.File) error {
	here, err := os.Open(threadNamespace)
	if err != nil {
		return err
	}
	defer here.Close()
	is, err := here.Stat()
	if err != nil {
		return err
	}
	if want, err := to.Stat(); err != nil || os.SameFile(is, want) {
		return err
	}
	return unix.Setns(int(to.Fd()), unix.CLONE_NEWNET)
}

// CreateNamespace makes a namespace with a name in /run/netns, as ip netns add
// does, and opens it. It shares the directory, and its lock, with ip-netns(8).
func CreateNamespace(name string) (*Namespace, error) {
	path, err := NamespacePath(name)
	if err != nil {
		return nil, err
	}
	unlock, err := lockNamed()
	if err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	defer unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("create namespace: %w", err)
	}
	f.Close()
	if err := bindNew(path); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	return OpenNamespace(path)
}

// bindNew makes a namespace and pins it to path.
func bindNew(path string) error {
	own, err := OpenNamespace("")
	if err != nil {
		return err
	}
	defer own.Close()
	return own.Do(func() error { // Do brings the thread back from the new one
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w (this needs CAP_SYS_ADMIN)", err)
		}
		if err := unix.Mount(threadNamespace, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount on %s: %w", path, err)
		}
		return nil
	})
}

// DeleteNamespace removes the name; the namespace itself goes with its last
// user. A name that is not there is no error.
func DeleteNamespace(name string) error {
	path, err := NamespacePath(name)
	if err != nil {
		return err
	}
	err = unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: a bare file, left by a crash
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete namespace: %w", err)
	}
	return nil
}

// NamedNamespaces lists the names in /run/netns, also those of others.
func NamedNamespaces() ([]string, error) {
	entries, err := os.ReadDir(namedDirectory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// NamespacePath is where the namespace with a name is, or would be: /run/netns/NAME.
func NamespacePath(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return "", fmt.Errorf("namespace name %q is no file name", name)
	}
	return filepath.Join(namedDirectory, name), nil
}

// lockNamed makes /run/netns ready as ip-netns(8) does, a shared mount so that
// names reach other mount namespaces, under the lock that it takes too.
func lockNamed() (unlock func(), err error) {
	if err := os.MkdirAll(namedDirectory, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(namedDirectory)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", namedDirectory, err)
	}
	if err := shareNamed(); err != nil {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}

func shareNamed() error {
	share := func() error { return unix.Mount("", namedDirectory, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err := share(); !errors.Is(err, unix.EINVAL) {
		return err
	}
	// EINVAL: not a mount point yet.
	if err := unix.Mount(namedDirectory, namedDirectory, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make %s a mount: %w", namedDirectory, err)
	}
	return share()
}

package handover

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patient are limits that a loaded machine keeps.
func patient() limits {
	return limits{answer: time.Minute, prepare: time.Minute, build: time.Minute, step: time.Minute, progress: time.Second}
}

// short are limits that a test waits for.
func short() limits {
	l := patient()
	l.answer, l.prepare, l.build, l.step = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	return l
}

func facts() Facts {
	return Facts{Program: "margay-forwarder v1.2.3", Contract: 3, MinContract: 1, Arena: 2, Workers: 2, Frames: 4096, Supers: 64}
}

// fake is a giver that writes down what is asked of it.
type fake struct {
	bundle  Bundle
	flight  []byte
	prepare func(context.Context) error
	freeze  func(context.Context) error

	mu    sync.Mutex
	calls []string
	whys  []error
}

func (f *fake) note(call string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.whys = append(f.calls, call), append(f.whys, why)
}

// hands says which descriptors go along, also while it is served.
func (f *fake) hands(fds ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bundle.FDs = fds
}

func (f *fake) Facts() Facts { return facts() }

func (f *fake) Prepare(ctx context.Context) (Bundle, error) {
	f.note("prepare", nil)
	if f.prepare != nil {
		if err := f.prepare(ctx); err != nil {
			return Bundle{}, err
		}
	}
	return f.bundle, nil
}

func (f *fake) Freeze(ctx context.Context) ([]byte, error) {
	f.note("freeze", nil)
	if f.freeze != nil {
		if err := f.freeze(ctx); err != nil {
			return nil, err
		}
	}
	return f.flight, nil
}

func (f *fake) Resume(touched bool, why error) {
	f.note(fmt.Sprintf("resume touched=%v", touched), why)
}
func (f *fake) Done() { f.note("done", nil) }

// did waits until the giver was asked all of want, and tells what it was asked.
func (f *fake) did(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !slices.Equal(f.calls, want) {
			return fmt.Errorf("the giver was asked %q because of %v, want %q", f.calls, f.whys, want)
		}
		return nil
	})
}

// forget clears what was asked.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.whys = nil, nil
}

// why is the reason that came with the last call.
func (f *fake) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whys[len(f.whys)-1]
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Error(err)
}

// serving is a server in this process.
type serving struct {
	path string
	l    *net.UnixListener
	stop context.CancelCauseFunc
	over chan error
}

// serveFake starts one, which ends with the test.
func serveFake(t *testing.T, g Giver, lim limits) *serving {
	t.Helper()
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, path, g, lim)
}

func serveOn(t *testing.T, l *net.UnixListener, path string, g Giver, lim limits) *serving {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	s := &serving{path: path, l: l, stop: stop, over: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.over <- serve(ctx, l, g, slog.New(slog.DiscardHandler), lim)
	}()
	t.Cleanup(func() {
		stop(nil)
		<-ended
	})
	return s
}

// socketPath is short enough for a socket, wherever tests run.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "handover")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// open counts the descriptors of this process.
func open(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// noLeak fails a test that leaves more descriptors open than there were.
func noLeak(t *testing.T) {
	t.Helper()
	warm(t)
	before := open(t)
	t.Cleanup(func() {
		eventually(t, func() error {
			if after := open(t); after > before {
				return fmt.Errorf("%d descriptors are open, %d were before", after, before)
			}
			return nil
		})
	})
}

// warm has the runtime open what it keeps.
func warm(t *testing.T) {
	t.Helper()
	c, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(t), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// numbered makes n descriptors that can be told apart: of files of 0, 1, ... bytes.
func numbered(t *testing.T, n int) []int {
	t.Helper()
	room(t, 2*n+200)
	fds := make([]int, n)
	for i := range fds {
		fd, err := unix.MemfdCreate("margay-test", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, int64(i)); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	t.Cleanup(func() { closeAll(fds) })
	return fds
}

// room lets this process have n files open.
func room(t *testing.T, n int) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= uint64(n) {
		return
	}
	l.Cur, l.Max = uint64(n), max(l.Max, uint64(n))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Skipf("%d files may not be open: %v", n, err)
	}
}

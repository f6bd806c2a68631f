package handover

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleKey); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// takeAll takes one taker through to the end.
func takeAll(t *testing.T, path string) (b Bundle, flight []byte) {
	t.Helper()
	taking, b, err := take(t.Context(), path, facts(), patient())
	if err != nil {
		t.Fatal(err)
	}
	b.Image = bytes.Clone(b.Image)
	moved, err := taking.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	flight = bytes.Clone(moved)
	if err := taking.Applied(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taking.Alone() {
		t.Error("the taker believes that the giver died")
	}
	if err := taking.Running(); err != nil {
		t.Fatal(err)
	}
	return b, flight
}

func TestEverythingArrivesInOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		image, flight int
		fds           int
	}{
		"nothing":                 {},
		"a little":                {image: 10, flight: 3, fds: 1},
		"a full batch":            {image: 4096, flight: 4096, fds: batchFDs},
		"one more than a batch":   {image: 1, flight: 1, fds: batchFDs + 1},
		"thousands and a big one": {image: 64<<20 + 1, flight: 1 << 20, fds: 3000},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			g := &fake{bundle: Bundle{Image: pattern(tt.image), FDs: numbered(t, tt.fds)}, flight: pattern(tt.flight)}
			s := serveFake(t, g, patient())
			b, moved := takeAll(t, s.path)
			defer closeAll(b.FDs)
			if !bytes.Equal(b.Image, g.bundle.Image) || !bytes.Equal(moved, g.flight) {
				t.Errorf("an image of %d and a flight of %d bytes came, want what was given: %d and %d", len(b.Image), len(moved), tt.image, tt.flight)
			}
			if len(b.FDs) != tt.fds {
				t.Fatalf("%d descriptors came, want %d", len(b.FDs), tt.fds)
			}
			for i, fd := range b.FDs {
				checkNumbered(t, fd, i)
			}
			g.did(t, "prepare", "freeze", "done")
			if err := <-s.over; err != nil {
				t.Errorf("the server ends with %v", err)
			}
		})
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func checkNumbered(t *testing.T, fd, number int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != int64(number) {
		t.Fatalf("descriptor %d is of file %d (%v)", number, st.Size, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Fatalf("descriptor %d stays open on exec (%v)", number, err)
	}
}

// The socket goes along, so that the taker is the next giver at the same place.
func TestTwiceInARow(t *testing.T) {
	noLeak(t)
	first := &fake{}
	s := serveFake(t, first, patient())
	first.hands(listenerFD(t, s.l))
	b, _ := takeAll(t, s.path)
	first.did(t, "prepare", "freeze", "done")
	if err := <-s.over; err != nil {
		t.Fatal(err)
	}

	second := &fake{flight: []byte("again")}
	again := serveOn(t, listener(t, b.FDs[0]), s.path, second, patient())
	if _, moved := takeAll(t, s.path); string(moved) != "again" {
		t.Errorf("the flight is %q, of another giver", moved)
	}
	second.did(t, "prepare", "freeze", "done")
	first.did(t, "prepare", "freeze", "done")
	if err := <-again.over; err != nil {
		t.Fatal(err)
	}
	if _, _, err := Take(t.Context(), s.path, facts()); !errors.Is(err, ErrNobody) {
		t.Errorf("with nobody left: %v, want %v", err, ErrNobody)
	}
}

// listenerFD is the listener's own descriptor.
func listenerFD(t *testing.T, l *net.UnixListener) (fd int) {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

func listener(t *testing.T, fd int) *net.UnixListener {
	t.Helper()
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.UnixListener)
}

func TestOfTwoTakersTheSecondIsRefused(t *testing.T) {
	noLeak(t)
	preparing, goOn := make(chan struct{}), make(chan struct{})
	g := &fake{prepare: func(context.Context) error {
		close(preparing)
		<-goOn
		return nil
	}}
	s := serveFake(t, g, patient())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		takeAll(t, s.path)
	}()
	<-preparing
	for range 3 {
		if _, _, err := take(t.Context(), s.path, facts(), patient()); !errors.Is(err, ErrBusy) {
			t.Errorf("the second taker hears %v, want %v", err, ErrBusy)
		}
	}
	close(goOn)
	<-finished
	g.did(t, "prepare", "freeze", "done")
}

func TestNobodyThere(t *testing.T) {
	dead := socketPath(t)
	l, err := Listen(dead)
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for name, path := range map[string]string{"no socket": dead + "x", "a dead one": dead} {
		if _, _, err := Take(t.Context(), path, facts()); !errors.Is(err, ErrNobody) || !strings.Contains(err.Error(), "--take-over") {
			t.Errorf("%s: %v, want %v with what to do", name, err, ErrNobody)
		}
	}
}

func TestTheGiversReasonReachesTheTaker(t *testing.T) {
	noLeak(t)
	fail := errors.New("the disk is on fire")
	for name, tt := range map[string]struct {
		g     *fake
		calls []string
	}{
		"prepare": {&fake{prepare: func(context.Context) error { return fail }}, []string{"prepare"}},
		"freeze":  {&fake{freeze: func(context.Context) error { return fail }}, []string{"prepare", "freeze", "resume touched=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveFake(t, tt.g, patient())
			taking, _, err := take(t.Context(), s.path, facts(), patient())
			if err == nil {
				_, err = taking.Ready(t.Context())
				taking.Abort(err)
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), fail.Error()) {
				t.Errorf("the taker hears %v, want %v", err, fail)
			}
			tt.g.did(t, tt.calls...)
		})
	}
}

func TestTheTakersReasonReachesTheGiver(t *testing.T) {
	noLeak(t)
	why := errors.New("no memory for the tables")
	for name, steps := range map[string]struct {
		steps int
		calls []string
	}{
		"while it builds":    {0, []string{"prepare", "resume touched=false"}},
		"while it applies":   {1, []string{"prepare", "freeze", "resume touched=false"}},
		"after it was to go": {2, []string{"prepare", "freeze", "resume touched=true"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &fake{}
			s := serveFake(t, g, patient())
			taking, _, err := take(t.Context(), s.path, facts(), patient())
			if err == nil && steps.steps > 0 {
				_, err = taking.Ready(t.Context())
			}
			if err == nil && steps.steps > 1 {
				err = taking.Applied(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			taking.Abort(why)
			taking.Abort(why) // once more does no harm
			g.did(t, steps.calls...)
			if err := g.why(); !strings.Contains(err.Error(), why.Error()) {
				t.Errorf("the giver resumes because of %v, want %v", err, why)
			}
			g.forget()
			takeAll(t, s.path) // the next one comes through
			g.did(t, "prepare", "freeze", "done")
		})
	}
}

// The forwarder is told to stop in the middle of it.
func TestTheGiverEndsOnItsOwn(t *testing.T) {
	noLeak(t)
	shutdown := errors.New("terminated")
	g := &fake{}
	s := serveFake(t, g, patient())
	taking, _, err := take(t.Context(), s.path, facts(), patient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taking.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.stop(shutdown)
	g.did(t, "prepare", "freeze", "resume touched=false")
	if err := <-s.over; !errors.Is(err, shutdown) {
		t.Errorf("the server ends with %v, want %v", err, shutdown)
	}
	err = taking.Applied(t.Context())
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), shutdown.Error()) || taking.Alone() {
		t.Errorf("the taker hears %v (alone: %v), want %v", err, taking.Alone(), shutdown)
	}
	taking.Abort(err)
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's name stays: %v", err)
	}
}

// Told to stop after it let go, the forwarder still hears that the taker runs.
func TestTheGiverEndsWhenItHasLetGo(t *testing.T) {
	noLeak(t)
	g := &fake{}
	s := serveFake(t, g, patient())
	taking, _, err := take(t.Context(), s.path, facts(), patient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taking.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := taking.Applied(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.stop(errors.New("terminated"))
	time.Sleep(50 * time.Millisecond) // for whoever would not listen any more
	if err := taking.Running(); err != nil {
		t.Fatal(err)
	}
	g.did(t, "prepare", "freeze", "done")
	if err := <-s.over; err != nil {
		t.Errorf("the server ends with %v, though it handed over", err)
	}
}

package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/mem"
)

// packet is what a hostile side sends: bytes and descriptors.
type packet struct {
	bytes []byte
	fds   []int
}

// say is a packet with m and descriptors.
func say(t *testing.T, m message, fds ...int) packet {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return packet{b, fds}
}

// self is a pidfd of this process, until the test ends.
func self(t *testing.T) int {
	t.Helper()
	fd, err := myself()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func greeting(t *testing.T) packet {
	f := facts()
	return say(t, message{Kind: hello, Version: Version, MinVersion: MinVersion, Facts: &f}, self(t))
}

// connect is a bare connection, closed with the test.
func connect(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// send sends all packets; the other side may close before the last.
func send(c *net.UnixConn, packets ...packet) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
	for _, p := range packets {
		var oob []byte
		if len(p.fds) > 0 {
			oob = unix.UnixRights(p.fds...)
		}
		if _, _, err := c.WriteMsgUnix(p.bytes, oob, nil); err != nil {
			return
		}
	}
}

// last is the last message that comes before the end, descriptors closed.
func last(t *testing.T, c *net.UnixConn) (m message) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	for in := newConn(c); ; {
		next, fds, err := in.recv(kernelFDs)
		closeAll(fds)
		if errors.Is(err, errGone) {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		m = next
	}
}

func TestHostileTakers(t *testing.T) {
	f, many := facts(), numbered(t, kernelFDs)
	tests := map[string]struct {
		packets func(t *testing.T) []packet
		says    string // in the refusal
	}{
		"garbage":               {func(*testing.T) []packet { return []packet{{bytes: []byte("\x00\xff{")}} }, "read a message"},
		"no kind":               {func(*testing.T) []packet { return []packet{{bytes: []byte("{}")}} }, "no kind"},
		"another kind":          {func(t *testing.T) []packet { return []packet{say(t, message{Kind: "please"})} }, `"please" where "hello"`},
		"the wrong order":       {func(t *testing.T) []packet { return []packet{say(t, message{Kind: ready})} }, `"ready" where "hello"`},
		"a huge message":        {func(*testing.T) []packet { return []packet{{bytes: bytes.Repeat([]byte(" "), maxMessage+1)}} }, "more than"},
		"an empty one with fds": {func(*testing.T) []packet { return []packet{{fds: many[:3]}, {bytes: []byte("x")}} }, ""},
		"hello without facts":   {func(t *testing.T) []packet { return []packet{say(t, message{Kind: hello, Version: 1, MinVersion: 1})} }, "without facts"},
		"hello with nobody's life": {func(t *testing.T) []packet {
			return []packet{say(t, message{Kind: hello, Version: 1, MinVersion: 1, Facts: &f})}
		}, "0 descriptors"},
		"hello with a file for a life": {func(t *testing.T) []packet {
			return []packet{say(t, message{Kind: hello, Version: 1, MinVersion: 1, Facts: &f}, many[0])}
		}, "no process"},
		"hello with many descriptors": {func(t *testing.T) []packet {
			return []packet{say(t, message{Kind: hello, Version: 1, MinVersion: 1, Facts: &f}, many...)}
		}, "at most 1"},
		"a huge count": {func(t *testing.T) []packet {
			return []packet{say(t, message{Kind: hello, Version: 1, MinVersion: 1, Facts: &f, FDs: MaxFDs + 1}, self(t))}
		}, "announces"},
		"a negative count": {func(*testing.T) []packet { return []packet{{bytes: []byte(`{"kind":"hello","fds":-1}`)}} }, "announces"},
		"numbers out of range": {func(*testing.T) []packet {
			return []packet{{bytes: []byte(`{"kind":"hello","version":1e30}`)}}
		}, "read a message"},
		"hello twice": {func(t *testing.T) []packet { return []packet{greeting(t), greeting(t)} }, "descriptors, want at most 0"},
		"ready twice": {func(t *testing.T) []packet {
			return []packet{greeting(t), say(t, message{Kind: ready}), say(t, message{Kind: ready})}
		}, `"ready" where`},
		"applied before ready": {func(t *testing.T) []packet { return []packet{greeting(t), say(t, message{Kind: applied})} }, `"applied" where`},
		"garbage for ready":    {func(t *testing.T) []packet { return []packet{greeting(t), {bytes: []byte("ready")}} }, "read a message"},
		"ready with descriptors": {func(t *testing.T) []packet {
			return []packet{greeting(t), say(t, message{Kind: ready}, many...)}
		}, "at most 0"},
		"silence":             {func(*testing.T) []packet { return nil }, "timeout"},
		"silence after hello": {func(t *testing.T) []packet { return []packet{greeting(t)} }, `did not say "ready"`},
		"silence after ready": {func(t *testing.T) []packet { return []packet{greeting(t), say(t, message{Kind: ready})} }, "did not say"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			g := &fake{bundle: Bundle{Image: []byte("image"), FDs: many[:1]}}
			lim := patient()
			if strings.HasPrefix(name, "silence") {
				lim = short()
			}
			s := serveFake(t, g, lim)
			c := connect(t, s.path)
			packets := tt.packets(t)
			send(c, packets[:min(1, len(packets))]...)
			if name == "silence after ready" { // in its turn, or that it spoke too early is the fault
				_ = c.SetReadDeadline(time.Now().Add(time.Minute))
				hear(t, newConn(c), batch)
			}
			send(c, packets[min(1, len(packets)):]...)
			m := last(t, c)
			if tt.says != "" && (m.Kind != refusal || !strings.Contains(m.Text, tt.says)) {
				t.Errorf("the last message is %s %q, want a refusal with %q", m.Kind, m.Text, tt.says)
			}
			inCharge(t, g)
		})
	}
}

// inCharge checks that whatever was begun was taken back, and touched nothing.
func inCharge(t *testing.T, g *fake) {
	t.Helper()
	eventually(t, func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if n := len(g.calls); n > 0 && g.calls[n-1] != "resume touched=false" {
			return fmt.Errorf("the giver was asked %q, want it back in charge", g.calls)
		}
		return nil
	})
}

// giverWith answers one connection at the path that it returns with packets,
// each once the taker has said something, and closes when the taker does.
func giverWith(t *testing.T, packets ...packet) (path string) {
	t.Helper()
	path = socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		in := newConn(c)
		_, fds, _ := in.recv(1)
		closeAll(fds)
		send(c, packets...)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		for err == nil {
			_, fds, err = in.recv(kernelFDs)
			closeAll(fds)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return path
}

func answer(t *testing.T, version uint32) packet {
	f := facts()
	return say(t, message{Kind: welcome, Version: version, Facts: &f}, self(t))
}

func memory(t *testing.T, size int) int {
	t.Helper()
	fd, err := mem.Seal("margay-test", make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestHostileGivers(t *testing.T) {
	many := numbered(t, kernelFDs)
	offered := func(t *testing.T, fds int) packet {
		return say(t, message{Kind: offer, Bytes: 5, FDs: fds}, memory(t, 5))
	}
	tests := map[string]struct {
		packets func(t *testing.T) []packet
		says    string
	}{
		"garbage": {func(*testing.T) []packet { return []packet{{bytes: []byte("garbage")}} }, "read a message"},
		"nobody's life": {func(t *testing.T) []packet {
			return []packet{say(t, message{Kind: welcome, Version: 1, Facts: new(Facts)})}
		}, "0 descriptors"},
		"welcome without facts":  {func(t *testing.T) []packet { return []packet{say(t, message{Kind: welcome, Version: 1}, self(t))} }, "without facts"},
		"a version we never had": {func(t *testing.T) []packet { return []packet{answer(t, Version+1)} }, "want 1 to 1"},
		"offer before welcome":   {func(t *testing.T) []packet { return []packet{offered(t, 0)} }, `"offer" where "welcome"`},
		"no memory":              {func(t *testing.T) []packet { return []packet{answer(t, 1), say(t, message{Kind: offer})} }, "without its memory"},
		"memory that changes":    {func(t *testing.T) []packet { return []packet{answer(t, 1), say(t, message{Kind: offer}, many[0])} }, "could change"},
		"two memories":           {func(t *testing.T) []packet { return []packet{answer(t, 1), say(t, message{Kind: offer}, many[:2]...)} }, "at most 1"},
		"another size": {func(t *testing.T) []packet {
			return []packet{answer(t, 1), say(t, message{Kind: offer, Bytes: 6}, memory(t, 5))}
		}, "announces 6"},
		"a huge count": {func(t *testing.T) []packet { return []packet{answer(t, 1), offered(t, 1<<40)} }, "announces"},
		"an empty batch": {func(t *testing.T) []packet {
			return []packet{answer(t, 1), offered(t, 9), say(t, message{Kind: batch})}
		}, "at least one"},
		"too full a batch": {func(t *testing.T) []packet {
			return []packet{answer(t, 1), offered(t, 9), say(t, message{Kind: batch}, many...)}
		}, "9 in all"},
		"flight for a batch": {func(t *testing.T) []packet {
			return []packet{answer(t, 1), offered(t, 9), say(t, message{Kind: batch}, many[:5]...), say(t, message{Kind: flight}, many[:4]...)}
		}, `"flight" where "batch"`},
		"silence": {func(*testing.T) []packet { return nil }, "timeout"},
		"half of a batch": {func(t *testing.T) []packet {
			return []packet{answer(t, 1), offered(t, 9), say(t, message{Kind: batch}, many[:5]...)}
		}, "timeout"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			lim := patient()
			if tt.says == "timeout" {
				lim = short()
			}
			path := giverWith(t, tt.packets(t)...)
			_, _, err := take(t.Context(), path, facts(), lim)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the taker fails with %v, want %q", err, tt.says)
			}
		})
	}
}

// A giver that lives and closes without a word is not dead: two would drive.
func TestAGiverThatHangsUpIsNotDead(t *testing.T) {
	noLeak(t)
	path := giverWith(t, answer(t, 1), say(t, message{Kind: offer}, memory(t, 0)), say(t, message{Kind: flight}, memory(t, 0)))
	lim := patient()
	lim.step = time.Second
	taking, _, err := take(t.Context(), path, facts(), lim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taking.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := taking.Applied(t.Context()); err == nil || taking.Alone() {
		t.Errorf("the taker goes on: %v, alone %v", err, taking.Alone())
	}
	taking.Abort(errors.New("the test is over"))
}

// The steps while packets stand have short limits, and the giver goes on after them.
func TestSlowTakers(t *testing.T) {
	for name, slow := range map[string]string{"builds": "take", "applies": "ready"} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			g := &fake{}
			s := serveFake(t, g, short())
			failed, alone := takeWith(t, s.path, func(step string) {
				if step == slow {
					inChargeAgain(t, g)
				}
			})
			if want := map[string]string{"take": "ready", "ready": "applied"}[slow]; failed != want || alone {
				t.Errorf("the step that fails is %q (alone: %v), want %q", failed, alone, want)
			}
		})
	}
}

// inChargeAgain waits until the giver has taken back what it prepared.
func inChargeAgain(t *testing.T, g *fake) {
	t.Helper()
	eventually(t, func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if n := len(g.calls); n == 0 || g.calls[n-1] != "resume touched=false" {
			return fmt.Errorf("the giver was asked %q, want it back in charge", g.calls)
		}
		return nil
	})
}

// A giver that is slow is told so by its context.
func TestSlowGivers(t *testing.T) {
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for name, g := range map[string]*fake{"prepare": {prepare: wait}, "freeze": {freeze: wait}} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			s := serveFake(t, g, short())
			taking, _, err := take(t.Context(), s.path, facts(), patient())
			if err == nil {
				_, err = taking.Ready(t.Context())
				taking.Abort(err)
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), name+" took longer than") {
				t.Errorf("the taker hears %v, want how long it took to %s", err, name)
			}
		})
	}
}

// The kernel drops descriptors for which the taker has no room.
func TestTooManyOpenFilesAreTold(t *testing.T) {
	fds := numbered(t, 2*batchFDs)
	noLeak(t)
	g := &fake{bundle: Bundle{FDs: fds}}
	s := serveFake(t, g, patient())
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	tight := unix.Rlimit{Cur: uint64(open(t) + batchFDs + 100), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &tight); err != nil {
		t.Fatal(err)
	}
	_, _, err := take(t.Context(), s.path, facts(), patient())
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if err == nil || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("the taker fails with %v, want what to raise", err)
	}
	g.did(t, "prepare", "resume touched=false")
}

// Nobody but root and our own user is served, whatever the mode of the socket.
func TestAnotherUserIsNotServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	noLeak(t)
	g := &fake{}
	s := serveFake(t, g, patient())
	for path, mode := range map[string]os.FileMode{s.path: 0o777, s.path[:strings.LastIndex(s.path, "/")]: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	hello := greeting(t)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: a thread that is another user must end
		result <- asNobody(s.path, hello)
	}()
	if err := <-result; err != nil {
		t.Error(err)
	}
	g.did(t)
}

// asNobody connects as another user, with this thread only.
func asNobody(path string, hello packet) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const nobody = 65534
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
		return e
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	_ = unix.Sendmsg(fd, hello.bytes, unix.UnixRights(hello.fds...), nil, unix.MSG_NOSIGNAL) // it may be refused already
	tv := unix.Timeval{Sec: 60}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	n, err := unix.Read(fd, make([]byte, maxMessage))
	if n > 0 || (err != nil && !errors.Is(err, unix.ECONNRESET)) {
		return fmt.Errorf("another user reads %d bytes (%w), want the end", n, err)
	}
	return nil
}

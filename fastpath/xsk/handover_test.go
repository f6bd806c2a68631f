package xsk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// duplicate is a descriptor as another process gets it.
func duplicate(t testing.TB, fd int) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// told is v as another process reads it.
func told[T any](t testing.TB, v T) (w T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// held counts the descriptors and mapped rings of this process.
func held(t testing.TB) (descriptors, rings int) {
	t.Helper()
	runtime.GC() // files that nobody has any more are closed by and by
	for last, same := -1, 0; same < 5; time.Sleep(2 * time.Millisecond) {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		if descriptors = len(all); descriptors != last {
			last, same = descriptors, 0
		}
		same++
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return descriptors, strings.Count(string(maps), "socket:[")
}

// everyFrame checks that the rings have all frames, and waits for the kernel to be
// done with them.
func everyFrame(t *testing.T, u *UMEM, p *port, frames int) {
	t.Helper()
	until(t, u, func() bool { return p.socket.TransmitPending() == 0 }, p)
	on := map[uint64]bool{}
	for _, addr := range p.socket.OnRings(nil) {
		on[addr/4096] = true
	}
	if got := int(p.socket.FillPending()); got != frames || len(on) != frames {
		t.Errorf("%d frames are with the kernel, %d of them seen on rings; want %d", got, len(on), frames)
	}
}

// A socket goes from hand to hand within the process, as from process to process:
//
//	far: 10.7.0.1 ── v0 ══ v0 ── Socket, then its heir
func TestSocketsChangeHandsUnderTraffic(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	u := copyUMEM(t, 64)
	s := open(t, u, near, "v0")
	s.fellBack("a race horse", "a pony", unix.EOPNOTSUPP)
	s.Fill(addresses(0, 64))
	program := takeOver(t, near, "v0", s, Native)
	p := &port{socket: s, change: reflect}
	p.to = p
	four, six := far.udp(kernel4, ours4), far.udp(kernel6, ours6)
	descriptors, rings := held(t)
	for range 5 {
		exchange(t, u, four, 1000, 10, p)
		exchange(t, u, six, 1000, 10, p)
		everyFrame(t, u, p, 64)
		old := p.socket

		heir, err := AdoptCopyUMEM(u.Area(), 4096, 0, duplicate(t, u.Anchor()))
		if err != nil {
			t.Fatal(err)
		}
		next, err := heir.Adopt(duplicate(t, old.FD()), told(t, old.State()))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, u, four, 1000, 3, p) // the giver forwards on meanwhile
		if err := next.Land(told(t, old.Flight())); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(old.Close(), u.Close()); err != nil {
			t.Fatal(err)
		}
		p.socket, u = next, heir
		t.Cleanup(func() { _ = next.Close() })
		t.Cleanup(func() { _ = heir.Close() })
	}
	if f := p.socket.Fallbacks(); len(f) != 1 || f[0].String() != s.fallbacks[0].String() {
		t.Errorf("fallbacks are %v in the end, were %v", f, s.fallbacks)
	}
	if d, r := held(t); d != descriptors || r != rings {
		t.Errorf("%d descriptors and %d rings are held after the hand-overs, want %d and %d", d, r, descriptors, rings)
	}
	witness(t, program, p.socket, 115)
	near.veth(far, "v1", 1500, "") // and the memory can be shared with more
	if open(t, u, near, "v1").UMEM() != u {
		t.Error("a new socket has other memory")
	}
}

// The same with a process of its own, which takes over and gives back.
func TestSocketsGoToAnotherProcessAndBack(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	file, area := sharedMemory(t, 64)
	u, err := NewCopyUMEM(area, 4096, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	s := open(t, u, near, "v0")
	s.Fill(addresses(0, 64))
	program := takeOver(t, near, "v0", s, Native)
	p := &port{socket: s, change: reflect}
	p.to = p
	four, six := far.udp(kernel4, ours4), far.udp(kernel6, ours6)
	exchange(t, u, four, 1000, 20, p)
	everyFrame(t, u, p, 64)

	before := s.Flight()
	after := inAnotherProcess(t, file, u, s, func() { echoes(t, 20, four, six) })
	if after == before || after.Received-before.Received < 40 {
		t.Fatalf("the rings stood at %+v and stand at %+v: the other process moved nothing", before, after)
	}
	if err := s.Land(before); err == nil {
		t.Error("rings that another process has moved were taken for those left")
	}
	if err := s.Land(after); err != nil {
		t.Fatal(err)
	}
	exchange(t, u, six, 1000, 20, p)
	everyFrame(t, u, p, 64)
	witness(t, program, s, 80)
}

// sharedMemory is a mapped memfd of n frames.
func sharedMemory(t testing.TB, frames int) (*os.File, []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("xsk-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "frames")
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(int64(frames) * 4096); err != nil {
		t.Fatal(err)
	}
	area, err := unix.Mmap(fd, 0, frames*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(area) })
	return file, area
}

// echoes gets back n datagrams from whoever reflects them, by each of conns.
func echoes(t *testing.T, n int, conns ...*net.UDPConn) {
	t.Helper()
	for _, c := range conns {
		for i := range n {
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatalf("datagram %d did not come back: %v", i, err)
			}
		}
	}
}

// orders are what the other process is told.
type orders struct {
	State  SocketState
	Flight SocketFlight
}

// inAnotherProcess has a child reflect what comes while fn runs, and returns where
// it left the socket.
func inAnotherProcess(t *testing.T, frames *os.File, u *UMEM, s *Socket, fn func()) (f SocketFlight) {
	t.Helper()
	b, err := json.Marshal(orders{s.State(), s.Flight()})
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("/proc/self/exe")
	other.Env = append(os.Environ(), ordersName+"="+string(b))
	anchor, socket := os.NewFile(uintptr(duplicate(t, u.Anchor())), "anchor"), os.NewFile(uintptr(duplicate(t, s.FD())), "socket")
	defer anchor.Close()
	defer socket.Close()
	other.ExtraFiles = []*os.File{frames, anchor, socket}
	other.Stderr = os.Stderr
	stop, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	fn()
	stop.Close()
	said, _ := io.ReadAll(out)
	if err := other.Wait(); err != nil {
		t.Fatalf("the other process: %v\n%s", err, said)
	}
	if err := json.Unmarshal(said, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// ordersName is the variable of the environment that makes this program the other
// process.
const ordersName = "XSK_TEST_ORDERS"

func TestMain(m *testing.M) {
	told := os.Getenv(ordersName)
	if told == "" {
		os.Exit(m.Run())
	}
	var o orders
	err := json.Unmarshal([]byte(told), &o)
	if err == nil {
		err = reflectFor(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is what a lab's functions complain to in the other process.
type child struct{ testing.TB }

func (child) Helper() {}
func (child) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// reflectFor reflects what comes until the standard input ends, and says where it
// left the socket.
func reflectFor(o orders) error {
	area, err := unix.Mmap(3, 0, 64*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	u, err := AdoptCopyUMEM(area, 4096, 0, 4)
	if err != nil {
		return err
	}
	s, err := u.Adopt(5, o.State)
	if err != nil {
		return err
	}
	if err := s.Land(o.Flight); err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	p := &port{socket: s, change: reflect}
	p.to = p
	for done := false; !done || s.TransmitPending() > 0; {
		select {
		case <-stopped:
			done = true
		default:
		}
		if turn(child{}, u, p) == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(s.Flight()); err != nil {
		return err
	}
	return errors.Join(s.Close(), u.Close())
}

// openings are descriptors that are no bound AF_XDP socket.
func openings(t *testing.T) map[string]int {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	all := map[string]int{"a pipe": pipe[0], "a pipe's other end": pipe[1], "nothing": -1}
	for name, family := range map[string]int{"a UDP socket of IPv4": unix.AF_INET, "a UDP socket of IPv6": unix.AF_INET6, "an unbound socket": unix.AF_XDP} {
		kind := unix.SOCK_DGRAM
		if family == unix.AF_XDP {
			kind = unix.SOCK_RAW
		}
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = fd
	}
	for _, fd := range all {
		t.Cleanup(func() {
			if err := unix.Close(fd); fd >= 0 && err != nil {
				t.Errorf("close descriptor %d, which a failed adoption left to us: %v", fd, err)
			}
		})
	}
	return all
}

func TestAdoptRefuses(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	near.veth(far, "v1", 1500, "")
	u := copyUMEM(t, 64)
	s, doomed := open(t, u, near, "v0"), open(t, u, near, "v1")
	near.ip("link del v1")
	with := func(change func(*SocketState)) SocketState {
		st := s.State()
		change(&st)
		return st
	}
	type try struct {
		fd   int
		st   SocketState
		want error // nil: any
	}
	tests := map[string]try{
		"rings too large":    {s.FD(), with(func(st *SocketState) { st.RingSize *= 2 }), unix.EINVAL},
		"rings too small":    {s.FD(), with(func(st *SocketState) { st.RingSize /= 2 }), nil},
		"rings of no size":   {s.FD(), with(func(st *SocketState) { st.RingSize = 0 }), nil},
		"rings of odd size":  {s.FD(), with(func(st *SocketState) { st.RingSize = 100 }), nil},
		"rings of 2^31":      {s.FD(), with(func(st *SocketState) { st.RingSize = 1 << 31 }), nil},
		"queue below 0":      {s.FD(), with(func(st *SocketState) { st.Queue = -1 }), nil},
		"no interface":       {s.FD(), with(func(st *SocketState) { st.Index = 0 }), nil},
		"device that's gone": {doomed.FD(), doomed.State(), ErrGone},
		"the anchor":         {u.Anchor(), s.State(), nil},
	}
	none := openings(t)
	for name, fd := range none {
		tests[name] = try{fd, s.State(), nil}
	}
	descriptors, rings := held(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := u.Adopt(tt.fd, tt.st)
			var told *Error
			if got != nil || !errors.As(err, &told) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("adopted %v, and says %v; want %v", got, err, tt.want)
			}
			if d, r := held(t); d != descriptors || r != rings {
				t.Errorf("%d descriptors and %d rings are held after a refusal, want %d and %d", d, r, descriptors, rings)
			}
		})
	}
	for name, fd := range none {
		if _, err := AdoptCopyUMEM(u.Area(), 4096, 0, fd); err == nil {
			t.Errorf("%s was adopted as an anchor", name)
		}
	}
	if _, err := AdoptCopyUMEM(u.Area()[1:], 4096, 0, u.Anchor()); err == nil {
		t.Error("memory that does not start at a page was adopted")
	}
	closed, err := AdoptCopyUMEM(u.Area(), 4096, 0, duplicate(t, u.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil || closed.Anchor() != -1 {
		t.Fatal(err)
	}
	if _, err := closed.Adopt(s.FD(), s.State()); !errors.Is(err, ErrClosed) {
		t.Errorf("adoption by a closed UMEM says %v, want %v", err, ErrClosed)
	}
}

// Cursors that cannot be make an error, and bursts over them no panic.
func TestResumeRefusesCursorsThatCannotBe(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	for name, spoil := range map[string]func(*Socket){
		"fill":       func(s *Socket) { *s.fill.producer += 257 },
		"tx":         func(s *Socket) { *s.tx.producer -= 1 },
		"rx":         func(s *Socket) { *s.rx.consumer += 1 },
		"completion": func(s *Socket) { *s.completion.consumer -= 300 },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, u, near, "v0")
			defer s.Close()
			f := s.Flight()
			spoil(s)
			if err := s.Resume(); err == nil {
				t.Error("it was gone on with")
			}
			if err := s.Land(f); err == nil {
				t.Error("it was landed on")
			}
		})
	}
}

func TestFallbacksPassBetweenProcesses(t *testing.T) {
	all := []Fallback{
		{Port: "eth0", Queue: 3, Wanted: "zero-copy mode", Got: "copy mode", Err: unix.EOPNOTSUPP},
		{Port: "eth1", Queue: -1, Wanted: "native XDP", Got: "generic XDP", Err: errors.New("a reason")},
	}
	lines := func(all []Fallback) (s []string) {
		for _, f := range all {
			s = append(s, f.String())
		}
		return s
	}
	if got, want := lines(told(t, all)), lines(all); !slices.Equal(got, want) {
		t.Errorf("fallbacks %q arrive as %q", want, got)
	}
	if err := new(Fallback).UnmarshalJSON([]byte(`{"Queue":"x"}`)); err == nil {
		t.Error("a queue that is no number was read")
	}
}

package port

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

// duplicates are descriptors as another process gets them.
func duplicates(t testing.TB, fds ...int) (all []int) {
	t.Helper()
	for _, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// told is v as another process reads it.
func told[T any](t testing.TB, v T) (w T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// held counts the descriptors of this process and its mappings of rings and arenas.
func held(t testing.TB) (descriptors, mappings int) {
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
	return descriptors, strings.Count(string(maps), "socket:[") + strings.Count(string(maps), "memfd:margay-arena")
}

// forwarder is what one process has, in handovers from process to process.
type forwarder struct {
	arena *umem.Arena
	umem  *xsk.UMEM
	xsk   *XSK
	tun   *TUN
	lab   bool // the arena is the lab's, which closes it
}

// adopt makes a forwarder of all that another has, ready to land.
func (f *forwarder) adopt(t testing.TB) *forwarder {
	t.Helper()
	next := &forwarder{}
	var err error
	if next.arena, err = umem.Attach(duplicates(t, f.arena.FD())[0], f.arena.Config()); err != nil {
		t.Fatal(err)
	}
	if next.umem, err = xsk.AdoptCopyUMEM(next.arena.FrameArea(), umem.ChunkSize, 0, duplicates(t, f.umem.Anchor())[0]); err != nil {
		t.Fatal(err)
	}
	sockets, fds := f.xsk.Handover()
	if next.xsk, err = AdoptXSK(told(t, sockets), duplicates(t, fds...), next.umem, next.arena); err != nil {
		t.Fatal(err)
	}
	if f.tun != nil {
		queues, fds := f.tun.Handover()
		if next.tun, err = AdoptTUN(told(t, queues), duplicates(t, fds...)); err != nil {
			t.Fatal(err)
		}
	}
	return next
}

// flight stops f and says where its ports stand, once the account is exact.
func (f *forwarder) flight(t testing.TB) (XSKFlight, TUNFlight) {
	t.Helper()
	f.tun.Settle(f.arena.Cache(0))
	f.account(t)
	return told(t, f.xsk.Flight()), told(t, f.tun.Flight())
}

// account checks that every frame is free or with the kernel, or received and not
// walked, and every super free; nothing may be held elsewhere.
func (f *forwarder) account(t testing.TB) {
	t.Helper()
	frames, supers := f.arena.Free()
	lent := f.arena.Lent(1)
	with := 0
	for i, q := range f.xsk.Flight().Queues {
		s := f.xsk.Sockets()[i]
		with += int(s.FillPending()+s.TransmitPending()) + len(q.Received)
	}
	if frames+lent != f.arena.Frames() || supers != f.arena.Supers() || lent != with {
		t.Errorf("%d frames are free and %d lent of %d, %d of them on rings or received; %d of %d supers are free",
			frames, lent, f.arena.Frames(), with, supers, f.arena.Supers())
	}
}

// forsake leaves all to the next.
func (f *forwarder) forsake(t testing.TB) {
	t.Helper()
	err := errors.Join(f.xsk.Forsake(), f.tun.Forsake())
	err = errors.Join(err, f.xsk.Close(nil), f.tun.Close(nil), f.umem.Close()) // of the ports, this does nothing
	if !f.lab {
		err = errors.Join(err, f.arena.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// Both ports change hands again and again under pings and TCP; not a ping is lost,
// and superpackets go on passing:
//
//	pod 10.91.0.1 ── mg0 ┤ forwarder, its heir, ... ├ up0 ═ eth0 ── 10.91.0.2 kernel
func TestPortsChangeHandsUnderTraffic(t *testing.T) {
	a := newArena(t, 4096, 64)
	l := newVethLab(t, a, 1500)
	pod, tun, p := l.withTUN(t, a, 1500)
	now := &forwarder{arena: a, umem: l.umem, xsk: l.port, tun: tun, lab: true}
	var supers atomic.Int32
	results := l.pings()
	descriptors, mappings := 0, 0
	for i := range 8 {
		time.Sleep(100 * time.Millisecond)
		next := now.adopt(t)
		p.halt()
		sockets, queues := now.flight(t)
		if err := errors.Join(next.xsk.Land(sockets), next.tun.Land(queues)); err != nil {
			t.Fatal(err)
		}
		now.forsake(t)
		next.account(t)
		l.io = graph.NewIO(next.arena, next.arena.Cache(0))
		p = &pump{io: l.io, a: next.tun.Queues(), b: next.xsk.Queues(), bToA: l.dropLink, aToB: func(m *graph.Meta) bool {
			if m.GSO != graph.GSONone {
				supers.Add(1)
			}
			return l.addLink(m)
		}}
		p.start(t)
		now = next
		d, m := held(t)
		if i == 0 {
			descriptors, mappings = d, m
		}
		if d > descriptors || m != mappings {
			t.Errorf("%d descriptors and %d mappings are held after hand-over %d, were %d and %d", d, m, i, descriptors, mappings)
		}
	}
	for range 2 {
		if out := <-results; !strings.Contains(out, "300 received") {
			t.Error(out)
		}
	}
	carriesSuperpackets(t, pod, l.kernel, &supers)
	p.halt()
	now.tun.Settle(now.arena.Cache(0))
	now.account(t)
	if now.tun.Flight().Queues[0].Trains == 0 {
		t.Error("nothing was coalesced on its way to the pod")
	}
	if err := errors.Join(now.xsk.Close(now.arena.Cache(0)), now.tun.Close(now.arena.Cache(0)), now.umem.Close(), now.arena.Close()); err != nil {
		t.Error(err)
	}
}

// carriesSuperpackets sends TCP both ways, of which supers counts what the pod sends.
func carriesSuperpackets(t *testing.T, pod, kernel netns, supers *atomic.Int32) {
	t.Helper()
	for _, v := range []struct{ pod, kernel string }{{"10.91.0.1", "10.91.0.2"}, {"fd91::1", "fd91::2"}} {
		before := supers.Load()
		transfer(t, pod, kernel, v.kernel, 4<<20)
		transfer(t, kernel, pod, v.pod, 4<<20)
		if supers.Load() == before {
			t.Errorf("no superpacket came from the pod to %s", v.kernel)
		}
	}
}

// pings has the kernel's end send 300 echo requests of each family to the pod, once
// the first is answered, and returns where each tells what came of them.
func (l *vethLab) pings() <-chan string {
	l.kernel.t.Helper()
	results := make(chan string, 2)
	for _, addr := range []string{"10.91.0.1", "fd91::1"} {
		eventually(l.kernel.t, "the first echo", func() bool { // until the fill ring has frames
			return l.kernel.command("ping", "-c", "1", "-W", "1", addr).Run() == nil
		})
		go func() {
			out, err := l.kernel.command("ping", "-q", "-c", "300", "-i", "0.01", "-W", "5", addr).CombinedOutput()
			results <- fmt.Sprintf("%v\n%s", err, out)
		}()
	}
	return results
}

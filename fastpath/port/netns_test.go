package port

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// netns is a network namespace of a test.
type netns struct {
	t    testing.TB
	name string
}

// namespaces numbers the namespaces of this process.
var namespaces atomic.Int32 // arch:var unique names within one test process

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and /dev/net/tun")
	}
}

// newNetns makes a namespace with lo up; it goes when the test ends.
func newNetns(t testing.TB) netns {
	t.Helper()
	needRoot(t)
	ns := netns{t, fmt.Sprintf("mgport-%d-%d", os.Getpid(), namespaces.Add(1))}
	run(t, "ip", "netns", "add", ns.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns.name).Run() })
	ns.ip("link set lo up")
	return ns
}

// do runs fn on a thread in the namespace; the thread ends with it.
func (ns netns) do(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open("/var/run/netns/"+ns.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs one ip command in the namespace.
func (ns netns) ip(args string) {
	ns.t.Helper()
	run(ns.t, "ip", append([]string{"-n", ns.name}, strings.Fields(args)...)...)
}

// command is a command to be run in the namespace.
func (ns netns) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", ns.name}, args...)...)
}

func (ns netns) exec(args ...string) string {
	ns.t.Helper()
	return run(ns.t, "ip", append([]string{"netns", "exec", ns.name}, args...)...)
}

// sysctl sets a key in the namespace.
func (ns netns) sysctl(key, value string) {
	ns.t.Helper()
	ns.exec("sh", "-c", "echo "+value+" > /proc/sys/"+strings.ReplaceAll(key, ".", "/"))
}

// counter reads one of the namespace's SNMP counters.
func (ns netns) counter(name string) (n int) {
	ns.t.Helper()
	for line := range strings.Lines(ns.exec("nstat", "-asz", name)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			_, _ = fmt.Sscan(f[1], &n)
		}
	}
	return n
}

// up gives the device addresses and sets it up; IPv6 works at once.
func (ns netns) up(device string, addrs ...string) {
	ns.t.Helper()
	ns.ip("link set " + device + " up")
	for _, a := range addrs {
		if strings.Contains(a, ":") {
			a += " nodad"
		}
		ns.ip("addr add " + a + " dev " + device)
	}
}

// openTUN opens a TUN device in the namespace and closes it with the test.
func (ns netns) openTUN(cfg TUNConfig, a *umem.Arena) *TUN {
	ns.t.Helper()
	cfg.Inside = ns.do
	tun, err := OpenTUN(cfg)
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() {
		c := a.Cache(0)
		if err := tun.Close(c); err != nil {
			ns.t.Errorf("close: %v", err)
		}
	})
	return tun
}

// newArena makes packet memory and checks at the end that nothing of it is lost.
func newArena(t testing.TB, frames, supers int) *umem.Arena {
	t.Helper()
	a, err := umem.New(umem.Config{Frames: frames, Supers: supers, Caches: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f, s := a.Free(); f != frames || s != supers {
			t.Errorf("%d frames and %d supers are free at the end, want %d and %d", f, s, frames, supers)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// pump carries packets between two ports, queue by queue, without a graph.
type pump struct {
	io       *graph.IO
	a, b     []graph.Queue
	aToB     func(m *graph.Meta) bool // may change a packet; false drops it
	bToA     func(m *graph.Meta) bool
	stop     atomic.Bool
	done     chan struct{}
	failures [graph.Reasons]int
	moved    int
	vectors  []*graph.Vector // one for each length, since a burst must not allocate
}

// start runs the pump until the test ends or halt is called.
func (p *pump) start(t testing.TB) *pump {
	p.done = make(chan struct{})
	go p.run()
	t.Cleanup(p.halt)
	return p
}

func (p *pump) halt() {
	if !p.stop.Swap(true) {
		<-p.done
	}
}

func (p *pump) run() {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var poll []unix.PollFd
	for _, q := range append(append([]graph.Queue{}, p.a...), p.b...) {
		poll = append(poll, unix.PollFd{Fd: int32(q.FD()), Events: unix.POLLIN})
	}
	ms := make([]graph.Meta, 64)
	for n := range len(ms) + 1 {
		p.vectors = append(p.vectors, graph.NewVector(make([]graph.Meta, n)...))
	}
	for !p.stop.Load() {
		n := 0
		pending := false
		for i := range p.a {
			n += p.carry(p.a[i], p.b[i], ms, p.aToB)
			n += p.carry(p.b[i], p.a[i], ms, p.bToA)
			pending = p.a[i].Poll(p.io) || pending
			pending = p.b[i].Poll(p.io) || pending
		}
		if n == 0 && !pending {
			_, _ = unix.Poll(poll, 20)
		}
	}
}

func (p *pump) carry(from, to graph.Queue, ms []graph.Meta, change func(*graph.Meta) bool) int {
	n := from.RxBurst(p.io, ms)
	kept := ms[:0:n]
	for i := range ms[:n] {
		if change == nil || change(&ms[i]) {
			kept = append(kept, ms[i])
		} else {
			p.io.Free(&ms[i])
		}
	}
	if len(kept) == 0 {
		return n
	}
	v := p.vectors[len(kept)]
	for i := range kept {
		*v.Meta(i) = kept[i]
	}
	to.TxBurst(p.io, v)
	for i := range v.Len() {
		if m := v.Meta(i); m.Reason != graph.NoReason {
			p.failures[m.Reason] += int(m.Segments)
			p.io.Free(m)
		} else {
			p.moved += int(m.Segments)
		}
	}
	return n
}

// eventually waits until ok says true, with the patience that a busy machine needs.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

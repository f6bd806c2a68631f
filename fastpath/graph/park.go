package graph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// parking is where an idle worker sleeps: it polls an eventfd that others write
// to wake it, and its queues. Queues that must be asked whether they are readable
// (TUN) are in an epoll set, which a busy worker asks for all of them at once.
// Those in memory (AF_XDP) are in none: a socket that is watched tells its watcher
// of each packet it has sent, which costs a busy worker a twelfth of its time.
type parking struct {
	demand int
	wake   int
	asleep atomic.Bool

	events [64]unix.EpollEvent

	mu    sync.Mutex    // over watch
	watch []unix.PollFd // wake and demand, and the queues in memory

	sleeping sync.Mutex    // held while the worker sleeps, over polls
	polls    []unix.PollFd // what watch was when it fell asleep
}

// readiness is whether an on-demand queue may have packets. Only its worker
// touches it.
type readiness struct {
	readable bool
	fd       int32
}

func newParking() (*parking, error) {
	p := &parking{demand: -1, wake: -1}
	var err error
	if p.demand, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("make a place to sleep: %w", err)
	}
	p.watch = []unix.PollFd{{Fd: int32(p.wake), Events: unix.POLLIN}, {Fd: int32(p.demand), Events: unix.POLLIN}}
	return p, nil
}

// add makes the worker wake for fd. Any goroutine may call it.
func (p *parking) add(fd int, inMemory bool) error {
	if inMemory {
		p.mu.Lock()
		p.watch = append(p.watch, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		p.mu.Unlock()
		p.rouse() // to sleep again with it
		return nil
	}
	err := unix.EpollCtl(p.demand, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("watch queue fd %d: %w", fd, err)
	}
	return nil
}

// remove forgets fd, which must still be open; nobody sleeps on it any more when
// it returns. Any goroutine may call it, but the worker's.
func (p *parking) remove(fd int, inMemory bool) {
	if inMemory {
		p.mu.Lock()
		p.watch = slices.DeleteFunc(p.watch, func(w unix.PollFd) bool { return w.Fd == int32(fd) })
		p.mu.Unlock()
		p.rouse() // who sleeps on it keeps it open
		p.sleeping.Lock()
		p.polls = p.polls[:0]
		p.sleeping.Unlock()
		return
	}
	_ = unix.EpollCtl(p.demand, unix.EPOLL_CTL_DEL, fd, nil) // closed descriptors have left by themselves
}

// poll marks those of rx readable that the kernel says have packets.
//
//fastpath:hot
func (p *parking) poll(rx []*readiness) {
	n, err := unix.EpollWait(p.demand, p.events[:], 0)
	if err != nil {
		return
	}
	for i := range p.events[:n] {
		for _, r := range rx {
			if r.fd == p.events[i].Fd {
				r.readable = true
			}
		}
	}
}

// sleep waits until a queue has packets, somebody calls rouse, or ms passed.
func (p *parking) sleep(ms int) {
	p.sleeping.Lock()
	defer p.sleeping.Unlock()
	p.mu.Lock()
	p.polls = append(p.polls[:0], p.watch...)
	p.mu.Unlock()
	n, err := unix.Poll(p.polls, ms)
	if err != nil || n == 0 {
		return // a signal, or nothing: the worker looks again
	}
	if p.polls[0].Revents != 0 {
		var b [8]byte
		_, _ = unix.Read(p.wake, b[:])
	}
}

// rouse wakes the worker if it sleeps. Any goroutine may call it.
func (p *parking) rouse() {
	if p.asleep.Load() {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(p.wake, one[:])
	}
}

func (p *parking) close() {
	for _, fd := range []int{p.demand, p.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// sleep parks the worker until there may be work. Whoever gives it work does
// so before it looks at asleep, and the worker looks for work after it set it.
func (w *Worker) sleep() {
	w.park.asleep.Store(true)
	if !w.kick.Load() && w.order.Load() == goOn && w.wiring.Load() == w.wired && !w.handed() {
		w.stats.Load.Sleeps++
		w.park.sleep(w.nap)
	}
	w.park.asleep.Store(false)
	if len(w.wired.onDemand) > 0 {
		w.park.poll(w.wired.onDemand)
	}
}

// pin binds the calling thread to one CPU; -1 leaves it to the kernel.
func pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	if cpu >= runtime.NumCPU() {
		return fmt.Errorf("pin worker to CPU %d: this machine has %d", cpu, runtime.NumCPU())
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin worker to CPU %d: %w", cpu, err)
	}
	return nil
}

package graph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// parking is where an idle worker sleeps: an epoll set of its queues and an
// eventfd that others write to wake it. Queues that must be asked whether they
// are readable (TUN) have a set of their own, which a busy worker polls for
// all of them at once and which is itself a member of the first.
type parking struct {
	all, demand int
	wake        int
	asleep      atomic.Bool

	events [64]unix.EpollEvent
}

// readiness is whether an on-demand queue may have packets. Only its worker
// touches it.
type readiness struct {
	readable bool
	fd       int32
}

func newParking() (*parking, error) {
	p := &parking{all: -1, demand: -1, wake: -1}
	var err error
	if p.all, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		if p.demand, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
			p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		}
	}
	if err == nil {
		err = errors.Join(epollAdd(p.all, p.wake), epollAdd(p.all, p.demand))
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("make a place to sleep: %w", err)
	}
	return p, nil
}

func epollAdd(set, fd int) error {
	return unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// add makes the worker wake for fd. Any goroutine may call it.
func (p *parking) add(fd int, inMemory bool) error {
	set := p.demand
	if inMemory {
		set = p.all
	}
	if err := epollAdd(set, fd); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("watch queue fd %d: %w", fd, err)
	}
	return nil
}

// remove forgets fd, which must still be open. Any goroutine may call it.
func (p *parking) remove(fd int, inMemory bool) {
	set := p.demand
	if inMemory {
		set = p.all
	}
	_ = unix.EpollCtl(set, unix.EPOLL_CTL_DEL, fd, nil) // closed descriptors have left by themselves
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
	n, err := unix.EpollWait(p.all, p.events[:], ms)
	if err != nil {
		return // a signal: the worker looks again
	}
	for i := range p.events[:n] {
		if int(p.events[i].Fd) == p.wake {
			var b [8]byte
			_, _ = unix.Read(p.wake, b[:])
		}
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
	for _, fd := range []int{p.all, p.demand, p.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// sleep parks the worker until there may be work. Whoever gives it work does
// so before it looks at asleep, and the worker looks for work after it set it.
func (w *Worker) sleep() {
	w.park.asleep.Store(true)
	if !w.kick.Load() && !w.stop.Load() && w.wiring.Load() == w.wired && !w.handed() {
		w.stats.Load.Sleeps++
		w.park.sleep(int(TickInterval.Milliseconds()))
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

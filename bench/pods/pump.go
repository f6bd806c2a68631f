package pods

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
)

const (
	// superSize holds the greatest packet of a TUN device, and its vnet header.
	superSize = 1<<16 + 64

	// offloads of TUNSETOFFLOAD that package unix does not name.
	offloads = 0x01 | 0x02 | 0x04 | 0x20 | 0x40 // checksum, TSO4, TSO6, USO4, USO6
)

// pump carries packets between two TUN devices and looks at none of them: a
// thread for each direction reads a (super)packet with its vnet header and
// writes it to the other side. It is what TUN devices allow at best to a program
// that does nothing.
type pump struct {
	fds  [2]int
	stop int // an eventfd, readable when the pump should end
	tids [2]int
	done sync.WaitGroup
}

// newPump makes a device in each namespace and starts to pump.
func newPump(a, b *hostnet.Namespace) (_ *pump, err error) {
	p := &pump{fds: [2]int{-1, -1}, stop: -1}
	defer func() {
		if err != nil {
			p.closeFiles()
		}
	}()
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pump: %w", err)
	}
	for i, ns := range []*hostnet.Namespace{a, b} {
		err := ns.Do(func() (err error) { p.fds[i], err = openTUN(); return err })
		if err != nil {
			return nil, fmt.Errorf("make TUN device in %s: %w", ns, err)
		}
	}
	var started sync.WaitGroup
	for i := range p.fds {
		started.Add(1)
		p.done.Go(func() {
			runtime.LockOSThread()
			p.tids[i] = unix.Gettid()
			started.Done()
			p.carry(p.fds[i], p.fds[1-i])
		})
	}
	started.Wait()
	return p, nil
}

func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	r, err := unix.NewIfreq(stage.Device)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, r), unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// carry moves packets one way until the pump ends.
func (p *pump) carry(from, to int) {
	buf := make([]byte, superSize)
	wait := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(p.stop), Events: unix.POLLIN}}
	for {
		n, err := unix.Read(from, buf)
		if err == nil {
			_, _ = unix.Write(to, buf[:n]) // what the other side cannot take is lost, as on a wire
			continue
		}
		if err != unix.EAGAIN {
			return // the device is gone
		}
		if _, err := unix.Poll(wait, -1); err != nil && err != unix.EINTR || wait[1].Revents != 0 {
			return
		}
	}
}

// cpu is what the pump's threads have taken.
func (p *pump) cpu() (time.Duration, error) { return stage.CPU(os.Getpid(), p.tids[:]...) }

func (p *pump) close() {
	_, _ = unix.Write(p.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd that holds nothing takes it
	p.done.Wait()
	p.closeFiles()
}

func (p *pump) closeFiles() {
	for _, fd := range []int{p.fds[0], p.fds[1], p.stop} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

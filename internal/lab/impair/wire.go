//go:build linux

package impair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	frameMax      = 1 << 16 // bytes of a frame, with room
	receiveBuffer = 8 << 20 // bytes the kernel keeps for us
	burst         = 64      // frames taken from one end before the other gets its turn
	longest       = time.Second
)

// A Place is where sockets are opened, such as a hostnet.Namespace.
type Place interface {
	Do(func() error) error
}

// An End is one link of a wire.
type End struct {
	Place Place
	Link  string
}

// Status tells of a wire in both directions.
type Status struct {
	AtoB     Impairment `json:"a_to_b"`
	BtoA     Impairment `json:"b_to_a"`
	CountAB  Counters   `json:"a_to_b_frames"`
	CountBA  Counters   `json:"b_to_a_frames"`
	Refused  uint64     `json:"refused"`  // frames that a link did not take, as when it is down
	Overtook uint64     `json:"overtook"` // frames that came faster than the pump reads
}

// A Wire pumps frames between two links.
type Wire struct {
	fds   [2]int // AF_PACKET sockets of a and b
	event int    // wakes the pump
	start time.Time
	buf   []byte

	mu       sync.Mutex
	paths    [2]*Path // from a, from b
	refused  uint64
	overtook uint64
	stopped  bool
}

// NewWire opens both ends. Run pumps; Close gives the sockets back after that.
func NewWire(a, b End, seed uint64, aToB, bToA Impairment) (*Wire, error) {
	if err := errors.Join(aToB.Validate(), bToA.Validate()); err != nil {
		return nil, err
	}
	w := &Wire{
		fds: [2]int{-1, -1}, start: time.Now(), buf: make([]byte, frameMax),
		paths: [2]*Path{NewPath(seed, aToB), NewPath(seed+1, bToA)},
	}
	var err error
	if w.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("open eventfd: %w", err)
	}
	for i, e := range []End{a, b} {
		if w.fds[i], err = openEnd(e); err != nil {
			w.Close()
			return nil, fmt.Errorf("open the wire's end at %s: %w", e.Link, err)
		}
	}
	return w, nil
}

// openEnd opens a raw socket that sees the frames that come in by the link.
func openEnd(e End) (int, error) {
	fd := -1
	err := e.Place.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		index, err := linkIndex(fd, e.Link)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveBuffer),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: index}), // ETH_P_ALL in network order
		)
	})
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

func linkIndex(fd int, name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}

// Close gives the sockets back. Run must have returned.
func (w *Wire) Close() {
	for _, fd := range []int{w.fds[0], w.fds[1], w.event} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Set changes one or both directions; nil leaves one as it is.
func (w *Wire) Set(aToB, bToA *Impairment) error {
	for _, i := range []*Impairment{aToB, bToA} {
		if i != nil {
			if err := i.Validate(); err != nil {
				return err
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if aToB != nil {
		w.paths[0].Set(*aToB)
	}
	if bToA != nil {
		w.paths[1].Set(*bToA)
	}
	w.wake()
	return nil
}

// Status is what is in force and what has passed.
func (w *Wire) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Status{
		w.paths[0].Impairment(), w.paths[1].Impairment(), w.paths[0].Counters(), w.paths[1].Counters(),
		w.refused, w.overtook,
	}
}

func (w *Wire) wake() {
	_, _ = unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full means awake already
}

// Run pumps until ctx ends, which is no error.
func (w *Wire) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stopped = true
		w.wake()
	})
	defer stop()
	for {
		wait, stopped := w.pump()
		if stopped {
			return nil
		}
		if err := w.sleep(wait); err != nil {
			return err
		}
	}
}

// pump moves what there is to move, and tells how long there will be nothing.
func (w *Wire) pump() (wait time.Duration, stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Since(w.start)
	wait = longest
	for from, p := range w.paths {
		if w.take(from, p, now) {
			wait = 0
		}
		p.Due(now, func(f []byte) { w.put(1-from, f) })
		if at, ok := p.Next(); ok {
			wait = max(0, min(wait, at-time.Since(w.start)))
		}
	}
	return wait, w.stopped
}

// take reads a burst from one end; true if there may be more.
func (w *Wire) take(from int, p *Path, now time.Duration) bool {
	for range burst {
		n, _, err := unix.Recvfrom(w.fds[from], w.buf, unix.MSG_DONTWAIT)
		if err != nil {
			return false // nothing there, or the link is down: either way later
		}
		p.Offer(now, w.buf[:n])
	}
	if stats, err := unix.GetsockoptTpacketStats(w.fds[from], unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		w.overtook += uint64(stats.Drops) // reading sets the kernel's count to zero
	}
	return true
}

// put writes a frame to an end. One that the link does not take at once is lost,
// as on a wire.
func (w *Wire) put(to int, frame []byte) {
	if _, err := unix.Write(w.fds[to], frame); err != nil {
		w.refused++
	}
}

// sleep waits for a frame, a change or the time at which a frame is due.
func (w *Wire) sleep(d time.Duration) error {
	if d == 0 {
		return nil
	}
	fds := []unix.PollFd{
		{Fd: int32(w.fds[0]), Events: unix.POLLIN}, {Fd: int32(w.fds[1]), Events: unix.POLLIN},
		{Fd: int32(w.event), Events: unix.POLLIN},
	}
	ts := unix.NsecToTimespec(int64(d))
	_, err := unix.Ppoll(fds, &ts, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for frames: %w", err)
	}
	for _, f := range fds[:2] {
		if f.Revents&(unix.POLLNVAL) != 0 {
			return errors.New("wait for frames: the socket is closed")
		}
		if f.Revents&unix.POLLERR != 0 { // a link went down: the flag is cleared by asking, and not worth a spin
			_, _ = unix.GetsockoptInt(int(f.Fd), unix.SOL_SOCKET, unix.SO_ERROR)
			time.Sleep(time.Millisecond)
		}
	}
	var b [8]byte
	_, _ = unix.Read(w.event, b[:])
	return nil
}

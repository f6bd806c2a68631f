package port

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

// XSKState is what another process must know of an AF_XDP port beside its sockets.
type XSKState struct {
	Name    string
	MAC     net.HardwareAddr
	MTU     int         // bytes from the IP header on
	Holder  umem.Holder // whom its frames are lent to
	Sockets []xsk.SocketState
}

// Handover tells what AdoptXSK needs. The port keeps owning the descriptors.
func (p *XSK) Handover() (XSKState, []int) {
	st := XSKState{Name: p.name, MAC: p.mac, MTU: p.MTU(), Holder: p.holder}
	var fds []int
	for _, s := range p.sockets {
		st.Sockets, fds = append(st.Sockets, s.State()), append(fds, s.FD())
	}
	return st, fds
}

// AdoptXSK takes up the sockets of an AF_XDP port of another process, over an
// arena and its UMEM that were taken up before. Until Land no queue may be driven.
// The error of a device that has been deleted is xsk.ErrGone.
func AdoptXSK(st XSKState, fds []int, u *xsk.UMEM, a *umem.Arena) (*XSK, error) {
	p := &XSK{name: st.Name, mac: st.MAC, arena: a, holder: st.Holder}
	p.mtu.Store(int32(st.MTU))
	err := st.validate(fds, u, a)
	for i := 0; err == nil && i < len(fds); i++ {
		err = p.adopt(u, fds[i], st.Sockets[i])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adopt port %s: %w", st.Name, err), p.closeSockets())
	}
	for _, fd := range fds {
		_ = unix.Close(fd) // the port has duplicates
	}
	return p, nil
}

func (st *XSKState) validate(fds []int, u *xsk.UMEM, a *umem.Arena) error {
	switch {
	case len(fds) == 0 || len(fds) != len(st.Sockets):
		return fmt.Errorf("it is told of %d sockets, and has %d descriptors", len(st.Sockets), len(fds))
	case st.MTU < 68 || st.MTU > 1<<16-1 || len(st.MAC) != 6:
		return fmt.Errorf("MTU is %d, want 68 to 65535; the MAC address has %d bytes, want 6", st.MTU, len(st.MAC))
	case st.Holder == umem.Graph:
		return errors.New("holder is the graph's, want one of its own")
	case &u.Area()[0] != &a.FrameArea()[0] || len(u.Area()) != len(a.FrameArea()) || u.Chunk() != umem.ChunkSize:
		return errors.New("its memory is not the arena's")
	}
	for i, s := range st.Sockets {
		if s.Queue != i {
			return fmt.Errorf("socket %d is said to be of queue %d", i, s.Queue)
		}
	}
	return nil
}

// adopt adds a duplicate of fd to the port, so that what went before can be undone.
func (p *XSK) adopt(u *xsk.UMEM, fd int, st xsk.SocketState) error {
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	s, err := u.Adopt(duplicate, st)
	if err != nil {
		return errors.Join(err, unix.Close(duplicate))
	}
	p.sockets = append(p.sockets, s)
	p.queues = append(p.queues, &xskQueue{socket: s, holder: p.holder, mtu: &p.mtu})
	return nil
}

// XSKFlight is where an AF_XDP port stands, queue by queue.
type XSKFlight struct{ Queues []XSKQueueFlight }

// XSKQueueFlight is where a queue stands. The frames of Received are still lent.
type XSKQueueFlight struct {
	Socket               xsk.SocketFlight
	Received             []xsk.Desc // taken off the rx ring, and not yet given to the graph
	Starved, Stalls      uint64
	Starving, Down, Gone bool
}

// Flight tells where the port stands. No worker may drive it.
func (p *XSK) Flight() XSKFlight {
	f := XSKFlight{make([]XSKQueueFlight, len(p.queues))}
	for i, q := range p.queues {
		f.Queues[i] = XSKQueueFlight{
			Socket: q.socket.Flight(), Received: slices.Clone(q.rx[q.at:q.got]),
			Starved: q.starved.Load(), Stalls: q.stalls.Load(), Starving: q.starving, Down: q.down, Gone: q.gone,
		}
	}
	return f
}

// Land goes on from where a flight of this port was told; nobody may have used the
// port since, which the rings show. The forwarder that told it may land on it too.
func (p *XSK) Land(f XSKFlight) error {
	if len(f.Queues) != len(p.queues) {
		return fmt.Errorf("go on with port %s: it is told of %d queues, has %d", p.name, len(f.Queues), len(p.queues))
	}
	seen := map[umem.Buf]bool{}
	for i, q := range p.queues {
		one := &f.Queues[i]
		if err := errors.Join(p.check(one.Received, seen), q.socket.Land(one.Socket), q.level()); err != nil {
			return fmt.Errorf("go on with queue %d of port %s: %w", i, p.name, err)
		}
		q.at, q.got = 0, copy(q.rx[:], one.Received)
		q.starving, q.down, q.gone, q.lookAt = one.Starving, one.Down, one.Gone, 0
		q.starved.Store(one.Starved)
		q.stalls.Store(one.Stalls)
	}
	return nil
}

// check says why received descriptors cannot be true.
func (p *XSK) check(received []xsk.Desc, seen map[umem.Buf]bool) error {
	if most := len(xskQueue{}.rx); len(received) > most {
		return fmt.Errorf("it is told of %d descriptors received, want %d at most", len(received), most)
	}
	for _, d := range received {
		b := umem.FrameAt(d.Addr)
		if d.Addr >= uint64(len(p.arena.FrameArea())) || d.Addr%umem.ChunkSize+uint64(d.Len) > umem.ChunkSize || seen[b] || p.arena.Holder(b) != p.holder {
			return fmt.Errorf("descriptor %+v cannot have been received: it is of no frame of the port's, or another is", d)
		}
		seen[b] = true
	}
	return nil
}

// level finds out from the rings what the fill ring lacks.
func (q *xskQueue) level() error {
	size, has := q.socket.State().RingSize, q.socket.FillPending()
	if has > size {
		return fmt.Errorf("the kernel has %d frames to receive into, but its ring is of %d", has, size)
	}
	q.lacking = int(size - has)
	return nil
}

// Recover goes on from where the rings stand, for when another process that drove
// the port died in the midst of it: nobody uses port and arena meanwhile, and
// Arena.Rebuild follows. Packets received and not walked are lost. Frames that the
// dead process was about to give to the kernel, or to take, become the graph's;
// while the kernel works on others this cannot be told, and after some
// milliseconds those in doubt are left stranded with the port until its Close.
func (p *XSK) Recover() (stranded int, err error) {
	for i, q := range p.queues {
		if err := errors.Join(q.socket.Resume(), q.level()); err != nil {
			return 0, fmt.Errorf("go on with queue %d of port %s: %w", i, p.name, err)
		}
		q.at, q.got, q.down, q.lookAt = 0, 0, false, 0
	}
	doubtful, unseen := p.doubtful()
	for range 20 {
		if unseen == 0 || len(doubtful) <= unseen {
			break
		}
		time.Sleep(time.Millisecond)
		doubtful, unseen = p.doubtful()
	}
	if unseen > 0 {
		return max(0, len(doubtful)-unseen), nil
	}
	for _, b := range doubtful {
		p.arena.Lend(b, umem.Graph)
	}
	return 0, nil
}

// doubtful lists frames that are lent to the port and on no ring, and says how many
// the kernel must have of them.
func (p *XSK) doubtful() (frames []umem.Buf, unseen int) {
	on := map[umem.Buf]bool{}
	for _, q := range p.queues {
		unseen += int(q.socket.FillPending() + q.socket.TransmitPending())
		for _, addr := range q.socket.OnRings(nil) {
			if addr < uint64(len(p.arena.FrameArea())) {
				on[umem.FrameAt(addr)] = true
			}
		}
	}
	for b := range umem.Buf(p.arena.Frames()) {
		if on[b] {
			p.arena.Lend(b, p.holder)
		} else if p.arena.Holder(b) == p.holder {
			frames = append(frames, b)
		}
	}
	return frames, max(0, unseen-len(on))
}

// Forsake unmaps and closes the sockets of a port that another process has. No
// frame is taken back. Close does nothing afterwards.
func (p *XSK) Forsake() error { return p.closeSockets() }

package latency

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/bench/stage"
)

const (
	size = 64 // bytes, of a question and of its answer
	// patience is how long an answer may take. A datagram that is not answered
	// counts as one that took so long.
	patience = 200 * time.Millisecond
	// stuck is how long TCP, which sends again what was lost, may take.
	stuck = 10 * time.Second
	// nap is how long the server sleeps before it looks whether it is to end.
	nap = 20 * time.Millisecond
)

// talk is a client that asks and a server that answers, one question at a time,
// on a thread each. They sleep in the kernel until something comes: a pod's
// sockets do so, and on a machine with few CPUs who polls would take one away
// from who forwards.
type talk struct {
	tcp            bool
	client, server int // descriptors, opened in the namespaces of the path's ends
	ending         atomic.Bool
	answering      sync.WaitGroup
	question       [size]byte
	answer         [size]byte
	asked          uint64
	lost           uint64 // questions without an answer
}

// open makes the sockets; nobody answers yet.
func open(ctx context.Context, p *stage.Path, tcp, ipv6 bool) (*talk, error) {
	dial, wait := dialUDP, patience
	if tcp {
		dial, wait = dialTCP, stuck
	}
	client, server, err := dial(ctx, p, p.Addr(ipv6))
	if err != nil {
		return nil, fmt.Errorf("open a conversation with %v: %w", p.Addr(ipv6), err)
	}
	t := &talk{tcp: tcp, client: -1, server: -1}
	if t.client, err = sleeper(client, wait); err == nil {
		t.server, err = sleeper(server, nap)
	} else {
		server.Close()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// socket is one of package net's.
type socket interface {
	syscall.Conn
	Close() error
}

func dialTCP(ctx context.Context, p *stage.Path, addr netip.Addr) (client, server socket, err error) {
	var l *net.TCPListener
	err = p.Server.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	var c net.Conn
	err = p.Client.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: stuck}).DialContext(ctx, "tcp", l.Addr().String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	_ = l.SetDeadline(time.Now().Add(stuck)) // the connection stands: this only takes it over
	s, err := l.AcceptTCP()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), s, nil
}

// dialUDP makes two sockets that are connected to each other.
func dialUDP(_ context.Context, p *stage.Path, addr netip.Addr) (client, server socket, err error) {
	var s, c *net.UDPConn
	err = p.Server.Do(func() (err error) {
		s, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = p.Client.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, s.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	if err := connect(s, c.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		s.Close()
		c.Close()
		return nil, nil, err
	}
	return c, s, nil
}

// connect gives a socket that was bound its one peer.
func connect(s *net.UDPConn, peer netip.AddrPort) error {
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: peer.Addr().As16(), Port: int(peer.Port())}
	if a := peer.Addr().Unmap(); a.Is4() {
		to = &unix.SockaddrInet4{Addr: a.As4(), Port: int(peer.Port())}
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Connect(int(fd), to) })
	return errors.Join(err, failed)
}

// sleeper takes a socket out of Go's hands: a descriptor whose reads block, up to
// a time, and do not poll the device meanwhile.
func sleeper(s socket, wait time.Duration) (fd int, err error) {
	defer s.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = errors.Join(raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }), err)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(wait.Nanoseconds())
	err = errors.Join(unix.SetNonblock(fd, false),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL, 0),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// close ends both sides.
func (t *talk) close() {
	t.ending.Store(true)
	if t.client >= 0 {
		unix.Close(t.client) // ends TCP's server; UDP's looks at ending when its read times out
	}
	t.answering.Wait()
	if t.server >= 0 {
		unix.Close(t.server)
	}
}

// serve starts to send back what comes.
func (t *talk) serve() {
	t.answering.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		t.echo()
	})
}

func (t *talk) echo() {
	b := make([]byte, size)
	for !t.ending.Load() {
		n, err := unix.Read(t.server, b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return // the client notices
		}
		if _, err := unix.Write(t.server, b[:n]); err != nil {
			return
		}
	}
}

// ask asks one question after the other, for d and until at least fewest have been
// asked, but no longer than ten times d. It allocates nothing.
func (t *talk) ask(h *histogram, d time.Duration, fewest int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	end, last := began.Add(d), began.Add(10*d)
	for n := 0; began.Before(end) || n < fewest && began.Before(last); n++ {
		began = time.Now()
		if err := t.trip(); err != nil {
			return err
		}
		h.add(time.Since(began))
	}
	return nil
}

// trip asks once and waits for the answer.
func (t *talk) trip() error {
	t.asked++
	binary.BigEndian.PutUint64(t.question[:], t.asked)
	if _, err := unix.Write(t.client, t.question[:]); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for got := 0; ; {
		n, err := unix.Read(t.client, t.answer[got:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && !t.tcp:
			t.lost++
			return nil
		case err == unix.EAGAIN:
			return fmt.Errorf("wait for an answer: there is none in %v", stuck)
		case err != nil:
			return fmt.Errorf("wait for an answer: %w", err)
		case n == 0:
			return fmt.Errorf("wait for an answer: %w", io.ErrUnexpectedEOF)
		}
		if got += n; got < size {
			continue
		}
		if binary.BigEndian.Uint64(t.answer[:]) == t.asked {
			return nil
		}
		got = 0 // of an earlier question, which was given up
	}
}

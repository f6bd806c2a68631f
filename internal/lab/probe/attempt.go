//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab/truth"
)

// kind is what source ports are counted by.
type kind struct {
	protocol string
	family   truth.Family
}

func (k kind) String() string { return fmt.Sprintf("%s over IPv%d", k.protocol, k.family) }

// attempt is one conversation, begun once.
type attempt struct {
	to   *station
	kind kind
	port uint16
	life bool // asked for a sign of life

	socket *os.File // of TCP and UDP
	forget func()   // of SCTP
	began  time.Time

	answered bool // kept by who waits for answers
}

// answer is the first, and only, to an attempt.
type answer struct {
	*attempt
	by   string // the name of who answered; empty where the protocol does not say
	took time.Duration
}

func (a *attempt) end() {
	if a.socket != nil {
		_ = a.socket.Close() // a TCP connection is reset: nothing of it lingers
	}
	if a.forget != nil {
		a.forget()
	}
}

// send begins conversations that have one source.
func (r *round) send(from *station, attempts []*attempt) error {
	err := from.place.Do(func() error {
		for _, a := range attempts {
			if err := from.begin(a, r.heard); err != nil {
				return fmt.Errorf("ask %s, %v port %d, from %s: %w", a.to.name, a.kind, a.port, from.name, err)
			}
		}
		return nil
	})
	for _, a := range attempts {
		if a.socket != nil {
			r.readers.Go(func() { r.read(a) })
		}
	}
	return err
}

// heard is called when an answer has come.
func (r *round) heard(a *attempt, by string) { r.answers <- answer{a, by, time.Since(a.began)} }

// read waits for what a server says. Whatever else comes, such as a reset or an
// ICMP error, is no answer.
func (r *round) read(a *attempt) {
	b := make([]byte, 256)
	if n, err := a.socket.Read(b); err == nil && n > 0 {
		r.heard(a, string(b[:n]))
	}
}

// begin sends the first packet, in the namespace of the station.
func (s *station) begin(a *attempt, heard func(*attempt, string)) error {
	a.began = time.Now()
	src, dst := s.addr(a.kind.family), netip.AddrPortFrom(a.to.addr(a.kind.family), a.port)
	if a.kind.protocol == truth.SCTP {
		var err error
		a.forget, err = s.sctp[a.kind.family].initiate(s.port(a.kind), dst, func() { heard(a, "") })
		return refusedHere(err)
	}
	for range 100 { // somebody else may have a port
		fd, err := open(a.kind, netip.AddrPortFrom(src, s.port(a.kind)), dst)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err = refusedHere(err); err == nil && fd >= 0 {
			a.socket = os.NewFile(uintptr(fd), a.kind.String())
		}
		return err
	}
	return errors.New("find a free source port: a hundred are taken")
}

// refusedHere lets pass what a packet filter of the source's own kernel says.
func refusedHere(err error) error {
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// open is a socket that has said its first word; -1 with any error.
func open(k kind, src, dst netip.AddrPort) (fd int, err error) {
	family, sort := unix.AF_INET6, unix.SOCK_DGRAM
	if k.family == 4 {
		family = unix.AF_INET
	}
	if k.protocol == truth.TCP {
		sort = unix.SOCK_STREAM
	}
	fd, err = unix.Socket(family, sort|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if k.protocol == truth.TCP {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err != nil {
			return fd, err
		}
	}
	if err = unix.Bind(fd, sockaddr(src)); err != nil {
		return fd, err
	}
	if err = unix.Connect(fd, sockaddr(dst)); errors.Is(err, unix.EINPROGRESS) {
		err = nil
	}
	if err == nil && k.protocol == truth.UDP {
		_, err = unix.Write(fd, []byte("who is there?"))
	}
	return fd, err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/truth"
)

// station is a namespace that asks, and answers if it is a pod's. A server says
// the station's name to whoever comes.
type station struct {
	name  string
	place load.Place
	addrs []netip.Addr // IPv4, IPv6
	node  *station     // whence its life is asked for
	next  map[kind]uint16
	sctp  map[truth.Family]*sctp

	sockets []io.Closer
	servers sync.WaitGroup
}

func (s *station) addr(f truth.Family) netip.Addr {
	if f == 4 {
		return s.addrs[0]
	}
	return s.addrs[1]
}

// listen opens the station's sockets, in its namespace.
func (s *station) listen(ports []truth.Port) error {
	s.sctp = map[truth.Family]*sctp{}
	for _, f := range truth.Families() {
		served := map[uint16]bool{}
		for _, p := range ports {
			at := netip.AddrPortFrom(s.addr(f), p.Number)
			var err error
			switch p.Protocol {
			case truth.TCP:
				err = s.listenTCP(at)
			case truth.UDP:
				err = s.listenUDP(at)
			case truth.SCTP:
				served[p.Number] = true
			default:
				err = checkProtocol(p.Protocol)
			}
			if err != nil {
				return err
			}
		}
		raw, err := listenSCTP(s.addr(f), served)
		if err != nil {
			return err
		}
		s.sctp[f] = raw
		s.serve(raw.conn, raw.serve)
	}
	return nil
}

func checkProtocol(p string) error {
	if p != truth.TCP && p != truth.UDP && p != truth.SCTP {
		return fmt.Errorf("protocol is %q, want TCP, UDP or SCTP", p)
	}
	return nil
}

// serve runs a server until its socket is closed.
func (s *station) serve(socket io.Closer, server func()) {
	s.sockets = append(s.sockets, socket)
	s.servers.Go(server)
}

func (s *station) listenTCP(at netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s.serve(l, func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // whoever it was went away
			}
			_, _ = io.WriteString(c, s.name)
			_ = c.Close()
		}
	})
	return nil
}

func (s *station) listenUDP(at netip.AddrPort) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s.serve(c, func() {
		b := make([]byte, 64)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // an ICMP error about an answer
			}
			_, _ = c.WriteToUDPAddrPort([]byte(s.name), from)
		}
	})
	return nil
}

func (s *station) close() error {
	var errs []error
	for _, c := range s.sockets {
		errs = append(errs, c.Close())
	}
	s.servers.Wait()
	return errors.Join(errs...)
}

//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const connectTimeout = 5 * time.Second

// tcp runs p.Streams connections and counts what arrives. began is called when
// all of them stand.
func (p Perf) tcp(ctx context.Context, out *Result, began func()) error {
	senders, receivers, err := p.connect(ctx)
	defer func() {
		for _, c := range append(senders, receivers...) {
			c.Close()
		}
	}()
	if err != nil {
		return err
	}
	var received atomic.Uint64
	var wg sync.WaitGroup
	for _, c := range receivers {
		wg.Go(func() { drain(c, p.Size, &received) })
	}
	for _, c := range senders {
		wg.Go(func() { fill(c, p.Size) })
	}
	began()
	start := time.Now()
	pause(ctx, p.Duration)
	out.Seconds, out.Bytes = time.Since(start).Seconds(), received.Load()
	for _, c := range senders {
		out.Retransmits += retransmits(c)
		_ = c.SetLinger(0) // what is on its way is not worth waiting for
		c.Close()
	}
	_ = deadline(receivers, time.Now().Add(time.Second))
	wg.Wait()
	if out.Bytes == 0 && ctx.Err() == nil {
		return errors.New("connections were made but not a byte arrived")
	}
	return nil
}

// connect makes the connections, one after the other.
func (p Perf) connect(ctx context.Context) (senders, receivers []*net.TCPConn, err error) {
	var l *net.TCPListener
	err = p.To.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Target, 0)))
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listen at %v: %w", p.Target, err)
	}
	defer l.Close()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Source, 0)), Timeout: connectTimeout}
	for range p.Streams {
		var c net.Conn
		err := p.From.Do(func() (err error) {
			c, err = dialer.DialContext(ctx, "tcp", l.Addr().String())
			return err
		})
		if err != nil {
			return senders, receivers, fmt.Errorf("connect: %w", err)
		}
		senders = append(senders, c.(*net.TCPConn))
		_ = l.SetDeadline(time.Now().Add(connectTimeout))
		r, err := l.AcceptTCP()
		if err != nil {
			return senders, receivers, fmt.Errorf("accept at %v: %w", p.Target, err)
		}
		receivers = append(receivers, r)
	}
	return senders, receivers, nil
}

// fill writes until the connection is closed.
func fill(c *net.TCPConn, size int) {
	b := make([]byte, size)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// drain reads until the connection ends.
func drain(c *net.TCPConn, size int, received *atomic.Uint64) {
	b := make([]byte, max(size, tcpSize))
	for {
		n, err := c.Read(b)
		received.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

func deadline(conns []*net.TCPConn, t time.Time) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.SetDeadline(t))
	}
	return errors.Join(errs...)
}

// retransmits asks the kernel how many segments it sent again.
func retransmits(c *net.TCPConn) (n uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = uint64(info.Total_retrans)
		}
	})
	return n
}

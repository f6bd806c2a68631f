//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Place is where sockets are opened, such as a hostnet.Namespace.
type Place interface {
	Do(func() error) error
}

// Ping says how to ping. The zero value sends one request of 56 bytes and waits
// a second.
type Ping struct {
	Count    int           // requests; 0: 1
	Interval time.Duration // from one answer, or its timeout, to the next request
	Timeout  time.Duration // for each answer; 0: 1 s
	Size     int           // bytes of payload; 0: 56
}

// Pinged is what came of it. Each request is sent once: what was lost stays lost.
type Pinged struct {
	RTT
	Last error `json:"-"` // the latest ICMP error or timeout
}

// OK tells whether every request was answered.
func (p Pinged) OK() bool { return p.Sent > 0 && p.Received == p.Sent }

const icmpHeader = 8

// Run pings dst from src, one request at a time, by the ICMP echo of the kernel
// in place (whose net.ipv4.ping_group_range must let us).
func (p Ping) Run(ctx context.Context, place Place, src, dst netip.Addr) (Pinged, error) {
	p.Count, p.Size = orElse(p.Count, 1), orElse(p.Size, 56)
	p.Timeout = orElse(p.Timeout, time.Second)
	f, err := echoSocket(place, src, dst)
	if err != nil {
		return Pinged{}, fmt.Errorf("ping %v from %v: %w", dst, src, err)
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })()
	var out Pinged
	var trips []time.Duration
	for seq := range p.Count {
		if seq > 0 {
			pause(ctx, p.Interval)
		}
		if ctx.Err() != nil {
			break
		}
		out.Sent++
		trip, err := p.once(ctx, f, uint16(seq), dst.Is4())
		if err != nil {
			out.Last = err
			continue
		}
		trips = append(trips, trip)
	}
	out.RTT = summarize(out.Sent, trips)
	return out, context.Cause(ctx)
}

func (p Ping) once(ctx context.Context, f *os.File, seq uint16, four bool) (time.Duration, error) {
	request, answer := byte(128), byte(129) // RFC 4443 section 4
	if four {
		request, answer = 8, 0 // RFC 792
	}
	b := make([]byte, icmpHeader+p.Size, icmpHeader+max(p.Size, 1500))
	b[0] = request
	binary.BigEndian.PutUint16(b[6:], seq) // the kernel fills in id and checksum
	began := time.Now()
	if ctx.Err() == nil {
		_ = f.SetDeadline(began.Add(p.Timeout))
	}
	if _, err := f.Write(b); err != nil {
		return 0, err
	}
	for b = b[:cap(b)]; ; {
		n, err := f.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, fmt.Errorf("no answer within %v", p.Timeout)
		}
		if err != nil {
			return 0, err
		}
		if n >= icmpHeader && b[0] == answer && binary.BigEndian.Uint16(b[6:]) == seq {
			return time.Since(began), nil
		}
	}
}

// echoSocket is an ICMP socket whose identifier the kernel chooses and filters by.
func echoSocket(place Place, src, dst netip.Addr) (*os.File, error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	if dst.Is4() {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
	}
	fd := -1
	err := place.Do(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto); err != nil {
			return fmt.Errorf("open ICMP socket: %w", err)
		}
		if src.IsValid() {
			if err := unix.Bind(fd, sockaddr(src)); err != nil {
				return fmt.Errorf("bind: %w", err)
			}
		}
		return unix.Connect(fd, sockaddr(dst))
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), "icmp"), nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func orElse[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

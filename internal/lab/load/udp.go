//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	udpBuffer = 8 << 20                // bytes that a receiving socket keeps
	settle    = 200 * time.Millisecond // for datagrams that are on their way
	paceEvery = time.Millisecond
	burstOf   = 20 // paces' worth of datagrams sent at once, at most
)

// flow is one stream of datagrams, each numbered.
type flow struct {
	from, to  *net.UDPConn
	sent      uint64
	received  uint64
	bytes     uint64
	reordered uint64
}

// udp floods by p.Streams flows and counts what arrives.
func (p Perf) udp(ctx context.Context, out *Result, began func()) error {
	flows, err := p.flows()
	defer func() {
		for _, f := range flows {
			f.from.Close()
			f.to.Close()
		}
	}()
	if err != nil {
		return err
	}
	before, err := p.thrownAway()
	if err != nil {
		return err
	}
	var sending, receiving sync.WaitGroup
	start := time.Now()
	end := start.Add(p.Duration)
	for _, f := range flows {
		receiving.Go(func() { f.receive() })
		sending.Go(func() { f.send(ctx, p.Size, p.Rate/uint64(p.Streams), start, end) })
	}
	began()
	sending.Wait()
	out.Seconds = time.Since(start).Seconds()
	time.Sleep(settle)
	for _, f := range flows {
		_ = f.to.SetReadDeadline(time.Unix(1, 0))
	}
	receiving.Wait()
	for _, f := range flows {
		out.Sent += f.sent
		out.Received += f.received
		out.Bytes += f.bytes
		out.Reordered += f.reordered
	}
	after, err := p.thrownAway()
	if err != nil {
		return err
	}
	out.LostSending, out.LostReceiving = after.sending-before.sending, after.receiving-before.receiving
	if out.Sent > 0 {
		out.Loss = 1 - float64(out.Received)/float64(out.Sent)
	}
	if out.Received == 0 && ctx.Err() == nil {
		return fmt.Errorf("of %d datagrams not one arrived", out.Sent)
	}
	return nil
}

// thrownAway reads what the kernels at both ends have dropped.
func (p Perf) thrownAway() (dropped, error) {
	from, err := droppedAt(p.From)
	if err != nil {
		return dropped{}, err
	}
	to, err := droppedAt(p.To)
	return dropped{from.sending, to.receiving}, err
}

func (p Perf) flows() (out []*flow, err error) {
	for range p.Streams {
		to, err := listenUDP(p.To, p.Target)
		if err != nil {
			return out, fmt.Errorf("listen at %v: %w", p.Target, err)
		}
		if err := roomy(to); err != nil {
			to.Close()
			return out, err
		}
		from, err := dialUDP(p.From, p.Source, to)
		if err != nil {
			to.Close()
			return out, fmt.Errorf("open socket at %v: %w", p.Source, err)
		}
		out = append(out, &flow{from: from, to: to})
	}
	return out, nil
}

// roomy gives the receiver a large buffer, past rmem_max where we may.
func roomy(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, udpBuffer)
		}
	})
}

// send numbers datagrams until end. With a rate it sends what is due every
// millisecond, without one as fast as it can. Who could not send for a while
// does not make up for it by a burst that the rate does not allow.
func (f *flow) send(ctx context.Context, size int, rate uint64, start, end time.Time) {
	b := make([]byte, size)
	perSecond := float64(rate) / 8 / float64(size)
	credit, last := 0.0, start
	for now := start; now.Before(end) && ctx.Err() == nil; now = time.Now() {
		due := uint64(64)
		if rate > 0 {
			credit = min(credit+now.Sub(last).Seconds()*perSecond, max(1, burstOf*perSecond*paceEvery.Seconds()))
			due, last = uint64(credit), now
			credit -= float64(due)
		}
		for range due {
			binary.BigEndian.PutUint64(b, f.sent)
			if _, err := f.from.Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
				return
			}
			f.sent++
		}
		if rate > 0 {
			time.Sleep(paceEvery)
		}
	}
}

func (f *flow) receive() {
	b := make([]byte, largestUDP)
	next := uint64(0)
	for {
		n, err := f.to.Read(b)
		if err != nil {
			return
		}
		if n < stampSize {
			continue
		}
		seq := binary.BigEndian.Uint64(b)
		if seq < next {
			f.reordered++
		} else {
			next = seq + 1
		}
		f.received++
		f.bytes += uint64(n)
	}
}

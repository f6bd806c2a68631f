//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
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
	sent      atomic.Uint64
	received  uint64
	bytes     uint64
	reordered uint64
	ledger    *ledger // of single datagrams; nil for none
}

// udp floods by p.Streams flows and counts what arrives.
func (p Perf) udp(ctx context.Context, out *Result, began func()) error {
	flows, err := p.flows()
	defer func() {
		for _, f := range flows {
			f.close()
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
	until, cancel := context.WithDeadline(ctx, start.Add(p.Duration))
	defer cancel()
	for _, f := range flows {
		receiving.Go(func() { f.receive() })
		sending.Go(func() { f.send(until, p.Size, p.Rate/uint64(p.Streams)) })
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
		out.Sent += f.sent.Load()
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
		f, err := Path{p.From, p.To, p.Source, p.Target}.flow()
		if err != nil {
			return out, err
		}
		out = append(out, f)
	}
	return out, nil
}

// flow opens the sockets at both ends of a path.
func (p Path) flow() (*flow, error) {
	to, err := listenUDP(p.To, p.Target)
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", p.Target, err)
	}
	if err := roomy(to); err != nil {
		to.Close()
		return nil, err
	}
	from, err := dialUDP(p.From, p.Source, to)
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("open socket at %v: %w", p.Source, err)
	}
	return &flow{from: from, to: to}, nil
}

func (f *flow) close() {
	f.from.Close()
	f.to.Close()
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

// send numbers datagrams until ctx ends. With a rate, in bits a second, it sends
// what is due every millisecond, without one as fast as it can. Who could not send
// for a while does not make up for it by a burst that the rate does not allow.
func (f *flow) send(ctx context.Context, size int, rate uint64) {
	b := make([]byte, size)
	perSecond := float64(rate) / 8 / float64(size)
	credit, last := 0.0, time.Now()
	for ctx.Err() == nil {
		due := uint64(64)
		if rate > 0 {
			now := time.Now()
			credit = min(credit+now.Sub(last).Seconds()*perSecond, max(1, burstOf*perSecond*paceEvery.Seconds()))
			due, last = uint64(credit), now
			credit -= float64(due)
		}
		for range due {
			binary.BigEndian.PutUint64(b, f.sent.Load())
			if f.offer(b) != nil {
				return
			}
			f.sent.Add(1)
		}
		if rate > 0 {
			time.Sleep(paceEvery)
		}
	}
}

// offer writes a datagram. One that no device takes just now is lost, as others
// are; only a closed socket is an error.
func (f *flow) offer(b []byte) error {
	_, err := f.from.Write(b)
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, net.ErrClosed) {
		_, err = f.from.Write(b) // the first told of an ICMP error that came for an earlier one, and sent nothing
	}
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
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
		if f.ledger != nil {
			f.ledger.note(seq)
		}
	}
}

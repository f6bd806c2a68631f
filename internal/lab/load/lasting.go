//go:build linux

package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	trickleEvery = 10 * time.Millisecond
	patternSize  = 1 << 16
	mostTrickle  = 100 << 20 // bytes a second of a connection
)

// Connections are TCP connections that shall live until they are stopped: each
// sends a little all the time, and what arrives is held against what was sent.
type Connections struct {
	pattern []byte
	chunk   int // bytes that are sent at once
	all     []*lasting
	ending  chan struct{} // closed when no more shall be sent
	work    sync.WaitGroup
}

// Lived is how connections have fared.
type Lived struct {
	Connections int
	Resets      int    // connections that ended before they were told to
	Sent        uint64 // bytes
	Received    uint64
	Bent        uint64 // bytes that are not what was sent
	First       error  // how the first connection was lost; nil if none was
}

// lasting is one connection.
type lasting struct {
	from, to             *net.TCPConn
	mu                   sync.Mutex
	sent, received, bent uint64
	lost                 error
}

// StartConnections makes a connection over each path, which sends perSecond
// bytes a second or so, 100 to 100 MiB, and less where it is held up.
func StartConnections(ctx context.Context, paths []Path, perSecond int) (*Connections, error) {
	if perSecond < 100 || perSecond > mostTrickle {
		return nil, fmt.Errorf("send %d bytes a second by each connection: want 100 to %d", perSecond, mostTrickle)
	}
	c := &Connections{
		pattern: unlike(patternSize), chunk: perSecond * int(trickleEvery) / int(time.Second), ending: make(chan struct{}),
	}
	for _, p := range paths {
		perf := Perf{From: p.From, To: p.To, Source: p.Source, Target: p.Target, Streams: 1}
		from, to, err := perf.connect(ctx)
		if err != nil {
			for _, one := range from {
				one.Close()
			}
			c.Stop(0)
			return nil, err
		}
		c.all = append(c.all, &lasting{from: from[0], to: to[0]})
	}
	for _, one := range c.all {
		c.work.Go(func() { c.send(one) })
		c.work.Go(func() { c.receive(one) })
	}
	return c, nil
}

// unlike is bytes of which no two places within reach of a segmentation or
// coalescing fault look alike.
func unlike(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Stop ends the sending and waits for what is on its way, for so long at most.
// It is called once.
func (c *Connections) Stop(patience time.Duration) Lived {
	close(c.ending)
	end := time.Now().Add(patience)
	for _, one := range c.all {
		_ = deadline([]*net.TCPConn{one.from, one.to}, end) // one that is closed needs none
	}
	c.work.Wait()
	for _, one := range c.all {
		one.from.Close()
		one.to.Close()
	}
	return c.Lived()
}

// Await waits until each connection that still lives has delivered more than was
// sent before the call: none waits any longer for what was lost to be sent again.
func (c *Connections) Await(ctx context.Context) error {
	before := make([]uint64, len(c.all))
	for i, one := range c.all {
		one.mu.Lock()
		before[i] = one.sent
		one.mu.Unlock()
	}
	for i, one := range c.all {
		for !one.beyond(before[i]) {
			if ctx.Err() != nil {
				return fmt.Errorf("the connection from %v to %v does not go on: %w", one.from.LocalAddr(), one.to.LocalAddr(), context.Cause(ctx))
			}
			time.Sleep(flowsCheck)
		}
	}
	return nil
}

// beyond tells whether so much and more has come, or no more will.
func (one *lasting) beyond(sent uint64) bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.received > sent || one.lost != nil
}

// Lived is how they have fared so far.
func (c *Connections) Lived() (out Lived) {
	out.Connections = len(c.all)
	for _, one := range c.all {
		one.mu.Lock()
		out.Sent, out.Received, out.Bent = out.Sent+one.sent, out.Received+one.received, out.Bent+one.bent
		if one.lost != nil {
			out.Resets++
			if out.First == nil {
				out.First = one.lost
			}
		}
		one.mu.Unlock()
	}
	return out
}

// send writes a piece of the pattern every now and then.
func (c *Connections) send(one *lasting) {
	tick := time.NewTicker(trickleEvery)
	defer tick.Stop()
	for at := 0; ; {
		select {
		case <-c.ending:
			one.end(one.from.CloseWrite())
			return
		case <-tick.C:
		}
		for rest := c.chunk; rest > 0; {
			n, err := one.from.Write(c.pattern[at:min(len(c.pattern), at+rest)])
			one.mu.Lock()
			one.sent += uint64(n)
			one.mu.Unlock()
			if err != nil {
				one.end(err)
				return
			}
			at, rest = (at+n)%len(c.pattern), rest-n
		}
	}
}

// receive reads until the other side has sent all, and compares.
func (c *Connections) receive(one *lasting) {
	b := make([]byte, patternSize)
	for at := 0; ; {
		n, err := one.to.Read(b)
		bent := 0
		for rest := b[:n]; len(rest) > 0; at %= len(c.pattern) {
			k := min(len(rest), len(c.pattern)-at)
			if !bytes.Equal(rest[:k], c.pattern[at:at+k]) {
				bent += k
			}
			rest, at = rest[k:], at+k
		}
		one.mu.Lock()
		one.received += uint64(n)
		one.bent += uint64(bent)
		one.mu.Unlock()
		if err != nil {
			if !errors.Is(err, io.EOF) || !c.told() {
				one.end(err)
			}
			return
		}
	}
}

// told tells whether the connections may end.
func (c *Connections) told() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

// end notes why a connection has ended; that time ran out at the end is no
// reset, for what is missing then shows in the counts.
func (one *lasting) end(err error) {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.lost == nil {
		one.lost = err
	}
}

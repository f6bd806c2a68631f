package survivaltest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"margay.dev/margay/internal/lab/load"
)

// pinging pings without pause until it is asked what came of it.
type pinging struct {
	name           string
	stop, done     chan struct{}
	sent, received int
	last           error
}

// ping begins to ping, a request each millisecond or so.
func (w *world) ping(name string, place load.Place, src, dst netip.Addr, timeout time.Duration) *pinging {
	p := &pinging{name: name, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			select {
			case <-p.stop:
				return
			default:
			}
			got, err := load.Ping{Count: 25, Interval: time.Millisecond, Timeout: timeout}.Run(context.Background(), place, src, dst)
			p.sent += got.Sent
			p.received += got.Received
			if err = errors.Join(err, got.Last); err != nil {
				p.last = err
			}
		}
	}()
	return p
}

// pingPods pings from pod to pod.
func (w *world) pingPods(from, to string, six bool) *pinging {
	w.t.Helper()
	return w.ping(from+" to "+to, w.space(from), w.addr(from, six), w.addr(to, six), 10*time.Second)
}

// end stops it and returns how many requests had no answer.
func (p *pinging) end() (lost int) {
	close(p.stop)
	<-p.done
	return p.sent - p.received
}

// none wants that no request was lost.
func (p *pinging) none(t *testing.T) {
	t.Helper()
	lost := p.end()
	t.Logf("%s: %d of %d pings answered", p.name, p.received, p.sent)
	if lost != 0 || p.sent == 0 {
		t.Errorf("%s: %d of %d pings were lost: %v", p.name, lost, p.sent, p.last)
	}
}

// A conversation moves bytes from one pod to another and counts those that came.
type conversation struct {
	name     string
	received atomic.Uint64 // bytes, or datagrams
	bent     atomic.Uint64 // bytes that are not what was sent
	stall    atomic.Bool   // the receiver does not read (TCP)
	closers  []func() error
	wg       sync.WaitGroup
}

func (c *conversation) end() {
	for _, f := range c.closers {
		_ = f() // what is sent or received meanwhile is of no interest
	}
	c.wg.Wait()
}

// goesOn waits until more arrives.
func (c *conversation) goesOn(w *world) {
	w.t.Helper()
	was := c.received.Load()
	w.eventually(c.name+" goes on", func() bool { return c.received.Load() > was+20 })
}

// text is what conversations over TCP consist of: no two places within reach of
// a segmentation or coalescing fault look alike.
var text = func() []byte {
	b := make([]byte, 1<<16)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}()

// tcp begins one connection that sends about 30 MB/s until it is ended.
func (w *world) tcp(from, to string, six bool) *conversation {
	w.t.Helper()
	a, b, err := w.connect(from, to, six)
	if err != nil {
		w.t.Fatalf("connect %s to %s: %v", from, to, err)
	}
	c := &conversation{name: "TCP from " + from + " to " + to, closers: []func() error{a.Close, b.Close}}
	c.wg.Go(func() {
		for {
			if _, err := a.Write(text); err != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	c.wg.Go(func() {
		got, at := make([]byte, 1<<16), 0
		for {
			for c.stall.Load() {
				time.Sleep(time.Millisecond)
			}
			n, err := b.Read(got)
			for rest := got[:n]; len(rest) > 0; at %= len(text) {
				k := min(len(rest), len(text)-at)
				if !bytes.Equal(rest[:k], text[at:at+k]) {
					c.bent.Add(uint64(k))
				}
				rest, at = rest[k:], at+k
			}
			c.received.Add(uint64(n))
			if err != nil {
				return
			}
		}
	})
	return c
}

func (w *world) connect(from, to string, six bool) (a, b *net.TCPConn, err error) {
	w.t.Helper()
	var l *net.TCPListener
	err = w.space(to).Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.addr(to, six), 0)))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	err = w.space(from).Do(func() (err error) {
		src := net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.addr(from, six), 0))
		a, err = net.DialTCP("tcp", src, l.Addr().(*net.TCPAddr))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	_ = l.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err = l.AcceptTCP(); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a, b, nil
}

// udp begins to send about a thousand datagrams a second until it is ended.
func (w *world) udp(from, to string, six bool) *conversation {
	w.t.Helper()
	a, b := w.sockets(from, to, six)
	c := &conversation{name: "UDP from " + from + " to " + to, closers: []func() error{a.Close, b.Close}}
	c.wg.Go(func() {
		for {
			if _, err := a.Write(text[:1000]); errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	c.wg.Go(func() {
		got := make([]byte, 2000)
		for {
			n, err := b.Read(got)
			if err != nil {
				return
			}
			if !bytes.Equal(got[:n], text[:1000]) {
				c.bent.Add(uint64(n))
			}
			c.received.Add(1)
		}
	})
	return c
}

// sockets are a connected pair between two pods. Who sends hears of no error:
// nobody answers datagrams.
func (w *world) sockets(from, to string, six bool) (a, b *net.UDPConn) {
	w.t.Helper()
	open := func(pod string, f func() (*net.UDPConn, error)) (c *net.UDPConn) {
		err := w.space(pod).Do(func() (err error) { c, err = f(); return err })
		if err != nil {
			w.t.Fatalf("open a socket in pod %s: %v", pod, err)
		}
		return c
	}
	b = open(to, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.addr(to, six), 0)))
	})
	a = open(from, func() (*net.UDPConn, error) {
		return net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.addr(from, six), 0)), b.LocalAddr().(*net.UDPAddr))
	})
	return a, b
}

// unbent wants that what arrived is what was sent.
func (c *conversation) unbent(t *testing.T) {
	t.Helper()
	if n := c.bent.Load(); n != 0 {
		t.Errorf("%s: %d bytes are not what was sent", c.name, n)
	}
}

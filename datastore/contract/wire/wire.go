// Package wire is a way to a store, for tests, that can be made slow, dumb and dead.
package wire

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Mode is what a Wire does with what it carries.
type Mode uint8

// The modes. What is kept goes on, in order, when the mode changes.
const (
	Open  Mode = iota // all goes on
	Slow              // each answer waits for the Wire's Delay
	Dumb              // requests go on, answers are kept
	Still             // all is kept
)

// Wire carries what clients and a server at a Unix socket say to each other.
type Wire struct {
	Endpoint string        // where clients connect to, as etcd's client has it
	Delay    time.Duration // of Slow; not changed while the wire is used

	to    string
	group sync.WaitGroup

	mu      sync.Mutex
	mode    Mode
	changed chan struct{} // closed when the mode changes
	ended   bool
	conns   map[net.Conn]struct{}
}

// Lay makes an open Wire to a socket, which lasts as long as the test.
func Lay(t *testing.T, socket string) *Wire {
	t.Helper()
	at := filepath.Join(t.TempDir(), "wire")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{Endpoint: "unix://" + at, Delay: 20 * time.Millisecond, to: socket, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	w.group.Go(func() { w.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
		w.Set(Open)
		w.Cut()
		w.group.Wait()
	})
	return w
}

// Set changes what the wire does.
func (w *Wire) Set(m Mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode = m
	close(w.changed)
	w.changed = make(chan struct{})
}

// Cut ends every connection, and what of it was kept is lost.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

// accept carries each connection, until the listener is closed.
func (w *Wire) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", w.to)
		if err != nil || !w.hold(client, server) {
			_ = client.Close()
			continue
		}
		w.group.Go(func() { w.carry(server, client, false) })
		w.group.Go(func() { w.carry(client, server, true) })
	}
}

// hold notes the two ends of a connection, unless the wire has ended.
func (w *Wire) hold(client, server net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		_ = server.Close()
		return false
	}
	w.conns[client], w.conns[server] = struct{}{}, struct{}{}
	return true
}

// carry takes what one end says to the other, until either is closed.
func (w *Wire) carry(to, from net.Conn, answers bool) {
	defer to.Close()
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		w.wait(answers)
		if _, gone := to.Write(b[:n]); err != nil || gone != nil {
			return
		}
	}
}

// wait waits until what was said may go on.
func (w *Wire) wait(answers bool) {
	for {
		w.mu.Lock()
		mode, changed := w.mode, w.changed
		w.mu.Unlock()
		switch {
		case mode == Slow && answers:
			time.Sleep(w.Delay)
			return
		case mode == Still, mode == Dumb && answers:
			<-changed
		default:
			return
		}
	}
}

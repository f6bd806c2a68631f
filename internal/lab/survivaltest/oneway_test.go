package survivaltest

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOneWay sends a great many datagrams in one direction only, which nobody
// answers: a forwarder that moved frames to one side would run out of them.
func TestOneWay(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			w := raise(t, workers, nil)
			w.everybody()
			for _, way := range [][2]string{{"ann", "cleo"}, {"amy", "dave"}, {"cleo", "amy"}} {
				w.oneWay(way[0], way[1], *packets/3)
			}
			w.everybody()
			w.balanced()
		})
	}
}

// oneWay sends until n packets have crossed the uplink, and wants both nodes to
// have as many free frames as before.
func (w *world) oneWay(from, to string, n int) {
	w.t.Helper()
	free := map[string]int{}
	for _, node := range []string{"north", "south"} {
		free[node] = w.frames(node)
	}
	node := w.Topology().Pod(from).Node
	seen := w.counters(node).Ports["link-uplink"]
	a, b := w.sockets(from, to, false)
	began := time.Now()
	w.eventually(fmt.Sprintf("%d packets from %s have crossed", n, from), func() bool {
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if err := flood(a, 5000); err != nil { // more would find full queues
				w.t.Fatal(err)
			}
		}
		return w.counters(node).Ports["link-uplink"].Tx-seen.Tx >= uint64(n)
	})
	w.quiet(b)
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		w.t.Error(err)
	}
	now := w.counters(node).Ports["link-uplink"]
	crossed, back := now.Tx-seen.Tx, now.Rx-seen.Rx
	w.t.Logf("%s to %s: %d packets crossed the uplink in %v, %d came back", from, to, crossed, time.Since(began).Round(time.Millisecond), back)
	if back > crossed/100 {
		w.t.Errorf("%d packets crossed the uplink and %d came back, want them one way", crossed, back)
	}
	for node, was := range free {
		if now := w.frames(node); now != was {
			w.t.Errorf("%s has %d free frames after %d packets from %s to %s, %d before", node, now, crossed, from, to, was)
		}
	}
}

// frames counts a node's free frames when they have come to rest.
func (w *world) frames(node string) int {
	w.t.Helper()
	last, same := -1, 0
	w.eventually("frames of "+node+" are at rest", func() bool {
		now := int(w.status(node).GetFramesFree())
		if now != last {
			last, same = now, 0
		}
		same++
		return same == 10
	})
	return last
}

// quiet waits until nothing more arrives.
func (w *world) quiet(b *net.UDPConn) {
	w.t.Helper()
	got := make([]byte, 2000)
	for {
		if err := b.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			w.t.Fatal(err)
		}
		if _, err := b.Read(got); err != nil {
			return
		}
	}
}

const (
	floodSize  = 64  // bytes of a datagram
	floodBurst = 100 // datagrams of one system call
)

// flood sends n datagrams, cut by the kernel or by whoever takes superpackets
// from it, and goes easy only as much as a receiver needs that shares its CPU.
func flood(a *net.UDPConn, n int) error {
	raw, err := a.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		fault = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, floodSize)
	})
	if err := errors.Join(err, fault); err != nil {
		return fmt.Errorf("have the kernel cut datagrams: %w", err)
	}
	for sent := 0; sent < n; {
		_, err := a.Write(text[:floodSize*min(floodBurst, n-sent)])
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		sent += floodBurst
	}
	return nil
}

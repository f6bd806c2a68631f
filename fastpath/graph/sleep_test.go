package graph

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSleeperIsWokenByWhatItWatches(t *testing.T) {
	for name, inMemory := range map[string]bool{"in memory": true, "on demand": false} {
		t.Run(name, func(t *testing.T) {
			p, err := newParking()
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			const long = 20 * time.Second
			woken := func() time.Duration {
				start := time.Now()
				p.asleep.Store(true)
				p.sleep(int(long.Milliseconds()))
				p.asleep.Store(false)
				return time.Since(start)
			}
			soon := func(f func()) { time.AfterFunc(30*time.Millisecond, f) }

			if err := p.add(fd, inMemory); err != nil {
				t.Fatal(err)
			}
			soon(func() { _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
			if took := woken(); took > long/2 {
				t.Errorf("a queue with packets woke it after %v", took)
			}
			soon(p.rouse)
			if p.remove(fd, inMemory); woken() > long/2 { // though it still has packets
				t.Error("it was not roused")
			}
			soon(func() {
				if err := p.add(fd, inMemory); err != nil {
					t.Error(err)
				}
			})
			if took := woken(); took > long/2 {
				t.Errorf("one that was added while it slept woke it after %v", took)
			}
		})
	}
}

// Who removes a queue may close it at once: a descriptor that is polled stays open
// to the kernel, and an AF_XDP queue taken.
func TestNobodySleepsOnWhatWasRemoved(t *testing.T) {
	p, err := newParking()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				p.asleep.Store(true)
				p.sleep(20)
				p.asleep.Store(false)
			}
		}
	}()
	for range 200 {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := p.add(ends[0], true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
		p.remove(ends[0], true)
		unix.Close(ends[0])
		// The last reader is gone: that is seen by who writes.
		var seen [1]unix.PollFd
		seen[0].Fd = int32(ends[1])
		if _, err := unix.Poll(seen[:], 0); err != nil || seen[0].Revents&unix.POLLERR == 0 {
			t.Fatalf("its reader is still open: %#x, %v", seen[0].Revents, err)
		}
		unix.Close(ends[1])
	}
	close(stop)
	p.rouse()
	<-ended
}

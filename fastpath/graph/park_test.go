package graph

import (
	"encoding/binary"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eventQueue is a queue with a descriptor of the kernel that says when it has
// packets.
type eventQueue struct {
	fd       int
	inMemory bool
	mu       sync.Mutex
	left     int
	calls    atomic.Int64
	got      chan struct{}
}

func newEventQueue(t *testing.T, inMemory bool) *eventQueue {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return &eventQueue{fd: fd, inMemory: inMemory, got: make(chan struct{}, 1<<16)}
}

// give makes n packets come in.
func (q *eventQueue) give(n int) {
	q.mu.Lock()
	q.left += n
	q.mu.Unlock()
	_, _ = unix.Write(q.fd, binary.NativeEndian.AppendUint64(nil, 1))
}

func (q *eventQueue) RxBurst(io *IO, ms []Meta) int {
	q.calls.Add(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	in := loopQueue{left: min(q.left, len(ms))}
	got := in.RxBurst(io, ms)
	if q.left -= got; q.left == 0 {
		var b [8]byte
		_, _ = unix.Read(q.fd, b[:])
	}
	return got
}

func (q *eventQueue) TxBurst(io *IO, v *Vector) int {
	for i := range v.Len() {
		io.Free(v.Meta(i))
		q.got <- struct{}{}
	}
	return 0
}

func (q *eventQueue) Poll(*IO) bool  { return false }
func (q *eventQueue) FD() int        { return q.fd }
func (q *eventQueue) InMemory() bool { return q.inMemory }

// sleeps is how often worker 0 went to sleep.
func sleeps(e *Engine) uint64 { return e.Stats()[0].Load.Sleeps }

// soundly makes the workers of e sleep until somebody wakes them: who waits for a
// tick waits longer than waitFor does.
func soundly(e *Engine) {
	for _, w := range e.workers {
		w.nap = int(time.Hour.Milliseconds())
	}
}

// asleep waits until worker 0 sleeps.
func asleep(t *testing.T, e *Engine) {
	t.Helper()
	waitFor(t, "the worker to sleep", func() bool {
		if e.workers[0].park.sleeping.TryLock() {
			e.workers[0].park.sleeping.Unlock()
			return false
		}
		return true
	})
}

func TestSleepingWorkerIsWokenByItsQueues(t *testing.T) {
	for name, inMemory := range map[string]bool{"a queue in memory": true, "a queue that must be asked": false} {
		t.Run(name, func(t *testing.T) {
			e, _ := engine(t, 1, passSpec(1))
			soundly(e)
			q := newEventQueue(t, inMemory)
			addPort(t, e, 1, q)
			e.Start()
			defer e.Stop()
			const packets = 20
			for i := range packets {
				asleep(t, e)
				q.give(1)
				waitFor(t, "packet "+strconv.Itoa(i), func() bool { return len(q.got) > i })
			}
			e.Stop()
			if n := sleeps(e); n < packets {
				t.Errorf("the worker slept %d times before %d packets", n, packets)
			}
		})
	}
}

// A queue that costs a system call is not asked while its descriptor is silent.
func TestSilentQueuesAreNotAsked(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	busy, silent := newEventQueue(t, true), newEventQueue(t, false)
	addPort(t, e, 1, busy)
	addPort(t, e, 2, silent)
	for range 1000 {
		busy.give(1)
		e.Step()
	}
	if n := silent.calls.Load(); n > 1 {
		t.Errorf("the silent queue was asked %d times, want once", n)
	}
	silent.give(100)
	for range 2 * readyEvery {
		e.Step()
	}
	if silent.left != 0 {
		t.Errorf("%d packets still wait", silent.left)
	}
	e.Stop()
}

// More queues than one look at the kernel tells of become readable at once.
func TestManyReadableQueuesAreAllServed(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	var qs []*eventQueue
	for i := range 200 {
		q := newEventQueue(t, false)
		qs = append(qs, q)
		addPort(t, e, uint16(i), q)
	}
	e.Start()
	defer e.Stop()
	for range 10 {
		for _, q := range qs {
			q.give(3)
		}
		for range 3 * len(qs) {
			select {
			case <-qs[1].got:
			case <-time.After(time.Minute):
				t.Fatal("packets were left waiting for a minute")
			}
		}
	}
}

// A removed queue wakes nobody any more, although its descriptor is readable.
func TestRemovedQueueWakesNobody(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	soundly(e)
	q := newEventQueue(t, false)
	addPort(t, e, 1, q)
	e.Start()
	if err := e.RemovePort(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	q.give(1)
	time.Sleep(100 * time.Millisecond)
	e.Stop()
	if n := sleeps(e); n > 10 { // as it starts, and each time it is told of the removal
		t.Errorf("the worker slept %d times, want it to sleep on", n)
	}
	if n := q.calls.Load(); q.left != 1 {
		t.Errorf("the queue was asked %d times, %d packets are left", n, q.left)
	}
}

// clockNode notes when it is resumed.
type clockNode struct {
	passOn
	ticks *atomic.Int64
}

func (n clockNode) Resume(*Worker) { n.ticks.Add(1) }

func TestKickResumesASleepingWorkerAtOnce(t *testing.T) {
	var ticks atomic.Int64
	e, _ := engine(t, 2, Spec{Name: "pass", Edges: []string{DropName, TxName}, Resumes: []string{"pass"},
		New: func(int) Node { return clockNode{ticks: &ticks} }})
	soundly(e)
	e.Start()
	defer e.Stop()
	for range 100 {
		asleep(t, e)
		was := ticks.Load()
		e.Kick()
		waitFor(t, "both workers to resume", func() bool { return ticks.Load() >= was+2 })
	}
}

// A clock that is moved by hand goes as far as the test wants, and no further.
func TestAdvanceMakesTicksDue(t *testing.T) {
	var ticks atomic.Int64
	e, _ := engine(t, 1, Spec{Name: "pass", Edges: []string{DropName, TxName}, Resumes: []string{"pass"},
		New: func(int) Node { return clockNode{ticks: &ticks} }})
	defer e.Stop()
	e.workers[0].cfg.ByHand = true
	e.Step()
	for range 10 {
		was := ticks.Load()
		e.Advance(TickInterval - 1)
		e.Step()
		time.Sleep(time.Millisecond) // that does not count
		e.Step()
		early := ticks.Load() - was
		e.Advance(1)
		e.Step()
		if n := ticks.Load() - was; early != 0 || n != 1 {
			t.Fatalf("%d ticks in an interval, %d of them early", n, early)
		}
	}
}

// A worker to which nothing comes goes on telling that it is there: how long it
// has run, and of ports that it has been given meanwhile.
func TestIdleWorkerGoesOnTelling(t *testing.T) {
	for _, always := range []bool{false, true} {
		e, _ := engine(t, 1, passSpec(2))
		e.workers[0].cfg.BusyPoll = always
		e.Start()
		told := func(what string, holds func(Stats) bool) {
			t.Helper()
			for end := time.Now().Add(time.Minute); !holds(e.Stats()[0]); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("busy polling %v: %s is never told", always, what)
				}
			}
		}
		told("that it runs", func(s Stats) bool { return s.Load.Elapsed > 0 })
		first := e.Stats()[0].Load
		told("how long it runs", func(s Stats) bool { return s.Load.Elapsed > first.Elapsed && s.Load.Loops > first.Loops })
		if !always {
			told("that it sleeps", func(s Stats) bool { return s.Load.Sleeps > first.Sleeps })
		}
		if err := e.AddPort(t.Context(), Port{Index: 3, Name: "late", Entry: "pass", Queues: []Queue{&loopQueue{}}}); err != nil {
			t.Fatal(err)
		}
		told("a port that was added", func(s Stats) bool { return len(s.Ports) == 4 })
		e.Stop()
	}
}

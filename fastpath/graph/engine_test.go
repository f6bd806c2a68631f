package graph

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/umem"
)

// each is a node made of a function, which sees every packet.
type each func(w *Worker, m *Meta) Edge

func (f each) Process(w *Worker, v *Vector, next []Edge) {
	for i := range next {
		next[i] = f(w, v.Meta(i))
	}
}

func eachSpec(f each) Spec {
	return Spec{Name: "pass", Edges: []string{DropName, TxName}, New: func(int) Node { return f }}
}

func addPort(t testing.TB, e *Engine, index uint16, qs ...Queue) {
	t.Helper()
	if err := e.AddPort(context.Background(), Port{Index: index, Name: "p", Entry: "pass", Queues: qs}); err != nil {
		t.Fatal(err)
	}
}

// waitFor polls, for what other goroutines do. Its patience is that of a machine
// which does much else.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func wantFree(t testing.TB, a *umem.Arena) {
	t.Helper()
	if f, s := a.Free(); f != a.Frames() || s != a.Supers() {
		t.Errorf("%d of %d frames and %d of %d supers are free", f, a.Frames(), s, a.Supers())
	}
}

func TestNewEngineRefuses(t *testing.T) {
	a, err := umem.New(umem.Config{Frames: 64, Caches: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	g, err := Build(passSpec(0))
	if err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"workers is 0": {}, "burst is 257": {Workers: 1, Burst: 257}, "burst is -1": {Workers: 1, Burst: -1},
	} {
		if _, err := NewEngine(g, a, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

func TestAddPortRefuses(t *testing.T) {
	e, _ := engine(t, 1, passSpec(0))
	addPort(t, e, 3, &loopQueue{})
	tests := map[string]Port{
		"is taken":           {Index: 3, Entry: "pass", Queues: []Queue{&loopQueue{}}},
		"not below 4096":     {Index: MaxPorts, Entry: "pass", Queues: []Queue{&loopQueue{}}},
		"no node is called":  {Index: 4, Entry: "nowhere", Queues: []Queue{&loopQueue{}}},
		"has no queues":      {Index: 4, Entry: "pass"},
		"watch queue fd 999": {Index: 4, Entry: "pass", Queues: []Queue{&loopQueue{}, &eventQueue{fd: 999}}},
	}
	for want, p := range tests {
		if err := e.AddPort(context.Background(), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
	if err := e.RemovePort(context.Background(), 9); err == nil {
		t.Error("a port that is not there was removed")
	}
	e.Stop()
	if err := e.AddPort(context.Background(), Port{Index: 5, Entry: "pass", Queues: []Queue{&loopQueue{}}}); err == nil {
		t.Error("a stopped engine took a port")
	}
	if err := e.RemovePort(context.Background(), 3); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// A descriptor that was closed may be somebody else's by now.
func TestStopClosesItsDescriptorsOnce(t *testing.T) {
	for name, run := range map[string]func(e *Engine){
		"never started": func(*Engine) {},
		"running":       func(e *Engine) { e.Start() },
	} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			e, _ := engine(t, 2, passSpec(0))
			run(e)
			e.Stop()
			if n := descriptors(t); n != before+1 { // the arena's
				t.Errorf("%d descriptors are open, want %d", n, before+1)
			}
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
				t.Fatal(err)
			}
			e.Stop()
			e.Kick()
			if n, err := unix.Write(p[1], []byte{1}); n != 1 || err != nil {
				t.Errorf("a foreign pipe was closed: %v", err)
			}
			var b [16]byte
			if n, err := unix.Read(p[0], b[:]); n != 1 || err != nil {
				t.Errorf("read %d bytes from a foreign pipe, want the one that was written: %v", n, err)
			}
			_, _ = unix.Close(p[0]), unix.Close(p[1])
		})
	}
}

func TestPinErrorsAreTold(t *testing.T) {
	a, err := umem.New(umem.Config{Frames: 64, Caches: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	g, err := Build(passSpec(0))
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEngine(g, a, Config{Workers: 3, CPUs: []int{100_000, 0, 100_002}})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	defer e.Stop()
	waitFor(t, "two workers to fail", func() bool { errs := e.PinErrors(); return errs[0] != nil && errs[2] != nil })
	errs := e.PinErrors()
	if !strings.Contains(errs[0].Error(), "CPU 100000") || errs[1] != nil || !strings.Contains(errs[2].Error(), "CPU 100002") {
		t.Errorf("by worker: %q", errs)
	}
}

// Quiesce returns when no worker can be using what was published before.
func TestQuiesceWaitsUntilEveryWorkerMovedOn(t *testing.T) {
	var table, floor, seen atomic.Uint64
	e, _ := engine(t, 2, eachSpec(func(_ *Worker, m *Meta) Edge {
		m.OutPort = 1
		at := table.Load()
		for range 50 {
			if floor.Load() > at {
				seen.Add(1)
			}
		}
		return 1
	}))
	addPort(t, e, 1, &loopQueue{left: 1 << 60}, &loopQueue{left: 1 << 60})
	e.Start()
	for gen := range uint64(500) {
		table.Store(gen)
		if err := e.Quiesce(context.Background()); err != nil {
			t.Fatal(err)
		}
		floor.Store(gen)
	}
	e.Stop()
	if n := seen.Load(); n > 0 {
		t.Errorf("%d times a worker used a table after it was quiet", n)
	}
}

func TestQuiesceGivesUpWithItsContext(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	e, _ := engine(t, 1, eachSpec(func(_ *Worker, m *Meta) Edge {
		close(inside)
		<-leave
		m.OutPort = 1
		return 1
	}))
	addPort(t, e, 1, &loopQueue{left: 1})
	e.Start()
	<-inside
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := e.Quiesce(ctx); err == nil {
		t.Error("quiesce did not wait for a worker in the middle of a pass")
	}
	close(leave)
	if err := e.Quiesce(context.Background()); err != nil {
		t.Error(err)
	}
	e.Stop()
}

// Ports come and go under full load; a removed queue is touched no more, as the
// race detector would see.
func TestPortsComeAndGoUnderTraffic(t *testing.T) {
	const sink, changing = 2, 7
	var target atomic.Uint32
	target.Store(sink)
	e, a := engine(t, 2, eachSpec(func(_ *Worker, m *Meta) Edge { m.OutPort = uint16(target.Load()); return 1 }))
	addPort(t, e, 1, &loopQueue{left: 1 << 60}, &loopQueue{left: 1 << 60})
	addPort(t, e, sink, &loopQueue{}, &loopQueue{})
	e.Start()
	for range 25 {
		q := &loopQueue{left: 1000}
		addPort(t, e, changing, q)
		target.Store(changing)
		time.Sleep(300 * time.Microsecond)
		if err := e.RemovePort(context.Background(), changing); err != nil {
			t.Fatal(err)
		}
		q.left, q.sent = -1, -1 // ours again
		target.Store(sink)
	}
	e.Stop()
	if c := e.Total(); c.In() != c.Out() {
		t.Errorf("in %d, out %d", c.In(), c.Out())
	}
	wantFree(t, a)
}

// slow sends packets to a port, and keeps worker 0 from taking what it is handed.
type slow struct{ target *atomic.Uint32 }

func (n slow) Process(w *Worker, v *Vector, next []Edge) {
	to := n.target.Load()
	for i := range next {
		m := v.Meta(i)
		m.OutPort, m.Aux = uint16(to), to
		next[i] = 1
	}
	if w.ID() == 0 {
		time.Sleep(time.Millisecond)
	}
}

// stamped is a queue that takes only what was meant for it.
type stamped struct {
	loopQueue
	alien int
}

func (q *stamped) TxBurst(io *IO, v *Vector) int {
	for i := range v.Len() {
		if v.Meta(i).Aux>>16 != 0 {
			q.alien++
		}
	}
	return q.loopQueue.TxBurst(io, v)
}

// What is on its way to a port that is removed does not reach the next one of
// that index.
func TestPacketsForARemovedPortAreNotSentByTheNext(t *testing.T) {
	const sink, changing = 2, 7
	var target atomic.Uint32
	target.Store(sink)
	e, a := engine(t, 2, Spec{Name: "pass", Edges: []string{DropName, TxName}, New: func(int) Node { return slow{&target} }})
	addPort(t, e, 1, &loopQueue{left: 1 << 60}, &loopQueue{left: 1 << 60})
	addPort(t, e, sink, &loopQueue{}, &loopQueue{})
	addPort(t, e, changing, &loopQueue{})
	e.Start()
	late, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 10 {
		target.Store(1<<16 | changing)
		time.Sleep(5 * time.Millisecond) // worker 1 fills the ring to worker 0
		target.Store(sink)
		ctx := context.Background()
		if i%2 == 1 {
			ctx = late
		}
		if err := e.RemovePort(ctx, changing); err != nil && i%2 == 0 {
			t.Fatal(err)
		}
		if err := e.Quiesce(context.Background()); err != nil { // which RemovePort could not wait for
			t.Fatal(err)
		}
		next := &stamped{}
		addPort(t, e, changing, next)
		time.Sleep(5 * time.Millisecond)
		if err := e.RemovePort(context.Background(), changing); err != nil {
			t.Fatal(err)
		}
		if next.alien > 0 {
			t.Fatalf("%d packets left by a port that they were not meant for", next.alien)
		}
		addPort(t, e, changing, &loopQueue{})
	}
	e.Stop()
	if c := e.Total(); c.In() != c.Out() || c.Drops[TxNoPort] == 0 {
		t.Errorf("in %d, out %d, %d had no port", c.In(), c.Out(), c.Drops[TxNoPort])
	}
	wantFree(t, a)
}

// Step by step: worker 1 hands over more than the ring takes.
func TestFullHandOffRingDropsAndCounts(t *testing.T) {
	e, a := engine(t, 2, passSpec(2))
	e.cfg.Burst = VectorMax
	out := &loopQueue{}
	addPort(t, e, 1, &loopQueue{}, &loopQueue{left: 5 * VectorMax})
	addPort(t, e, 2, out)
	for _, w := range e.workers {
		w.started = time.Now()
	}
	for range 5 {
		e.workers[1].pass()
	}
	if c := e.Total(); c.Drops[TxFull] != 5*VectorMax-handSize {
		t.Errorf("%d packets were dropped, want %d", c.Drops[TxFull], 5*VectorMax-handSize)
	}
	for e.Step() {
	}
	if c := e.Total(); c.Tx != handSize || out.sent != handSize || c.In() != c.Out() {
		t.Errorf("%d packets were sent, want %d: %+v", out.sent, handSize, c)
	}
	e.Stop()
	wantFree(t, a)
}

// However much it is handed, a worker goes on to receive by its own queues.
func TestHandedFloodLeavesRoomForOwnQueues(t *testing.T) {
	e, a := engine(t, 2, passSpec(2))
	e.cfg.Burst = VectorMax
	own := &loopQueue{left: 1 << 60}
	addPort(t, e, 1, own, &loopQueue{left: 1 << 60})
	addPort(t, e, 2, &loopQueue{})
	e.Step()
	for range 10 {
		e.workers[1].pass()
	}
	was := own.left
	e.workers[0].pass()
	if n := was - own.left; n != VectorMax/2 {
		t.Errorf("received %d packets beside the flood, want %d", n, VectorMax/2)
	}
	e.Stop() // with the ring full
	if c := e.Total(); c.In() != c.Out() || c.Drops[TxNoPort] == 0 {
		t.Errorf("in %d, out %d, %d given up", c.In(), c.Out(), c.Drops[TxNoPort])
	}
	wantFree(t, a)
}

// One queue floods: the others get what is theirs in the same pass.
func TestFloodDoesNotStarveOtherQueues(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	e.cfg.Burst = 64
	flood, quiet := &loopQueue{left: 1 << 60}, &loopQueue{}
	addPort(t, e, 1, flood)
	addPort(t, e, 2, quiet)
	for range 50 {
		quiet.left = 10
		e.Step()
		if quiet.left != 0 {
			t.Fatalf("%d packets were left waiting", quiet.left)
		}
	}
	e.Stop()
}

// More floods than fit a vector share it evenly.
func TestFloodsShareTheVectorInTurn(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	e.cfg.Burst = 64
	var qs []*loopQueue
	for i := range 10 {
		qs = append(qs, &loopQueue{left: 1 << 30})
		addPort(t, e, uint16(i), qs[i])
	}
	for range 1000 {
		e.Step()
	}
	for i, q := range qs {
		if got := 1<<30 - q.left; got < 1000*VectorMax/10/2 || got > 1000*VectorMax/10*2 {
			t.Errorf("queue %d got %d of %d places", i, got, 1000*VectorMax)
		}
	}
	e.Stop()
}

// A transmit queue that refuses everything loses packets, not frames.
func TestRefusedPacketsAreDroppedAndFreed(t *testing.T) {
	e, a := engine(t, 1, eachSpec(func(_ *Worker, m *Meta) Edge { m.OutPort, m.Len = 1, 2000; return 1 }))
	addPort(t, e, 1, &loopQueue{left: 100})
	for e.Step() {
	}
	s := e.Stats()[0]
	if s.Counters.Drops[TxOversize] != 100 || s.Counters.Tx != 0 || s.Ports[1].TxDrops != 100 || s.Ports[1].TxBytes != 0 {
		t.Errorf("dropped %d, sent %d, port %+v", s.Counters.Drops[TxOversize], s.Counters.Tx, s.Ports[1])
	}
	e.Stop()
	wantFree(t, a)
}

// busyQueue keeps its worker in a pass, from when it is told to until it is let go.
type busyQueue struct {
	loopQueue
	hold   atomic.Bool
	inside chan struct{} // closed when a worker is in
	leave  chan struct{}
}

func (q *busyQueue) RxBurst(*IO, []Meta) int {
	if q.hold.CompareAndSwap(true, false) {
		close(q.inside)
		<-q.leave
	}
	return 0
}

// A port that could not be added in time is not driven once the workers have
// moved on, and its index is free again.
func TestPortThatCouldNotBeAddedIsTakenBack(t *testing.T) {
	e, _ := engine(t, 1, passSpec(2))
	e.Start()
	defer e.Stop()
	busy := &busyQueue{inside: make(chan struct{}), leave: make(chan struct{})}
	if err := e.AddPort(context.Background(), Port{Index: 1, Name: "busy", Entry: "pass", Queues: []Queue{busy}}); err != nil {
		t.Fatal(err)
	}
	busy.hold.Store(true)
	e.Kick() // awake
	<-busy.inside
	late, cancel := context.WithCancel(context.Background())
	cancel()
	q := &loopQueue{left: 1 << 30}
	if err := e.AddPort(late, Port{Index: 2, Name: "late", Entry: "pass", Queues: []Queue{q}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("adding a port while a worker is busy says %v, want %v", err, context.Canceled)
	}
	close(busy.leave)
	if err := e.Quiesce(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := q.left // no race: no worker has it any more
	time.Sleep(5 * time.Millisecond)
	if q.left != before {
		t.Error("a port that was refused is driven")
	}
	if err := e.AddPort(context.Background(), Port{Index: 2, Name: "again", Entry: "pass", Queues: []Queue{q}}); err != nil {
		t.Errorf("its index is not free: %v", err)
	}
}

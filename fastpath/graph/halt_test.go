package graph

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Three workers that all send by the one queue of worker 0, halted and started
// in all moments: nothing is lost, and what is counted while they stand does not
// change.
func TestHaltAndStartAlternateUnderLoad(t *testing.T) {
	e, a := engine(t, 3, passSpec(2))
	in := []*loopQueue{{left: 1 << 60}, {left: 1 << 60}, {left: 1 << 60}}
	out := &loopQueue{}
	addPort(t, e, 1, in[0], in[1], in[2])
	addPort(t, e, 2, out)
	var took []time.Duration
	const halts = 250
	for i := range halts {
		e.Start()
		time.Sleep(time.Duration(i%7) * 50 * time.Microsecond)
		start := time.Now()
		if err := e.Halt(context.Background()); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
		c := e.Total()
		if c.In() != c.Out() || c.Drops[TxNoPort] != 0 || uint64(out.sent) != c.Tx {
			t.Fatalf("halt %d: in %d, out %d, %d sent: %+v", i, c.In(), c.Out(), out.sent, c)
		}
		wantFree(t, a) // no race: the caches are nobody's
	}
	if c := e.Total(); c.Tx == 0 || c.Rx != 3<<60-uint64(in[0].left+in[1].left+in[2].left) {
		t.Errorf("received %d, sent %d", c.Rx, c.Tx)
	}
	slices.Sort(took)
	t.Logf("a halt took %v, one in a hundred more than %v", took[halts/2], took[halts*99/100])
	e.Stop()
}

// What is handed to a worker that has come out before its peers is sent by Halt.
func TestHaltTransmitsWhatWasHandedOver(t *testing.T) {
	e, a := engine(t, 2, passSpec(2))
	e.cfg.Burst = VectorMax
	out := &loopQueue{}
	addPort(t, e, 1, &loopQueue{}, &loopQueue{left: 3 * VectorMax})
	addPort(t, e, 2, out)
	e.Step()
	for range 2 {
		e.workers[1].pass()
	}
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c := e.Total(); out.sent != 3*VectorMax || c.Tx != 3*VectorMax || c.In() != c.Out() {
		t.Errorf("%d packets were sent, want %d: %+v", out.sent, 3*VectorMax, c)
	}
	wantFree(t, a)
	e.Stop()
}

// txStuck is a queue that keeps its worker in TxBurst until it is let go.
type txStuck struct {
	loopQueue
	inside, leave chan struct{}
}

func (q *txStuck) TxBurst(io *IO, v *Vector) int {
	if q.sent == 0 {
		close(q.inside)
		<-q.leave
	}
	return q.loopQueue.TxBurst(io, v)
}

// lateQueue receives nothing until it is opened: whoever adds a port waits for workers
// to go round, which one that is stuck does not.
type lateQueue struct {
	loopQueue
	open atomic.Bool
}

func (q *lateQueue) RxBurst(io *IO, ms []Meta) int {
	if !q.open.Load() {
		return 0
	}
	return q.loopQueue.RxBurst(io, ms)
}

func TestHaltGivesUpAndTheEngineRunsOn(t *testing.T) {
	e, a := engine(t, 2, passSpec(2))
	stuck := &txStuck{inside: make(chan struct{}), leave: make(chan struct{})}
	addPort(t, e, 2, stuck, &loopQueue{})
	e.Start()
	late := &lateQueue{loopQueue: loopQueue{left: 1000}}
	addPort(t, e, 1, late, &loopQueue{left: 1 << 60})
	late.open.Store(true)
	e.Kick()
	<-stuck.inside
	why := errors.New("the other side is impatient")
	ctx, cancel := context.WithCancelCause(context.Background())
	out := e.workers[1].left
	go func() {
		<-out
		cancel(why)
	}()
	if err := e.Halt(ctx); !errors.Is(err, why) || !strings.Contains(err.Error(), "worker 0") {
		t.Fatalf("halt says %v, want that worker 0 does not come out and %q", err, why)
	}
	was := e.Total().Rx
	waitFor(t, "worker 1, which had come out, to receive again", func() bool { return e.Total().Rx > was })
	close(stuck.leave)
	waitFor(t, "worker 0 to go on", func() bool { return e.Stats()[0].Counters.Tx == 1000 })
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c := e.Total(); c.In() != c.Out() {
		t.Errorf("in %d, out %d", c.In(), c.Out())
	}
	wantFree(t, a)
	e.Stop()
}

// With a context that has ended already Halt may succeed or give up; either way
// the engine is whole.
func TestHaltWithoutPatience(t *testing.T) {
	e, a := engine(t, 2, passSpec(2))
	addPort(t, e, 1, &loopQueue{left: 1 << 60}, &loopQueue{left: 1 << 60})
	addPort(t, e, 2, &loopQueue{})
	late, cancel := context.WithCancel(context.Background())
	cancel()
	for range 300 {
		e.Start()
		if err := e.Halt(late); err == nil {
			wantFree(t, a)
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	e.Start()
	waitFor(t, "the workers to run on", func() bool { return e.Total().Tx > 0 })
	e.Stop()
	if c := e.Total(); c.In() != c.Out() {
		t.Errorf("in %d, out %d, %d sent", c.In(), c.Out(), c.Tx)
	}
	wantFree(t, a)
}

// A halted engine is like one that was not started: nothing waits for workers.
func TestHaltedEngineTakesOrders(t *testing.T) {
	e, _ := engine(t, 2, passSpec(2))
	e.Start()
	e.Start() // which they do already
	halt := func() {
		t.Helper()
		if err := e.Halt(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	halt()
	halt()
	q := &loopQueue{left: 1000}
	addPort(t, e, 1, q)
	addPort(t, e, 2, &loopQueue{}, &loopQueue{})
	if err := e.Quiesce(context.Background()); err != nil {
		t.Error(err)
	}
	e.Kick()
	if c := e.Total(); c.Rx != 0 || q.left != 1000 {
		t.Errorf("a halted engine has received: %+v", c)
	}
	if err := e.RemovePort(context.Background(), 2); err != nil {
		t.Error(err)
	}
	addPort(t, e, 2, &loopQueue{})
	e.Start()
	waitFor(t, "all to be sent", func() bool { return e.Total().Tx == 1000 })
	halt()
	e.Stop()
	if err := e.Halt(context.Background()); err == nil {
		t.Error("a stopped engine was halted")
	}
	e.Start() // nothing: see TestMain
	if e.running {
		t.Error("a stopped engine was started")
	}
}

// A worker's time goes on where it stood, and the time that it stood is idle.
func TestHaltKeepsClocks(t *testing.T) {
	e, _ := engine(t, 1, passSpec(2))
	addPort(t, e, 1, &loopQueue{left: 1 << 60})
	addPort(t, e, 2, &loopQueue{})
	const stood = 300 * time.Millisecond
	e.Start()
	time.Sleep(5 * time.Millisecond)
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	was := e.Stats()[0].Load
	time.Sleep(stood)
	e.Start()
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	e.Step()
	e.workers[0].unclocked = clockEvery
	e.workers[0].clock()
	now := e.Stats()[0].Load
	elapsed, busy := now.Elapsed-was.Elapsed, now.BusyNanos-was.BusyNanos
	if elapsed < uint64(stood) || busy > elapsed-uint64(stood)/2 {
		t.Errorf("%v of %v were busy, want %v of them idle", time.Duration(busy), time.Duration(elapsed), stood)
	}
	e.Stop()
}

// BenchmarkHalt is how long it takes to halt a worker under full load, the
// median: on a machine that is busy some halts wait for the scheduler.
func BenchmarkHalt(b *testing.B) {
	e, _ := engine(b, 1, passSpec(1))
	addPort(b, e, 1, &loopQueue{left: 1 << 60})
	var took []time.Duration
	for b.Loop() {
		e.Start()
		time.Sleep(100 * time.Microsecond)
		start := time.Now()
		if err := e.Halt(context.Background()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/halt")
	e.Stop()
}

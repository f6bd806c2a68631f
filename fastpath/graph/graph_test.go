package graph

import (
	"context"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"margay.dev/margay/fastpath/umem"
)

var _ = [1]struct{}{}[unsafe.Sizeof(Meta{})-64] // one cache line, or it does not build

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// passOn sends every packet out by one port.
type passOn struct{ port uint16 }

func (p passOn) Process(_ *Worker, v *Vector, next []Edge) {
	for i := range next {
		v.Meta(i).OutPort = p.port
		next[i] = 1
	}
}

// loopQueue receives fresh packets while it has some, and frees what it sends.
type loopQueue struct{ left, sent int }

func (q *loopQueue) RxBurst(io *IO, ms []Meta) int {
	n := 0
	for ; n < len(ms) && q.left > 0; n++ {
		b, ok := io.Cache.Frame()
		if !ok {
			break
		}
		ms[n] = Meta{Off: io.Arena.Start(b), Len: 64, Head: 64, Buf: b, Bufs: 1, Segments: 1}
		q.left--
	}
	return n
}

func (q *loopQueue) TxBurst(io *IO, v *Vector) (refused int) {
	for i := range v.Len() {
		if v.Meta(i).Len > 1000 {
			v.Meta(i).Reason = TxOversize
			refused++
			continue
		}
		io.Free(v.Meta(i))
		q.sent++
	}
	return refused
}

func (q *loopQueue) Poll(*IO) bool  { return false }
func (q *loopQueue) FD() int        { return -1 }
func (q *loopQueue) InMemory() bool { return true }

func engine(t testing.TB, workers int, specs ...Spec) (*Engine, *umem.Arena) {
	t.Helper()
	a, err := umem.New(umem.Config{Frames: 4096, Supers: 8, Caches: workers + 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	g, err := Build(specs...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEngine(g, a, Config{Workers: workers, Spin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return e, a
}

func passSpec(port uint16) Spec {
	return Spec{Name: "pass", Edges: []string{DropName, TxName}, New: func(int) Node { return passOn{port} }}
}

func TestBuildRefuses(t *testing.T) {
	n := func(int) Node { return passOn{} }
	tests := map[string]struct {
		specs []Spec
		want  string
	}{
		"a cycle": {[]Spec{
			{Name: "a", Edges: []string{"drop", "b"}, New: n}, {Name: "b", Edges: []string{"drop", "a"}, New: n},
		}, "forward only"},
		"an edge to nowhere":        {[]Spec{{Name: "a", Edges: []string{"drop", "x"}, New: n}}, `"x", which is not declared`},
		"a place to go on nowhere":  {[]Spec{{Name: "a", Edges: []string{"drop"}, Resumes: []string{"a", "x"}, New: n}}, `"a" resumes at "x"`},
		"a name twice":              {[]Spec{{Name: "a", Edges: []string{"drop"}, New: n}, {Name: "a", Edges: []string{"drop"}, New: n}}, "declared twice"},
		"an edge 0 other than drop": {[]Spec{{Name: "a", Edges: []string{"tx"}, New: n}}, "edge 0"},
		"a reserved name":           {[]Spec{{Name: "tx", Edges: []string{"drop"}, New: n}}, "reserved"},
		"no constructor":            {[]Spec{{Name: "a", Edges: []string{"drop"}}}, "no constructor"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Build(tt.specs...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("build says %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNodesStandInTheOrderOfTheWalk(t *testing.T) {
	n := func(int) Node { return passOn{} }
	g, err := Build(
		Spec{Name: "late", Edges: []string{"drop", "tx"}, New: n},
		Spec{Name: "early", Edges: []string{"drop", "late", "middle"}, New: n},
		Spec{Name: "middle", Edges: []string{"drop", "late"}, New: n},
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(g.Nodes(), " "); got != "early middle late tx drop" {
		t.Errorf("order is %q", got)
	}
}

// Two workers and a port with a single queue: what worker 1 forwards must go
// through the ring of worker 0, and the sums must agree.
func TestWorkersHandPacketsToTheQueueOwner(t *testing.T) {
	ctx := context.Background()
	e, arena := engine(t, 2, passSpec(2))
	in := []*loopQueue{{left: 10_000}, {left: 10_000}}
	out := &loopQueue{}
	e.Start()
	if err := e.AddPort(ctx, Port{Index: 2, Name: "out", Entry: "pass", Queues: []Queue{out}}); err != nil {
		t.Fatal(err)
	}
	if err := e.AddPort(ctx, Port{Index: 1, Name: "in", Entry: "pass", Queues: []Queue{in[0], in[1]}}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	var c Counters
	for c = e.Total(); c.Out() < 20_000 && time.Now().Before(deadline); c = e.Total() {
		time.Sleep(time.Millisecond)
	}
	e.Stop()
	c = e.Total()
	if c.Rx != 20_000 || c.In() != c.Out() {
		t.Errorf("received %d, in %d, out %d; want 20000 and equal sums: %+v", c.Rx, c.In(), c.Out(), c)
	}
	if uint64(out.sent) != c.Tx {
		t.Errorf("queue sent %d packets, counters say %d", out.sent, c.Tx)
	}
	if c.Tx < 10_000 {
		t.Errorf("only %d packets were sent", c.Tx)
	}
	if f, _ := arena.Free(); f != arena.Frames() {
		t.Errorf("%d of %d frames are free", f, arena.Frames())
	}
}

func TestRemovedPortIsTouchedNoMore(t *testing.T) {
	ctx := context.Background()
	e, _ := engine(t, 1, passSpec(7))
	e.Start()
	defer e.Stop()
	q := &loopQueue{left: 1 << 30}
	if err := e.AddPort(ctx, Port{Index: 7, Name: "p", Entry: "pass", Queues: []Queue{q}}); err != nil {
		t.Fatal(err)
	}
	if err := e.RemovePort(ctx, 7); err != nil {
		t.Fatal(err)
	}
	before := q.left // no race: the worker has let go of it
	time.Sleep(5 * time.Millisecond)
	if q.left != before {
		t.Error("a removed port's queue was used")
	}
}

func TestPassDoesNotAllocate(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	w := e.workers[0]
	q := &loopQueue{left: 1 << 30}
	if err := e.AddPort(context.Background(), Port{Index: 1, Name: "p", Entry: "pass", Queues: []Queue{q}}); err != nil {
		t.Fatal(err)
	}
	w.started = time.Now()
	w.pass()
	if n := testing.AllocsPerRun(1000, func() { w.pass() }); n != 0 {
		t.Errorf("%v allocations per pass, want 0", n)
	}
	e.Stop()
}

func BenchmarkPass(b *testing.B) {
	e, _ := engine(b, 1, passSpec(1))
	w := e.workers[0]
	e.cfg.Burst = VectorMax
	q := &loopQueue{left: 1 << 60}
	if err := e.AddPort(context.Background(), Port{Index: 1, Name: "p", Entry: "pass", Queues: []Queue{q}}); err != nil {
		b.Fatal(err)
	}
	w.started = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		w.pass()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*VectorMax), "ns/pkt")
	e.Stop()
}

package plane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// watchedPort notices when a worker uses its queues beside or after Close.
type watchedPort struct {
	*port.Memory
	queues []graph.Queue
	used   atomic.Int32 // workers in a queue
	closed atomic.Bool
	wrong  atomic.Bool
}

func (p *watchedPort) Queues() []graph.Queue { return p.queues }

func (p *watchedPort) Close(c *umem.Cache) error {
	p.closed.Store(true)
	if p.used.Load() > 0 {
		p.wrong.Store(true)
	}
	return p.Memory.Close(c)
}

// watchedQueue is one of its queues. It can keep its worker in a pass.
type watchedQueue struct {
	graph.Queue
	port *watchedPort
	hold *hold
}

func (q *watchedQueue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	q.port.used.Add(1)
	defer q.port.used.Add(-1)
	if q.port.closed.Load() {
		q.port.wrong.Store(true)
	}
	q.hold.here()
	return q.Queue.RxBurst(io, ms)
}

// hold keeps the first worker that comes along once it is set, until it is let go.
type hold struct {
	set           atomic.Bool
	inside, leave chan struct{}
}

func (h *hold) here() {
	if h.set.CompareAndSwap(true, false) {
		close(h.inside)
		<-h.leave
	}
}

// lingering is a bench of two workers whose ports are watched.
type lingering struct {
	*bench
	holds  map[string]*hold // by port and queue
	opened map[string][]*watchedPort
}

func newLingering(t *testing.T) *lingering {
	l := &lingering{newBench(t, 2), map[string]*hold{}, map[string][]*watchedPort{}}
	l.opener.wrap = func(m *port.Memory) port.Port {
		w := &watchedPort{Memory: m}
		for i, q := range m.Queues() {
			w.queues = append(w.queues, &watchedQueue{q, w, l.hold(m.Name(), i)})
		}
		l.opened[m.Name()] = append(l.opened[m.Name()], w)
		return w
	}
	return l
}

// hold is what can keep a worker in a queue.
func (l *lingering) hold(name string, queue int) *hold {
	key := fmt.Sprint(name, "/", queue)
	if l.holds[key] == nil {
		l.holds[key] = &hold{inside: make(chan struct{}), leave: make(chan struct{})}
	}
	return l.holds[key]
}

// A port whose adding ran out of time stays open while any worker may use it,
// says so, and is taken up again with the next state.
func TestPortThatCouldNotBeAddedLingers(t *testing.T) {
	l := newLingering(t)
	one, e1 := pod(1)
	two, e2 := pod(2)
	all := &pb.Chunk{Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}}
	l.apply(true, &pb.Chunk{Ports: all.Ports[:1], Endpoints: all.Endpoints[:1]})

	// Worker 0 hangs in port 1, so that port 2 cannot be added in time; worker 1
	// has taken it up already and hangs in it.
	first, second := l.hold("p1", 0), l.hold("p2", 1)
	first.set.Store(true)
	second.set.Store(true)
	l.Engine().Kick()
	<-first.inside
	l.late(all)
	<-second.inside
	l.lingers("p2", "wait for worker 0")

	close(first.leave)
	l.late(all)
	l.lingers("p2", "wait for worker 0")

	close(second.leave)
	l.apply(true, all)
	l.recovered("p2")
}

// So does a port that is to be opened anew or removed, while a worker hangs in it.
func TestPortThatCouldNotBeTakenLingers(t *testing.T) {
	one, e1 := pod(1)
	two, e2 := pod(2)
	was := &pb.Chunk{Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}}
	for name, next := range map[string]*pb.Chunk{
		"another device": {Ports: []*pb.Port{one, {Name: two.Name, Device: "other", Kind: two.Kind}}, Endpoints: was.Endpoints},
		"removed":        {Ports: was.Ports[:1], Endpoints: was.Endpoints[:1]},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLingering(t)
			l.apply(true, was)
			h := l.hold("p2", 1)
			h.set.Store(true)
			l.Engine().Kick()
			<-h.inside
			l.late(next)
			l.lingers("p2", "workers that hang")
			close(h.leave)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- l.Run(ctx) }()
			hostnettest.Eventually(t, "it is done by itself", func() bool { return len(l.Conditions()) == 0 })
			cancel()
			<-ended
			if len(next.Ports) == 1 && l.ports["p2"] != nil {
				t.Error("the port is still there")
			}
			l.apply(true, was)
			l.recovered("p2")
		})
	}
}

// late applies a state that workers do not come to in time.
func (l *lingering) late(m *pb.Chunk) {
	l.t.Helper()
	l.gen++
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if faults, err := l.Apply(ctx, l.gen, changeOf(m), true); faults != nil || !errors.Is(err, context.DeadlineExceeded) {
		l.t.Fatalf("apply says %v, %v; want %v", faults, err, context.DeadlineExceeded)
	}
}

// lingers wants a port to be open still, and said to be not in force.
func (l *lingering) lingers(name, message string) {
	l.t.Helper()
	if ports := l.opened[name]; len(ports) != 1 || ports[0].closed.Load() {
		l.t.Errorf("port %s was opened %d times and closed while a worker is in its queue", name, len(ports))
	}
	c := l.Conditions()
	if len(c) != 1 || c[0].Object != "port/"+name || c[0].Reason != ReasonDeviceFailed || !strings.Contains(c[0].Message, message) {
		l.t.Errorf("conditions are %+v, want %s of %s", c, ReasonDeviceFailed, name)
	}
}

// recovered wants a port that lingered to have been closed and opened again, to
// forward, and no queue to have been used that was closed.
func (l *lingering) recovered(name string) {
	l.t.Helper()
	if c := l.Conditions(); len(c) != 0 {
		l.t.Errorf("conditions are %v, want none", c)
	}
	if ports := l.opened[name]; len(ports) < 2 || !ports[0].closed.Load() {
		l.t.Fatalf("port %s was opened %d times, want it closed and opened again", name, len(ports))
	}
	l.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2)))
	l.collect(name, 2)
	for name, ports := range l.opened {
		for _, w := range ports {
			if w.wrong.Load() {
				l.t.Errorf("a worker used a queue of port %s that was closed", name)
			}
		}
	}
}

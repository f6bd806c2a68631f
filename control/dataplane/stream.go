package dataplane

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// Options say how a Stream behaves. The zero value is of use.
type Options struct {
	Client      string              // name and build, for the dataplane's logs
	OnCondition func(*v1.Condition) // called in order, one at a time; must not wait for the Stream
	OnSession   func(Session)       // called when a connection begins or ends, in the same way
	// OnOverheard is called with what endpoints and servers of names say to each other, in
	// the same way, if the dataplane can show that; without it nobody listens, and no packet
	// waits. See AnswersRead.
	OnOverheard  func(*v1.Overheard)
	FirstBackoff time.Duration // pause before the second attempt to connect; 0: 50 ms
	MaxBackoff   time.Duration // the pauses double up to this; 0: 5 s
	HelloTimeout time.Duration // for the dataplane's welcome; 0: 5 s
	Unsettled    int           // commits that may wait for an answer; 0: 1024
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.FirstBackoff, 50*time.Millisecond)
	set(&o.MaxBackoff, 5*time.Second)
	set(&o.HelloTimeout, 5*time.Second)
	if o.Unsettled <= 0 {
		o.Unsettled = 1024
	}
	return o
}

// A Session is one connection of a Stream, as it begins or ends.
type Session struct {
	Connected  bool
	Server     string // name and build the dataplane gave
	BootID     string // new for each run of the dataplane
	Generation uint64 // in force when the session began
	Err        error  // why it ended, or why there was none
}

// A Delivery is a commit on its way.
type Delivery struct {
	chunks   []*v1.Chunk
	delta    *Delta
	snapshot bool

	generation uint64 // of the latest attempt; read by others after done
	err        error
	done       chan struct{}
}

// Wait waits until the commit is in force in every worker. A *Refusal says why
// the dataplane did not take it. If ctx ends first, the commit stays on its way.
func (d *Delivery) Wait(ctx context.Context) error {
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the dataplane to take a commit: %w", context.Cause(ctx))
	}
}

// Generation is the number under which the commit was settled; 0 before that.
func (d *Delivery) Generation() uint64 {
	select {
	case <-d.done:
		return d.generation
	default:
		return 0
	}
}

func (d *Delivery) settle(err error) {
	d.err = err
	d.chunks, d.delta = nil, nil
	close(d.done)
}

// A Stream keeps one dataplane at a desired state. Its methods may be called by
// many goroutines; commits are applied in the order in which they were sent.
type Stream struct {
	socket  string
	options Options
	cancel  context.CancelFunc
	ended   chan struct{} // closed when run has returned
	slots   chan struct{} // one per unsettled commit
	kick    chan struct{} // holds one: there is something to send
	octets  atomic.Uint64 // sent in chunks

	mu        sync.Mutex
	queue     []*Delivery // unsettled, oldest first
	sent      int         // how many of queue the session has sent
	last      uint64      // highest generation given out
	acked     uint64      // generation acknowledged last
	accepted  *mirror
	base      *Delivery // snapshot of accepted, while the session has not settled it
	hasBase   bool      // accepted came from a snapshot
	connected bool
	mayHear   bool     // the session's dataplane can show what is overheard, and was not asked yet
	answers   []uint64 // ids that the session owes AnswersRead for
	err       error    // why the Stream has ended
}

// Dial connects to the dataplane behind a Unix socket and keeps connected until
// Close. It waits for a dataplane that is not there yet until ctx ends; one that
// will not have us is an error at once.
func Dial(ctx context.Context, socket string, o Options) (*Stream, error) {
	o = o.withDefaults()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stream{
		socket: socket, options: o, cancel: cancel, accepted: newMirror(),
		ended: make(chan struct{}), slots: make(chan struct{}, o.Unsettled), kick: make(chan struct{}, 1),
	}
	first, err := s.reach(ctx, run, o.FirstBackoff)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the dataplane at %s: %w", socket, err)
	}
	go s.run(run, first)
	return s, nil
}

// Close ends the Stream and waits for it. What is not settled ends with
// ErrClosed; the dataplane keeps the state it has.
func (s *Stream) Close() {
	s.cancel()
	<-s.ended
}

// Ended is closed when the Stream has: by Close, or because the dataplane will not
// have us. Err says why.
func (s *Stream) Ended() <-chan struct{} { return s.ended }

// Err is why the Stream has ended; nil while it has not.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SendSnapshot makes st the whole desired state: what it does not mention goes.
// It waits only for room among the unsettled commits.
func (s *Stream) SendSnapshot(ctx context.Context, st State) (*Delivery, error) {
	return s.send(ctx, &Delta{Set: st}, true)
}

// SendDelta changes the desired state. A snapshot must have been sent before.
func (s *Stream) SendDelta(ctx context.Context, d Delta) (*Delivery, error) {
	return s.send(ctx, &d, false)
}

// Apply sends a snapshot and waits until it is in force.
func (s *Stream) Apply(ctx context.Context, st State) (generation uint64, err error) {
	d, err := s.SendSnapshot(ctx, st)
	if err != nil {
		return 0, err
	}
	err = d.Wait(ctx)
	return d.Generation(), err
}

// Connected tells whether a session stands.
func (s *Stream) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected
}

// Generation is the one acknowledged last, 0 if none was.
func (s *Stream) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

// Sent is how many bytes of changes were sent, also those of lost connections.
func (s *Stream) Sent() uint64 { return s.octets.Load() }

func (s *Stream) send(ctx context.Context, d *Delta, snapshot bool) (*Delivery, error) {
	del := &Delivery{delta: d, snapshot: snapshot, done: make(chan struct{})}
	err := pack(d, func(c *v1.Chunk) error {
		del.chunks = append(del.chunks, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("queue a commit behind %d unsettled ones: %w", s.options.Unsettled, context.Cause(ctx))
	case <-s.ended:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	s.queue = append(s.queue, del)
	s.wake()
	return del, nil
}

// AnswersRead lets packets go on that were overheard, since what they say is in
// force, or says nothing new. It does not wait, and does nothing where the session
// that they were heard by is over: nothing is held then.
func (s *Stream) AnswersRead(ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected {
		s.answers = append(s.answers, ids...)
		s.wake()
	}
}

func (s *Stream) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// run serves one session after the other. One that did not last is followed by
// a longer pause than the one before.
func (s *Stream) run(ctx context.Context, c *session) {
	defer close(s.ended)
	for pause := s.options.FirstBackoff; ; {
		began := time.Now()
		err := s.serve(ctx, c)
		s.tell(Session{Server: c.welcome.GetServer(), BootID: c.welcome.GetBootId(), Err: err})
		if time.Since(began) > s.options.MaxBackoff {
			pause = s.options.FirstBackoff
		}
		if !final(err) {
			sleep(ctx, pause)
			if c, err = s.reach(ctx, ctx, pause); err == nil {
				pause = min(2*pause, s.options.MaxBackoff)
				continue
			}
		}
		if ctx.Err() != nil {
			err = ErrClosed
		}
		s.end(err)
		return
	}
}

// reach tries to connect, with growing pauses, until wait ends or the dataplane
// will not have us. The session lives as long as life.
func (s *Stream) reach(wait, life context.Context, pause time.Duration) (*session, error) {
	var last error // of an attempt that wait did not cut short
	for ; ; pause = min(2*pause, s.options.MaxBackoff) {
		c, err := s.open(wait, life)
		if err == nil || final(err) {
			return c, err
		}
		if wait.Err() != nil {
			return nil, fmt.Errorf("%w (%w)", cmp.Or(last, err), context.Cause(wait))
		}
		last = err
		s.tell(Session{Err: err})
		sleep(wait, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// end fails all that is not settled.
func (s *Stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	for _, d := range s.queue {
		d.settle(err)
	}
	s.queue = nil
}

func (s *Stream) tell(e Session) {
	if s.options.OnSession != nil {
		s.options.OnSession(e)
	}
}

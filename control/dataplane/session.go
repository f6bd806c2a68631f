package dataplane

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/version"
)

// oldest is the lowest version of the contract that this client understands.
const oldest = max(version.Contract-1, 1)

// session is one connection that has been welcomed.
type session struct {
	conn    *grpc.ClientConn
	stream  v1.Dataplane_ConnectClient
	ctx     context.Context
	cancel  context.CancelCauseFunc
	welcome *v1.Welcome
}

func (c *session) close() {
	c.cancel(ErrClosed)
	c.conn.Close()
}

// Connect makes a client connection to the Unix socket of a dataplane, for the
// services beside Connect such as Inspect. It does not wait for the other side, and
// looks for it at least every second while a call does: on one machine nobody is
// spared by the two minutes that gRPC comes to leave between attempts.
func Connect(socket string) (*grpc.ClientConn, error) {
	again := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 800 * time.Millisecond},
		MinConnectTimeout: 5 * time.Second,
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(again))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return conn, nil
}

// open makes one attempt to connect and be welcomed.
func (s *Stream) open(wait, life context.Context) (*session, error) {
	conn, err := Connect(s.socket)
	if err != nil {
		return nil, err
	}
	c := &session{conn: conn}
	c.ctx, c.cancel = context.WithCancelCause(life)
	// Until it is welcomed the session also ends with wait, or after HelloTimeout.
	timer := time.AfterFunc(s.options.HelloTimeout, func() { c.cancel(errors.New("no welcome within " + s.options.HelloTimeout.String())) })
	stop := context.AfterFunc(wait, func() { c.cancel(context.Cause(wait)) })
	err = c.greet(s.options.Client)
	if !timer.Stop() || !stop() {
		err = errors.Join(err, context.Cause(c.ctx)) // ended between welcome and here
	}
	if err != nil {
		if cause := context.Cause(c.ctx); cause != nil {
			err = cause
		}
		c.close()
		return nil, err
	}
	return c, nil
}

// greet says hello and judges the answer.
func (c *session) greet(client string) (err error) {
	if c.stream, err = v1.NewDataplaneClient(c.conn).Connect(c.ctx); err != nil {
		return told(err)
	}
	hello := &v1.Hello{Version: version.Contract, MinVersion: oldest, Client: client}
	if err := c.stream.Send(&v1.ClientMessage{Message: &v1.ClientMessage_Hello{Hello: hello}}); err != nil {
		_, err = c.stream.Recv() // Send only says EOF; Recv says why
		return told(err)
	}
	m, err := c.stream.Recv()
	if err != nil {
		return told(err)
	}
	c.welcome = m.GetWelcome()
	if c.welcome == nil {
		return &protocolError{fmt.Sprintf("its first message is %T, want a welcome", m.GetMessage())}
	}
	if v := c.welcome.GetVersion(); v < oldest || v > version.Contract {
		return &VersionError{c.welcome.GetServer(), v, oldest, version.Contract}
	}
	if c.welcome.GetGeneration() > math.MaxUint64/2 {
		return &protocolError{fmt.Sprintf("its generation %d leaves no room above", c.welcome.GetGeneration())}
	}
	return nil
}

// serve runs the session until it breaks or ctx ends.
func (s *Stream) serve(ctx context.Context, c *session) error {
	defer c.close()
	s.begin(c.welcome)
	defer s.lose()
	s.tell(Session{Connected: true, Server: c.welcome.GetServer(), BootID: c.welcome.GetBootId(), Generation: c.welcome.GetGeneration()})
	written := make(chan error, 1)
	go func() {
		err := s.write(c)
		if err != nil {
			c.cancel(err)
		}
		written <- err
	}()
	err := s.read(c)
	c.cancel(err)
	if werr := <-written; ctx.Err() == nil && werr != nil && !errors.Is(werr, context.Canceled) {
		err = errors.Join(err, werr)
	}
	return err
}

// begin makes the queue ready to be sent again, behind what was accepted.
func (s *Stream) begin(w *v1.Welcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected, s.sent, s.base, s.mayHear, s.answers = true, 0, nil, w.GetOverhears(), nil
	s.last = max(s.last, w.GetGeneration())
	if s.hasBase {
		s.base = &Delivery{delta: &Delta{Set: *s.accepted.state()}, snapshot: true, done: make(chan struct{})}
	}
	s.wake()
}

func (s *Stream) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = false
}

// write sends what there is to send until the session ends.
func (s *Stream) write(c *session) error {
	for {
		m, d := s.aside(), s.next()
		if m == nil && d == nil {
			select {
			case <-c.ctx.Done():
				return nil
			case <-s.kick:
			}
			continue
		}
		if m != nil {
			if err := c.stream.Send(m); err != nil {
				return err
			}
		}
		if d != nil {
			if err := c.commit(d, &s.octets); err != nil {
				return err
			}
		}
	}
}

// aside is what there is to send beside commits, nil for nothing.
func (s *Stream) aside() *v1.ClientMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.options.OnOverheard != nil && s.mayHear:
		s.mayHear = false
		s.wake()
		return &v1.ClientMessage{Message: &v1.ClientMessage_HearAnswers{HearAnswers: &v1.HearAnswers{Hear: true}}}
	case len(s.answers) > 0:
		ids := s.answers
		s.answers = nil
		return &v1.ClientMessage{Message: &v1.ClientMessage_AnswersRead{AnswersRead: &v1.AnswersRead{Ids: ids}}}
	}
	return nil
}

// next numbers the next commit that this session owes.
func (s *Stream) next() *outgoing {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d *Delivery
	switch {
	case s.base != nil && s.base.generation == 0:
		d = s.base
	case s.sent < len(s.queue):
		d = s.queue[s.sent]
		s.sent++
	default:
		return nil
	}
	s.last++
	d.generation = s.last
	return &outgoing{d.chunks, d.delta, &v1.Commit{Generation: s.last, Snapshot: d.snapshot}}
}

// outgoing is a commit taken out of the queue's lock.
type outgoing struct {
	chunks []*v1.Chunk
	delta  *Delta // packed now if chunks is nil: the base, which is never kept twice
	commit *v1.Commit
}

// commit sends a commit and counts its bytes.
func (c *session) commit(o *outgoing, octets *atomic.Uint64) error {
	send := func(ch *v1.Chunk) error {
		octets.Add(uint64(proto.Size(ch)))
		return c.stream.Send(&v1.ClientMessage{Message: &v1.ClientMessage_Chunk{Chunk: ch}})
	}
	if o.chunks == nil {
		if err := pack(o.delta, send); err != nil {
			return err
		}
	}
	for _, ch := range o.chunks {
		if err := send(ch); err != nil {
			return err
		}
	}
	return c.stream.Send(&v1.ClientMessage{Message: &v1.ClientMessage_Commit{Commit: o.commit}})
}

// read takes answers until the stream breaks.
func (s *Stream) read(c *session) error {
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return told(err)
		}
		switch m := m.GetMessage().(type) {
		case *v1.ServerMessage_Ack:
			err = s.acknowledge(m.Ack.GetGeneration())
		case *v1.ServerMessage_Refusal:
			err = s.refuse(m.Refusal)
		case *v1.ServerMessage_Condition:
			if s.options.OnCondition != nil {
				s.options.OnCondition(m.Condition)
			}
		case *v1.ServerMessage_Overheard:
			if s.options.OnOverheard != nil {
				s.options.OnOverheard(m.Overheard)
			}
		case *v1.ServerMessage_Welcome:
			err = &protocolError{"it welcomes twice"}
		} // anything else is from a newer contract, and not for us
		if err != nil {
			return err
		}
	}
}

// acknowledge settles every commit up to generation.
func (s *Stream) acknowledge(generation uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.known(generation, "acknowledges"); err != nil {
		return err
	}
	if s.base != nil && s.base.generation != 0 && s.base.generation <= generation {
		s.base = nil
	}
	for s.sent > 0 && s.queue[0].generation <= generation {
		d := s.queue[0]
		s.queue = s.queue[1:]
		s.sent--
		if d.snapshot {
			s.accepted, s.hasBase = newMirror(), true
		}
		s.accepted.merge(d.delta)
		d.settle(nil)
		<-s.slots
	}
	s.acked = max(s.acked, generation)
	return nil
}

// refuse settles the one commit that was refused.
func (s *Stream) refuse(r *v1.Refusal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.known(r.GetGeneration(), "refuses"); err != nil {
		return err
	}
	refusal := &Refusal{Generation: r.GetGeneration(), Faults: r.GetFaults()}
	if s.base != nil && s.base.generation == r.GetGeneration() {
		return fmt.Errorf("resend the state that was accepted before: %w", refusal)
	}
	for i, d := range s.queue[:s.sent] {
		if d.generation == r.GetGeneration() {
			s.queue = append(s.queue[:i:i], s.queue[i+1:]...)
			s.sent--
			d.settle(refusal)
			<-s.slots
			return nil
		}
	}
	return nil // settled already
}

// known holds an answer's generation against what was sent.
func (s *Stream) known(generation uint64, does string) error {
	if generation > s.last {
		return &protocolError{fmt.Sprintf("it %s generation %d, the last one sent is %d", does, generation, s.last)}
	}
	return nil
}

// Package session speaks the dataplane contract with a client: hello, chunks
// and commits up to a Core, acknowledgements, refusals and conditions back.
//
// One client at a time: a newer stream takes over from an older one. Whatever a
// client does, the state in force stays until a commit without faults replaces it.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/version"
)

// MaxMessage is what gRPC is to take: a chunk that is a little too large is
// refused with a fault that names it, a huge one ends the stream.
const MaxMessage = 2 * desired.MaxChunk

// Commit is one state or change of it, as it came.
type Commit struct {
	Generation uint64
	Snapshot   bool
	Change     *desired.Change
	Chunks     []*pb.Chunk
}

// Core puts commits in force.
type Core interface {
	// Commit returns when the commit is in force and stored, or refused with
	// all its faults. An error means that it is in force only in part.
	Commit(ctx context.Context, c Commit) (faults []string, err error)
	// Acknowledged is called after the client has been told; it may take its time.
	Acknowledged()
	// Generation is the number of the state in force.
	Generation() uint64
	// Listen calls hear for every condition that is not ok, then for changes.
	Listen(hear func(plane.Condition)) (stop func())
}

// Server is the Dataplane service.
type Server struct {
	pb.UnimplementedDataplaneServer
	core   Core
	ears   Ears
	bootID string
	log    *slog.Logger

	mu      sync.Mutex
	current *stream
	sent    bool // some client has committed a state
	commits sync.Mutex
}

// NewServer makes the service. bootID is new for each run.
func NewServer(core Core, ears Ears, bootID string, log *slog.Logger) *Server {
	return &Server{core: core, ears: ears, bootID: bootID, log: log}
}

// Connected tells whether a client is connected, and whether any has committed
// a state since the start.
func (s *Server) Connected() (now, ever bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil, s.sent
}

// stream is one client.
type stream struct {
	server *Server
	rpc    grpc.BidiStreamingServer[pb.ClientMessage, pb.ServerMessage]
	client string
	over   chan struct{} // closed when a newer client takes over

	sending sync.Mutex

	snapshot   bool // one was accepted on this stream
	generation uint64
	change     *desired.Change
	chunks     []*pb.Chunk

	mu     sync.Mutex
	queue  map[string]plane.Condition // conditions to tell, the last of each object
	filled chan struct{}

	deaf func() // ends what hear has begun; nil while the client does not hear. It is receive's
}

// Connect serves one client until it goes or another takes over.
func (s *Server) Connect(rpc grpc.BidiStreamingServer[pb.ClientMessage, pb.ServerMessage]) error {
	c := &stream{
		server: s, rpc: rpc, over: make(chan struct{}), change: desired.NewChange(),
		queue: map[string]plane.Condition{}, filled: make(chan struct{}, 1),
	}
	if err := c.greet(); err != nil {
		return err
	}
	s.takeOver(c)
	defer s.leave(c)
	s.log.Info("client connected", "client", c.client)
	stop := s.core.Listen(c.note)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.receive() }()
	for {
		select {
		case err := <-done:
			s.log.Info("client gone; forwarding goes on", "client", c.client, "reason", reason(err))
			return err
		case <-c.over:
			s.log.Info("client replaced by a newer one", "client", c.client)
			return status.Error(codes.Aborted, "another client has taken over")
		case <-c.filled:
			if err := c.tellConditions(); err != nil {
				return err
			}
		}
	}
}

func reason(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}

// greet agrees on a version of the contract.
func (c *stream) greet() error {
	m, err := c.rpc.Recv()
	if err != nil {
		return err
	}
	hello := m.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message must be a hello")
	}
	c.client = fmt.Sprintf("%.100q", hello.GetClient())
	agreed, err := Agree(hello.GetVersion(), hello.GetMinVersion(), pb.Version, pb.MinVersion)
	if err != nil {
		c.server.log.Warn("client refused", "client", c.client, "error", err)
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return c.send(&pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{
		Version: agreed, Server: version.Line("margay-forwarder"), BootId: c.server.bootID, Generation: c.server.core.Generation(), Overhears: true,
	}}})
}

// Agree finds the newest contract version that both sides understand.
func Agree(client, clientMin, ours, oursMin uint32) (uint32, error) {
	agreed := min(client, ours)
	if client == 0 || agreed < oursMin || agreed < clientMin {
		return 0, fmt.Errorf("client speaks contract versions %d to %d, this forwarder %d to %d: upgrade the older of the two",
			clientMin, client, oursMin, ours)
	}
	return agreed, nil
}

// takeOver makes c the client, and ends the one before.
func (s *Server) takeOver(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		close(s.current.over)
	}
	s.current = c
}

func (s *Server) leave(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == c {
		s.current = nil
	}
}

// receive takes messages until the stream ends.
func (c *stream) receive() error {
	defer c.hear(false)
	for {
		m, err := c.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *pb.ClientMessage_Chunk:
			c.take(m.Chunk)
		case *pb.ClientMessage_Commit:
			err = c.commit(m.Commit)
		case *pb.ClientMessage_HearAnswers:
			c.hear(m.HearAnswers.GetHear())
		case *pb.ClientMessage_AnswersRead:
			c.server.ears.AnswersRead(m.AnswersRead.GetIds())
		case *pb.ClientMessage_Hello:
			err = status.Error(codes.InvalidArgument, "a second hello")
		default:
			err = status.Error(codes.InvalidArgument, "a message of a kind that is not known")
		}
		if err != nil {
			return err
		}
	}
}

func (c *stream) take(m *pb.Chunk) {
	c.change.Add(m)
	if c.change.Bytes() > desired.MaxCommit { // it will be refused: hold no more of it
		c.chunks = nil
		return
	}
	c.chunks = append(c.chunks, m)
}

// commit puts what was sent in force and tells the client.
func (c *stream) commit(m *pb.Commit) error {
	s := c.server
	one := Commit{Generation: m.GetGeneration(), Snapshot: m.GetSnapshot(), Change: c.change, Chunks: c.chunks}
	c.change, c.chunks = desired.NewChange(), nil
	faults := c.misplaced(m)
	if faults == nil {
		var err error
		if faults, err = s.apply(c, one); err != nil {
			return err
		}
	}
	if faults != nil {
		s.log.Warn("commit refused", "client", c.client, "generation", one.Generation, "faults", len(faults), "first", faults[0])
		return c.send(&pb.ServerMessage{Message: &pb.ServerMessage_Refusal{Refusal: &pb.Refusal{
			Generation: one.Generation, Faults: slices.Clone(faults),
		}}})
	}
	c.generation, c.snapshot = one.Generation, true
	err := c.send(&pb.ServerMessage{Message: &pb.ServerMessage_Ack{Ack: &pb.Ack{Generation: one.Generation}}})
	s.commits.Lock()
	defer s.commits.Unlock()
	s.core.Acknowledged()
	return err
}

// misplaced finds what is wrong with a commit by its place in the stream.
func (c *stream) misplaced(m *pb.Commit) (faults []string) {
	if m.GetGeneration() <= c.generation {
		faults = append(faults, fmt.Sprintf("commit: generation is %d, want more than %d", m.GetGeneration(), c.generation))
	}
	if !m.GetSnapshot() && !c.snapshot {
		faults = append(faults, "commit: snapshot is false, want a stream to begin with a snapshot")
	}
	return faults
}

// apply commits for c, unless another client has taken over.
func (s *Server) apply(c *stream, one Commit) (faults []string, err error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	select {
	case <-c.over:
		return nil, status.Error(codes.Aborted, "another client has taken over")
	default:
	}
	// Not the stream's context: a client that dies must not leave its commit half made.
	faults, err = s.core.Commit(context.WithoutCancel(c.rpc.Context()), one)
	if err != nil {
		s.log.Error("commit", "generation", one.Generation, "error", err)
		return nil, status.Error(codes.Internal, err.Error())
	}
	if faults == nil {
		s.mu.Lock()
		s.sent = true
		s.mu.Unlock()
	}
	return faults, nil
}

func (c *stream) send(m *pb.ServerMessage) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.rpc.Send(m)
}

// note queues a condition. It never waits for the client: a slow one hears only
// the last condition of each object.
func (c *stream) note(x plane.Condition) {
	c.mu.Lock()
	c.queue[x.Object] = x
	c.mu.Unlock()
	select {
	case c.filled <- struct{}{}:
	default:
	}
}

func (c *stream) tellConditions() error {
	c.mu.Lock()
	all := c.queue
	c.queue = map[string]plane.Condition{}
	c.mu.Unlock()
	for _, x := range all {
		if err := c.send(&pb.ServerMessage{Message: &pb.ServerMessage_Condition{Condition: x.Proto()}}); err != nil {
			return err
		}
	}
	return nil
}

package handover

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"margay.dev/margay/forwarder/socket"
)

// server waits for takers on behalf of g.
type server struct {
	g    Giver
	l    *net.UnixListener
	log  *slog.Logger
	lim  limits
	busy chan struct{} // holds one while a hand-over is under way, and for good after one

	given bool // one came through to the end
}

func serve(ctx context.Context, l *net.UnixListener, g Giver, log *slog.Logger, lim limits) error {
	l.SetUnlinkOnClose(true)
	s := &server{g: g, l: l, log: log, lim: lim, busy: make(chan struct{}, 1)}
	defer context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })()
	var talks sync.WaitGroup
	err := s.accept(ctx, &talks)
	talks.Wait()
	if s.given {
		return nil
	}
	return errors.Join(err, l.Close())
}

// accept takes connections until ctx ends or the listener is closed.
func (s *server) accept(ctx context.Context, talks *sync.WaitGroup) error {
	for {
		c, err := s.l.AcceptUnix()
		switch {
		case err == nil:
			talks.Go(func() { s.meet(ctx, c) })
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, net.ErrClosed): // by finish
			return err
		default: // too many open files, for one: it passes
			s.log.Warn("accept at the hand-over socket", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// grace is how long one that has failed may take to go before the next is refused.
const grace = 200 * time.Millisecond

// meet serves one connection, and refuses it where another is being served.
func (s *server) meet(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	who, err := socket.Peer(c)
	if err != nil {
		s.log.Warn("connection to the hand-over socket refused", "peer", who, "error", err)
		return
	}
	t := &talk{conn: newConn(c), g: s.g, log: s.log.With("taker_pid", who.Pid), lim: s.lim, taker: life{fd: -1}, heard: make(chan heard)}
	defer func() { t.taker.close() }()
	_ = t.SetWriteDeadline(time.Now().Add(s.lim.answer))
	select {
	case s.busy <- struct{}{}:
	case <-time.After(grace):
		t.log.Warn("hand-over refused: another is under way")
		_ = t.send(message{Kind: refusal, Busy: true, Text: ErrBusy.Error()}) // it may be gone
		return
	}
	if err := t.run(ctx, who.Pid == int32(os.Getpid())); err != nil {
		t.log.Error("no hand-over; this forwarder goes on", "error", err)
		<-s.busy
		return
	}
	s.finish(t)
}

// finish ends this forwarder's part. The socket is closed first, so that the
// taker may open it once it hears.
func (s *server) finish(t *talk) {
	s.given = true
	s.l.SetUnlinkOnClose(false)
	_ = s.l.Close() // fails only where it is closed
	_ = t.SetWriteDeadline(time.Now().Add(s.lim.step))
	_ = t.send(message{Kind: done}) // the taker goes on also without it
	s.g.Done()
}

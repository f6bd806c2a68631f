package inspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/tap"
)

const (
	readEvery = 2 * time.Millisecond // how often events are taken from the workers' rings
	patience  = 3 * time.Second      // for a client to take what is left when the watch is over
	settling  = 5 * time.Second      // for workers to see that somebody watches, or no longer does
)

// teller makes messages of events.
type teller[T any] interface {
	take(e *tap.Event, data []byte)
	ready() []*T // to be sent now
	rest() []*T  // to be sent last
	done() bool  // nothing more is wanted
}

// watch lets t see what w records until t is done, the time is over, or the client
// is gone. A client that does not read costs the packets that it misses.
func watch[T any](out grpc.ServerStreamingServer[T], w *tap.Watch, limit time.Duration, t teller[T]) error {
	if err := out.SendHeader(nil); err != nil { // which tells the client that somebody watches now
		closeWatch(w)
		return err
	}
	messages, failed := make(chan *T), make(chan error, 1)
	go func() {
		var err error
		for m := range messages {
			if err == nil {
				err = out.Send(m)
			}
		}
		failed <- err
	}()
	err := feed(out.Context(), messages, w, limit, t)
	close(messages)
	if err != nil {
		return err // which ends a Send that hangs, too
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(patience):
		return errSlow
	}
}

// errSlow is what a client is told that will not hear it.
var errSlow = status.Error(codes.Aborted, "the client does not read what it asked for")

// feed runs a watch to its end and closes it before anything waits for the client.
func feed[T any](ctx context.Context, messages chan<- *T, w *tap.Watch, limit time.Duration, t teller[T]) error {
	defer closeWatch(w)
	over, tick := time.After(limit), time.NewTicker(readEvery)
	defer tick.Stop()
	var queue []*T
	for running := true; running; {
		if len(queue) == 0 {
			w.Read(t.take)
			queue = t.ready()
		}
		var to chan<- *T
		var next *T
		if len(queue) > 0 {
			to, next = messages, queue[0]
		} else if t.done() {
			break
		}
		select {
		case to <- next:
			queue = queue[1:]
		case <-tick.C:
		case <-over:
			running = false
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	closeWatch(w)
	w.Read(t.take)
	end := time.After(patience)
	for _, m := range append(append(queue, t.ready()...), t.rest()...) {
		select {
		case messages <- m:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-end:
			return errSlow
		}
	}
	return nil
}

// closeWatch ends a watch. A worker that hangs sees it with its next pass.
func closeWatch(w *tap.Watch) {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	_ = w.Close(ctx)
}

// open begins a watch of the packets that expr picks, of which want has the rest.
func (s *Server) open(ctx context.Context, expr string, want tap.Want) (*tap.Watch, error) {
	if expr != "" {
		parsed, err := filter.Parse(expr)
		if err == nil {
			want.Filter, err = parsed.Bind(s.portIndex())
		}
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "filter: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	w, err := s.taps.Watch(ctx, want)
	switch {
	case errors.Is(err, tap.ErrBusy):
		return nil, status.Errorf(codes.ResourceExhausted, "%v; wait until one of them ends", err)
	case err != nil:
		return nil, status.FromContextError(err).Err()
	}
	return w, nil
}

// within refuses a number that is not in its range.
func within(name string, n, least, most uint64) error {
	if n < least || n > most {
		return status.Errorf(codes.InvalidArgument, "%s is %d, want %d to %d", name, n, least, most)
	}
	return nil
}

// portIndex finds ports by name, as they are now.
func (s *Server) portIndex() func(string) (uint16, bool) {
	index := map[string]uint16{}
	for _, p := range s.plane.Ports() {
		index[p.Name] = p.Index
	}
	return func(name string) (uint16, bool) { i, ok := index[name]; return i, ok }
}

// portNames tells names of ports, also of those that came while somebody watched.
type portNames struct {
	server *Server
	known  map[uint16]string
}

func (n *portNames) of(index uint16) string {
	if index == graph.NoPort {
		return ""
	}
	if name, ok := n.known[index]; ok {
		return name
	}
	if n.known == nil {
		n.known = map[uint16]string{}
	}
	n.known[index] = fmt.Sprintf("port %d, which has gone", index)
	for _, p := range n.server.plane.Ports() {
		n.known[p.Index] = p.Name
	}
	return n.known[index]
}

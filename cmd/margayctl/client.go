//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/version"
)

// maxAnswer is the largest message taken: lists that are not cut into chunks.
const maxAnswer = 64 << 20

// errNoForwarder is why nothing answers where no forwarder runs.
var errNoForwarder = errors.New("no forwarder answers")

// connect opens a connection, or says like a colleague why it cannot.
func (c *ctl) connect(ctx context.Context) (*grpc.ClientConn, error) {
	if err := c.knock(ctx); err != nil {
		return nil, unreachable{err}
	}
	conn, err := grpc.NewClient("unix:"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, unreachable{fmt.Errorf("connect to %s: %w", c.socket, err)}
	}
	return conn, nil
}

// knock connects once without gRPC, which would wrap the kernel's plain word in its own.
func (c *ctl) knock(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf(`%w: there is no socket %s.
  The forwarder does not run, or it listens elsewhere.
  Start it (systemctl start margay-forwarder), or name its socket with --socket or %s`, errNoForwarder, c.socket, socketVariable)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf(`%w: nobody listens at %s any more.
  The forwarder that made the socket has ended.
  See why (journalctl -u margay-forwarder) and start it again`, errNoForwarder, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf(`you may not talk to the forwarder: no access to %s.
  It shows where traffic goes, so its socket is for its own user alone.
  Run margayctl as root (sudo margayctl ...)`, c.socket)
	case errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.ENOTSOCK):
		return fmt.Errorf("%s is no socket of a forwarder: %w.\n  Name the right one with --socket or %s", c.socket, err, socketVariable)
	}
	return fmt.Errorf("connect to the forwarder: %w", err)
}

// ask runs one question within the time that the operator gave.
func (c *ctl) ask(ctx context.Context, question func(context.Context, dataplanev1.InspectClient) error) error {
	return c.askFor(ctx, 0, question)
}

// askFor is ask for a question whose answer takes its time, and that much more.
func (c *ctl) askFor(ctx context.Context, takes time.Duration, question func(context.Context, dataplanev1.InspectClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, takes+c.timeout)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := dataplanev1.NewInspectClient(conn)
	if err := c.checkContract(ctx, client); err != nil {
		return c.explain(err)
	}
	if err := question(ctx, client); err != nil {
		return c.explain(err)
	}
	return nil
}

// checkContract warns, once, of a forwarder that speaks another version of the contract.
func (c *ctl) checkContract(ctx context.Context, client dataplanev1.InspectClient) error {
	s, err := client.GetStatus(ctx, &dataplanev1.StatusRequest{})
	if err != nil {
		return err
	}
	if theirs := s.GetContract(); theirs != version.Contract && !c.skewed {
		c.skewed = true
		fmt.Fprintf(c.errOut, "margayctl: the forwarder (%s) speaks contract %d, this margayctl contract %d: something may be missing below.\n  Use the margayctl that came with the forwarder.\n",
			s.GetVersion(), theirs, version.Contract)
	}
	return nil
}

// explain turns an error of gRPC into what happened, why and what to do.
func (c *ctl) explain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	said := s.Message()
	switch s.Code() {
	case codes.Unimplemented:
		return unreachable{fmt.Errorf("the forwarder does not know this question (%s).\n  It is older or newer than this margayctl (%s): use the one that came with it", said, version.Version())}
	case codes.InvalidArgument, codes.NotFound:
		return errors.New(said)
	case codes.ResourceExhausted:
		return unreachable{fmt.Errorf("the forwarder is busy: %s", said)}
	case codes.DeadlineExceeded:
		return unreachable{fmt.Errorf("the forwarder did not answer within %v.\n  It may be overloaded or stuck: try a longer --timeout, then look at its log (journalctl -u margay-forwarder)", c.timeout)}
	case codes.Canceled:
		return unreachable{errors.New("interrupted")}
	case codes.PermissionDenied, codes.Unauthenticated:
		return unreachable{fmt.Errorf("the forwarder refuses to talk to you: %s.\n  Run margayctl as root (sudo margayctl ...)", said)}
	case codes.Unavailable:
		return unreachable{fmt.Errorf("the forwarder went away while answering: %s.\n  See why in its log (journalctl -u margay-forwarder)", said)}
	}
	return unreachable{fmt.Errorf("the forwarder could not answer: %s (%v)", said, s.Code())}
}

// each takes the chunks of an answer, in order; err is why there is none.
func each[T any](stream grpc.ServerStreamingClient[T], err error, take func(*T)) error {
	if err != nil {
		return err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		take(chunk)
	}
}

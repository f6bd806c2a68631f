package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batchFDs is how many descriptors we put into one message.
	batchFDs = 250
	// kernelFDs is how many the kernel lets into one (SCM_MAX_FD).
	kernelFDs = 253
)

// errGone says that the other side closed the connection, which a death does too.
var errGone = errors.New("the other side is gone")

// conn is one side of a conversation. One goroutine sends, one receives.
type conn struct {
	*net.UnixConn
	buf, oob []byte
}

func newConn(c *net.UnixConn) *conn {
	return &conn{UnixConn: c, buf: make([]byte, maxMessage), oob: make([]byte, unix.CmsgSpace(4*kernelFDs))}
}

// bound limits what follows to ctx and to limit, until free is called. set is
// what sets the deadline of it: of receiving, of sending, or of both.
func bound(ctx context.Context, limit time.Duration, set func(time.Time) error) (free func() bool) {
	_ = set(time.Now().Add(limit)) // fails where all that follows does
	return context.AfterFunc(ctx, func() { _ = set(time.Unix(1, 0)) })
}

// send says m, and passes copies of fds along with it.
func (c *conn) send(m message, fds ...int) error {
	b, err := m.encode()
	if err != nil {
		return fmt.Errorf("say %q: %w", m.Kind, err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("say %q: %w", m.Kind, errGone)
	case errors.Is(err, unix.ETOOMANYREFS):
		return fmt.Errorf("say %q with %d descriptors: %w: raise the limit of open files (LimitNOFILE)", m.Kind, len(fds), err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("say %q: the other side does not listen: %w", m.Kind, err)
	case err != nil:
		return fmt.Errorf("say %q with %d descriptors: %w", m.Kind, len(fds), err)
	}
	return nil
}

// recv hears one message with at most most descriptors, which are the caller's
// to close. On an error all that came are closed.
func (c *conn) recv(most int) (message, []int, error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(c.buf, c.oob)
	if errors.Is(err, unix.ECONNRESET) {
		// It closed with something of ours unread. That is told first, and once;
		// what it said before comes next.
		n, oobn, flags, _, err = c.ReadMsgUnix(c.buf, c.oob)
	}
	fds, oobErr := descriptors(c.oob[:max(oobn, 0)])
	m, err := judge(c.buf[:max(n, 0)], flags, errors.Join(err, oobErr))
	if err == nil && len(fds) > most {
		err = fmt.Errorf("%.20q comes with %d descriptors, want at most %d", m.Kind, len(fds), most)
	}
	if err != nil {
		closeAll(fds)
		return message{}, nil, err
	}
	return m, fds, nil
}

// judge makes a message of what the kernel received.
func judge(b []byte, flags int, err error) (message, error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return message{}, errGone
	case err != nil:
		return message{}, fmt.Errorf("hear the other side: %w", err)
	case flags&unix.MSG_CTRUNC != 0:
		return message{}, fmt.Errorf("the kernel cut descriptors off a message: too many files are open: raise the limit of open files (LimitNOFILE)%s", nofile())
	case flags&unix.MSG_TRUNC != 0:
		return message{}, fmt.Errorf("a message has more than %d bytes", maxMessage)
	case len(b) == 0: // no message is empty, and the kernel says the end so
		return message{}, errGone
	}
	return decode(b)
}

// nofile tells the limit of open files, where it can be had.
func nofile() string {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return ""
	}
	return fmt.Sprintf(", now %d", l.Cur)
}

// descriptors takes all that came with a message, also where some of it is
// not understood.
func descriptors(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	all, err := unix.ParseSocketControlMessage(oob)
	for i := range all {
		if all[i].Header.Level != unix.SOL_SOCKET || all[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, e := unix.ParseUnixRights(&all[i])
		fds, err = append(fds, some...), errors.Join(err, e)
	}
	return fds, err
}

// closeAll closes descriptors that nobody will use.
func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Package socket makes the forwarder's Unix sockets: open to its own user and
// to root only, and left by nobody who still answers.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Listen opens a socket at path, mode 0600, in a folder that is made 0700 where
// there is none. network is "unix" for a stream or "unixpacket" for packets. A
// socket that a dead forwarder left is replaced; one that somebody answers at
// is an error.
func Listen(network, path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of socket: %w", err)
	}
	if err := vacate(network, path); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	mask := unix.Umask(0o177) // so that it is never open to others, not even for a moment
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	unix.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, nil
}

// vacate removes a socket at path that nobody listens at.
func vacate(network, path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket; choose another socket")
	}
	c, err := net.DialTimeout(network, path, time.Second)
	switch {
	case err == nil:
		return errors.Join(errors.New("another forwarder answers there; stop it, or choose another socket"), c.Close())
	case errors.Is(err, unix.EPROTOTYPE): // the kernel looks for the type only where somebody listens
		return errors.New("another program answers there, at a socket of another type; choose another socket")
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("ask whether somebody answers there: %w; choose another socket", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket of a former run: %w", err)
	}
	return nil
}

// Guard lets the connections of our own user and of root through to Accept, and
// closes all others with a line in log.
func Guard(l *net.UnixListener, log *slog.Logger) net.Listener {
	return &guard{UnixListener: l, log: log}
}

type guard struct {
	*net.UnixListener
	log *slog.Logger
}

// Accept waits for a connection by somebody who may.
func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		who, err := Peer(c)
		if err == nil {
			return c, nil
		}
		g.log.Warn("connection refused", "peer", who, "error", err)
		_ = c.Close() // the refusal itself is the message
	}
}

// Peer asks the kernel who is at the other end, which is an error where it is
// neither our own user nor root. At the side that connected it tells who called
// listen, which need not be who answers.
func Peer(c *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		who, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("ask who connected: %w", err)
	}
	if who.Uid != 0 && int(who.Uid) != os.Geteuid() {
		return who, fmt.Errorf("user %d is neither root nor the forwarder's own user %d", who.Uid, os.Geteuid())
	}
	return who, nil
}

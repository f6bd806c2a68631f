package session

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

// Listen opens the socket at path, mode 0600, in a folder that is made 0700
// where there is none. A socket that a dead forwarder left is replaced; one
// that somebody answers at is an error.
func Listen(path string, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: another forwarder answers there; stop it, or choose another socket", path), c.Close())
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("listen at %s: there is a file that is no socket; choose another socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove socket of a former run: %w", err)
	}
	mask := unix.Umask(0o177) // so that it is never open to others, not even for a moment
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &listener{UnixListener: l, log: log}, nil
}

// listener takes connections of our own user and of root only.
type listener struct {
	*net.UnixListener
	log *slog.Logger
}

// Accept waits for a connection by somebody who may.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		who, err := credentials(c)
		if err == nil && (who.Uid == 0 || int(who.Uid) == os.Geteuid()) {
			return c, nil
		}
		l.log.Warn("connection refused: only root and the forwarder's own user may", "peer", who, "error", err)
		_ = c.Close() // the refusal itself is the message
	}
}

// credentials asks the kernel who is at the other end.
func credentials(c *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		who, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return who, errors.Join(err, inner)
}

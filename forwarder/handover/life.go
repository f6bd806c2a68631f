package handover

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// life watches a process by a pidfd that the process itself sent. Unlike its
// number and the socket's credentials that works between containers, and when
// a listening socket was handed over.
type life struct {
	fd   int
	mine bool // it is this process, as in a test
}

// myself makes a pidfd of this process, to be sent.
func myself() (int, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return -1, fmt.Errorf("open a descriptor of this process, which needs Linux 5.3: %w", err)
	}
	return fd, nil
}

// watch makes a life of what came with a greeting, and owns it. The other kinds
// of descriptor could pretend a death.
func watch(fds []int) (life, error) {
	if len(fds) != 1 {
		closeAll(fds)
		return life{fd: -1}, fmt.Errorf("a greeting comes with %d descriptors, want the one of its process", len(fds))
	}
	l := life{fd: fds[0]}
	if err := unix.PidfdSendSignal(l.fd, 0, nil, 0); errors.Is(err, unix.EBADF) {
		l.close()
		return life{fd: -1}, fmt.Errorf("a greeting comes with a descriptor that is of no process: %w", err)
	}
	return l, nil
}

// over tells whether the process has ended, waiting for it up to limit.
func (l life) over(limit time.Duration) bool {
	until := time.Now().Add(limit)
	for {
		p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(max(time.Until(until), 0)/time.Millisecond))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1 && p[0].Revents&unix.POLLIN != 0
		}
	}
}

// end kills the process and waits up to limit until it has ended.
func (l life) end(limit time.Duration) error {
	if l.mine {
		return errors.New("it is this very process")
	}
	err := unix.PidfdSendSignal(l.fd, unix.SIGKILL, nil, 0)
	if l.over(limit) {
		return nil
	}
	return errors.Join(fmt.Errorf("it has not ended %v after it was killed", limit), err)
}

func (l life) close() { closeAll([]int{l.fd}) }

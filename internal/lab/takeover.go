package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab/process"
)

// TakeOver starts another forwarder of a node, which takes everything over from
// the one that runs, and returns when that one has ended as it should. When ctx
// ends before, the new one is killed at whatever it does. On error who is alive
// is the node's forwarder.
func (l *Lab) TakeOver(ctx context.Context, node string) error {
	old := l.processOf(node)
	if !old.Alive() {
		return fmt.Errorf("the forwarder of node %s does not run: there is nothing to take over", node)
	}
	next, err := l.spawn(node, "--take-over")
	if err != nil {
		return err
	}
	for old.Alive() && next.Alive() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if old.Alive() {
		cause := context.Cause(ctx)
		if !next.Alive() {
			cause = errors.Join(next.Outcome(), process.ErrEnded)
		}
		next.Signal(unix.SIGKILL)
		return fmt.Errorf("take over from the forwarder of %s: %w\n\tlog of both:\n\t%s", node, errors.Join(cause, next.Stop(patience)), process.Tail(l.Log(node)))
	}
	l.mu.Lock()
	err = l.note(node, next)
	l.mu.Unlock()
	if ended := old.Outcome(); ended != nil {
		err = errors.Join(err, fmt.Errorf("the forwarder of %s that was taken over from ended with %w", node, ended))
	}
	return err
}

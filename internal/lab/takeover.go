package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// TakeOver starts another forwarder of a node, which takes everything over from
// the one that runs, and returns when that one has ended as it should. When ctx
// ends before, the new one is killed at whatever it does. On error who is alive
// is the node's forwarder.
func (l *Lab) TakeOver(ctx context.Context, node string) error {
	old := l.process(node)
	if !old.alive() {
		return fmt.Errorf("the forwarder of node %s does not run: there is nothing to take over", node)
	}
	next, err := l.spawn(node, "--take-over")
	if err != nil {
		return err
	}
	for old.alive() && next.alive() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if old.alive() {
		cause := context.Cause(ctx)
		if !next.alive() {
			cause = errors.Join(next.outcome(), errEnded)
		}
		next.signal(unix.SIGKILL)
		return fmt.Errorf("take over from the forwarder of %s: %w\n\tlog of both:\n\t%s", node, errors.Join(cause, next.stop(patience)), tail(l.Log(node)))
	}
	l.mu.Lock()
	err = l.note(node, next)
	l.mu.Unlock()
	if ended := old.outcome(); ended != nil {
		err = errors.Join(err, fmt.Errorf("the forwarder of %s that was taken over from ended with %w", node, ended))
	}
	return err
}

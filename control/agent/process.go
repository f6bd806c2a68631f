package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// lock is a folder that one process has at a time.
type lock struct{ file *os.File }

// lockFolder makes a folder ours, for as long as the process lives.
func lockFolder(dir string) (*lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another agent has it: stop that, or choose another stateDir")
		}
		return nil, errors.Join(fmt.Errorf("lock the state folder %s: %w", dir, err), f.Close())
	}
	return &lock{f}, nil
}

func (l *lock) release() error { return l.file.Close() }

// notify tells systemd that we are ready and, where it asks for it, that we are
// alive, until the agent ends. Without systemd it does nothing.
func (a *Agent) notify(ctx context.Context) (stop func()) {
	a.tell(daemon.SdNotifyReady)
	var watchdog sync.WaitGroup
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		watchdog.Go(func() { a.watchdog(ctx, every/2) })
	}
	return func() {
		watchdog.Wait()
		a.tell(daemon.SdNotifyStopping)
	}
}

func (a *Agent) watchdog(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := a.alive(ctx); err == nil {
				a.tell(daemon.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				a.log.Error("not telling the watchdog that all is well", "error", err)
			}
		}
	}
}

func (a *Agent) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		a.log.Warn("tell systemd", "state", state, "error", err)
	}
}

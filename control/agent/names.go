package agent

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"margay.dev/margay/control/domains"
)

// saveEvery is how much of what was learned an agent forgets that is killed.
const saveEvery = 10 * time.Second

// namesFile is where addresses of names are kept.
func (a *Agent) namesFile() string { return filepath.Join(a.cfg.StateDir, "names.json") }

// openNames makes the keeper of names, with what the agent's former life has learned.
func (a *Agent) openNames() {
	a.names = domains.NewKeeper(domains.Limits{}, func(ids []uint64) {
		if s := a.stream.Load(); s != nil {
			s.AnswersRead(ids)
		}
	})
	f, err := os.Open(a.namesFile())
	if err == nil {
		err = errors.Join(a.names.Load(f), f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("names of hosts have no addresses until endpoints ask for them", "file", a.namesFile(), "error", err)
	}
}

// saveNames saves the addresses of names from time to time, and in the end. Without
// the file nothing fails: it spares endpoints to ask again.
func (a *Agent) saveNames(ctx context.Context) error {
	type figures struct {
		domains.Stats
		domains.Counts
	}
	var saved figures
	every := time.NewTicker(saveEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-ctx.Done():
		}
		var is figures
		if is.Stats, is.Counts = a.names.Stats(); is != saved {
			if err := a.writeNames(); err != nil {
				a.log.Warn("addresses of names are not saved", "again in", saveEvery, "error", err)
			} else {
				saved = is
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// writeNames writes them aside, then in place. It does not wait for the disk: after
// a crash of the machine all endpoints ask anew.
func (a *Agent) writeNames() error {
	var b bytes.Buffer
	if err := a.names.Save(&b); err != nil {
		return err
	}
	aside := a.namesFile() + ".new"
	if err := os.WriteFile(aside, b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(aside, a.namesFile())
}

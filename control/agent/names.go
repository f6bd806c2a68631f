package agent

import (
	"cmp"
	"context"
	"path/filepath"
	"time"

	"margay.dev/margay/control/domains"
)

// saveEvery is how much of what was learned an agent forgets at most that is killed.
const saveEvery = time.Second

// namesFile is where addresses of names are kept.
func (a *Agent) namesFile() string { return filepath.Join(a.cfg.StateDir, "names.journal") }

// openNames makes the keeper of names, with what the agent's former life has learned.
// Without the file nothing fails: it spares endpoints to ask again.
func (a *Agent) openNames() {
	grace := cmp.Or(a.cfg.Names.Grace.Duration, -1) // nothing is said as a negative one
	a.names = domains.NewKeeper(domains.Limits{Grace: grace}, func(ids []uint64) {
		if s := a.stream.Load(); s != nil {
			s.AnswersRead(ids)
		}
	})
	var err error
	if a.journal, err = domains.OpenJournal(a.namesFile(), a.names); err != nil {
		a.log.Error("not all that was known of names of hosts is", "error", err)
	}
}

// saveNames saves the addresses of names soon after they are learned, and in the end.
func (a *Agent) saveNames(ctx context.Context) error {
	every := time.NewTicker(saveEvery)
	defer every.Stop()
	told := false
	for {
		select {
		case <-every.C:
		case <-ctx.Done():
		}
		err := a.journal.Write()
		if err != nil && !told {
			a.log.Warn("addresses of names are not saved", "again in", saveEvery, "error", err)
		}
		if told = err != nil; ctx.Err() != nil {
			return nil
		}
	}
}

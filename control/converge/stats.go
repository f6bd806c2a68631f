package converge

import (
	"context"
	"fmt"
	"maps"
	"time"

	"margay.dev/margay/control/domains"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/datastore"
)

// Stats tell of a Core.
type Stats struct {
	Events, Resyncs            uint64             // objects told of by the store, and listings
	Flushes, Snapshots, Deltas uint64             // calculations, and commits
	Failures                   uint64             // commits that were refused
	Sent                       uint64             // bytes of commits
	Calculating, Applying      time.Duration      // spent on what the store tells and what follows from it, and until commits were acknowledged
	Calculations, Commits      Histogram          // each of those times, in TimeUnits
	Batches                    Histogram          // objects told of, that one calculation took together
	Initial                    time.Duration      // from the agent's begin until the first commit was acknowledged; 0: none was
	Synced                     bool               // the store has told all that it holds
	Away                       bool               // it does not answer now
	Held                       bool               // it is being mended: nothing is changed
	Idle                       bool               // nothing waits to be done
	InForce                    bool               // the forwarder has acknowledged what the store said, perhaps a moment ago
	Generation                 uint64             // acknowledged last
	Revision                   datastore.Revision // of the store: all that it told until then is acknowledged
	Objects                    map[string]int     // by kind
	Endpoints                  int                // of this node that the forwarder has
	NotInForce                 int                // attachments that are not
	Faulty                     int                // objects with faults, and those that cannot be used
	Guard                      guard.Stats
	Names                      domains.Stats  // of the keeper of names
	Heard                      domains.Counts // what became of what it has heard

	began time.Time
	taken uint64 // Events that calculations have taken
}

// TimeUnit is the unit of histograms of times.
const TimeUnit = 100 * time.Microsecond

// Calculated counts a calculation that took some time.
func (s *Stats) Calculated(took time.Duration) {
	s.Flushes++
	s.Calculating += took
	s.Calculations.Observe(took.Seconds() / TimeUnit.Seconds())
	s.Batches.Observe(float64(s.Events - s.taken))
	s.taken = s.Events
}

// Applied counts a commit that was acknowledged after some time.
func (s *Stats) Applied(took time.Duration, generation uint64) {
	s.Applying += took
	s.Commits.Observe(took.Seconds() / TimeUnit.Seconds())
	if !s.InForce {
		s.Initial = time.Since(s.began)
	}
	s.InForce, s.Generation = true, generation
}

// Stats asks the goroutine of Run, and fails if it does not answer before ctx ends:
// it hangs then, or has ended.
func (c *Core) Stats(ctx context.Context) (Stats, error) {
	reply := make(chan Stats, 1)
	select {
	case c.ask <- reply:
		return <-reply, nil
	case <-ctx.Done():
		return Stats{}, fmt.Errorf("ask the agent's loop: it does not answer: %w", context.Cause(ctx))
	}
}

// idle reports whether all that was told is acknowledged, as far as it may be sent.
func (c *Core) idle() bool {
	c.inbox.Lock()
	waiting := c.inbox.local != nil || c.inbox.stream != nil || len(c.inbox.conditions) > 0 || c.inbox.anew
	c.inbox.Unlock()
	return !waiting && len(c.events) == 0 && len(c.Book.Changed()) == 0 && len(c.learned()) == 0 && c.flight == nil && c.applying == nil && !c.alone && c.again == nil &&
		(!c.dirty || !c.synced || !c.ready) && c.guard.Folding() == nil
}

// tell is what Stats tells. It is asked often, so its work is that of the node's own
// attachments and of what is faulty, however large the cluster is.
func (c *Core) tell() Stats {
	s := c.stats
	s.Synced, s.Away, s.Held, s.Guard = c.synced, c.away != nil, !c.ready, c.guard.Stats()
	if c.stream != nil {
		s.Sent = c.stream.Sent()
	}
	if c.Names != nil {
		s.Names, s.Heard = c.Names.Stats()
	}
	if s.Idle = c.idle(); s.Idle && s.InForce {
		s.Revision = c.told
	}
	s.Objects, s.Endpoints, s.Faulty = maps.Clone(c.kinds), c.network.Endpoints(), c.notes.faulty
	for k := range c.attached {
		if !c.stands(k).InForce {
			s.NotInForce++
		}
	}
	for key := range c.notes.refused {
		if c.objects[key] == nil { // it never could be used, and has no conditions
			s.Faulty++
		}
	}
	return s
}

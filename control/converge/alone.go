package converge

import (
	"time"

	"margay.dev/margay/datastore"
)

// How long a change for the kernel waits for a forwarder that is away, and for one
// that does not answer.
const (
	awayPatience = 500 * time.Millisecond
	hungPatience = 10 * time.Second
)

// flushAlone brings the kernel up to date while the forwarder is away, hangs, or
// refuses what it is sent: who has locked himself out of the host must not wait for
// it to be let in. What is calculated for the kernel alone is lost to the forwarder,
// which then gets everything anew.
func (c *Core) flushAlone() {
	if c.Kernel == nil || c.bare && len(c.own) == 0 {
		return // it has nothing, and is to have nothing
	}
	if c.blocked.IsZero() {
		c.blocked = time.Now()
	}
	patience := awayPatience
	if c.stream != nil && c.stream.Connected() {
		patience = hungPatience
	}
	if left := patience - time.Since(c.blocked); left > 0 {
		if c.late == nil {
			c.late = time.After(min(left, awayPatience)) // it may go away meanwhile
		}
		return
	}
	c.dirty, c.alone = false, true
	began := time.Now()
	c.resolve()
	update := c.guard.Flush()
	c.apply(c.judgeHost(update))
	for _, x := range update.Conditions {
		c.notes.policy(datastore.Key(x.Object), x.Faults)
	}
	c.stats.Calculated(time.Since(began))
}

// apply has the kernel work on a change in the background, nil for none.
func (c *Core) apply(change func() error) {
	if change == nil {
		return
	}
	done := make(chan error, 1)
	go func() { done <- change() }()
	c.applying = done
}

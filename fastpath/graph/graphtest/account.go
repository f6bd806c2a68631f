package graphtest

import (
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
)

// Account runs until nothing moves, lets held packets time out, and fails tb
// unless every packet and every buffer is accounted for.
func (l *Lab) Account(tb testing.TB) {
	tb.Helper()
	l.Run()
	for range 8 { // each time what answers to a neighbour were due may be held anew
		if l.Engine.Total().Held == 0 {
			break
		}
		if frames, supers := l.Arena.Free(); frames == l.Arena.Frames() && supers == l.Arena.Supers() {
			tb.Errorf("%d packets are held, and all buffers are free", l.Engine.Total().Held)
		}
		l.Even(tb)
		l.Advance(4 * time.Second)
	}
	if held := l.Engine.Total().Held; held != 0 {
		tb.Errorf("%d packets are held for ever", held)
	}
	l.check(tb)
}

// Even fails tb unless rx + made = tx + punt + drops + consumed + held.
func (l *Lab) Even(tb testing.TB) {
	tb.Helper()
	c := l.Engine.Total()
	if c.In() != c.Out() {
		tb.Errorf("%d packets came in or were made, %d are told of: %+v", c.In(), c.Out(), c)
	}
	if n := c.Drops[graph.NoReason]; n != 0 {
		tb.Errorf("%d packets were dropped for no reason", n)
	}
}

func (l *Lab) check(tb testing.TB) {
	tb.Helper()
	l.Even(tb)
	held := l.Engine.Total().Held
	if frames, supers := l.Arena.Free(); held == 0 && (frames != l.Arena.Frames() || supers != l.Arena.Supers()) {
		tb.Errorf("%d of %d frames and %d of %d supers are free", frames, l.Arena.Frames(), supers, l.Arena.Supers())
	}
}

// Change is what was counted since the last call, Held being what is held now.
func (l *Lab) Change() graph.Counters {
	now := l.Engine.Total()
	c, was := now, &l.mark
	c.Rx -= was.Rx
	c.Tx -= was.Tx
	c.Punt -= was.Punt
	c.MadeRefused -= was.MadeRefused
	for i := range c.Made {
		c.Made[i] -= was.Made[i]
	}
	for i := range c.Consumed {
		c.Consumed[i] -= was.Consumed[i]
	}
	for i := range c.Drops {
		c.Drops[i] -= was.Drops[i]
	}
	l.mark = now
	return c
}

// WantDrops fails tb unless exactly the packets that want names were dropped
// since the last Change, and resets it.
func (l *Lab) WantDrops(tb testing.TB, want map[graph.Reason]uint64) {
	tb.Helper()
	c := l.Change()
	for r := range graph.Reason(graph.Reasons) {
		if c.Drops[r] != want[r] {
			tb.Errorf("%d packets were dropped for %s, want %d", c.Drops[r], r, want[r])
		}
	}
}

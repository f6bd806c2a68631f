// Package byhand is what scenarios share that step the graph by hand: queues of
// memory, and a plain loop over the same packets, which is the floor.
package byhand

import (
	"time"

	"margay.dev/margay/fastpath/graph"
)

// Queue has the packets that it was given, and forgets those that it is to send:
// their frames stay those of whoever gave them.
type Queue struct {
	Sent uint64 // packets that it was to send

	metas []graph.Meta
	burst int
}

// Give lets metas be received next, at most burst at a time.
func (q *Queue) Give(metas []graph.Meta, burst int) { q.metas, q.burst = metas, burst }

// RxBurst hands out the next packets.
func (q *Queue) RxBurst(_ *graph.IO, ms []graph.Meta) int {
	n := copy(ms[:min(q.burst, len(ms))], q.metas)
	q.metas = q.metas[n:]
	return n
}

// TxBurst counts the packets and forgets them.
func (q *Queue) TxBurst(_ *graph.IO, v *graph.Vector) int {
	q.Sent += uint64(len(v.Index()))
	return 0
}

// Poll has nothing to do.
func (*Queue) Poll(*graph.IO) bool { return false }

// FD says that there is nothing to wait for.
func (*Queue) FD() int { return -1 }

// InMemory says that the queue is no device's.
func (*Queue) InMemory() bool { return true }

// Nanos is what one of n packets costs in rounds of about d all together; round
// tells how long it took.
func Nanos(n int, d time.Duration, round func() time.Duration) float64 {
	var took time.Duration
	packets := 0
	for took < d {
		took += round()
		packets += n
	}
	return float64(took.Nanoseconds()) / float64(packets)
}

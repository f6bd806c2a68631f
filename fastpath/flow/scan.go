package flow

import "sync/atomic"

// Scan is All a part at a time, for who must not look for long at once: it calls
// each for the flows in up to so many places from one on, until that is false, and
// returns the place to go on at. That is 0 at the end; the first part begins at 0,
// too.
func (t *Table) Scan(from uint32, places int, now Tick, each func(Flow) bool) (next uint32) {
	for i := max(1, from); i < atomic.LoadUint32(&t.head.fresh); i++ {
		if places == 0 {
			return i
		}
		places--
		if f, ok := t.flow(i, now); ok && !each(f) {
			return i + 1
		}
	}
	return 0
}

package lookup

import (
	"fmt"
	"math/rand/v2"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/label"
)

// changesTimed is how many changes are timed, each by itself.
const changesTimed = 20_000

// guests is the first set that members join for a moment; they are in none of
// those from there on.
const guests classifier.SetID = 100_000

// drawChange draws a member that joins another set, or leaves its own, and the
// change that undoes it.
func drawChange(r *rand.Rand, members []label.Change) [2]label.Change {
	there := members[r.IntN(len(members))]
	if there.Leave = r.IntN(2) == 0; !there.Leave {
		there.Set = guests + classifier.SetID(r.IntN(1000))
	}
	back := there
	back.Leave = !there.Leave
	return [2]label.Change{there, back}
}

// exchange is what a change is to a peer: its prefix gets another value, or goes
// and comes back.
func (b barts) exchange(c label.Change) {
	if c.Leave && c.Set < guests {
		b.t.Delete(c.Prefix)
	} else {
		b.t.Insert(c.Prefix, fib.NextHopID(c.Set&15+1))
	}
}

// microseconds is how long f takes.
func microseconds(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds()) / 1000
}

// reportChanges times changes of members, in turns with the peers.
func reportChanges(s *harness.Session, p population, t *label.Table, peers []loaded, members []label.Change) error {
	r := rand.New(rand.NewPCG(4, 4))
	var ours []float64
	var err error
	theirs := make([][]float64, len(peers))
	for range changesTimed / 2 {
		for _, c := range drawChange(r, members) {
			ours = append(ours, microseconds(func() { err = t.Apply([]label.Change{c}) }))
			if err != nil {
				return err
			}
			for i, peer := range peers {
				theirs[i] = append(theirs[i], microseconds(func() { peer.table.(barts).exchange(c) }))
			}
		}
		t.Reclaim()
	}
	for i, peer := range peers {
		for _, q := range []struct{ percent, budget float64 }{{50, 5}, {99, 50}} {
			m := harness.Metric{Name: fmt.Sprintf("change_p%.0f", q.percent), Unit: "us"}
			s.Report(harness.New(p.name+"/change", m, harness.Percentile(ours, q.percent),
				peer.name, harness.Percentile(theirs[i], q.percent), q.budget, ""))
		}
	}
	return nil
}

package nft

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"margay.dev/margay/classifier/oracle"
)

var (
	rounds = flag.Int("nft.rounds", 0, "states that the kernel is held against the oracle in; 0 is few")
	seed   = flag.Uint64("nft.seed", 1, "which states, and packets")
)

// The kernel decides as the oracle about packets of all kinds and ways through a
// host, after each of many changes: whole ones, small ones, tried ones.
func TestKernelAgreesWithOracle(t *testing.T) {
	h := newHost(t, Options{})
	w := &world{Rand: rand.New(rand.NewPCG(*seed, 7))}
	n := *rounds
	if n == 0 {
		n = 14
		if testing.Short() {
			n = 5
		}
	}
	now := state{sets: oracle.Sets{}, desired: &Desired{}}
	dropped, passed := 0, 0
	for round := range n {
		change, next := w.step(round, now)
		if err := w.bring(h.table, change); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		now = next
		packets := make([]packet, 250)
		for i := range packets {
			packets[i] = w.packet()
		}
		for i, came := range h.send(packets) {
			want := now.allows(&packets[i])
			if came {
				passed++
			} else {
				dropped++
			}
			if came != want {
				t.Fatalf("round %d of seed %d: %v came through: %v, the oracle says %v", round, *seed, &packets[i], came, want)
			}
		}
	}
	if least := n * 250 / 10; dropped < least || passed < least {
		t.Errorf("%d packets passed and %d were dropped: too few of one kind to say anything", passed, dropped)
	}
}

// step is a change, and the state after it.
func (w *world) step(round int, now state) (Change, state) {
	next := state{sets: oracle.Sets{}}
	for id, members := range now.sets {
		next.sets[id] = slices.Clone(members)
	}
	c := Change{Sets: w.churn(next.sets)}
	if round == 0 || w.chance(10) {
		next.sets = oracle.Sets{}
		c = Change{Whole: true, Sets: w.churn(next.sets)}
		next.desired = w.desired(next.sets)
	} else if next.desired = now.desired; w.chance(80) {
		next.desired = w.change(now.desired, next.sets)
	}
	if next.desired != now.desired {
		c.Desired = next.desired
	}
	return c, next
}

// bring applies a change, or tries and confirms it.
func (w *world) bring(t *Table, c Change) error {
	if t.side == nil || w.chance(70) {
		return t.Apply(c)
	}
	if err := t.Try(c, time.Minute); err != nil {
		return err
	}
	if w.chance(30) {
		return nil // later changes are made to what is tried
	}
	return t.Confirm()
}

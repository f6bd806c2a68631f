package chain_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/classifier/classifiertest"
	"margay.dev/margay/classifier/oracle"
)

func TestEqualListsAreCompiledOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	w := classifiertest.NewWorld(rng, true)
	list := w.Rules(rng, 20)
	c := chain.NewCache(classifier.Options{})
	a, err := c.Acquire(list)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Acquire(slices.Clone(list))
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(list)
	other[3].ID++
	d, err := c.Acquire(other)
	if err != nil {
		t.Fatal(err)
	}
	if a != b || a == d || c.Compiles() != 2 {
		t.Errorf("equal lists shared: %v, unequal ones apart: %v, %d compiles, want 2", a == b, a != d, c.Compiles())
	}
	c.Release(a)
	if l, err := c.Acquire(list); err != nil || l != a {
		t.Errorf("a list still in use is compiled anew: %v", err)
	}
	c.Release(a)
	c.Release(a)
	if l, err := c.Acquire(list); err != nil || l == a || c.Compiles() != 3 {
		t.Errorf("a released list is still known: %v", err)
	}
	// A list that was edited is no longer what it was acquired as.
	if err := c.Edit(d, classifier.Edit{Remove: true}); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Acquire(other); err != nil || l == d {
		t.Errorf("an edited list answers for what it was: %v", err)
	}
}

const generations = 40

// contest is a list that its writer changes while readers match.
type contest struct {
	w       *classifiertest.World
	c       *chain.Cache
	l       *chain.List
	packets []oracle.Packet
	asked   []classifier.Packet

	wanted      [generations + 1][]classifier.Verdict // by generation
	first, last atomic.Int64                          // generations that may be seen
}

func newContest(t *testing.T, rng *rand.Rand, w *classifiertest.World, list []classifier.Rule) *contest {
	c := chain.NewCache(classifier.Options{Literals: w.Literals})
	l, err := c.Acquire(list)
	if err != nil {
		t.Fatal(err)
	}
	g := &contest{w: w, c: c, l: l}
	g.learn(c.Sets(l))
	for range 64 {
		p := w.Packet(rng, list)
		g.packets = append(g.packets, p)
		g.asked = append(g.asked, packetOf(w, p))
	}
	g.want(0, list)
	return g
}

// learn does what the label table would: it takes up sets, and tells of the classes that come of them.
func (g *contest) learn(sets []classifier.Set) {
	for _, s := range sets {
		if s.ID&classifier.AnonymousSet != 0 {
			g.w.Sets[s.ID] = s.Prefixes
		}
	}
	g.w.Tell(g.l.Program())
	for class, combo := range g.w.Combos {
		g.c.AddClass(uint32(class), combo)
	}
}

// finish compiles a fold, and puts it in force once the world knows its sets.
func (g *contest) finish(f *chain.Fold) error {
	if f.Compile() == nil {
		g.learn(f.Sets())
	}
	return g.c.Finish(f)
}

// want notes what the oracle says of a generation, and lets readers see it.
func (g *contest) want(generation int, list []classifier.Rule) {
	verdicts := make([]classifier.Verdict, len(g.packets))
	for i, p := range g.packets {
		if rank, _ := oracle.Match(list, g.w.Sets, p); rank < len(list) && list[rank].Action != classifier.Pass {
			verdicts[i] = classifier.NewVerdict(list[rank].Action, list[rank].ID, 0)
		}
	}
	g.wanted[generation] = verdicts
	g.last.Store(int64(generation))
}

// read matches until the last generation: each burst has the verdicts of one
// generation that was in force between its beginning and its end.
func (g *contest) read(t *testing.T) {
	way, err := chain.NewChain(chain.Tier{List: g.l, End: classifier.Pass})
	if err != nil {
		t.Error(err)
		return
	}
	got := make([]classifier.Verdict, classifier.Burst)
	for at := 0; g.last.Load() < generations; at ^= classifier.Burst {
		from := g.first.Load()
		way.Match(g.asked[at:at+classifier.Burst], got)
		seen := false
		for n := from; n <= g.last.Load() && !seen; n++ {
			seen = slices.Equal(got, g.wanted[n][at:at+classifier.Burst])
		}
		if !seen {
			t.Errorf("verdicts of no generation from %d to %d", from, g.last.Load())
			return
		}
	}
}

func TestListsChangeUnderReaders(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 5))
	w := classifiertest.NewWorld(rng, false)
	list := w.Rules(rng, 25)
	donors := slices.Clone(list)
	g := newContest(t, rng, w, list)
	var readers sync.WaitGroup
	defer readers.Wait()
	for range 2 {
		readers.Go(func() { g.read(t) })
	}
	defer g.last.Store(generations) // ends the readers, whatever happens here
	var fold *chain.Fold
	for n := 1; n <= generations; n++ {
		edits, after := classifiertest.Edits(rng, list, donors, 1+rng.IntN(2))
		g.want(n, after)
		err := g.c.Edit(g.l, edits...)
		switch {
		case errors.Is(err, classifier.ErrCompile):
			err = g.finish(g.c.Fold(g.l, edits...))
		case err == nil && n%17 == 0: // a compile that overtakes the one below
			err = g.finish(g.c.Fold(g.l))
		}
		if err != nil {
			t.Fatal(err)
		}
		g.first.Store(int64(n))
		list = after
		switch n % 10 {
		case 3:
			fold = g.c.Fold(g.l)
		case 5: // two generations later: what was changed in the meantime must not be lost
			if err := g.finish(fold); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g.c.Wants(g.l) {
		if err := g.finish(g.c.Fold(g.l)); err != nil || g.c.Wants(g.l) {
			t.Errorf("folded, and wants more: %v", err)
		}
	}
}

func TestFoldOverBudgetLeavesTheListInForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	c := chain.NewCache(classifier.Options{Budget: 16 << 10})
	l, err := c.Acquire([]classifier.Rule{{ID: 7, Action: classifier.Deny}})
	if err != nil {
		t.Fatal(err)
	}
	before := l.Program()
	var edits []classifier.Edit
	for _, r := range classifiertest.Rules(rng, 2000) {
		edits = append(edits, classifier.Edit{Rule: r})
	}
	if err := c.Edit(l, edits...); !errors.Is(err, classifier.ErrCompile) {
		t.Errorf("got %v, want the need of a compile", err)
	}
	f := c.Fold(l, edits...)
	if err := c.Edit(l, edits[0]); !errors.Is(err, classifier.ErrCompile) {
		t.Errorf("a list of which a change is being compiled is edited: %v", err)
	}
	if f.Compile() == nil || c.Finish(f) == nil || l.Program() != before {
		t.Errorf("2,000 rules fit into 16 KiB; the program in force was replaced: %v", l.Program() != before)
	}
	if err := c.Edit(l, edits[0]); err != nil {
		t.Errorf("after a compile that failed: %v", err)
	}
	if _, err := c.Acquire(classifiertest.Rules(rng, 2000)); err == nil || errors.Is(err, classifier.ErrCompile) {
		t.Errorf("got %v, want an error about the budget", err)
	}
}

package label

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"margay.dev/margay/classifier"
)

// readers run until stop and report how far they are, as workers do: each
// notes the generation before it takes a view.
type readers struct {
	wg     sync.WaitGroup
	stop   atomic.Bool
	gen    atomic.Uint64 // of the writer's last change
	seen   [3]atomic.Uint64
	looked atomic.Int64
}

func (rs *readers) start(tb *Table, body func(v View, r *rand.Rand)) {
	for i := range rs.seen {
		rs.wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for !rs.stop.Load() {
				rs.seen[i].Store(rs.gen.Load())
				body(tb.View(), r)
				rs.looked.Add(1)
				runtime.Gosched() // on one core the writer wants its turn
			}
			rs.seen[i].Store(^uint64(0)) // parked
		})
	}
}

// advance is what the owner of a table does after a change: it frees what all
// readers have left behind.
func (rs *readers) advance(tb *Table) {
	rs.gen.Store(tb.Generation())
	least := ^uint64(0)
	for i := range rs.seen {
		least = min(least, rs.seen[i].Load())
	}
	tb.Quiesced(least)
}

// finish ends the readers when one has looked something up, or found a fault.
func (rs *readers) finish() {
	for rs.looked.Load() == 0 && !rs.stop.Load() {
		runtime.Gosched() // on a busy machine they may not have begun
	}
	rs.stop.Store(true)
	rs.wg.Wait()
}

// TestReadersSeeOldOrNew goes from state to state, each by one Apply of many
// changes, while readers ask for the sets of addresses: what a reader finds is
// what the oracle says of one of the two states around its lookup.
func TestReadersSeeOldOrNew(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	tb := New(nil)
	states, steps := drawStates(rnd, 6)
	var addrs []netip.Addr
	for _, p := range states[0].prefixes() {
		addrs = append(addrs, edges(p)...)
	}
	want := make([][][]classifier.SetID, len(states)) // by state and address
	for i, o := range states {
		for _, a := range addrs {
			want[i] = append(want[i], o.lookup(a))
		}
	}
	if err := tb.Apply(steps[0]); err != nil {
		t.Fatal(err)
	}
	var done, begun atomic.Uint64 // changes of state
	var rs readers
	rs.start(tb, func(_ View, r *rand.Rand) {
		i := r.IntN(len(addrs))
		from := done.Load()
		v := tb.View()
		got := slices.Clone(v.Members(v.Lookup(addrs[i])))
		to := begun.Load()
		for s := from; s <= to; s++ {
			if slices.Equal(got, want[s%uint64(len(states))][i]) {
				return
			}
		}
		t.Errorf("%s is in %v, which it was in none of the states %d to %d", addrs[i], got, from, to)
		rs.stop.Store(true)
	})
	until := time.Now().Add(span())
	for n := uint64(1); time.Now().Before(until) && !rs.stop.Load(); n++ {
		begun.Store(n)
		if err := tb.Apply(steps[1+(n-1)%uint64(len(states))]); err != nil {
			t.Fatal(err)
		}
		done.Store(n)
		rs.advance(tb)
	}
	rs.finish()
}

func span() time.Duration {
	if testing.Short() {
		return 200 * time.Millisecond
	}
	return 2 * time.Second
}

// drawStates draws states of a table and the steps between them: to the first
// from nothing, then from each to the next, in a ring.
func drawStates(rnd *rand.Rand, n int) ([]oracle, [][]Change) {
	var pool []netip.Prefix
	for range 60 {
		pool = append(pool, crowded(rnd))
	}
	states := make([]oracle, n)
	for i := range states {
		states[i] = oracle{}
		for _, p := range pool {
			if i == 0 || rnd.IntN(2) == 0 {
				states[i][membership{classifier.SetID(rnd.IntN(5) + 1), p}]++
			}
		}
	}
	steps := [][]Change{between(oracle{}, states[0])}
	for i := range states {
		steps = append(steps, between(states[i], states[(i+1)%n]))
	}
	return states, steps
}

// between is the changes from one state to another.
func between(a, b oracle) (changes []Change) {
	for m := range a {
		if b[m] == 0 {
			changes = append(changes, Change{m.set, m.prefix, true})
		}
	}
	for m := range b {
		if a[m] == 0 {
			changes = append(changes, Change{m.set, m.prefix, false})
		}
	}
	return changes
}

// TestReadersFollowGrowth loads prefixes, each in a set of its own, so that trie
// and lists grow under readers: what they find is whole.
func TestReadersFollowGrowth(t *testing.T) {
	const n, atOnce = 4500, 40 // two pages of lists
	tb := New(nil)
	var loaded atomic.Uint32
	var rs readers
	rs.start(tb, func(v View, r *rand.Rand) {
		i := r.Uint32N(loaded.Load() + 1)
		for _, c := range []Class{v.Lookup4(i << 12), v.Lookup6(uint64(i)<<40, 1)} {
			// The view may be older than the prefix.
			if got := v.Members(c); c != 0 && !slices.Equal(got, []classifier.SetID{classifier.SetID(i + 1)}) {
				t.Errorf("prefix %d is in %v by class %d", i, got, c)
				rs.stop.Store(true)
			}
		}
	})
	var changes []Change
	for i := range uint32(n) {
		p4, p6 := prefix{key{hi: uint64(i) << 44}, 20, false}, prefix{key{hi: uint64(i) << 40}, 24, true}
		for _, p := range []prefix{p4, p6} {
			changes = append(changes, Change{Set: classifier.SetID(i + 1), Prefix: p.netip()})
		}
		if len(changes) < atOnce {
			continue
		}
		if err := tb.Apply(changes); err != nil {
			t.Fatal(err)
		}
		changes = changes[:0]
		loaded.Store(i)
		rs.advance(tb)
	}
	rs.finish()
	if tb.Classes() != n {
		t.Errorf("%d classes, want %d", tb.Classes(), n)
	}
}

// A class keeps its sets as long as a reader that met it may ask for them.
func TestClassesWaitForReaders(t *testing.T) {
	tb, r := watched(t)
	join(t, tb, 1, "10.0.0.0/24", "2001:db8::/64")
	v := tb.View()
	old := v.Lookup(netip.MustParseAddr("10.0.0.1"))
	met := tb.Generation()
	for i := range classifier.SetID(100) {
		join(t, tb, i+2, "10.0.0.0/24", "2001:db8::/64")
		leave(t, tb, i+1, "10.0.0.0/24", "2001:db8::/64")
		r.quiesced(met)
		if got := v.Members(old); !slices.Equal(got, []classifier.SetID{1}) {
			t.Fatalf("class %d has become %v under a reader", old, got)
		}
	}
	waiting := tb.Memory().Waiting
	r.quiesced(tb.Generation())
	if now := tb.Memory().Waiting; waiting < 100 || now != 0 {
		t.Errorf("%d classes waited for readers, %d wait without any", waiting, now)
	}
	born := r.born
	for i := range classifier.SetID(50) {
		join(t, tb, 1000+i, "192.0.2.0/24")
	}
	if ids := len(tb.classes.refs); r.born-born != 50 || ids > 210 {
		t.Errorf("%d classes were born, and %d ids are in use", r.born-born, ids)
	}
}

func TestLookupsAllocateNothing(t *testing.T) {
	tb := New(nil)
	join(t, tb, 1, "10.0.0.0/24", "2001:db8::/64")
	var batch Batch
	out := make([]Class, 300)
	a4, a6 := make([]uint32, 300), make([][2]uint64, 300)
	if n := testing.AllocsPerRun(2*BatchMax, func() { // a batch that forgot nothing would be full
		v := tb.View()
		batch.Lookup4(v, a4, out)
		batch.Lookup6(v, a6, out)
		batch.Begin4(0, 1, 2)
		batch.Begin6(1, a6[0], a6[1])
		batch.Finish(v)
		v.Members(out[0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package fib

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// readers run until stop and report how far they are, as workers do: each
// notes the generation before it takes a view.
type readers struct {
	wg   sync.WaitGroup
	stop atomic.Bool
	gen  atomic.Uint64 // of the writer's last change
	seen [3]atomic.Uint64
}

func (rs *readers) start(tb *Table, body func(v View, r *rand.Rand)) {
	for i := range rs.seen {
		rs.wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for !rs.stop.Load() {
				rs.seen[i].Store(rs.gen.Load())
				body(tb.View(), r)
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

func (rs *readers) finish() {
	rs.stop.Store(true)
	rs.wg.Wait()
}

func changesFor(t *testing.T) time.Duration {
	if testing.Short() {
		return 200 * time.Millisecond
	}
	return 2 * time.Second
}

// target is an address with all next hops that are ever right for it.
type target struct {
	addr netip.Addr
	ok   map[NextHopID]bool
}

const defaultHop NextHopID = 5000

// hopsOf are the two next hops that route i has by turns.
func hopsOf(i int) (a, b NextHopID) { return NextHopID(2*i + 1), NextHopID(2*i + 2) }

// targetsOf lists the addresses at the edges of all routes, by family.
func targetsOf(routes []netip.Prefix) (out [2][]target) {
	for _, p := range routes {
		for _, addr := range edges(p) {
			tg := target{addr, map[NextHopID]bool{defaultHop: true}}
			for i, q := range routes {
				if q.Contains(addr) {
					a, b := hopsOf(i)
					tg.ok[a], tg.ok[b] = true, true
				}
			}
			f := 0
			if addr.Is6() {
				f = 1
			}
			out[f] = append(out[f], tg)
		}
	}
	return out
}

// TestReadersSeeOldOrNew churns routes while readers look addresses up. Each
// address has few next hops that are ever right for it: those of the routes
// that may hold it. Anything else is a mix of two states.
func TestReadersSeeOldOrNew(t *testing.T) {
	tb := New()
	var routes []netip.Prefix
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 400 {
		routes = append(routes, crowded(r, i%2 == 0))
	}
	set(t, tb, "0.0.0.0/0", defaultHop)
	set(t, tb, "::/0", defaultHop)
	targets := targetsOf(routes)
	var rs readers
	var looked atomic.Int64
	rs.start(tb, func(v View, r *rand.Rand) {
		ts := targets[r.IntN(2)]
		ts = ts[r.IntN(len(ts)-64):][:64]
		addrs := make([]netip.Addr, len(ts))
		for i, tg := range ts {
			addrs[i] = tg.addr
		}
		for i, nh := range askVector(v, addrs) {
			if one := ask(v, addrs[i]); !ts[i].ok[nh] || !ts[i].ok[one] {
				t.Errorf("%s went to %d and %d, which no route that holds it ever had", addrs[i], nh, one)
				rs.stop.Store(true)
			}
		}
		looked.Add(int64(len(addrs)))
	})
	for until := time.Now().Add(changesFor(t)); time.Now().Before(until) && !rs.stop.Load(); {
		i := r.IntN(len(routes))
		p := routes[i]
		switch a, b := hopsOf(i); r.IntN(4) {
		case 0:
			setPrefix(t, tb, p, a)
		case 1:
			setPrefix(t, tb, p, b)
		default:
			if p.Bits() > 0 { // the default routes always stand
				tb.DeleteRoute(p)
			}
		}
		rs.advance(tb)
	}
	rs.finish()
	if looked.Load() == 0 {
		t.Error("readers looked nothing up")
	}
	sound(t, tb)
}

// TestReadersFollowGrowth loads routes, next hops and adjacencies, all of them
// growing, under readers: what the last published route says must resolve.
func TestReadersFollowGrowth(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 4_000
	}
	tb := New()
	var loaded atomic.Uint32
	var rs readers
	rs.start(tb, func(v View, r *rand.Rand) {
		have := loaded.Load()
		if have == 0 {
			return
		}
		i := r.Uint32N(have)
		for _, nh := range []NextHopID{v.Lookup4(i << 12), v.Lookup6(uint64(i)<<40, 1)} {
			// The view is older than `loaded`, so the route may be missing in it.
			if nh != NoRoute && nh != NextHopID(i+1) {
				t.Errorf("route %d goes to %d", i, nh)
			}
			if nh == NoRoute {
				continue
			}
			if a := v.Adjacency(v.Resolve(nh, r.Uint32())); a.MTU != uint32(nh) {
				t.Errorf("next hop %d resolves to an adjacency of %d", nh, a.MTU)
			}
		}
	})
	for i := range uint32(n) {
		for k := range AdjacencyID(2) {
			if err := tb.SetAdjacency(AdjacencyID(2*i+1)+k, Adjacency{Kind: Rewrite, MTU: i + 1}); err != nil {
				t.Fatal(err)
			}
		}
		setNextHop(t, tb, NextHopID(i+1), even(AdjacencyID(2*i+1), AdjacencyID(2*i+2)))
		setPrefix(t, tb, netip.PrefixFrom(addr4(i<<12), 20), NextHopID(i+1))
		setPrefix(t, tb, netip.PrefixFrom(addr6(uint64(i)<<40, 0), 24), NextHopID(i+1))
		loaded.Store(i + 1)
		rs.advance(tb)
	}
	rs.finish()
}

// TestReadersSeeWholeAdjacencies rewrites adjacencies and members under
// readers: an adjacency is one of those that were written, and a flow is on a
// member.
func TestReadersSeeWholeAdjacencies(t *testing.T) {
	tb := New()
	fill := func(b byte) Adjacency {
		a := Adjacency{HeaderLen: 14, Kind: Rewrite, Port: uint16(b), Flags: uint16(b), MTU: uint32(b)}
		for i := range a.Header {
			a.Header[i] = b
		}
		for i := range a.Gateway {
			a.Gateway[i] = b
		}
		return a
	}
	write := func(id AdjacencyID, b byte) {
		if err := tb.SetAdjacency(id, fill(b)); err != nil {
			t.Fatal(err)
		}
	}
	for id := range AdjacencyID(4) {
		write(id+1, 1)
	}
	setNextHop(t, tb, hopUnderTest, even(1, 2, 3, 4))
	var rs readers
	rs.start(tb, func(v View, r *rand.Rand) {
		for range 64 {
			id := v.Resolve(hopUnderTest, r.Uint32())
			if id < 1 || id > 4 {
				t.Errorf("flow resolves to adjacency %d, want 1 to 4", id)
				rs.stop.Store(true)
			}
			if a := *v.Adjacency(id); a != fill(byte(a.MTU)) {
				t.Errorf("adjacency is a mix: %+v", a)
				rs.stop.Store(true)
			}
		}
	})
	r := rand.New(rand.NewPCG(5, 5))
	for until := time.Now().Add(changesFor(t)); time.Now().Before(until) && !rs.stop.Load(); {
		write(AdjacencyID(1+r.IntN(4)), byte(1+r.IntN(255)))
		down := AdjacencyID(1 + r.IntN(3))
		tb.SetMemberDown(down, true)
		tb.SetMemberDown(down, false)
		members := even(1, 2, 3, 4)
		setNextHop(t, tb, hopUnderTest, members[r.IntN(3):]) // from four members down to two
		rs.advance(tb)
	}
	rs.finish()
}

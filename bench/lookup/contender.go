package lookup

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/gaissmai/bart"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
)

// finder looks addresses up.
type finder interface {
	// find looks up the addresses lo to hi of in.
	find(in *input, lo, hi int, out []fib.NextHopID)
}

// table is one of a comparison.
type table interface {
	finder
	set(p netip.Prefix, nh fib.NextHopID) error
}

// contender makes empty tables of a kind; ours is the first.
type contender struct {
	name string
	make func() table
}

func contenders() []contender {
	return []contender{
		{"ours", func() table { return ours{fib.New(), new(fib.Batch)} }},
		{"bart", func() table { return barts{new(bart.Table[fib.NextHopID])} }},
		{"bart-fast", func() table { return barts{new(bart.Fast[fib.NextHopID])} }},
	}
}

// ours looks up in batches, as the node route does.
type ours struct {
	t     *fib.Table
	batch *fib.Batch
}

func (o ours) set(p netip.Prefix, nh fib.NextHopID) error { return o.t.SetRoute(p, nh) }

func (o ours) find(in *input, lo, hi int, out []fib.NextHopID) {
	v := o.t.View()
	if in.d4 != nil {
		o.batch.Lookup4(v, in.d4[lo:hi], out)
	} else {
		o.batch.Lookup6(v, in.d6[lo:hi], out)
	}
}

// barts is either of bart's tables.
type barts struct {
	t interface {
		Insert(netip.Prefix, fib.NextHopID)
		Delete(netip.Prefix)
		Lookup(netip.Addr) (fib.NextHopID, bool)
	}
}

func (b barts) set(p netip.Prefix, nh fib.NextHopID) error { b.t.Insert(p, nh); return nil }

func (b barts) find(in *input, lo, hi int, out []fib.NextHopID) {
	switch t := b.t.(type) { // once per vector, so that a lookup is a plain call
	case *bart.Table[fib.NextHopID]:
		for i, a := range in.addrs[lo:hi] {
			out[i], _ = t.Lookup(a)
		}
	case *bart.Fast[fib.NextHopID]:
		for i, a := range in.addrs[lo:hi] {
			out[i], _ = t.Lookup(a)
		}
	}
}

// loaded is a table with all routes in it, and what that took.
type loaded struct {
	table
	name  string
	took  time.Duration
	bytes float64 // of heap, per route
}

func load(ctx context.Context, c contender, routes []netip.Prefix) (loaded, error) {
	before := heap()
	l := loaded{table: c.make(), name: c.name}
	start := time.Now()
	for i, p := range routes {
		if err := l.set(p, fib.NextHopID(i&15+1)); err != nil {
			return l, err
		}
		if i%65536 == 65535 && ctx.Err() != nil {
			return l, fmt.Errorf("load %d routes into %s: %w", len(routes), c.name, context.Cause(ctx))
		}
	}
	if o, ok := l.table.(ours); ok {
		o.t.Reclaim()
	}
	l.took = time.Since(start)
	l.bytes = float64(heap()-before) / float64(len(routes))
	return l, nil
}

// heap is what is alive on it, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// input is the same addresses in the form that each table takes.
type input struct {
	addrs []netip.Addr
	d4    []uint32
	d6    [][2]uint64
}

func newInput(addrs []netip.Addr) *input {
	in := &input{addrs: addrs}
	for _, a := range addrs {
		if a.Is4() {
			b := a.As4()
			in.d4 = append(in.d4, binary.BigEndian.Uint32(b[:]))
		} else {
			b := a.As16()
			in.d6 = append(in.d6, [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])})
		}
	}
	return in
}

// walk goes through the destinations again and again, vector by vector.
type walk struct {
	table finder
	in    *input
	n, at int
	out   [graph.VectorMax]fib.NextHopID
}

func (w *walk) vector() int {
	to := min(w.at+graph.VectorMax, w.n)
	n := to - w.at
	w.table.find(w.in, w.at, to, w.out[:n])
	if w.at = to; w.at == w.n {
		w.at = 0
	}
	return n
}

// window looks up for about d and returns ns per lookup.
func (w *walk) window(d time.Duration) float64 {
	start, n := time.Now(), 0
	for {
		for range 16 {
			n += w.vector()
		}
		if took := time.Since(start); took >= d {
			return float64(took.Nanoseconds()) / float64(n)
		}
	}
}

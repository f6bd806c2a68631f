package fib

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/gaissmai/bart"

	"margay.dev/margay/fastpath/fib/fibtest"
)

// contender is a longest-prefix table of the comparison.
type contender struct {
	name   string
	load   func([]netip.Prefix) (table any, err error)
	lookup func(table any, in input, out []NextHopID)
}

// input is the same addresses in the form that each contender takes.
type input struct {
	addrs []netip.Addr
	d4    []uint32
	d6    [][2]uint64
}

func newInput(addrs []netip.Addr) input {
	in := input{addrs: addrs}
	for _, a := range addrs {
		if k := keyOf(a); a.Is4() {
			in.d4 = append(in.d4, uint32(k.hi>>32))
		} else {
			in.d6 = append(in.d6, [2]uint64{k.hi, k.lo})
		}
	}
	return in
}

// slice returns the addresses lo to hi.
func (in input) slice(lo, hi int) input {
	out := input{addrs: in.addrs[lo:hi]}
	if in.d4 != nil {
		out.d4 = in.d4[lo:hi]
	} else {
		out.d6 = in.d6[lo:hi]
	}
	return out
}

func loadOurs(routes []netip.Prefix) (any, error) {
	tb := New()
	for i, p := range routes {
		if err := tb.SetRoute(p, NextHopID(i&15+1)); err != nil {
			return nil, err
		}
	}
	tb.Reclaim()
	return tb, nil
}

func lookupOurs(table any, in input, out []NextHopID) {
	var batch Batch
	v := table.(*Table).View()
	if in.d4 != nil {
		batch.Lookup4(v, in.d4, out)
	} else {
		batch.Lookup6(v, in.d6, out)
	}
}

func lookupOursSingle(table any, in input, out []NextHopID) {
	v := table.(*Table).View()
	for i, d := range in.d4 {
		out[i] = v.Lookup4(d)
	}
	for i, d := range in.d6 {
		out[i] = v.Lookup6(d[0], d[1])
	}
}

var contenders = []contender{
	{"ours", loadOurs, lookupOurs},
	{"ours-single", loadOurs, lookupOursSingle},
	{"bart", func(routes []netip.Prefix) (any, error) {
		tb := new(bart.Table[NextHopID])
		for i, p := range routes {
			tb.Insert(p, NextHopID(i&15+1))
		}
		return tb, nil
	}, func(table any, in input, out []NextHopID) {
		tb := table.(*bart.Table[NextHopID])
		for i, a := range in.addrs {
			out[i], _ = tb.Lookup(a)
		}
	}},
	{"bart-fast", func(routes []netip.Prefix) (any, error) {
		tb := new(bart.Fast[NextHopID])
		for i, p := range routes {
			tb.Insert(p, NextHopID(i&15+1))
		}
		return tb, nil
	}, func(table any, in input, out []NextHopID) {
		tb := table.(*bart.Fast[NextHopID])
		for i, a := range in.addrs {
			out[i], _ = tb.Lookup(a)
		}
	}},
}

func human(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%dM", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}

// BenchmarkLookup compares this table with both of bart's: IPv4 and IPv6, by
// routes and by destinations, in vectors of 256. Beside ns per lookup it
// reports what the table costs: bytes per route, seconds to load, and
// milliseconds that a full collection takes longer with the table alive.
func BenchmarkLookup(b *testing.B) {
	for _, fam := range []struct {
		name string
		make func(int, uint64) []netip.Prefix
	}{{"ip4", fibtest.Internet4}, {"ip6", fibtest.Internet6}} {
		for _, n := range []int{1_000, 100_000, 1_000_000} {
			for _, c := range contenders {
				b.Run(fmt.Sprintf("%s/routes=%s/table=%s", fam.name, human(n), c.name), func(b *testing.B) {
					benchTable(b, c, fam.make(n, 1))
				})
			}
		}
	}
}

func benchTable(b *testing.B, c contender, routes []netip.Prefix) {
	heap0, gc0 := collect()
	start := time.Now()
	table, err := c.load(routes)
	if err != nil {
		b.Fatal(err)
	}
	loaded := time.Since(start)
	heap1, gc1 := collect()
	for _, dst := range []int{1_000, 64_000, 1_000_000} {
		b.Run("dst="+human(dst), func(b *testing.B) {
			in := newInput(fibtest.Spread(routes, dst, 2))
			out := make([]NextHopID, BatchMax)
			b.ReportAllocs()
			for b.Loop() {
				for lo := 0; lo < dst; lo += BatchMax {
					part := in.slice(lo, min(lo+BatchMax, dst))
					c.lookup(table, part, out[:len(part.addrs)])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*dst), "ns/lookup")
			b.ReportMetric(float64(heap1-heap0)/float64(len(routes)), "B/route")
			b.ReportMetric(loaded.Seconds(), "load-s")
			b.ReportMetric(float64((gc1-gc0).Microseconds())/1e3, "gc-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
	runtime.KeepAlive(table)
}

// collect returns the live heap and how long one collection takes.
func collect() (uint64, time.Duration) {
	runtime.GC()
	best := time.Hour
	for range 3 {
		start := time.Now()
		runtime.GC()
		best = min(best, time.Since(start))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, best
}

// BenchmarkChange tells what one change of a table of a million IPv4 routes
// takes: of a route's next hop, a route that comes and goes, and the default
// route, which is the worst case as it reaches every cell that has nothing longer.
func BenchmarkChange(b *testing.B) {
	routes := fibtest.Internet4(1_000_000, 1)
	table, err := loadOurs(routes)
	if err != nil {
		b.Fatal(err)
	}
	tb := table.(*Table)
	change := func(p netip.Prefix, nh int) {
		if err := tb.SetRoute(p, NextHopID(nh&15+1)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("next-hop", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			change(routes[i*7919%len(routes)], i)
		}
	})
	b.Run("flap", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			p := routes[i*7919%len(routes)]
			tb.DeleteRoute(p)
			change(p, i)
			tb.Reclaim()
		}
	})
	b.Run("default-route", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			change(netip.PrefixFrom(netip.IPv4Unspecified(), 0), i)
		}
	})
}

// BenchmarkResolve goes from next hop to adjacency, for single ways and groups.
func BenchmarkResolve(b *testing.B) {
	for _, members := range []int{1, 4} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			tb := New()
			for i := range NextHopID(256) {
				if err := tb.SetNextHop(i+1, even(sequence(members)...)); err != nil {
					b.Fatal(err)
				}
			}
			v := tb.View()
			b.ReportAllocs()
			mtu := uint32(0)
			for i := uint32(0); b.Loop(); i++ {
				mtu += v.Adjacency(v.Resolve(NextHopID(i&255+1), i)).MTU
			}
			if mtu != 0 {
				b.Fatal("an adjacency that was never set has an MTU")
			}
		})
	}
}

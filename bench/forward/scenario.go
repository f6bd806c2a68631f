// Package forward is the scenario "graph": what a packet costs in the graph of
// the forwarder, with memory in place of devices.
//
// The cost is that of the real nodes over real tables, received from and sent to
// queues of memory, in vectors of a given size. Frames are written anew before
// they go round, outside of what is timed, as VPP's packet generator writes them
// before its graph reads them; so the packets are in the caches, as far as those
// reach: 1,024 frames fit, 16,384 do not.
//
// Peers are a plain loop for each stage, run in turns with the graph, and the
// published figures of VPP, which are of another machine and another day.
package forward

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib/fibtest"
)

const (
	thousand = 1024
	million  = 1_000_000
	small    = 1024  // frames that circulate: within L2
	large    = 16384 // beyond it
	loop     = "plain-loop"

	caseTime = 5 * time.Second
	loadTime = 9 * time.Second // that a million routes may need on a busy machine
)

// variant is one way to run the graph.
type variant struct {
	ipv6   bool
	routes int // 1 (a covering route, as VPP was measured) or a table like the Internet's
	dst    int // destinations
	vec    int // packets that a receive burst brings
	frames int
	spread bool   // frames do not start at the same offset of their chunk
	node   string // of the graph; empty for all of it
}

func (v variant) String() string {
	parts := []string{"ip4", "64B", fmt.Sprintf("dst=%s", count(v.dst)), fmt.Sprintf("vec=%d", v.vec)}
	if v.ipv6 {
		parts[0] = "ip6"
	}
	if v.routes > 1 {
		parts = append(parts, "routes="+count(v.routes))
	}
	if v.frames != small {
		parts = append(parts, fmt.Sprintf("frames=%dk", v.frames/1024))
	}
	if v.spread {
		parts = append(parts, "layout=spread")
	}
	if v.node != "" {
		parts = append(parts, "node="+v.node)
	}
	return strings.Join(parts, "/")
}

func count(n int) string {
	switch {
	case n >= million:
		return fmt.Sprintf("%dM", n/million)
	case n >= thousand:
		return fmt.Sprintf("%dk", n/thousand)
	}
	return fmt.Sprint(n)
}

// Scenario is graph.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "graph",
		About: "cost of a packet in the graph of nodes, by vector size, destinations and routes",
		Run:   run,
	}
}

// variants lists the cases, those with a budget first. A quick run has no
// time for all.
func variants(quick bool) []variant {
	var all []variant
	both := func(v variant) {
		for _, v.ipv6 = range []bool{false, true} {
			all = append(all, v)
		}
	}
	base := variant{routes: 1, dst: thousand, vec: 256, frames: small}
	for _, vec := range []int{256, 32, 8, 1} {
		v := base
		v.vec = vec
		both(v)
	}
	for _, name := range []string{"eth-input", "ip-input", "route", "rewrite", "tx", engineNode} {
		v := base
		v.node = name
		both(v)
	}
	v := base
	v.frames = large
	both(v)
	v = base
	v.spread = true
	both(v)
	for _, v := range []variant{{routes: 1, dst: 64 * 1024}, {routes: million, dst: million}, {routes: million, dst: thousand}} {
		v.vec, v.frames = 256, small
		both(v)
		if quick {
			continue
		}
		for _, v.vec = range []int{32, 8, 1} {
			both(v)
		}
		v.vec, v.frames = 256, large
		both(v)
	}
	return all
}

// run measures the variants that s wants, table by table: a million routes are
// loaded once for each family.
func run(ctx context.Context, s *harness.Session) error {
	type table struct {
		ipv6   bool
		routes int
	}
	groups, left := map[table][]variant{}, 0
	for _, v := range variants(s.Quick) {
		if s.Wants(v.String()) {
			groups[table{v.ipv6, v.routes}] = append(groups[table{v.ipv6, v.routes}], v)
			left++
		}
	}
	for _, t := range []table{{false, 1}, {false, million}, {true, 1}, {true, million}} {
		if len(groups[t]) == 0 {
			continue
		}
		if t.routes == million && harness.Left(ctx, loadTime) < loadTime {
			skip(s, groups[t])
			continue
		}
		s.Say("load %s routes, IPv6 %v", count(t.routes), t.ipv6)
		rig, err := newRig(ctx, t.ipv6, t.routes)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			skip(s, groups[t])
			continue
		}
		for i, v := range groups[t] {
			if ctx.Err() != nil {
				skip(s, groups[t][i:])
				break
			}
			if err := rig.measure(ctx, s, v, s.Share(ctx, left, caseTime)); err != nil {
				rig.bed.close()
				return fmt.Errorf("%s: %w", v, err)
			}
			left--
		}
		rig.bed.close()
	}
	return nil
}

// skip reports cases for which no time was left.
func skip(s *harness.Session, vs []variant) {
	for _, v := range vs {
		s.Report(harness.New(v.String(), metric(), nil, loop, nil, budget(v), "no time was left for this case: run it alone with --filter"))
	}
}

func metric() harness.Metric { return harness.Metric{Name: "ns_per_packet", Unit: "ns"} }

// table draws the routes of a variant and destinations in them.
func table(ipv6 bool, routes int) []netip.Prefix {
	switch {
	case routes == 1 && ipv6:
		return []netip.Prefix{netip.MustParsePrefix("2001:db8:2000::/36")}
	case routes == 1:
		return []netip.Prefix{netip.MustParsePrefix("20.0.0.0/8")}
	case ipv6:
		return fibtest.Internet6(routes, 1)
	}
	return fibtest.Internet4(routes, 1)
}

// destinations draws n addresses in routes that a router forwards to.
func destinations(routes []netip.Prefix, n int) []netip.Addr {
	var out []netip.Addr
	for seed := uint64(2); len(out) < n; seed++ {
		for _, a := range fibtest.Spread(routes, n, seed) {
			if b := a.AsSlice(); len(out) < n && (a.Is6() || b[0] != 127 && (b[0] != 169 || b[1] != 254)) {
				out = append(out, a)
			}
		}
	}
	return out
}

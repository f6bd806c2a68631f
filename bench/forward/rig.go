package forward

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/bench/harness"
)

// engineNode stands for what is no node: receiving, walking, transmitting.
const engineNode = "engine"

// rig is the graph and its plain peer over the same routes.
type rig struct {
	bed    *bed
	plain  *byhand.Loop
	why    string // there is no plain peer
	routes []netip.Prefix
	dsts   map[int][]netip.Addr // by how many they are
}

func newRig(ctx context.Context, ipv6 bool, routes int) (*rig, error) {
	r := &rig{routes: table(ipv6, routes), dsts: map[int][]netip.Addr{}}
	var err error
	if r.bed, err = newBed(ctx, ipv6, r.routes, large); err != nil {
		return nil, err
	}
	if ipv6 && routes > 1 {
		r.why = "a million IPv6 routes in its trie of 8-bit steps would take gigabytes"
		return r, nil
	}
	r.plain = byhand.NewLoop(ipv6, r.routes, ourMAC(), peerMAC())
	return r, nil
}

// measure runs one variant and reports it against each peer.
func (r *rig) measure(ctx context.Context, s *harness.Session, v variant, d time.Duration) error {
	st := newStream(r.bed.arena, v.frames, r.destinations(v.dst), v.spread)
	sides := []harness.Side{{Name: "ours", Window: func(d time.Duration) float64 { return r.bed.nanos(st, v.vec, d) }}}
	if v.node != "" {
		sides[0].Window = func(d time.Duration) float64 { return r.bed.nodeNanos(v.node, st, v.vec, d) }
	} else if r.plain != nil {
		sides = append(sides, harness.Side{Name: loop, Window: func(d time.Duration) float64 { return floor(r.plain, st, v.vec, d) }})
	}
	turns := s.Meter.Compare(ctx, d, sides...)
	allocs := harness.Allocations(4*v.frames, func() {
		for range 4 {
			r.bed.round(st, v.vec)
		}
	})
	if err := r.check(); err != nil {
		return err
	}
	ours := turns.Sides[0]
	if ours == nil {
		skip(s, []variant{v})
		return nil
	}
	s.Say("%-50s %.1f ns", v, ours.Median)
	report := func(peer string, theirs *harness.Estimate, why string) {
		res := harness.New(v.String(), metric(), ours, peer, theirs, budget(v), why)
		if least := share(v); least != 0 && peer == loop && theirs != nil {
			res.WantRatio(least)
		}
		res.Allocs, res.Noise = &allocs, &turns.Noise
		s.Report(res)
	}
	p := published(v)
	switch {
	case len(turns.Sides) > 1:
		report(loop, turns.Sides[1], "")
	case v.node == "":
		report(loop, nil, r.why)
	case p == 0:
		report("", nil, "")
	}
	if p != 0 {
		report(vpp, harness.Published(p), "")
	}
	return nil
}

// floor is what a packet of s costs in the plain loop.
func floor(p *byhand.Loop, s *stream, vec int, d time.Duration) float64 {
	return byhand.Nanos(len(s.metas), d, func() time.Duration {
		s.write()
		start := time.Now()
		p.Forward(s.mem, s.metas, vec)
		return time.Since(start)
	})
}

// destinations draws n of them once: a million take a while.
func (r *rig) destinations(n int) []netip.Addr {
	if r.dsts[n] == nil {
		r.dsts[n] = destinations(r.routes, n)
	}
	return r.dsts[n]
}

// check says whether both sides forwarded all that they were given.
func (r *rig) check() error {
	if r.plain != nil && r.plain.Bad > 0 {
		return fmt.Errorf("the plain loop found fault with %d of %d frames", r.plain.Bad, r.plain.Bad+r.plain.Sent)
	}
	return r.bed.check()
}

// nodeNanos is what a packet costs in one node: the engine takes the time of
// each node in one pass of sixteen. That of engineNode is what is left over.
func (b *bed) nodeNanos(name string, s *stream, vec int, d time.Duration) float64 {
	before := b.engine.Stats()[0].Nodes
	total := b.nanos(s, vec, d)
	after := b.engine.Stats()[0].Nodes
	for i, n := range b.nodes {
		packets := after[i].SampledPackets - before[i].SampledPackets
		if packets == 0 {
			continue
		}
		cost := float64(after[i].SampledNanos-before[i].SampledNanos) / float64(packets)
		if n == name {
			return cost
		}
		total -= cost
	}
	return total
}

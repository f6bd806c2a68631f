package classifier

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// merged sorts ranges and joins those that touch; none means everything up to last.
func merged(ranges []Range, last uint16) []Range {
	if len(ranges) == 0 {
		return []Range{{0, last}}
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return int(a.First) - int(b.First) })
	out := sorted[:1]
	for _, r := range sorted[1:] {
		if end := &out[len(out)-1]; int(r.First) <= int(end.Last)+1 {
			end.Last = max(end.Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// expand appends the items of one rule: one for each combination of ranges. It
// refuses to go over limit items in all.
func expand(items []cut.Item, r *Rule, rank uint32, source, destination []cut.Span, limit int) ([]cut.Item, error) {
	sports, dports := merged(r.Source.Ports, 1<<16-1), merged(r.Destination.Ports, 1<<16-1)
	protocols := merged(r.Protocols, 255)
	hi, n := bits.Mul64(uint64(len(source))*uint64(len(destination)), uint64(len(sports))*uint64(len(dports))*uint64(len(protocols)))
	if hi != 0 || n > uint64(limit-len(items)) {
		return nil, fmt.Errorf("rule %d (id %d) makes %d boxes beside %d before it, the budget has room for %d: split its ports or raise the budget",
			rank, r.ID, n, len(items), limit)
	}
	for _, s := range source {
		for _, d := range destination {
			for _, sp := range sports {
				for _, dp := range dports {
					for _, p := range protocols {
						items = append(items, cut.Item{
							Lo:   [cut.NumFields]uint32{s.Lo, d.Lo, uint32(sp.First), uint32(dp.First), uint32(p.First)},
							Hi:   [cut.NumFields]uint32{s.Hi, d.Hi, uint32(sp.Last), uint32(dp.Last), uint32(p.Last)},
							Rank: rank,
						})
					}
				}
			}
		}
	}
	return items, nil
}

// literal reports whether a list can be judged by raw IPv4 addresses: no sets,
// nothing excluded, at most one prefix a side, and none of them IPv6.
func literal(list []Rule) bool {
	for i := range list {
		for _, s := range []*Side{&list[i].Source, &list[i].Destination} {
			if len(s.Nets) > 1 || len(s.NotNets)+len(s.Sets)+len(s.NotSets) > 0 || len(s.Nets) == 1 && !s.Nets[0].Addr().Is4() {
				return false
			}
		}
	}
	return true
}

// addresses is the range of IPv4 addresses that a side of a literal list asks for.
func addresses(nets []netip.Prefix) []cut.Span {
	if len(nets) == 0 {
		return []cut.Span{{Hi: 1<<32 - 1}}
	}
	a := nets[0].Masked().Addr().As4()
	lo := binary.BigEndian.Uint32(a[:])
	return []cut.Span{{Lo: lo, Hi: lo | uint32(uint64(1)<<(32-nets[0].Bits())-1)}}
}

package classifier

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// boxOf packs an item for the walkers.
func boxOf(it *cut.Item) box {
	return box{
		src: it.Lo[cut.Source], srcSpan: it.Hi[cut.Source] - it.Lo[cut.Source],
		dst: it.Lo[cut.Destination], dstSpan: it.Hi[cut.Destination] - it.Lo[cut.Destination],
		sport: uint16(it.Lo[cut.SourcePort]), sportSpan: uint16(it.Hi[cut.SourcePort] - it.Lo[cut.SourcePort]),
		dport: uint16(it.Lo[cut.DestinationPort]), dportSpan: uint16(it.Hi[cut.DestinationPort] - it.Lo[cut.DestinationPort]),
		proto: uint16(it.Lo[cut.Protocol]), protoSpan: uint16(it.Hi[cut.Protocol] - it.Lo[cut.Protocol]),
		rankLow: uint16(it.Rank), rankHigh: uint16(it.Rank >> 16),
	}
}

// span32 is a range of addresses or of local classes.
type span32 struct{ lo, hi uint32 }

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
func expand(items []cut.Item, r *Rule, rank uint32, source, destination []span32, limit int) ([]cut.Item, error) {
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
							Lo:   [cut.NumFields]uint32{s.lo, d.lo, uint32(sp.First), uint32(dp.First), uint32(p.First)},
							Hi:   [cut.NumFields]uint32{s.hi, d.hi, uint32(sp.Last), uint32(dp.Last), uint32(p.Last)},
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
func addresses(nets []netip.Prefix) []span32 {
	if len(nets) == 0 {
		return []span32{{0, 1<<32 - 1}}
	}
	a := nets[0].Masked().Addr().As4()
	lo := binary.BigEndian.Uint32(a[:])
	return []span32{{lo, lo | uint32(uint64(1)<<(32-nets[0].Bits())-1)}}
}

package classifier

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// The fields of a key, in the order in which items keep them.
const (
	fieldSource = iota
	fieldDestination
	fieldSourcePort
	fieldDestinationPort
	fieldProtocol
	numFields
)

// fields says where each field lies in a key.
var fields = [numFields]struct {
	word, offset uint
	bits         int
}{{0, 32, 32}, {0, 0, 32}, {1, 16, 16}, {1, 0, 16}, {1, 32, 8}}

// item is a box as the compiler handles it: a range in each field, both ends
// included, and the rank of the rule that it is (part of).
type item struct {
	lo, hi [numFields]uint32
	rank   uint32
}

// box packs an item for the walkers.
func (it *item) box() box {
	return box{
		src: it.lo[fieldSource], srcSpan: it.hi[fieldSource] - it.lo[fieldSource],
		dst: it.lo[fieldDestination], dstSpan: it.hi[fieldDestination] - it.lo[fieldDestination],
		sport: uint16(it.lo[fieldSourcePort]), sportSpan: uint16(it.hi[fieldSourcePort] - it.lo[fieldSourcePort]),
		dport: uint16(it.lo[fieldDestinationPort]), dportSpan: uint16(it.hi[fieldDestinationPort] - it.lo[fieldDestinationPort]),
		proto: uint16(it.lo[fieldProtocol]), protoSpan: uint16(it.hi[fieldProtocol] - it.lo[fieldProtocol]),
		rankLow: uint16(it.rank), rankHigh: uint16(it.rank >> 16),
	}
}

// significant are the bits of a field that decide whether a value is in [lo, hi]:
// the leading ones of a prefix, all of any other range.
func significant(lo, hi uint32) uint32 {
	if x := lo ^ hi; x&(x+1) == 0 && lo&x == 0 {
		return ^x
	}
	return 1<<32 - 1
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
func expand(items []item, r *Rule, rank uint32, source, destination []span32, limit int) ([]item, error) {
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
						items = append(items, item{
							lo:   [numFields]uint32{s.lo, d.lo, uint32(sp.First), uint32(dp.First), uint32(p.First)},
							hi:   [numFields]uint32{s.hi, d.hi, uint32(sp.Last), uint32(dp.Last), uint32(p.Last)},
							rank: rank,
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

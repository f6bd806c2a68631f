// Package fibtest draws routing tables like the Internet's and destinations in
// them, the same ones for the same seed: for tests and benchmarks.
package fibtest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// mix4 is the lengths of the Internet's IPv4 routes, in tenths of a percent.
func mix4() map[int]int {
	return map[int]int{
		24: 590, 22: 110, 23: 100, 21: 50, 20: 45, 19: 35, 18: 20, 17: 15, 16: 20, 15: 5, 14: 4, 13: 3, 12: 2, 11: 1,
	}
}

// mix6 is the same for IPv6, with the /128 and /64 of a cluster beside it.
func mix6() map[int]int {
	return map[int]int{
		48: 450, 32: 120, 44: 80, 40: 70, 36: 50, 29: 40, 46: 40, 42: 30, 64: 60, 128: 40, 56: 20,
	}
}

func lengthList(mix map[int]int) []int {
	var out []int
	for n := range 129 {
		for range mix[n] {
			out = append(out, n)
		}
	}
	return out
}

// Internet4 draws n distinct IPv4 prefixes, spread over all of unicast space.
func Internet4(n int, seed uint64) []netip.Prefix {
	list := lengthList(mix4())
	return distinct(n, seed, func(r *rand.Rand) netip.Prefix {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 1<<24+r.Uint32N(223<<24))
		return netip.PrefixFrom(netip.AddrFrom4(b), list[r.IntN(len(list))])
	})
}

// Internet6 draws n distinct IPv6 prefixes under 2000::/3.
func Internet6(n int, seed uint64) []netip.Prefix {
	list := lengthList(mix6())
	return distinct(n, seed, func(r *rand.Rand) netip.Prefix {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], 1<<61|r.Uint64N(16)<<52|r.Uint64()&(1<<52-1))
		binary.BigEndian.PutUint64(b[8:], r.Uint64())
		return netip.PrefixFrom(netip.AddrFrom16(b), list[r.IntN(len(list))])
	})
}

func distinct(n int, seed uint64, draw func(*rand.Rand) netip.Prefix) []netip.Prefix {
	r := rand.New(rand.NewPCG(seed, 0))
	seen := make(map[netip.Prefix]struct{}, n)
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		p := draw(r).Masked()
		if _, dup := seen[p]; !dup {
			seen[p] = struct{}{}
			out = append(out, p)
		}
	}
	return out
}

// Spread draws n addresses, each in one of the prefixes.
func Spread(prefixes []netip.Prefix, n int, seed uint64) []netip.Addr {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]netip.Addr, n)
	for i := range out {
		p := prefixes[r.IntN(len(prefixes))]
		b, at := p.Addr().AsSlice(), p.Bits()/8
		if at < len(b) {
			b[at] |= byte(r.Uint32()) >> (p.Bits() % 8)
		}
		for j := at + 1; j < len(b); j++ {
			b[j] = byte(r.Uint32())
		}
		out[i], _ = netip.AddrFromSlice(b)
	}
	return out
}

package lookup

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/label"
)

// setSizes is so many sets, with so many members at least and at most.
type setSizes struct{ sets, least, most int }

// shape is the sets of a large installation.
func shape() []setSizes {
	return []setSizes{
		{3035, 1, 9}, {446, 10, 99}, {64, 100, 999}, {158, 1000, 3100}, {1, 54_566, 54_566},
	}
}

// memberships draws the members of sets of that shape: mostly hosts in a few
// thousand nets, now and then a net; one in eight is in another set already. The
// same seed draws the same.
func memberships(ipv6 bool, seed uint64, shape []setSizes) []label.Change {
	r := rand.New(rand.NewPCG(seed, 3))
	var all []label.Change
	set := classifier.SetID(0)
	for _, s := range shape {
		for range s.sets {
			set++
			seen := make(map[netip.Prefix]struct{})
			for n := s.least + r.IntN(s.most-s.least+1); len(seen) < n; {
				p := host(r, ipv6)
				switch {
				case r.IntN(8) == 0 && len(all) > 0:
					p = all[r.IntN(len(all))].Prefix
				case r.IntN(50) == 0:
					p = netip.PrefixFrom(p.Addr(), p.Bits()-4-r.IntN(5)).Masked()
				}
				if _, twice := seen[p]; !twice {
					seen[p] = struct{}{}
					all = append(all, label.Change{Set: set, Prefix: p})
				}
			}
		}
	}
	return all
}

// host draws an address of a cluster of 8,192 nets of 256.
func host(r *rand.Rand, ipv6 bool) netip.Prefix {
	n := r.Uint32N(8192 << 8)
	if ipv6 {
		b := [16]byte{0xfd, 0, 0x10}
		binary.BigEndian.PutUint16(b[6:], uint16(n>>8))
		b[15] = byte(n)
		return netip.PrefixFrom(netip.AddrFrom16(b), 128)
	}
	b := [4]byte{}
	binary.BigEndian.PutUint32(b[:], 10<<24|n)
	return netip.PrefixFrom(netip.AddrFrom4(b), 32)
}

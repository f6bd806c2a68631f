package kubernetes

import (
	"math/rand/v2"
	"slices"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// TestMergedPortsAreTheSamePorts compares ranges with a list of all ports, at both
// ends of the numbers there are.
func TestMergedPortsAreTheSamePorts(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, 1))}
	for range 500 {
		var in []v3.Port
		var all [1 << 16]bool
		for range d.IntN(12) {
			first := one[uint16](d, 1, 65500) + uint16(d.IntN(30))
			last := first + uint16(d.IntN(6))*uint16(d.IntN(2))
			in = append(in, v3.PortRange(first, last))
			for p := int(first); p <= int(last); p++ {
				all[p] = true
			}
		}
		ranges := 0
		for p := range all {
			if all[p] && !all[p-1] {
				ranges++
			}
		}
		got := mergePorts(slices.Clone(in))
		if len(got) != ranges {
			t.Fatalf("%v became %v, want %d ranges", in, got, ranges)
		}
		for _, r := range got {
			for p := int(r.MinPort); p <= int(r.MaxPort); p++ {
				if !all[p] {
					t.Fatalf("%v became %v, with %d", in, got, p)
				}
				all[p] = false
			}
		}
		if slices.Contains(all[:], true) {
			t.Fatalf("%v became %v, without all of them", in, got)
		}
	}
}

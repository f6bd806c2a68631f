package flow

import (
	"testing"

	"margay.dev/margay/internal/pkt"
)

// A decision that still holds gets a later generation, and other next hops if need be:
// by whoever is first.
func TestRenew(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		p := opener(v6, pkt.ProtoUDP, 1)
		first := Decision{Verdict: [2]uint32{1, 2}, Class: [2]uint32{3, 4}, NextHop: [2]uint32{5, 6}, Asked: [2]uint32{7, 8}, Generation: 9}
		w := table.Worker(0)
		ref := w.Insert(0, &p, &Start{Reverse: p.Key.Reverse(), Decision: first}).Ref
		late := first
		want := first
		for _, next := range []struct {
			hops       [2]uint32
			generation uint64
		}{{first.NextHop, 10}, {[2]uint32{5, 60}, 11}, {[2]uint32{50, 60}, 1 << 62}} {
			d := want
			want.NextHop, want.Generation = next.hops, next.generation
			if !table.Renew(ref, &d, next.hops, next.generation) || d != want {
				t.Errorf("%s: renewed it is %+v, want %+v", family(v6), d, want)
			}
			if d, ok := table.Decision(ref); !ok || d != want {
				t.Errorf("%s: the table has %+v, %v, want %+v", family(v6), d, ok, want)
			}
			for _, hops := range [][2]uint32{late.NextHop, {70, 70}} {
				d := late
				if table.Renew(ref, &d, hops, 1<<61) {
					t.Errorf("%s: one that was too late has renewed it", family(v6))
				}
			}
			if d, ok := table.Decision(ref); !ok || d != want {
				t.Errorf("%s: after one that was too late the table has %+v, %v, want %+v", family(v6), d, ok, want)
			}
		}
		var out [1]Result
		if w.Lookup(0, []Packet{p}, out[:]); out[0].NextHop != 50 || out[0].Back != 60 || out[0].Verdict != first.Verdicts() || out[0].Generation != 1<<62 {
			t.Errorf("%s: a packet is told %+v", family(v6), out[0])
		}
	}
}

package flow

import (
	"testing"

	"margay.dev/margay/internal/pkt"
)

// In parts of any size, Scan tells what All does, in its order.
func TestScanIsAllInParts(t *testing.T) {
	table := newTable(t, nil)
	w := table.Worker(0)
	for i := range uint32(300) {
		open(w, 0, opener(int(i%2), pkt.ProtoTCP, i), i%16)
	}
	table.Advance(0, 1<<20)
	for f := range table.All(0) { // holes
		if _, port := f.Key[1].Ports(); port%7 == 0 {
			table.Retire(f)
		}
	}
	var want []Flow
	for f := range table.All(3) {
		want = append(want, f)
	}
	if len(want) < 200 || len(want) == 300 {
		t.Fatalf("%d flows of 300 are left, want some holes", len(want))
	}
	for _, places := range []int{1, 2, 7, 100, 300, 1 << 20} {
		var got []Flow
		parts := 0
		for next := uint32(0); parts == 0 || next != 0; parts++ {
			at := len(got)
			next = table.Scan(next, places, 3, func(f Flow) bool {
				got = append(got, f)
				return len(got)%5 != 0 // and stops now and then
			})
			if len(got)-at > places {
				t.Fatalf("%d flows in %d places", len(got)-at, places)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("in parts of %d: %d flows, want %d", places, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("in parts of %d: flow %d is %v, want %v", places, i, got[i], want[i])
			}
		}
		if most := (300+places-1)/places + len(want)/5 + 1; parts > most {
			t.Errorf("%d parts of %d", parts, places)
		}
	}
	if next := newTable(t, nil).Scan(0, 10, 0, func(Flow) bool { t.Error("an empty table has a flow"); return true }); next != 0 {
		t.Errorf("an empty table goes on at %d", next)
	}
	if next := table.Scan(1<<31, 10, 0, func(Flow) bool { t.Error("a flow behind the last"); return true }); next != 0 {
		t.Errorf("behind the last place it goes on at %d", next)
	}
}

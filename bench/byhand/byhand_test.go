package byhand

import (
	"testing"
	"time"
	"unsafe"

	"margay.dev/margay/fastpath/graph"
)

// Both sides pay for the same memory.
func TestLoopMetaIsACacheLine(t *testing.T) {
	if got, want := unsafe.Sizeof(loopMeta{}), unsafe.Sizeof(graph.Meta{}); got != want {
		t.Errorf("it has %d bytes, graph.Meta %d", got, want)
	}
}

func TestQueueHandsOutWhatItWasGiven(t *testing.T) {
	var q Queue
	given := make([]graph.Meta, 10)
	for i := range given {
		given[i].Off = uint32(i)
	}
	q.Give(given, 4)
	into, seen := make([]graph.Meta, 256), uint32(0)
	for _, want := range []int{4, 4, 2, 0} {
		n := q.RxBurst(nil, into)
		if n != want {
			t.Fatalf("handed out %d packets, want %d", n, want)
		}
		for _, m := range into[:n] {
			if m.Off != seen {
				t.Errorf("packet %d came where %d was due", m.Off, seen)
			}
			seen++
		}
	}
}

func TestNanosIsTheMeanOfItsRounds(t *testing.T) {
	rounds := 0
	got := Nanos(10, 5*time.Microsecond, func() time.Duration { rounds++; return time.Duration(rounds) * time.Microsecond })
	if rounds != 3 || got != 200 { // 1 + 2 + 3 us over 30 packets
		t.Errorf("%d rounds came to %v ns, want 3 and 200", rounds, got)
	}
}

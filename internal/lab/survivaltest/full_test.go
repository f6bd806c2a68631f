package survivaltest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// dropped is what a node's forwarder dropped since was.
func (w *world) dropped(node string, was map[string]uint64) map[string]uint64 {
	w.t.Helper()
	now := w.counters(node).Drops
	maps.DeleteFunc(now, func(reason string, n uint64) bool { return n == was[reason] })
	for reason := range now {
		now[reason] -= was[reason]
	}
	return now
}

// only wants packets to have been dropped for no other than these reasons.
func (w *world) only(node string, was map[string]uint64, reasons ...string) {
	w.t.Helper()
	drops := w.dropped(node, was)
	w.t.Logf("%s dropped %v", node, drops)
	for reason, packets := range drops {
		if !slices.Contains(reasons, reason) {
			w.t.Errorf("%s dropped %d packets for %s, want only %v", node, packets, reason, reasons)
		}
	}
}

// reasons are what overload may be told as. Kernels send a multicast or two of
// their own, which nobody forwards; and where a socket was closed with data unread, whose
// reset was lost, they answer old segments by resets that no receiver would take.
var reasons = []string{"tx-full", "tx-no-buffer", "rx-no-buffer", "ip-multicast", "flow-bad-reset"}

// A pod that does not read, and one that sends more than there is room for,
// take nothing from others.
func TestFullQueues(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			w := raise(t, workers, nil)
			w.everybody()
			w.run("ann", "ip", "link", "set", "eth0", "txqueuelen", "2")
			drops := map[string]map[string]uint64{"north": w.counters("north").Drops, "south": w.counters("south").Drops}
			others := []*pinging{w.pingPods("dave", "cleo", false), w.pingPods("dave", "cleo", true), w.pingPods("cleo", "dave", true)}
			stalled := w.tcp("ann", "cleo", true)
			stalled.goesOn(w)
			stalled.stall.Store(true)
			a, b := w.sockets("ann", "cleo", false) // which nobody reads
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				if err := flood(a, 20_000); err != nil {
					t.Fatal(err)
				}
			}
			a.Close()
			b.Close()
			for _, p := range others {
				p.none(t)
			}
			w.run("ann", "ip", "link", "set", "eth0", "txqueuelen", "500")
			stalled.stall.Store(false)
			was := stalled.received.Load()
			w.eventually("more is read than buffers of sockets hold", func() bool { return stalled.received.Load() > was+16<<20 })
			stalled.end()
			stalled.unbent(t)
			w.balanced()
			for node, was := range drops {
				w.only(node, was, reasons...)
			}
			w.everybody()
		})
	}
}

// With hardly more frames than the fill rings take, packets are lost under load
// and told as such, and nothing is when the load is gone.
func TestStarvedOfFrames(t *testing.T) {
	for _, frames := range []int{512, 2048} {
		t.Run(fmt.Sprintf("%d frames", frames), func(t *testing.T) {
			w := raise(t, 1, func(node string) map[string]any {
				if node == "south" {
					return nil
				}
				return map[string]any{"frames": frames, "supers": 32}
			})
			w.everybody()
			was := w.counters("north").Drops
			w.flooded("ann", "cleo")
			w.flooded("dave", "amy")
			w.flooded("amy", "ann")
			w.balanced()
			w.only("north", was, reasons...)
			t.Logf("uplink: %v", w.port("north", "link-uplink").GetDriver())
			w.everybody()
			w.balanced()
		})
	}
}

// flooded sends as much as goes for a while.
func (w *world) flooded(from, to string) {
	w.t.Helper()
	a, b := w.sockets(from, to, false)
	defer a.Close()
	defer b.Close()
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if err := flood(a, 20_000); err != nil {
			w.t.Fatal(err)
		}
	}
	w.quiet(b)
}

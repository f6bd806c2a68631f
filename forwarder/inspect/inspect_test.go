package inspect

import (
	"fmt"
	"math"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestEachWorkerHasItsOwnPinError(t *testing.T) {
	b := planetest.New(t, plane.Config{Workers: 3, CPUs: []int{100_000, 0, 100_002}})
	s := NewServer(b.Plane, Facts{})
	var workers []*pb.WorkerList_Worker
	hostnettest.Eventually(t, "two workers are told not to be on their CPU", func() bool {
		list, err := s.ListWorkers(t.Context(), &pb.ListWorkersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		workers = list.Workers
		return workers[0].Error != "" && workers[2].Error != ""
	})
	for i, want := range []string{"CPU 100000", "", "CPU 100002"} {
		if got := workers[i].Error; (got == "") != (want == "") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("worker %d says %q, want one line with %q", i, got, want)
		}
	}
}

// TestEveryCounterIsShown gives each counter of the engine a number of its own and
// looks for it where inspection shows that counter. One that the engine gains and
// nobody shows fails.
func TestEveryCounterIsShown(t *testing.T) {
	s := graph.Stats{Nodes: make([]graph.NodeCounters, 1), Ports: make([]graph.PortCounters, 1)}
	counted := graphtest.Number(&s)
	all := shown(s)
	for path, want := range counted {
		switch got, ok := all[path]; {
		case !ok:
			t.Errorf("the engine counts %s, which inspection does not show", path)
		case math.Abs(got-float64(want)) > 1e-6:
			t.Errorf("%s is %d, shown as %v", path, want, got)
		}
	}
	for path := range all {
		if _, ok := counted[path]; !ok {
			t.Errorf("%s is looked for, and the engine counts no such thing", path)
		}
	}
}

// shown reads every counter of s back from the answers.
func shown(s graph.Stats) map[string]float64 {
	n, p, w := nodeOf("route", s.Nodes[0]), portOf(plane.PortState{Counters: s.Ports[0]}), worker(3, s)
	a := drops(s.Counters).Account
	out := map[string]float64{
		"Counters.Rx": float64(a.Rx), "Counters.Tx": float64(a.Tx), "Counters.Punt": float64(a.Punt), "Counters.Held": float64(a.Held),
		"Counters.MadeRefused": float64(a.MadeRefused),
		"Nodes[0].Calls":       float64(n.Calls), "Nodes[0].Packets": float64(n.Packets),
		"Nodes[0].SampledNanos": float64(n.SampledNanos), "Nodes[0].SampledPackets": float64(n.SampledPackets),
		"Ports[0].RxPackets": float64(p.RxPackets), "Ports[0].RxBytes": float64(p.RxBytes),
		"Ports[0].TxPackets": float64(p.TxPackets), "Ports[0].TxBytes": float64(p.TxBytes), "Ports[0].TxDrops": float64(p.TxDrops),
		"Load.Loops": float64(w.Loops), "Load.BusyLoops": float64(w.BusyLoops), "Load.Sleeps": float64(w.Sleeps),
		"Load.BusyNanos": float64(w.BusyNanos), "Load.Elapsed": float64(w.ElapsedNanos),
	}
	for o := range graph.Origins {
		out[fmt.Sprintf("Counters.Made[%d]", o)] = float64(a.Made[graph.Origin(o).String()])
	}
	for u := range graph.Uses {
		out[fmt.Sprintf("Counters.Consumed[%d]", u)] = float64(a.Consumed[graph.Use(u).String()])
	}
	told := map[string]uint64{}
	for _, d := range drops(s.Counters).Drops {
		told[d.Reason] = d.Packets
	}
	for r := range graph.Reasons {
		out[fmt.Sprintf("Counters.Drops[%d]", r)] = float64(told[graph.Reason(r).String()])
	}
	return out
}

package policytest

import (
	"context"
	"slices"
	"testing"
	"time"

	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
)

// TestOverTheLab plays the cases in one lab, which takes a while to raise.
func TestOverTheLab(t *testing.T) {
	w := raise(t, cyclonus(t))
	t.Run("with policy off, what refuses fails", w.policyOff)
	t.Run("with kernel filters, nothing fails", w.kernelFilters)
	t.Run("with policy of ours, nothing fails", w.ours)
	t.Run("a dead node refuses nobody", w.deadNode) // the last: it stays dead
}

// policyOff plays every case against forwarders without policy. What is put in
// force makes no difference to them, so the network is probed once, between all
// pods that any case knows, and every step is told what was found then.
func (w *world) policyOff(t *testing.T) {
	s, prober := w.suite, w.prober(t, probe.Options{})
	for _, n := range w.Topology().Nodes { // the kernel must not take the credit
		if err := w.KernelForwardsNothing(n.Name); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	found, err := prober.Ask(t.Context(), all(s.World))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d conversations probed in %v", len(found), time.Since(began).Round(time.Millisecond))
	if d := truth.Compare(allAllowed(found), found); d != nil {
		t.Fatalf("with policy off not everybody reaches everybody: %v", d)
	}
	nothing := func(context.Context, truth.State) error { return nil }
	known := func(_ context.Context, queries []truth.Query) (truth.Table, error) {
		out := truth.Table{}
		for _, q := range queries {
			out[q] = found[q]
		}
		return out, nil
	}
	failed := map[truth.Family]map[int]bool{4: {}, 6: {}}
	ids := map[int]bool{}
	for i := range s.Cases {
		c := &s.Cases[i]
		ids[c.ID] = true
		faults, err := c.Play(t.Context(), nothing, known)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			for _, q := range f.Queries {
				if f.Want[q] != truth.Refused {
					t.Errorf("%v: an open network does not allow %v", f, q)
				}
				if c.Around == 0 || c.Around == q.Family {
					failed[q.Family][c.ID] = true
				}
			}
		}
	}
	if len(ids) != 230 || len(failed[4]) != 219 || len(failed[6]) != 223 {
		t.Errorf("of %d cases %d fail by IPv4 and %d by IPv6, want 219 and 223 of 230", len(ids), len(failed[4]), len(failed[6]))
	}
	var six []int
	for id := range failed[6] {
		if !failed[4][id] {
			six = append(six, id)
		}
	}
	// These four allow everybody by 0.0.0.0/0, which is nobody by IPv6.
	if slices.Sort(six); !slices.Equal(six, []int{205, 207, 209, 211}) {
		t.Errorf("cases %v fail by IPv6 alone, want 205, 207, 209 and 211", six)
	}
}

func allAllowed(t truth.Table) truth.Table {
	out := truth.Table{}
	for q := range t {
		out[q] = truth.Allowed
	}
	return out
}

// deadNode takes a node's forwarder away: no pod of its own can be told from one
// that refuses, and the prober must not.
func (w *world) deadNode(t *testing.T) {
	prober := w.prober(t, probe.Options{Limit: time.Second})
	if err := w.StopForwarder("east", true); err != nil {
		t.Fatal(err)
	}
	node := map[string]string{}
	for _, p := range w.suite.World.Pods {
		node[p.Key()] = p.Node
	}
	var queries []truth.Query
	want := truth.Table{}
	for _, q := range all(w.suite.World) {
		if node[q.From] == "west" && q.Port == 80 {
			queries = append(queries, q)
			want[q] = truth.Allowed
			if node[q.To] == "east" {
				want[q] = truth.Unknown
			}
		}
	}
	got, err := prober.Ask(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	if d := truth.Compare(want, got); d != nil {
		t.Error(d)
	}
}

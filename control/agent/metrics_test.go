package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"margay.dev/margay/control/converge"
)

// Times are shown in seconds, by the bounds in which they were counted.
func TestTimesAreShownInSeconds(t *testing.T) {
	a := &Agent{kernel: &kernel{}, errors: new(atomic.Uint64)}
	a.errors.Add(3)
	a.kernel.refused.Add(2)
	c := a.collector().(*collector)
	c.ask = func(context.Context) (s converge.Stats, err error) {
		s.Events = 7
		s.Calculated(250 * time.Microsecond)
		s.Applied(2*time.Second, 1)
		s.Applied(time.Minute, 2)
		return s, nil
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	type spread struct {
		count uint64
		sum   float64
		bound float64 // the least under which all but what is beyond all bounds is
	}
	want := map[string]spread{
		"felix_calc_graph_update_time_seconds":   {1, 0.00025, 0.0003},
		"felix_int_dataplane_apply_time_seconds": {2, 62, 3},
		"felix_int_dataplane_msg_batch_size":     {1, 7, 10},
	}
	values := map[string]float64{"felix_log_errors": 3, "felix_nft_errors": 2}
	for _, f := range families {
		m := f.GetMetric()[0]
		if v, ok := values[f.GetName()]; ok && m.GetCounter().GetValue() != v {
			t.Errorf("%s is %v, want %v", f.GetName(), m.GetCounter().GetValue(), v)
		}
		w, ok := want[f.GetName()]
		if !ok {
			continue
		}
		h, got := m.GetHistogram(), spread{}
		for i := len(h.GetBucket()) - 1; i >= 0 && h.GetBucket()[i].GetCumulativeCount() > 0; i-- {
			got.bound = h.GetBucket()[i].GetUpperBound()
		}
		if got.count, got.sum = h.GetSampleCount(), h.GetSampleSum(); got.count != w.count || got.bound != w.bound || got.sum < w.sum*0.999 || got.sum > w.sum*1.001 {
			t.Errorf("%s is %+v, want %+v", f.GetName(), got, w)
		}
		delete(want, f.GetName())
	}
	if len(want) > 0 {
		t.Errorf("not shown are %v", want)
	}
}

package guard

import (
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"margay.dev/margay/policy"
)

// What does not fit, and how programs come about, is there for Prometheus.
func TestMetrics(t *testing.T) {
	g, p := New("here"), newPlane(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(g.Collector())
	show := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += "/" + l.GetValue()
				}
				out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		return out
	}
	want := func(programs, compiled, refused float64) {
		t.Helper()
		all := map[string]float64{
			"margay_policy_programs": programs, "margay_policy_endpoints_refused": refused, "margay_policy_programs_made_total/compiled": compiled,
			"margay_policy_programs_made_total/edited": 0, "margay_policy_programs_made_total/folded": 0,
		}
		if got := show(); !maps.Equal(got, all) {
			t.Errorf("metrics are %v, want %v", got, all)
		}
	}
	want(0, 0, 0)
	upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1"), judges(t, "o", "server", 80))
	flush(t, g, p)
	want(1, 1, 0)
	g.options.Budget = 1
	upsert(t, g, judges(t, "o", "server", 81))
	flush(t, g, p)
	want(1, 1, 1)
	g.options.Budget = 0
	g.Delete(policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"})
	flush(t, g, p)
	want(0, 1, 0)
}

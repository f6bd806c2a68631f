package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/policing"
)

// policed collects what it is given, as the collector does what a ledger knows.
type policed struct{ *collector }

func (p policed) Collect(out chan<- prometheus.Metric) {
	end := func(endpoint string, egress bool, kind policing.EndKind, tier string, n uint64) policing.EndCount {
		return policing.EndCount{
			End:   policing.End{Endpoint: endpoint, Egress: egress, Kind: kind, Tier: tier},
			Count: judge.Count{Packets: 1000, Segments: n, Bytes: 2000},
		}
	}
	p.ends(sink{out}, []policing.EndCount{
		end("a", true, policing.TierDenies, "default", 1), end("a", true, policing.TierDenies, "", 2), end("a", false, policing.TierDenies, "default", 0),
		{End: policing.End{Endpoint: "a", Egress: true, IPv6: true, Tier: "default"}, Count: judge.Count{Segments: 10}},
		end("a", true, policing.StagedTierDenies, "default", 3), end("a", true, policing.StagedDenies, "", 4), end("b", false, policing.StagedPermits, "", 0),
	})
	p.logStats(sink{out}, judge.LogStats{Logged: 5, Suppressed: 6, Lost: 7})
}

func TestPolicyIsTold(t *testing.T) {
	got := scrape(t, policed{newCollector(nil, facts(), "host")}).values
	want := map[string]float64{
		`margay_policy_end_denied_packets_total{direction="egress",endpoint="a",tier="default"}`:    11,
		`margay_policy_end_denied_packets_total{direction="egress",endpoint="a",tier=""}`:           2,
		`margay_policy_staged_turned_packets_total{direction="egress",endpoint="a",would="deny"}`:   4,
		`margay_policy_staged_turned_packets_total{direction="ingress",endpoint="b",would="allow"}`: 0,
		`margay_policy_log_packets_total{outcome="logged"}`:                                         5,
		`margay_policy_log_packets_total{outcome="suppressed"}`:                                     6,
		`margay_policy_log_packets_total{outcome="lost"}`:                                           7,
	}
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("a scrape has %v", got)
	}
}

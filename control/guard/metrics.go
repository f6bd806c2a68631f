package guard

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector shows a guard's Stats, as they were after its last Flush, to Prometheus:
// margay_policy_programs, margay_policy_programs_made_total by way (compiled, edited,
// folded) and margay_policy_endpoints_refused. It is safe for concurrent use.
func (g *Guard) Collector() prometheus.Collector {
	return &collector{
		stats:    &g.told,
		programs: prometheus.NewDesc("margay_policy_programs", "Compiled lists of rules that the dataplane has.", nil, nil),
		made:     prometheus.NewDesc("margay_policy_programs_made_total", "Compiled lists of rules that were made, by the way.", []string{"way"}, nil),
		refused: prometheus.NewDesc("margay_policy_endpoints_refused",
			"Endpoints that are not judged as resources say, because a list or a set did not fit; conditions say which.", nil, nil),
	}
}

type collector struct {
	stats                   *atomic.Pointer[Stats]
	programs, made, refused *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- c.programs
	to <- c.made
	to <- c.refused
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.stats.Load()
	if s == nil {
		s = &Stats{}
	}
	to <- prometheus.MustNewConstMetric(c.programs, prometheus.GaugeValue, float64(s.Programs))
	for _, made := range []struct {
		way string
		n   uint64
	}{{"compiled", s.Compiled}, {"edited", s.Edited}, {"folded", s.Folded}} {
		to <- prometheus.MustNewConstMetric(c.made, prometheus.CounterValue, float64(made.n), made.way)
	}
	to <- prometheus.MustNewConstMetric(c.refused, prometheus.GaugeValue, float64(s.Refused))
}

package agent

import (
	"context"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/converge"
	"margay.dev/margay/dataplane/nft"
)

// Calico's values of felix_resync_state.
const (
	resyncWaiting = 1 // for the store
	resyncUnder   = 2
	resyncDone    = 3
)

// policyKinds are what Calico counts as policies.
var policyKinds = []string{
	v3.KindNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedGlobalNetworkPolicy, v3.KindStagedKubernetesNetworkPolicy,
}

// metric is a figure of Stats.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*converge.Stats) float64
}

// histogram is one of Stats.
type histogram struct {
	desc *prometheus.Desc
	unit float64 // bounds and sum are in so many of the metric's
	of   func(*converge.Stats) *converge.Histogram
}

// collector shows a core's Stats to Prometheus: by Calico's names where it has such a
// figure, so that its dashboards go on to work, by names of our own where not.
type collector struct {
	ask     func(context.Context) (converge.Stats, error)
	metrics []metric
	spread  []histogram
	kernel  *kernel

	packets, bytes *prometheus.Desc // of each rule that judges the host
}

func (a *Agent) collector() prometheus.Collector {
	c := &collector{ask: a.ask, kernel: a.kernel}
	of := []string{"policy", "tier", "direction", "rule", "action"}
	c.packets = prometheus.NewDesc("margay_agent_host_rule_packets_total", "Packets that met a rule for what processes of the host send and get; rule counts from 0, and is -1 for what stands in for a policy.", of, nil)
	c.bytes = prometheus.NewDesc("margay_agent_host_rule_bytes_total", "Bytes of them.", of, nil)
	add := func(kind prometheus.ValueType, name, help string, of func(*converge.Stats) float64) {
		c.metrics = append(c.metrics, metric{prometheus.NewDesc(name, help, nil, nil), kind, of})
	}
	spread := func(name, help string, unit float64, of func(*converge.Stats) *converge.Histogram) {
		c.spread = append(c.spread, histogram{prometheus.NewDesc(name, help, nil, nil), unit, of})
	}
	seconds := 1 / converge.TimeUnit.Seconds()
	spread("felix_calc_graph_update_time_seconds", "Time to bring the desired state up to date, each time.", seconds, func(s *converge.Stats) *converge.Histogram { return &s.Calculations })
	spread("felix_int_dataplane_apply_time_seconds", "Time until the forwarder, and the kernel, had acknowledged a change.", seconds, func(s *converge.Stats) *converge.Histogram { return &s.Commits })
	spread("felix_int_dataplane_msg_batch_size", "Objects told of by the store that one calculation took together.", 1, func(s *converge.Stats) *converge.Histogram { return &s.Batches })
	count := func(kinds ...string) func(*converge.Stats) float64 {
		return func(s *converge.Stats) (n float64) {
			for _, k := range kinds {
				n += float64(s.Objects[k])
			}
			return n
		}
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	add(gauge, "felix_active_local_endpoints", "Workloads of this node that the forwarder has.", func(s *converge.Stats) float64 { return float64(s.Endpoints) })
	add(gauge, "felix_cluster_num_hosts", "Nodes in the store.", count(v3.KindNode))
	add(gauge, "felix_cluster_num_host_endpoints", "Host endpoints in the store.", count(v3.KindHostEndpoint))
	add(gauge, "felix_cluster_num_workload_endpoints", "Workload endpoints in the store.", count(v3.KindWorkloadEndpoint))
	add(gauge, "felix_cluster_num_policies", "Policies in the store, staged ones too.", count(policyKinds...))
	add(gauge, "felix_cluster_num_profiles", "Profiles in the store.", count(v3.KindProfile))
	add(gauge, "felix_cluster_num_tiers", "Tiers in the store.", count(v3.KindTier))
	add(gauge, "felix_resync_state", "1: waiting for the store, 2: it is telling what it holds, 3: in sync.", resyncState)
	add(counter, "felix_resyncs_started", "Listings of the store.", func(s *converge.Stats) float64 { return float64(s.Resyncs) })
	add(counter, "felix_int_dataplane_failures", "Changes that the forwarder has refused.", func(s *converge.Stats) float64 { return float64(s.Failures) })
	add(gauge, "felix_int_dataplane_initial_resync_time_seconds", "Time from the agent's begin until the forwarder had acknowledged its first change; 0: it has not.", func(s *converge.Stats) float64 { return s.Initial.Seconds() })
	add(counter, "felix_calc_graph_output_events", "Changes sent to the forwarder, whole states among them.", func(s *converge.Stats) float64 { return float64(s.Snapshots + s.Deltas) })
	add(counter, "felix_log_errors", "Lines of level error in the agent's log.", func(*converge.Stats) float64 { return float64(a.errors.Load()) })
	add(counter, "felix_nft_calls", "Changes of the kernel's nftables.", func(*converge.Stats) float64 { return float64(a.kernel.calls.Load()) })
	add(counter, "felix_nft_errors", "Those that the kernel has refused.", func(*converge.Stats) float64 { return float64(a.kernel.refused.Load()) })
	add(counter, "margay_agent_objects_told_total", "Objects that the store has told of, new, changed and gone.", func(s *converge.Stats) float64 { return float64(s.Events) })
	add(counter, "margay_agent_calculations_total", "Times that the desired state was brought up to date.", func(s *converge.Stats) float64 { return float64(s.Flushes) })
	add(counter, "margay_agent_calculations_seconds_total", "Time that this took.", func(s *converge.Stats) float64 { return s.Calculating.Seconds() })
	add(counter, "margay_agent_snapshots_total", "Whole states sent to the forwarder.", func(s *converge.Stats) float64 { return float64(s.Snapshots) })
	add(counter, "margay_agent_deltas_total", "Changes sent to the forwarder.", func(s *converge.Stats) float64 { return float64(s.Deltas) })
	add(counter, "margay_agent_acknowledging_seconds_total", "Time until the forwarder had acknowledged them.", func(s *converge.Stats) float64 { return s.Applying.Seconds() })
	add(counter, "margay_agent_sent_bytes_total", "Bytes of changes sent to the forwarder.", func(s *converge.Stats) float64 { return float64(s.Sent) })
	add(gauge, "margay_agent_generation", "Number of the state that the forwarder has acknowledged last.", func(s *converge.Stats) float64 { return float64(s.Generation) })
	add(gauge, "margay_agent_attachments_not_in_force", "Attached workloads that are not connected; margay-agent says why.", func(s *converge.Stats) float64 { return float64(s.NotInForce) })
	add(gauge, "margay_agent_objects_faulty", "Objects of the store that are not in force as they say; their conditions say why.", func(s *converge.Stats) float64 { return float64(s.Faulty) })
	add(gauge, "margay_policy_programs", "Compiled lists of rules that the forwarder has.", func(s *converge.Stats) float64 { return float64(s.Guard.Programs) })
	add(counter, "margay_policy_programs_compiled_total", "Lists of rules that were compiled.", func(s *converge.Stats) float64 { return float64(s.Guard.Compiled) })
	add(counter, "margay_policy_programs_edited_total", "Compiled lists that were edited.", func(s *converge.Stats) float64 { return float64(s.Guard.Edited) })
	add(counter, "margay_policy_programs_folded_total", "Edited lists that were compiled in the background.", func(s *converge.Stats) float64 { return float64(s.Guard.Folded) })
	add(gauge, "margay_policy_endpoints_refused", "Endpoints that are not judged as resources say, because a list or a set did not fit.", func(s *converge.Stats) float64 { return float64(s.Guard.Refused) })
	add(gauge, "margay_agent_names_addresses", "Addresses of names of hosts that are known, each for each name and pattern.", func(s *converge.Stats) float64 { return float64(s.Names.Addresses) })
	add(counter, "margay_agent_names_addresses_refused_total", "Addresses of names of hosts for which there was no room.", func(s *converge.Stats) float64 { return float64(s.Names.Refused) })
	add(counter, "margay_agent_names_answers_learned_total", "Answers heard about names that network sets have.", func(s *converge.Stats) float64 { return float64(s.Heard.Learned) })
	add(counter, "margay_agent_names_answers_unasked_total", "Answers heard that nobody had asked for: late, or forged.", func(s *converge.Stats) float64 { return float64(s.Heard.Unasked) })
	return c
}

func resyncState(s *converge.Stats) float64 {
	switch {
	case s.Synced && !s.Away:
		return resyncDone
	case s.Resyncs > 0 && !s.Away:
		return resyncUnder
	}
	return resyncWaiting
}

// refusing shows whether the store is believed.
func (a *Agent) refusing() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "margay_agent_store_refused", Help: "1: the store is another one than the node has followed, and nothing is taken from it; readiness says why.",
	}, func() float64 {
		if a.store.Refused() != nil {
			return 1
		}
		return 0
	})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		to <- m.desc
	}
	for _, h := range c.spread {
		to <- h.desc
	}
	to <- c.packets
	to <- c.bytes
}

// Collect implements prometheus.Collector. Where the agent hangs it tells nothing.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s, err := c.ask(context.Background())
	if err != nil {
		return
	}
	for _, m := range c.metrics {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(&s))
	}
	c.collectRules(to)
	for _, h := range c.spread {
		from := h.of(&s)
		buckets := map[float64]uint64{}
		for bound, n := range from.Cumulative() {
			buckets[bound/h.unit] = n
		}
		to <- prometheus.MustNewConstHistogram(h.desc, from.Count, from.Sum/h.unit, buckets)
	}
}

// collectRules tells what met the kernel's rules. Two ids of one rule, as of its ports by
// name, are one there.
func (c *collector) collectRules(to chan<- prometheus.Metric) {
	sums := map[[5]string]nft.Count{}
	for id, n := range c.kernel.counts() {
		ref, ok := c.kernel.words.Rule(id)
		if !ok {
			continue
		}
		labels := [5]string{ref.Object.String(), ref.Tier, strings.ToLower(ref.Direction.String()), strconv.Itoa(ref.Index), strings.ToLower(string(ref.Rule.Action))}
		sum := sums[labels]
		sums[labels] = nft.Count{Packets: sum.Packets + n.Packets, Bytes: sum.Bytes + n.Bytes}
	}
	for labels, n := range sums {
		to <- prometheus.MustNewConstMetric(c.packets, prometheus.CounterValue, float64(n.Packets), labels[:]...)
		to <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(n.Bytes), labels[:]...)
	}
}

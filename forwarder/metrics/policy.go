package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/forwarder/policing"
)

// policyMetrics are of what policy decided. Rules are too many for a scrape each.
type policyMetrics struct {
	endDenied, stagedTurned, logged *prometheus.Desc
	overheard, answersHeld          *prometheus.Desc
}

func (c *collector) definePolicy() {
	c.policy.endDenied = c.define("policy_end_denied_packets_total",
		"Packets that no rule decided and the end of a tier denied, or of all tiers where tier is empty; there once there are any.", "endpoint", "direction", "tier")
	c.policy.stagedTurned = c.define("policy_staged_turned_packets_total",
		"Judged packets that staged policies would have treated otherwise, of endpoints that have any.", "endpoint", "direction", "would")
	c.policy.logged = c.define("policy_log_packets_total", "Packets that met a rule with action Log, once for each such rule, by what came of it.", "outcome")
	c.policy.overheard = c.define("overheard_packets_total", "Packets between endpoints and servers of names while somebody listened: shown; "+
		"lost, since who listens is behind or too many are held; unreadable, fragments and what is too long.", "outcome")
	c.policy.answersHeld = c.define("answers_held_total", "Answers of servers of names that were held, by whether who listens has read them in time.", "outcome")
}

// overheard tells of what endpoints are told by servers of names.
func (c *collector) overheard(m sink, s overhear.Stats) {
	m.counter(c.policy.overheard, s.Shown, "shown")
	m.counter(c.policy.overheard, s.Lost, "lost")
	m.counter(c.policy.overheard, s.Unreadable, "unreadable")
	m.counter(c.policy.answersHeld, s.Read, "read")
	m.counter(c.policy.answersHeld, s.Overdue, "overdue")
}

// ends tells what rules did not decide, of both families together.
func (c *collector) ends(m sink, ends []policing.EndCount) {
	sums := map[policing.End]uint64{}
	for _, e := range ends {
		e.IPv6 = false
		sums[e.End] += e.Count.Segments
	}
	for e, n := range sums {
		direction := "ingress"
		if e.Egress {
			direction = "egress"
		}
		switch {
		case e.Kind == policing.TierDenies && n > 0:
			m.counter(c.policy.endDenied, n, e.Endpoint, direction, e.Tier)
		case e.Kind == policing.StagedDenies:
			m.counter(c.policy.stagedTurned, n, e.Endpoint, direction, "deny")
		case e.Kind == policing.StagedPermits:
			m.counter(c.policy.stagedTurned, n, e.Endpoint, direction, "allow")
		}
	}
}

func (c *collector) logStats(m sink, s judge.LogStats) {
	m.counter(c.policy.logged, s.Logged, "logged")
	m.counter(c.policy.logged, s.Suppressed, "suppressed")
	m.counter(c.policy.logged, s.Lost, "lost")
}

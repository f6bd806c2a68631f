// Package policy is the scenario "policy": what a packet costs that two endpoints'
// policies judge, over memory ports in the real graph, beside the same packets in
// the graph without policy and in a plain loop.
//
//	known    packets of flows that are known, by how many flows there are, and
//	         while members of sets and routes change
//	new      packets that open flows, by how many rules each endpoint's list has
//	control  what a change costs on its way from an object to the dataplane
//
// The ports are those of two endpoints, each with policy, sources held to be true
// and TCP followed; frames are 64 B, or what a segment of 10 B takes over IPv6.
package policy

import (
	"context"
	"slices"
	"time"

	"margay.dev/margay/bench/harness"
)

const (
	loop       = "plain-loop"
	noPolicy   = "graph-without-policy"
	knownRules = 100 // of each endpoint, where their number does not matter

	caseTime = 4 * time.Second
	loadTime = 5 * time.Second // that any case may need before it is measured
)

// Scenario is policy.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "policy",
		About: "cost of a packet that two endpoints' policies judge: of known flows, also while tables change, and of new ones; and of a change of policy",
		Run:   run,
	}
}

func nanosPerPacket() harness.Metric { return harness.Metric{Name: "ns_per_packet", Unit: "ns"} }

// job is some cases that are measured together.
type job struct {
	names []string
	brief bool // part of a quick run without a filter
	run   func(ctx context.Context, s *harness.Session, d time.Duration) error
}

// jobs lists all there are, those of TCP over IPv4 first, which have budgets: a
// quick run may end early.
func jobs() (all []job) {
	for _, k := range kinds() {
		first := k == kind{}
		for _, flows := range knownFlows() {
			c := known{k, flows}
			all = append(all, job{[]string{c.String()}, first || !k.udp && flows < 1<<20, c.measure})
		}
		names := []string{flatCase(k)}
		for _, rules := range freshRules() {
			names = append(names, freshCase(k, rules))
		}
		all = append(all, job{names, first, k.measureFresh})
		if !k.udp {
			all = append(all, job{[]string{connectionsCase(k)}, first, k.measureConnections})
		}
		if first {
			all = append(all, controlJobs()...)
		}
		for _, flows := range knownFlows() {
			c := known{k, flows}
			all = append(all, job{[]string{c.churnCase()}, first, c.measureChurn})
		}
	}
	return all
}

func controlJobs() (all []job) {
	for _, node := range []string{"", nodeName(0)} {
		l := relabel{node}
		all = append(all, job{[]string{l.String()}, true, l.measure})
	}
	return append(all, job{[]string{memberCase}, true, measureMember}, job{[]string{liveCase, editCase}, true, measureLive})
}

// wants says whether a job has a case that is asked for.
func wants(s *harness.Session, j job) bool {
	if j.brief {
		return slices.ContainsFunc(j.names, s.Wants)
	}
	return slices.ContainsFunc(j.names, s.WantsMore)
}

func run(ctx context.Context, s *harness.Session) error {
	var wanted []job
	for _, j := range jobs() {
		if wants(s, j) {
			wanted = append(wanted, j)
		}
	}
	for i, j := range wanted {
		if harness.Left(ctx, loadTime) < loadTime {
			for _, name := range j.names {
				if s.Wants(name) {
					skip(s, name, nanosPerPacket(), "", 0)
				}
			}
			continue
		}
		if err := j.run(ctx, s, s.Share(ctx, len(wanted)-i, caseTime)); err != nil {
			return err
		}
	}
	return nil
}

// skip reports a case for which no time was left.
func skip(s *harness.Session, name string, m harness.Metric, peer string, budget float64) {
	s.Report(harness.New(name, m, nil, peer, nil, budget, "no time was left for this case: run it alone with --filter"))
}

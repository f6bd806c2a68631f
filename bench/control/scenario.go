// Package control is the scenario "control": what it takes from a change in the
// store until the forwarder has it in force, with the real etcd, agent, forwarder
// and margayctl.
//
//	margayctl ─► etcd ─► margay-agent ─► margay-forwarder
//	    └───────────── timed ──────────────────┘
//
// The cluster is made up but for one node: other nodes, their workloads and the
// policies of all are objects in the store.
package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/lab"
)

const (
	node = "near"
	// The node's own link is where the other nodes' addresses are.
	topology = `
pools: [10.0.0.0/8, "fd76::/16"]
nodes: [{name: near}, {name: far}]
links:
  - name: up
    ends: [{node: near, addresses: [172.31.0.1/16, "fd31:76::1/64"]}, {node: far, addresses: [172.31.0.2/16, "fd31:76::2/64"]}]
pods:
  - {name: a, node: near, namespace: n0, labels: {app: a0}, addresses: [10.255.0.1, "fd76:ffff::1"]}
  - {name: b, node: near, namespace: n1, labels: {app: a1}, addresses: [10.255.0.2, "fd76:ffff::2"]}
`
)

// Budgets.
const (
	changeBudget = 100  // ms
	rulesBudget  = 1000 // ms
	coldBudget   = 5000 // ms
	memoryBudget = 250  // MiB
	flatBudget   = 1.1  // of a label in the large cluster to one in the small
)

// Scenario is control.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "control",
		About: "from a change in the store to the forwarder that has it in force: one policy, many rules, one label, a cold start",
		Run: func(ctx context.Context, s *harness.Session) error {
			rounds := 300
			if s.Quick {
				rounds = 40
			}
			return play(ctx, s, steps(s, rounds, size{endpoints: 1000, policies: 200}, size{endpoints: 10_000, policies: 2000}))
		},
	}
}

// beds are a cluster of some size, and one that is larger.
type beds struct{ small, large *bed }

func (b beds) close() {
	for _, one := range []*bed{b.small, b.large} {
		if one != nil {
			one.close()
		}
	}
}

// step is a case, or what cases need.
type step struct {
	name string // of the case; empty for none
	do   func(ctx context.Context, b beds, name string) error
}

// steps are in an order in which stores only grow.
func steps(s *harness.Session, rounds int, small, large size) []step {
	return []step{
		{"", func(ctx context.Context, b beds, _ string) error { return small.fill(ctx, b.small) }},
		{"change/" + small.String(), func(ctx context.Context, b beds, name string) error { return b.small.change(ctx, s, name, rounds) }},
		{"rules=12500", func(ctx context.Context, b beds, name string) error { return b.small.rules(ctx, s, name) }},
		{"", func(ctx context.Context, b beds, _ string) error { return large.fill(ctx, b.large) }},
		{labelCase, func(ctx context.Context, b beds, _ string) error { return b.label(ctx, s, rounds) }},
		{"cold/" + large.String() + "/policies=" + count(large.policies), func(ctx context.Context, b beds, name string) error { return b.large.cold(ctx, s, name) }},
	}
}

func play(ctx context.Context, s *harness.Session, all []step) error {
	if !slices.ContainsFunc(all, func(x step) bool { return x.name != "" && s.Wants(x.name) }) {
		return nil
	}
	s.Say("raise two etcds, each with a node with agent and forwarder")
	b, err := raiseBoth(ctx, s)
	defer b.close()
	if err != nil {
		for _, x := range all {
			if x.name != "" && s.Wants(x.name) {
				s.Report(harness.New(x.name, millis("ms"), nil, "", nil, 0, err.Error()))
			}
		}
		return nil
	}
	for _, x := range all {
		if x.name != "" && !s.Wants(x.name) {
			continue
		}
		if err := x.do(ctx, b, x.name); err != nil {
			if x.name == "" {
				return err
			}
			s.Report(harness.New(x.name, millis("ms"), nil, "", nil, 0, err.Error()))
		}
	}
	return nil
}

func millis(name string) harness.Metric { return harness.Metric{Name: name, Unit: "ms"} }

// raiseBoth raises a node for each size of cluster.
func raiseBoth(ctx context.Context, s *harness.Session) (b beds, err error) {
	if b.small, err = raise(ctx, s, "ctl"); err == nil {
		b.large, err = raise(ctx, s, "ctm")
	}
	return b, err
}

// raise raises a node. The other end of its link is there for its address alone.
func raise(ctx context.Context, s *harness.Session, name string) (*bed, error) {
	l, err := stage.RaiseAgents(ctx, name, topology, s.Forwarder)
	if err != nil {
		return nil, err
	}
	b := &bed{lab: l, ctl: ctlBeside(s.Forwarder), letIn: map[int]bool{}}
	if err := l.StopAgent("far", false); err != nil {
		b.close()
		return nil, err
	}
	if b.store, err = l.OpenStore(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// await waits until the agent is where something is so, and tells when that was.
func await(ctx context.Context, l *lab.Lab, so func(generation uint64, revision string) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		st, err := l.AgentStatus(ctx, node)
		if err != nil {
			return time.Time{}, fmt.Errorf("ask the agent: %w", err)
		}
		if st.GetInForce() && so(st.GetGeneration(), st.GetRevision()) {
			return time.Now(), nil
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for the agent: %w", context.Cause(ctx))
		}
	}
}

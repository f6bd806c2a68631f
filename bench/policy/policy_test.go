package policy

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
)

const few = 2 * frames // conversations

// each runs f for every kind of packets.
func each(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(strings.Trim("tcp"+k.String(), "/"), func(t *testing.T) { f(t, k) })
	}
}

// begun is a bed with conversations under way.
func begun(t *testing.T, k kind, rules int) (*bed, *talk) {
	t.Helper()
	b, talk, err := underWay(t.Context(), k, rules, few)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b, talk
}

// came is how many packets came to a stop.
func came(b *bed, stop string) uint64 {
	return b.engine.Stats()[0].Nodes[slices.Index(b.engine.Graph().Nodes(), stop)].Packets
}

func TestKnownFlowsGoOnByWhatWasDecided(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b, talk := begun(t, k, 100)
		judged := came(b, "policy-in")
		if judged != few {
			t.Errorf("policy-in was asked about %d packets, want one of each of %d conversations", judged, few)
		}
		for range 20 {
			b.round(talk)
		}
		if err := b.check(); err != nil {
			t.Error(err)
		}
		if n := came(b, "policy-in"); n != judged {
			t.Errorf("policy-in was asked about %d packets of known flows", n-judged)
		}
		state := flow.Established
		if k.udp {
			state = flow.BothWays
		}
		if n := b.flows.Stats().ByState[state]; n != few {
			t.Errorf("%d flows are %v, want %d", n, state, few)
		}
		for f := range b.flows.All(0) { // 20 rounds of 1,024: ten packets for each, beside those that opened it
			if n := f.Packets[0] + f.Packets[1]; n != uint64(len(talk.handshake()))+10 || f.Packets[0] < 6 || f.Packets[1] < 6 {
				t.Fatalf("a flow has %v packets from its sides", f.Packets)
			}
		}
	})
}

func TestWithoutPolicyThereAreNoFlows(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b, talk := begun(t, k, 0)
		b.round(talk)
		if err := b.check(); err != nil || came(b, "flow") != 0 || b.sent == 0 {
			t.Errorf("sent %d packets, %d of them by flow: %v", b.sent, came(b, "flow"), err)
		}
	})
}

// A benchmark of drops would be a fast one.
func TestDropsAreNoticed(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b, talk := begun(t, k, 100)
		talk.open = []uint16{rulePort(0)} // the first rule is for others
		b.round(talk)
		if err := b.check(); err == nil || !strings.Contains(err.Error(), "sent") {
			t.Errorf("conversations to a port that is closed: %v", err)
		}
	})
	for _, k := range []kind{{}, {ipv6: true}} {
		b, talk := begun(t, k, 100)
		talk.dialogs[0].next[0] += 1 << 24
		b.round(talk)
		if err := b.check(); err == nil || !strings.Contains(err.Error(), "sent") {
			t.Errorf("a segment far out of its window: %v", err)
		}
	}
}

func TestFlowsThatAreOpenedTwiceAreNoticed(t *testing.T) {
	b, _ := begun(t, kind{udp: true}, 100)
	b.made++
	if err := b.check(); err == nil || !strings.Contains(err.Error(), "flows") {
		t.Errorf("a flow is missing: %v", err)
	}
}

func TestNewFlowsAreOpenedAndEnd(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, steps := range []int{1, 2} {
			if testing.Short() && (steps == 1) == k.udp {
				continue
			}
			f, err := newFresh(t.Context(), k, 100)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.close)
			for range 2*freshRound + 1 {
				f.round(steps)
			}
			if err := f.check(); err != nil {
				t.Error(err)
			}
			if n := came(f.bed, "policy-in"); n != (2*freshRound+1)*frames || f.flows.Stats().Flows != frames {
				t.Errorf("%d packets were judged, and %d flows are there", n, f.flows.Stats().Flows)
			}
		}
	})
}

func TestTheListIsReadAllOver(t *testing.T) {
	for _, rules := range freshRules() {
		seen, ports := map[uint16]bool{}, openPorts(rules)
		for n := range uint32(20 * rules) {
			d := newDialog(n)
			seen[ports[d.spread(len(ports))]] = true
		}
		if len(seen) != len(ports) || len(ports) < rules/4 {
			t.Errorf("conversations go to %d of %d ports that %d rules open", len(seen), len(ports), rules)
		}
	}
}

// What joins and gets a route leaves again, and no flow of others suffers.
func TestChangesAreThoseOfOthers(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b, talk := begun(t, k, 100)
		members, routes := b.writer.police.Labels().Len(), b.tables.FIB.Len()
		change := func(from int) {
			for i := from; i < from+100; i++ {
				if err := b.change(t.Context(), i); err != nil {
					t.Fatal(err)
				}
				if i%10 == 0 {
					b.round(talk)
				}
			}
		}
		change(0)
		if m, r := b.writer.police.Labels().Len(), b.tables.FIB.Len(); m != members+100 || r != routes+100 {
			t.Errorf("%d members and %d routes more, want 100 and 100", m-members, r-routes)
		}
		change(2 * guests)
		if m, r := b.writer.police.Labels().Len(), b.tables.FIB.Len(); m != members || r != routes {
			t.Errorf("%d members and %d routes are left over", m-members, r-routes)
		}
		if err := b.check(); err != nil {
			t.Error(err)
		}
	})
}

func TestPacketsPassWhileOthersChange(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b, talk := begun(t, k, 100)
		before, judged := b.tables.Court.Generation(), b.tables.Court.Rejudged()
		c := startChurn(t.Context(), b)
		for end := time.Now().Add(time.Minute); b.tables.Court.Generation() < before+20 && time.Now().Before(end); {
			b.round(talk)
		}
		if err := c.end(); err != nil || c.changes == 0 {
			t.Errorf("%d changes: %v", c.changes, err)
		}
		if n := b.tables.Court.Rejudged() - judged; n != 0 { // nothing that these flows were decided from has changed
			t.Errorf("%d packets of known flows were judged anew", n)
		}
		if err := b.check(); err != nil {
			t.Error(err)
		}
	})
}

// A pass that is under way holds up who would use again what it may read.
func TestQuiesceWaitsForThePass(t *testing.T) {
	b := &bed{}
	b.quiesce(t.Context()) // none is under way
	b.passes.Add(1)
	done := make(chan struct{})
	go func() { b.quiesce(t.Context()); close(done) }()
	select {
	case <-done:
		t.Error("it did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	b.passes.Add(1)
	<-done
}

func TestPodsGetAnotherAppEachTime(t *testing.T) {
	for _, l := range []relabel{{""}, {nodeName(0)}} {
		at := map[int]int{}
		for i := range 3 * clusterPods {
			number, app := l.change(i)
			was, seen := at[number]
			if !seen {
				was = number / namespaces % apps
			}
			if app == was {
				t.Fatalf("%s: pod %d is of app %d again in change %d", l, number, app, i)
			}
			at[number] = app
			if p := pod(number, app); l.node != "" && p.Spec.Node != l.node {
				t.Fatalf("%s: pod %d is on %s", l, number, p.Spec.Node)
			}
		}
	}
}

func TestWidePoliciesHaveAsManyRules(t *testing.T) {
	n, seen := 0, map[string]bool{}
	for _, p := range widePolicies(liveRules) {
		if len(p.Spec.Ingress) > perPolicy || seen[p.Name] {
			t.Errorf("%s has %d rules, or comes twice", p.Name, len(p.Spec.Ingress))
		}
		n, seen[p.Name] = n+len(p.Spec.Ingress), true
	}
	if n != liveRules {
		t.Errorf("%d rules, want %d", n, liveRules)
	}
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, j := range jobs() {
		for _, name := range j.names {
			if seen[name] {
				t.Errorf("%s comes twice", name)
			}
			seen[name] = true
		}
	}
	for _, name := range []string{
		"known/flows=1k", "known/flows=64k", "known/flows=1M", "known/flows=1k/ip6", "known/flows=64k/udp", "known/flows=1M/churn",
		"new/rules=10", "new/rules=100", "new/rules=1k", "new/rules=10k", "new/rules=10k/ip6/udp", "new/flat", "new/connections",
		"control/endpoints=10k/policies=1k/label", "control/rules=12500", "control/member",
	} {
		if !seen[name] {
			t.Errorf("there is no case %s", name)
		}
	}
}

func TestScenarioRuns(t *testing.T) {
	tests := map[string]struct {
		filter  string
		metrics string // of its results, in order
		long    bool
	}{
		"known flows": {"known/flows=1k/ip6/udp", "ns_per_packet ns_per_packet ns_per_packet churn_to_quiet rejudged", false},
		"new flows":   {"new/rules=100/udp", "ns_per_packet", false},
		"connections": {"new/connections/ip6", "connections_per_second", false},
		"a label":     {"control/endpoints=10k/policies=1k/label/node", "ms_per_change", true},
		"a member":    {"control/member", "us_per_change bytes_per_change", true},
		"many rules":  {"control/rules", "ms_to_live ms_to_live", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.long && testing.Short() {
				t.Skip("takes seconds")
			}
			var metrics []string
			o := harness.Options{Quick: true, Limit: 40 * time.Second, Filter: "policy/" + tt.filter, Log: io.Discard}
			o.Out = func(r harness.Result) error {
				if metrics = append(metrics, r.Metric); r.Ours == nil && r.Why == "" {
					t.Errorf("nothing was measured, and nobody says why: %+v", r)
				}
				if r.Allocs != nil && *r.Allocs != 0 {
					t.Errorf("%s allocates: %+v", r.Case, r)
				}
				return nil
			}
			if err := harness.Run(t.Context(), o, Scenario()); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(metrics, " "); got != strings.TrimSpace(tt.metrics) {
				t.Errorf("metrics are %q, want %q", got, tt.metrics)
			}
		})
	}
}

func TestBudgetsAreThoseOfTheDesign(t *testing.T) {
	for flows, want := range map[int][2]float64{1 << 10: {30, 31}, 1 << 16: {60, 64}, 1 << 20: {90, 0}} {
		if got := knownBudget(flows); got != want[0] {
			t.Errorf("a packet of %d flows may cost %v ns, want %v", flows, got, want[0])
		}
		if got := vppKnown(known{kind{}, flows}); got != want[1] || vppKnown(known{kind{ipv6: true}, flows}) != 0 {
			t.Errorf("VPP takes %v ns for one of %d flows, want %v, and nothing is known of IPv6", got, flows, want[1])
		}
	}
}

func TestFlatIsTheMostRulesToTheFewest(t *testing.T) {
	tests := map[string]struct {
		most *harness.Estimate
		met  bool
	}{
		"within it": {harness.Exactly(130), true}, "beyond it": {harness.Exactly(131), false}, "not measured": {nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got harness.Result
			s := &harness.Session{Options: harness.Options{Out: func(r harness.Result) error { got = r; return nil }}}
			reportFlat(s, kind{}, []*harness.Estimate{harness.Exactly(100), harness.Exactly(500), tt.most})
			if met := got.Met != nil && *got.Met; met != tt.met || (got.Why == "") != (tt.most != nil) {
				t.Errorf("came to %+v, want met %v", got, tt.met)
			}
		})
	}
}

func TestStopsAreTold(t *testing.T) {
	b, talk := begun(t, kind{}, 100)
	s, before := stops{}, b.engine.Stats()[0].Nodes
	for range 64 { // one pass in 64 is timed
		b.round(talk)
	}
	s.note(b.engine, before)
	for _, stop := range []string{"eth-input", "ip-input", "flow", "rewrite", "tx"} {
		if s.medians()["ns_"+stop] <= 0 {
			t.Errorf("%s costs nothing: %v", stop, s.medians())
		}
	}
	if _, met := s["route"]; met || len(talk.metas) != vectors*graph.VectorMax {
		t.Errorf("known flows came to route: %v", s)
	}
}

package guard

import (
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy"
)

// What is staged goes to the dataplane beside what is in force, as long as it
// would change anything.
func TestStagedPoliciesReachTheDataplane(t *testing.T) {
	g, p := New("here"), newPlane(t)
	key := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"}
	server := endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1")
	upsert(t, g, server, endpoint("client", map[string]string{"role": "client"}, "10.1.0.2", "fd01::2"), allowFrom(t, "p", "role == 'client'"))
	flush(t, g, p)
	if s := p.stages[key]; len(s.StagedIngress)+len(s.StagedEgress) != 0 {
		t.Fatalf("stages that nobody staged: %v, %v", s.StagedEgress, s.StagedIngress)
	}
	stage := func(action string) {
		t.Helper()
		text := `{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: p}, spec: {stagedAction: ` + action + `}}`
		if action == "Set" {
			text = `{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: p}, spec: {selector: "role == 'server'",
				types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {nets: ["203.0.113.0/24", "2001:db8::/32"]}, destination: {ports: [443]}}]}}`
		}
		o, err := v3.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		upsert(t, g, o)
		flush(t, g, p)
	}
	stage("Set")
	s := p.stages[key]
	would := &Stages{Ingress: s.StagedIngress}
	if len(would.Ingress) == 0 || len(s.StagedEgress) != 0 {
		t.Fatalf("staged ingress has %d stages and egress %d, want some and none", len(would.Ingress), len(s.StagedEgress))
	}
	for source, port := range map[string]uint16{"203.0.113.7": 443, "2001:db8::7": 443} {
		if got := p.verdict(key, source, port); got != "deny at the end of default" {
			t.Errorf("what is only staged is in force: %s", got)
		}
		p.stages[key] = would
		if got, want := p.verdict(key, source, port), "allow by StagedGlobalNetworkPolicy p 0"; got != want {
			t.Errorf("%s: the staged stages say %s, want %s", source, got, want)
		}
		p.stages[key] = s
	}
	// Without the policy nothing is left but the end of all: that is told, too.
	stage("Delete")
	if s := p.stages[key].StagedIngress; len(s) != 1 || s[0].GetProgram4() != 0 || s[0].GetProgram6() != 0 || !s[0].GetUndecidedPasses() {
		t.Errorf("stages of a policy that would go: %v, want one that decides nothing", s)
	}
	stage("Ignore")
	if s := p.stages[key]; len(s.StagedIngress) != 0 {
		t.Errorf("stages that would change nothing: %v", s.StagedIngress)
	}
	g.Delete(policy.Key{Kind: "StagedGlobalNetworkPolicy", Name: "p"})
	g.Delete(policy.Key{Kind: "GlobalNetworkPolicy", Name: "p"})
	flush(t, g, p)
	if len(p.rules) != 0 {
		t.Errorf("%d names of rules are left of policies that are gone", len(p.rules))
	}
}

package guard

import (
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/policy"
)

// sound fails where what a Guard keeps up as it goes is not what it would find by looking
// at all that it has: it is asked after each Flush of a test.
func (g *Guard) sound(t *testing.T) {
	t.Helper()
	reporting := 0
	for key, s := range g.judged {
		if _, noted := g.unstaged[key]; noted != (s.unstaged != nil) {
			t.Errorf("%v has unreported stages %v, and is noted: %v", key, s.unstaged, noted)
		}
		if s.unstaged != nil {
			reporting++
		}
	}
	if len(g.unstaged) != reporting {
		t.Errorf("%d endpoints are noted whose stages are not reported on, and there are %d", len(g.unstaged), reporting)
	}
	for id, p := range g.programs {
		if _, noted := g.slow[id]; p.wantsFold() && !noted {
			t.Errorf("program %d would be faster if it were folded, and nobody knows", id)
		}
	}
	if g.fold == nil { // what is compiled just now numbers lists, too
		g.soundLiterals(t)
	}
}

// soundLiterals looks at the numbers around those that there are.
func (g *Guard) soundLiterals(t *testing.T) {
	t.Helper()
	const around = 8
	checked := map[classifier.SetID]bool{}
	for id := range g.sets {
		if id&classifier.AnonymousSet == 0 {
			continue
		}
		for near := id - around; near < id+around; near++ {
			if !checked[near] && g.literals.Prefixes(near) != nil && g.sets[near] == nil {
				t.Errorf("the list of prefixes %d is nobody's, and kept", near)
			}
			checked[near] = true
		}
	}
}

// What is staged and does not fit is said of the endpoint, until it is mended or gone.
func TestStagedPoliciesThatDoNotFitAreSaid(t *testing.T) {
	g, p := New("here"), newPlane(t)
	key := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"}
	upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"), allowFrom(t, "p", "role == 'client'"))
	flush(t, g, p)
	says := func() (faults []string) {
		t.Helper()
		for _, c := range flush(t, g, p).Conditions {
			if c.Object == key {
				faults = append(faults, c.Faults...)
			}
		}
		return faults
	}
	stage := func(port string) {
		t.Helper()
		o, err := v3.Decode([]byte(`{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: p}, spec: {selector: "role == 'server'",
			types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {nets: ["203.0.113.0/24", "2001:db8::/32"]}, destination: {ports: [` + port + `]}}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		upsert(t, g, o)
	}
	g.options.Budget = 1
	stage("443")
	if faults := says(); len(faults) != 1 || !strings.Contains(faults[0], "staged policies are not reported on") {
		t.Errorf("what is staged does not fit, and said is %q", faults)
	}
	g.options.Budget = 0
	stage("444")
	if faults := says(); len(faults) != 0 || len(p.stages[key].StagedIngress) == 0 {
		t.Errorf("it fits, and said is %q of stages %v", faults, p.stages[key].StagedIngress)
	}
	g.options.Budget = 1
	stage("445")
	flush(t, g, p)
	g.options.Budget = 0
	g.Delete(key)
	flush(t, g, p)
}

// Lists of prefixes come and go with the rules that have them.
func TestLiteralsGoWithTheirRules(t *testing.T) {
	g, p := New("here"), newPlane(t)
	keep := `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: keep}, spec: {selector: "role == 'server'",
		types: [Ingress], ingress: [{action: Allow, source: {selector: "role == 'client'"}}, {action: Allow, source: {nets: ["192.0.2.0/24", "2001:db8:1::/48"]}}]}}`
	upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"), endpoint("client", map[string]string{"role": "client"}, "10.1.0.2", "fd01::2"))
	for i, nets := range []string{`["198.51.100.0/24"]`, `["198.51.100.0/25", "2001:db8:2::/48"]`, `["203.0.113.0/24"]`, ""} {
		o, err := v3.Decode([]byte(keep))
		if err != nil {
			t.Fatal(err)
		}
		if nets != "" {
			if o, err = v3.Decode([]byte(strings.Replace(keep, `["192.0.2.0/24", "2001:db8:1::/48"]}}`, `["192.0.2.0/24", "2001:db8:1::/48"]}}, {action: Deny, source: {nets: `+nets+`}}`, 1))); err != nil {
				t.Fatal(err)
			}
		}
		upsert(t, g, o)
		g.Settled(flush(t, g, p).Generation)
		flush(t, g, p)
		if i == 3 && len(g.anonymous()) != 2 {
			t.Errorf("%d lists of prefixes are left, want that of IPv4 and that of IPv6", len(g.anonymous()))
		}
	}
}

// A list's own literal prefixes make combinations with the sets of its selectors, which
// are born only when the list comes.
func TestCombinationsThatAListBringsAreCompiledIn(t *testing.T) {
	g, p := New("here"), newPlane(t)
	o, err := v3.Decode([]byte(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {
		selector: "role == 'server'", types: [Ingress], ingress: [
			{action: Allow, protocol: TCP, source: {selector: "role == 'client'"}, destination: {ports: [80]}},
			{action: Deny, source: {nets: ["10.1.0.0/16", "fd01::/64"]}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	upsert(t, g, o, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"), endpoint("client", map[string]string{"role": "client"}, "10.1.0.2", "fd01::2"))
	flush(t, g, p)
	folds(t, g, p)
	knowing(t, g, p)
}

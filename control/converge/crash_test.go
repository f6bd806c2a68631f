package converge

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

// change is a step of a store's history.
type change struct {
	name   string
	events func(t *testing.T) []datastore.Event
}

// history is changes of everything that a Core acts on, the last of which lead back
// to cluster. None of them is about what ann's packets are judged by.
func history() []change {
	put := func(old, with string) func(*testing.T) []datastore.Event {
		return func(t *testing.T) []datastore.Event { return now(t, strings.Replace(cluster, old, with, 1)) }
	}
	return []change{
		{"another port is allowed", put("[80]", "[80, 81]")},
		{"bob moves", put("{node: n1, orchestrator", "{node: n7, orchestrator")},
		{"bob is gone", func(*testing.T) []datastore.Event { return []datastore.Event{gone("WorkloadEndpoint", "shop", "bob")} }},
		{"a pool is gone", func(*testing.T) []datastore.Event { return []datastore.Event{gone("IPPool", "", "p6")} }},
		{"host endpoints", func(t *testing.T) []datastore.Event { return now(t, hostObjects) }},
		{"another gateway", put("172.16.0.2/24", "172.16.0.9/24")},
		{"no host endpoints", func(*testing.T) []datastore.Event {
			return []datastore.Event{gone("HostEndpoint", "", "all"), gone("HostEndpoint", "", "eth"), gone("HostEndpoint", "", "other"), gone("GlobalNetworkPolicy", "", "forwarded")}
		}},
		{"as it was", put("", "")},
	}
}

// TestAnAgentKilledAnywhereConverges ends an agent's life after each of its commits,
// and somewhere within: at a random event, with a commit under way. What the
// forwarder has of ann never goes, and is never less than her policy; the next life
// comes to the same end.
func TestAnAgentKilledAnywhereConverges(t *testing.T) {
	steps := history()
	points := len(steps)
	if testing.Short() {
		points = 3
	}
	for point := range points {
		t.Run(fmt.Sprintf("after %s", steps[point].name), func(t *testing.T) {
			s := up(t)
			guardAnn(s)
			world := map[datastore.Key]datastore.Event{}
			tell := func(wait bool, events ...datastore.Event) {
				for _, e := range events {
					world[e.Key] = e
				}
				s.core.Deliver(t.Context(), events)
				if wait {
					s.settle()
				}
			}
			tell(true, now(t, cluster)...)
			r := rand.New(rand.NewPCG(uint64(point), 1))
			for i, step := range steps {
				tell(i != point, step.events(t)...)
				if i != point {
					continue
				}
				for range r.IntN(3) { // it may get so far, or not
					_, _ = s.core.Stats(t.Context()) // it is running
				}
				s.kill()
				s.begin()
				events := []datastore.Event{begins}
				for _, e := range world {
					if e.Type == datastore.Changed {
						events = append(events, e)
					}
				}
				s.tell(append(events, synced)...)
			}
			s.wantCluster()
			s.f.look(func(st *desired.State) {
				if n := len(st.Endpoints); n != 1 {
					t.Errorf("%d endpoints are left, want ann alone", n)
				}
			})
		})
	}
}

// guardAnn wants every commit to leave ann connected, and judged by her policy and
// her profile.
func guardAnn(s *scene) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.seen = func(_, after *desired.State) {
		e := after.Endpoints["shop/ann"]
		if e == nil || after.Ports["p"] == nil {
			s.t.Error("a commit takes ann away")
			return
		}
		if e.Policy != desired.PolicyEnforced || len(e.Ingress) != 2 || e.Ingress[0].Name != "default" || e.Ingress[0].UndecidedPasses {
			s.t.Errorf("a commit leaves ann judged by %v %+v", e.Policy, e.Ingress)
		}
	}
}

package converge

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/control/attach"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// cluster is two nodes, a workload on each, and a policy.
const cluster = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p4}
spec: {cidr: 10.1.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p6}
spec: {cidr: "fd01::/48"}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n0}
spec: {bgp: {ipv4Address: 172.16.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 172.16.0.2/24, ipv6Address: "fd16::2/64"}, addresses: [{address: 10.9.0.2, type: InternalIP}, {address: 192.0.2.1, type: ExternalIP}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: ann, namespace: shop, labels: {role: client}}
spec: {node: n0, orchestrator: cni, workload: ann, endpoint: eth0, ipNetworks: [10.1.0.2/32, "fd01::2/128"], profiles: [kns.shop], interfaceName: cali1}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: bob, namespace: shop, labels: {role: server}}
spec: {node: n1, orchestrator: cni, workload: bob, endpoint: eth0, ipNetworks: [10.1.0.3/32, "fd01::3/128"], profiles: [kns.shop], interfaceName: cali2}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {selector: role == 'client', ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'server'}, destination: {ports: [80]}}]}
`

var (
	ann  = attach.Key{Namespace: "shop", Name: "ann"}
	tun  = attach.Attachment{Key: ann, Kind: attach.TUN, NetNS: "/run/netns/ann", Device: "eth0", Port: "p"}
	annK = datastore.Key{Kind: "WorkloadEndpoint", Namespace: "shop", Name: "ann"}
)

func (s *scene) attach() {
	s.t.Helper()
	version, err := s.book.Put(tun)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.book.Await(ctx, ann, version); err != nil {
		s.t.Fatal(err)
	}
}

// up is a scene with the cluster, in sync, and ann attached.
func up(t *testing.T) *scene {
	s := newScene(t)
	s.tell(append(append([]datastore.Event{begins}, now(t, cluster)...), synced)...)
	s.attach()
	s.settle()
	return s
}

// wantCluster wants the forwarder to have the state of cluster.
func (s *scene) wantCluster() {
	s.t.Helper()
	s.f.look(func(st *desired.State) {
		e := st.Endpoints["shop/ann"]
		if e == nil || e.Policy != desired.PolicyEnforced || len(e.Ingress) != 2 || len(e.Egress) != 1 || e.Port != "p" || !e.HostDenied {
			s.t.Fatalf("endpoint is %+v", e)
		}
		if !slices.Equal(e.Addresses, prefixes("10.1.0.2/32", "fd01::2/128")) {
			s.t.Errorf("its addresses are %v", e.Addresses)
		}
		for p, gateway := range map[string]string{"10.1.0.3/32": "172.16.0.2", "fd01::3/128": "fd16::2", "10.9.0.2/32": "172.16.0.2", "172.16.0.2/32": "172.16.0.2", "192.0.2.1/32": "", "10.9.0.1/32": "punt"} {
			id, _ := st.Routes.Get(netip.MustParsePrefix(p))
			got := ""
			if h := st.NextHops[id]; h != nil && h.Kind == desired.Punt {
				got = "punt"
			} else if h != nil {
				got = h.Members[0].Gateway.String()
			}
			if got != gateway {
				s.t.Errorf("%s leads to %q, want %q", p, got, gateway)
			}
		}
		if !slices.Equal(st.Steering.Prefixes, prefixes("10.1.0.0/16", "fd01::/48")) || st.Ports["up"] == nil || st.Host == nil {
			s.t.Errorf("steering %v, ports %v, host port %v", st.Steering, st.Ports, st.Host)
		}
	})
}

func TestNothingIsSentBeforeTheStoreHasToldAll(t *testing.T) {
	s := newScene(t)
	if _, err := s.book.Put(tun); err != nil {
		t.Fatal(err)
	}
	s.tell(append([]datastore.Event{begins}, now(t, cluster)...)...)
	if n := s.f.Generation(); n != 0 {
		t.Fatalf("generation %d is sent, and the store may have more to tell", n)
	}
	s.tell(synced)
	s.wantCluster()
	if n := len(s.f.commits); n != 1 || !s.f.commits[0].Snapshot {
		t.Errorf("%d commits are sent, want one snapshot", n)
	}
	if r := s.report(annK); !r.Ours || r.Here != "" || r.Faults != nil {
		t.Errorf("what is reported of ann is %+v", r)
	}
}

func TestAnAttachmentIsInForceWhenAllThatItNeedsIs(t *testing.T) {
	s := newScene(t)
	s.tell(begins, synced)
	if _, err := s.book.Put(tun); err != nil {
		t.Fatal(err)
	}
	s.settle()
	wants := func(says string) {
		t.Helper()
		if _, stand := s.book.List(); stand[0].InForce || !strings.Contains(stand[0].Reason, says) {
			t.Errorf("it stands %+v, want not in force since %q", stand[0], says)
		}
	}
	wants("there is no WorkloadEndpoint shop/ann")
	s.tell(now(t, strings.Replace(cluster, "{node: n0, orchestrator", "{node: n7, orchestrator", 1))...)
	wants(`of node "n7"`)
	s.tell(now(t, cluster)...)
	s.wantCluster()
	s.attach()
	s.f.say(plane.Condition{Object: "port/p", Reason: plane.ReasonDeviceMissing, Message: "its namespace is not there"})
	for !strings.Contains(s.report(annK).Here, "not there") {
		s.settle()
	}
	wants("its namespace is not there")
	s.f.say(plane.Condition{Object: "port/p", OK: true})
	s.attach()
	version, err := s.book.Remove(ann)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.book.Gone(t.Context(), ann, version); err != nil {
		t.Fatal(err)
	}
	s.f.look(func(st *desired.State) {
		if len(st.Endpoints) != 0 || st.Ports["p"] != nil {
			t.Errorf("detached, and there are endpoints %v", st.Endpoints)
		}
	})
	s.settle()
	if r := s.report(annK); !strings.Contains(r.Here, "nobody has attached it") {
		t.Errorf("what is reported of ann is %+v", r)
	}
}

func TestWhatGoesIsTakenAway(t *testing.T) {
	s := up(t)
	s.wantCluster()
	s.tell(gone("WorkloadEndpoint", "shop", "bob"), gone("NetworkPolicy", "shop", "web"), gone("IPPool", "", "p6"))
	s.f.look(func(st *desired.State) {
		if id, has := st.Routes.Get(netip.MustParsePrefix("10.1.0.3/32")); has {
			t.Errorf("bob is gone, and his address leads to %d", id)
		}
		if n := len(st.Endpoints["shop/ann"].Ingress); n != 1 {
			t.Errorf("the policy is gone, and %d lists judge ann, want her profile alone", n)
		}
		if !slices.Equal(st.Steering.Prefixes, prefixes("10.1.0.0/16")) {
			t.Errorf("the pool is gone, and steered are %v", st.Steering.Prefixes)
		}
	})
	s.tell(gone("Node", "", "n1"))
	s.tell(now(t, cluster)...)
	s.wantCluster()
}

func TestARefusalIsFollowedByEverything(t *testing.T) {
	s := up(t)
	s.f.mu.Lock()
	s.f.refuse = 2
	s.f.mu.Unlock()
	s.tell(now(t, strings.Replace(cluster, "[80]", "[81]", 1))...)
	s.wantCluster()
	if last := s.f.commits[len(s.f.commits)-1]; !last.Snapshot {
		t.Error("what follows a refusal is no snapshot")
	}
	s.tell(gone("NetworkPolicy", "shop", "web"))
	s.f.look(func(st *desired.State) {
		if n := len(st.Endpoints["shop/ann"].Ingress); n != 1 {
			t.Errorf("after a refusal a change does nothing: %d lists", n)
		}
	})
}

func TestAForwarderThatBeginsAnewGetsAll(t *testing.T) {
	s := up(t)
	s.f.server.Stop()
	s.f.mu.Lock()
	s.f.state, s.f.generation = desired.Empty(), 0
	s.f.mu.Unlock()
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s.core.Deliver(t.Context(), []datastore.Event{gone("NetworkPolicy", "shop", "web")}) // meanwhile
	s.f.start(s.socket)
	s.settle()
	s.tell(now(t, cluster)...)
	s.wantCluster()
}

func TestAStoreThatIsAwayOrMendedTakesNothingAway(t *testing.T) {
	s := up(t)
	s.tell(datastore.Event{Type: datastore.Lost, Err: errors.New("no route to it")})
	s.wantCluster()
	s.tell(begins, datastore.Event{Type: datastore.Refusing, Key: datastore.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}, Err: errors.New("garbage")}, synced)
	s.wantCluster()
	if r := s.report(datastore.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}); len(r.Faults) != 1 || r.Faults[0] != "garbage" {
		t.Errorf("what is reported of the policy is %+v", r)
	}
	const information = "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\nspec: {datastoreReady: %}\n"
	s.tell(now(t, strings.Replace(information, "%", "false", 1))...)
	commits := len(s.f.commits)
	s.core.Deliver(t.Context(), []datastore.Event{gone("WorkloadEndpoint", "shop", "ann"), gone("NetworkPolicy", "shop", "web")})
	if stats, err := s.core.Stats(t.Context()); err != nil || !stats.Held {
		t.Errorf("the store is being mended: %+v, %v", stats, err)
	}
	s.wantCluster()
	if n := len(s.f.commits); n != commits {
		t.Errorf("%d commits are sent while the store is being mended", n-commits)
	}
	s.tell(now(t, cluster+"---\n"+strings.Replace(information, "%", "true", 1))...)
	s.wantCluster()
}

func TestSettingsSayWhetherWorkloadsReachTheirNode(t *testing.T) {
	s := up(t)
	const setting = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: %n}\nspec: {defaultEndpointToHostAction: %a}\n"
	wants := func(denied bool) {
		t.Helper()
		s.f.look(func(st *desired.State) {
			if got := st.Endpoints["shop/ann"].HostDenied; got != denied {
				t.Errorf("host denied is %v, want %v", got, denied)
			}
		})
	}
	put := func(name, action string) {
		t.Helper()
		s.tell(now(t, strings.NewReplacer("%n", name, "%a", action).Replace(setting))...)
	}
	put("default", "accept")
	wants(false)
	put("node.n0", "Drop")
	wants(true)
	put("node.n1", "Accept")
	wants(true)
	s.tell(gone("FelixConfiguration", "", "node.n0"))
	wants(false)
	s.tell(gone("FelixConfiguration", "", "default"))
	wants(true)
}

func TestTheNextLifeGoesOnWhereTheFormerEnded(t *testing.T) {
	s := up(t)
	s.kill()
	s.f.look(func(st *desired.State) {
		if st.Endpoints["shop/ann"] == nil {
			t.Error("the agent is gone, and so is the endpoint")
		}
	})
	s.f.seen = func(before, after *desired.State) {
		for p, id := range before.Routes.All() {
			if now, has := after.Routes.Get(p); !has || now != id {
				t.Errorf("%v led to %d, and leads to %d", p, id, now)
			}
		}
	}
	s.begin()
	s.tell(append(append([]datastore.Event{begins}, now(t, cluster)...), synced)...)
	s.wantCluster()
	if _, stand := s.book.List(); !stand[0].InForce {
		t.Errorf("ann stands %+v", stand[0])
	}
}

// TestFaultsAreToldAsLongAsObjectsHaveThem writes status of faulty objects, as whoever
// writes conditions does, and changes something else: what is wrong with them is
// still told, and nothing is of what is well.
func TestFaultsAreToldAsLongAsObjectsHaveThem(t *testing.T) {
	s := up(t)
	const faulty = `
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: later, namespace: shop, uid: u, generation: 1}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: ten}}]}]}
---
apiVersion: projectcalico.org/v3
kind: PendingChange
metadata: {name: trial, uid: v, generation: 1}
spec: {within: 1m, created: [{kind: Tier, name: a}]}
`
	later := datastore.Key{Kind: "StagedKubernetesNetworkPolicy", Namespace: "shop", Name: "later"}
	web := datastore.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}
	unusable := datastore.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "newer"}
	for round, ports := range []string{"[80]", "[81]", "[82]"} {
		// The same objects once more are what a written status looks like.
		s.tell(append(now(t, strings.Replace(cluster, "[80]", ports, 1)), now(t, faulty)...)...)
		if r := s.report(later); len(r.Faults) != 1 || !strings.Contains(r.Faults[0], "ten") {
			t.Errorf("round %d: of a policy that cannot be converted %+v is told", round, r)
		}
		if r := s.report(datastore.Key{Kind: "PendingChange", Name: "trial"}); len(r.Faults) > 0 {
			t.Errorf("round %d: of a change that waits for its confirmation %q is told", round, r.Faults)
		}
	}
	want := func(faulty int, when string) {
		t.Helper()
		if st, err := s.core.Stats(t.Context()); err != nil || st.Faulty != faulty {
			t.Errorf("%s %d objects are faulty, want %d (%v)", when, st.Faulty, faulty, err)
		}
	}
	before, err := s.core.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.tell(datastore.Event{Type: datastore.Refusing, Key: web, Err: errors.New("garbage")}, datastore.Event{Type: datastore.Refusing, Key: unusable, Err: errors.New("garbage")})
	if r := s.report(web); len(r.Faults) != 1 {
		t.Errorf("of an object that became garbage %+v is told", r)
	}
	want(before.Faulty+2, "with garbage")
	s.tell(append(now(t, cluster), gone(unusable.Kind, unusable.Namespace, unusable.Name))...)
	if r := s.report(web); len(r.Faults) > 0 {
		t.Errorf("of an object that can be used again %+v is told", r)
	}
	want(before.Faulty, "when that is mended")
}

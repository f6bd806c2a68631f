package converge

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

// named is a set with names of hosts, and a policy that lets ann reach them.
const named = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: web, labels: {to: web}}
spec: {allowedEgressDomains: ["*.web.example", Plain.Example]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec: {selector: role == 'client', types: [Egress], egress: [{action: Allow, destination: {selector: to == 'web'}}]}
`

var webKey = datastore.Key{Kind: "GlobalNetworkSet", Name: "web"}

// learnNames has the scene begin anew with names, and a keeper of them. went tells
// which packets have gone on.
func (s *scene) learnNames(l domains.Limits) (went func() []uint64) {
	var mu sync.Mutex
	var ids []uint64
	s.names = domains.NewKeeper(l, func(on []uint64) {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, on...)
	})
	s.t.Cleanup(s.names.Stop)
	s.kill()
	s.begin()
	s.tell(append(append([]datastore.Event{begins}, now(s.t, cluster+"---"+named)...), synced)...)
	return func() []uint64 {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ids)
	}
}

// hear has ann ask for a name, and a server answer with addresses, in a packet with
// an id.
func (s *scene) hear(id uint64, name string, addresses ...string) {
	s.t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	say := func(query bool, id uint64) {
		b, err := m.Pack()
		if err != nil {
			s.t.Fatal(err)
		}
		s.names.Hear(&v1.Overheard{Id: id, Client: []byte{10, 1, 0, 2}, ClientPort: 4000, Server: []byte{10, 0, 0, 10}, Query: query, Payload: b})
	}
	say(true, 0)
	m.Response = true
	for _, a := range addresses {
		kind := " 60 A "
		if strings.Contains(a, ":") {
			kind = " 60 AAAA "
		}
		r, err := dns.NewRR(dns.Fqdn(name) + kind + a)
		if err != nil {
			s.t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	say(false, id)
}

// has says whether any set has an address.
func has(st *desired.State, a string) bool {
	addr := netip.MustParseAddr(a)
	for _, set := range st.Sets {
		if _, is := set.Get(netip.PrefixFrom(addr, addr.BitLen())); is {
			return true
		}
	}
	return false
}

func (s *scene) wantInForce(when string, want bool, addresses ...string) {
	s.t.Helper()
	s.f.look(func(st *desired.State) {
		for _, a := range addresses {
			if has(st, a) != want {
				s.t.Errorf("%s: %s is in force: %v, want %v", when, a, !want, want)
			}
		}
	})
}

func TestAnswersGoOnWhenTheirAddressesAreInForce(t *testing.T) {
	s := up(t)
	went := s.learnNames(domains.Limits{})
	s.hear(1, "elsewhere.example", "192.0.2.9")
	if got := went(); !slices.Equal(got, []uint64{1}) {
		t.Errorf("an answer about a name that no set has: gone on are %v", got)
	}
	s.f.mu.Lock()
	s.f.seen = func(_, _ *desired.State) {
		if got := went(); len(got) != 1 {
			t.Errorf("gone on are %v while what they say is not acknowledged", got)
		}
	}
	s.f.mu.Unlock()
	s.hear(2, "a.web.example", "192.0.2.1", "2001:db8::1")
	s.settle()
	s.f.mu.Lock()
	s.f.seen = nil
	s.f.mu.Unlock()
	s.wantInForce("asked for", true, "192.0.2.1", "2001:db8::1")
	s.hear(3, "a.web.example", "192.0.2.1")
	s.hear(4, "PLAIN.example", "192.0.2.2")
	s.settle()
	s.wantInForce("asked for", true, "192.0.2.2")
	if got := went(); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
		t.Errorf("gone on are %v", got)
	}
	stats, err := s.core.Stats(t.Context())
	if err != nil || stats.Names.Addresses != 3 || stats.Names.Patterns != 2 || stats.Heard.Learned != 3 {
		t.Errorf("%+v, %+v, %v", stats.Names, stats.Heard, err)
	}
	s.tell(now(t, strings.ReplaceAll(named, "\"*.web.example\", ", ""))...)
	s.wantInForce("a pattern is gone", false, "192.0.2.1", "2001:db8::1")
	s.wantInForce("another pattern is gone", true, "192.0.2.2")
	s.tell(gone("GlobalNetworkSet", "", "web"))
	if stats, _ := s.names.Stats(); stats != (domains.Stats{}) {
		t.Errorf("without a set there are %+v", stats)
	}
}

// What was learned is in the first commit of a guard that is made anew: after a
// refusal, and in an agent's next life.
func TestNamesKeepTheirAddresses(t *testing.T) {
	s := up(t)
	went := s.learnNames(domains.Limits{})
	s.hear(1, "a.web.example", "192.0.2.1", "2001:db8::1")
	s.hear(2, "plain.example", "192.0.2.2")
	s.settle()
	always := func(_, after *desired.State) {
		for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
			if !has(after, a) {
				t.Errorf("a commit takes %s away", a)
			}
		}
	}
	s.f.mu.Lock()
	s.f.seen, s.f.refuse = always, 2
	commits := len(s.f.commits)
	s.f.mu.Unlock()
	s.hear(3, "b.web.example", "192.0.2.3")
	s.core.Deliver(t.Context(), now(t, strings.ReplaceAll(named, ", Plain.Example", ""))) // meanwhile
	s.settle()
	s.wantInForce("after refusals", true, "192.0.2.3")
	s.wantInForce("its pattern went while the guard was made anew", false, "192.0.2.2")
	if got := went(); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("gone on are %v", got)
	}
	if s.f.refuse != 0 || !s.f.commits[commits].Snapshot {
		t.Errorf("%d commits are left to be refused, and the next was no snapshot", s.f.refuse)
	}
	if stats, _ := s.names.Stats(); stats.Patterns != 1 {
		t.Errorf("the keeper has %+v, and one pattern is wanted", stats)
	}

	path := filepath.Join(t.TempDir(), "names")
	life := func() {
		j, err := domains.OpenJournal(path, s.names)
		if err == nil {
			err = j.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	life()
	s.kill()
	s.names = domains.NewKeeper(domains.Limits{}, func([]uint64) {})
	defer s.names.Stop()
	life()
	s.begin()
	s.tell(append(append([]datastore.Event{begins}, now(t, cluster+"---"+named)...), synced)...)
	s.wantInForce("in the next life", true, "192.0.2.1", "2001:db8::1", "192.0.2.3")
}

func TestNamesThatHaveNoRoomAreSaid(t *testing.T) {
	s := up(t)
	s.learnNames(domains.Limits{AddressesOfPattern: 1, Grace: -time.Second})
	s.hear(1, "a.web.example", "192.0.2.1", "192.0.2.2")
	s.settle()
	if r := s.report(webKey); !strings.Contains(r.Here, "more addresses than are kept") || r.Ours || len(r.Faults) > 0 {
		t.Errorf("reported of the set is %+v", r)
	}
	s.tell(now(t, strings.ReplaceAll(named, "\"*.web.example\", ", ""))...)
	if r := s.report(webKey); r.Here != "" {
		t.Errorf("the pattern is gone, and reported of the set is %+v", r)
	}
	s.tell(now(t, named)...)
	if r := s.report(webKey); r.Here != "" {
		t.Errorf("the pattern has come back, empty, and reported of the set is %+v", r)
	}
}

package hosts

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	rules "margay.dev/margay/classifier/oracle"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/policy"
	"margay.dev/margay/policy/oracle"
)

func host(name, link string, addresses ...string) *v3.HostEndpoint {
	return &v3.HostEndpoint{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
		Spec:       v3.HostEndpointSpec{Node: "here", InterfaceName: link, ExpectedIPs: addresses},
	}
}

func TestPlace(t *testing.T) {
	address := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	links := []Interface{
		{"lo", address("127.0.0.1", "::1")}, {"eth0", address("10.0.0.1", "2001:db8::1")}, {"eth1", address("10.0.1.1", "fe80::1%eth1")},
	}
	tests := map[string]struct {
		hosts []*v3.HostEndpoint
		want  map[string]string
	}{
		"by name":                           {[]*v3.HostEndpoint{host("a", "eth0")}, map[string]string{"eth0": "a"}},
		"by an IPv4 address":                {[]*v3.HostEndpoint{host("a", "", "10.9.9.9", "10.0.1.1")}, map[string]string{"eth1": "a"}},
		"by an IPv6 address":                {[]*v3.HostEndpoint{host("a", "", "2001:db8::1")}, map[string]string{"eth0": "a"}},
		"by addresses of two":               {[]*v3.HostEndpoint{host("a", "", "10.0.0.1", "fe80::1")}, map[string]string{"eth0": "a", "eth1": "a"}},
		"a name, whatever it expects":       {[]*v3.HostEndpoint{host("a", "eth1", "10.0.0.1")}, map[string]string{"eth1": "a"}},
		"the first of two by name":          {[]*v3.HostEndpoint{host("b", "eth0"), host("a", "", "10.0.0.1")}, map[string]string{"eth0": "a"}},
		"all others":                        {[]*v3.HostEndpoint{host("a", "*"), host("b", "eth0")}, map[string]string{"*": "a", "eth0": "b"}},
		"the first of those for all others": {[]*v3.HostEndpoint{host("b", "*"), host("a", "*")}, map[string]string{"*": "a"}},
		"an interface yet to come":          {[]*v3.HostEndpoint{host("a", "eth7")}, map[string]string{"eth7": "a"}},
		"an address that nobody has":        {[]*v3.HostEndpoint{host("a", "", "10.7.7.7", "no address")}, map[string]string{}},
		"of another node": {[]*v3.HostEndpoint{{
			ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v3.HostEndpointSpec{Node: "there", InterfaceName: "eth0"},
		}}, map[string]string{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := New("here", func(func(classifier.SetID) bool) []policy.SetChange { return nil }, nil, new(Words))
			h.SetInterfaces(links)
			for _, e := range tt.hosts {
				h.Put(e.Name, &e.Spec)
			}
			c, _ := h.Flush()
			got := map[string]string{}
			for _, e := range c.Desired.Endpoints {
				got[e.Interface] = e.Name
				if e.Normal[0] == nil || e.Normal[0].End != classifier.Deny || e.Forward[1] == nil || e.Forward[1].End != classifier.Deny {
					t.Errorf("%s is not closed, though nobody has said how it is judged", e.Interface)
				}
				if !slices.Contains(h.Placed(e.Name), e.Interface) {
					t.Errorf("%s is not said to judge %s, but %v", e.Name, e.Interface, h.Placed(e.Name))
				}
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// bench is a calculation, what the kernel was told of it, and the same objects for
// the oracle.
type bench struct {
	t      *testing.T
	calc   *policy.Calculation
	hosts  *Hosts
	words  Words
	world  oracle.World
	kernel *nft.Desired
	sets   map[classifier.SetID]map[netip.Prefix]bool
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, calc: policy.New("here"), sets: map[classifier.SetID]map[netip.Prefix]bool{}}
	b.hosts = New("here", b.calc.Sets, b.calc.Rule, &b.words)
	return b
}

func (b *bench) upsert(objects ...metav1.Object) {
	b.t.Helper()
	for _, o := range objects {
		if err := b.calc.Upsert(o); err != nil {
			b.t.Fatal(err)
		}
		if e, ok := o.(*v3.HostEndpoint); ok {
			b.hosts.Put(e.Name, &e.Spec)
		}
	}
}

// flush brings what is new to the kernel that is none, and checks that changes of
// sets are what they say.
func (b *bench) flush() nft.Change {
	b.t.Helper()
	b.hosts.Take(b.calc.Flush())
	c, _ := b.hosts.Flush()
	if c.Whole {
		clear(b.sets)
	}
	for _, s := range c.Sets {
		if b.sets[s.ID] == nil {
			b.sets[s.ID] = map[netip.Prefix]bool{}
		}
		for _, p := range s.Left {
			if !b.sets[s.ID][p] {
				b.t.Errorf("%v leaves set %d, in which it is not", p, s.ID)
			}
			delete(b.sets[s.ID], p)
		}
		for _, p := range s.Joined {
			b.sets[s.ID][p] = true
		}
	}
	for _, id := range c.Gone {
		delete(b.sets, id)
	}
	if c.Desired != nil {
		b.kernel = c.Desired
	}
	return c
}

// judge reads the judgement that the kernel was told.
func (b *bench) judge(j *nft.Judgement, p oracle.Packet) v3.Action {
	actions := map[classifier.Action]v3.Action{classifier.Allow: v3.Allow, classifier.Deny: v3.Deny, classifier.Pass: v3.Pass}
	if j == nil {
		return v3.Pass
	}
	sets := rules.Sets{}
	for id, members := range b.sets {
		sets[id] = slices.Collect(maps.Keys(members))
	}
	key := rules.Packet{Source: p.Source, Destination: p.Destination, Protocol: p.Protocol, SourcePort: p.SourcePort, DestinationPort: p.DestinationPort}
	for _, t := range j.Tiers {
		list, action := t.V4, t.End
		if !p.Source.Is4() {
			list = t.V6
		}
		if n, _ := rules.Match(list, sets, key); n < len(list) {
			action = list[n].Action
		}
		if action != classifier.Pass {
			return actions[action]
		}
	}
	return actions[j.End]
}

func globalPolicy(name string, order float64, spec v3.GlobalNetworkPolicySpec) *v3.GlobalNetworkPolicy {
	spec.Order = &order
	if len(spec.Types) == 0 {
		spec.Types = []v3.PolicyType{v3.PolicyTypeIngress, v3.PolicyTypeEgress}
	}
	return &v3.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

func portRule(action v3.Action, port uint16, selector string) v3.Rule {
	tcp := v3.Protocol{Name: "TCP"}
	return v3.Rule{
		Action: action, Protocol: &tcp, Source: v3.EntityRule{Selector: selector},
		Destination: v3.EntityRule{Ports: []v3.Port{{MinPort: port, MaxPort: port}}},
	}
}

// objects are of every kind of policy that host endpoints have.
func objects() []metav1.Object {
	normal := v3.GlobalNetworkPolicySpec{}
	normal.Selector = "name in {'a', 'b'}"
	normal.Ingress = []v3.Rule{portRule(v3.Allow, 80, "role == 'client'"), portRule(v3.Pass, 81, "")}
	normal.Egress = []v3.Rule{portRule(v3.Allow, 443, "")}
	forward := v3.GlobalNetworkPolicySpec{ApplyOnForward: true}
	forward.Selector = "name == 'a'"
	forward.Ingress = []v3.Rule{portRule(v3.Allow, 82, "role != 'client'")}
	early := v3.GlobalNetworkPolicySpec{ApplyOnForward: true, PreDNAT: true}
	early.Selector = "has(name)"
	early.Types = []v3.PolicyType{v3.PolicyTypeIngress}
	early.Ingress = []v3.Rule{portRule(v3.Deny, 83, "role == 'client'")}
	raw := v3.GlobalNetworkPolicySpec{ApplyOnForward: true, DoNotTrack: true}
	raw.Selector = "name == 'b'"
	raw.Ingress = []v3.Rule{portRule(v3.Allow, 84, "")}
	raw.Egress = []v3.Rule{portRule(v3.Deny, 84, "")}
	a := host("a", "eth0", "10.0.0.1", "2001:db8::1")
	a.Spec.Profiles = []string{"open"}
	return []metav1.Object{
		a, host("b", "*", "10.0.0.2"), host("c", "eth2"),
		globalPolicy("normal", 1, normal), globalPolicy("forward", 2, forward), globalPolicy("early", 3, early), globalPolicy("raw", 4, raw),
		&v3.Profile{ObjectMeta: metav1.ObjectMeta{Name: "open"}, Spec: v3.ProfileSpec{
			Ingress: []v3.Rule{portRule(v3.Allow, 81, "")}, Egress: []v3.Rule{{Action: v3.Allow}},
		}},
		clients("10.1.0.0/16", "2001:db8:1::/48"),
	}
}

func clients(nets ...string) *v3.GlobalNetworkSet {
	return &v3.GlobalNetworkSet{
		ObjectMeta: metav1.ObjectMeta{Name: "clients", Labels: map[string]string{"role": "client"}}, Spec: v3.GlobalNetworkSetSpec{Nets: nets},
	}
}

func (b *bench) take(o metav1.Object) {
	switch o := o.(type) {
	case *v3.HostEndpoint:
		b.world.Hosts = append(b.world.Hosts, o)
	case *v3.GlobalNetworkPolicy:
		b.world.Policies = append(b.world.Policies, oracle.Policy{Kind: v3.KindGlobalNetworkPolicy, Name: o.Name, Spec: o.Spec})
	case *v3.Profile:
		b.world.Profiles = append(b.world.Profiles, o)
	case *v3.GlobalNetworkSet:
		b.world.Global = []*v3.GlobalNetworkSet{o}
	}
	b.upsert(o)
}

// compare asks the oracle of policy and what the kernel was told about packets.
func (b *bench) compare() {
	b.t.Helper()
	w := rand.New(rand.NewPCG(1, 2))
	sources := []string{"10.1.2.3", "10.2.2.3", "10.0.0.2", "2001:db8:1::7", "2001:db8:2::7"}
	directions := [...]v3.PolicyType{nft.Ingress: v3.PolicyTypeIngress, nft.Egress: v3.PolicyTypeEgress}
	decided := map[v3.Action]int{}
	for range 4000 {
		p := oracle.Packet{Source: netip.MustParseAddr(sources[w.IntN(len(sources))]), Protocol: 6, SourcePort: 1000}
		p.Destination = netip.MustParseAddr("10.0.0.1")
		if !p.Source.Is4() {
			p.Destination = netip.MustParseAddr("2001:db8::1")
		}
		p.DestinationPort = []uint16{80, 81, 82, 83, 84, 443}[w.IntN(6)]
		e, d := b.kernel.Endpoints[w.IntN(len(b.kernel.Endpoints))], nft.Direction(w.IntN(2))
		kinds := map[oracle.Traffic]*nft.Judgement{
			oracle.Normal: e.Normal[d], oracle.Forward: e.Forward[d], oracle.Untracked: e.Untracked[d], oracle.PreDNAT: e.PreDNAT,
		}
		kind := oracle.Traffic(w.IntN(4))
		if kind == oracle.PreDNAT && d == nft.Egress {
			continue
		}
		got := b.judge(kinds[kind], p)
		want := b.world.Judge(oracle.Endpoint{Host: true, Name: e.Name}, directions[d], kind, false, p).Action
		if kind == oracle.Forward && kinds[kind] == nil {
			got = v3.Allow // nobody is asked
		}
		decided[want]++
		if got != want {
			b.t.Fatalf("%s %v kind %d: %+v: told %v, the oracle says %v", e.Name, directions[d], kind, p, got, want)
		}
	}
	for _, a := range []v3.Action{v3.Allow, v3.Deny, v3.Pass} {
		if decided[a] < 100 {
			b.t.Errorf("only %d packets come to %v", decided[a], a)
		}
	}
}

// What the kernel is told judges as the oracle of policy, for each kind of traffic.
func TestToldAsPolicySays(t *testing.T) {
	b := newBench(t)
	for _, o := range objects() {
		b.take(o)
	}
	c := b.flush()
	if !c.Whole || len(c.Desired.Endpoints) != 3 {
		t.Fatalf("the first change is %+v", c)
	}
	b.compare()
	b.take(clients("10.2.0.0/16", "2001:db8:2::/48", "10.1.0.0/16"))
	if c = b.flush(); c.Whole || c.Desired != nil || len(c.Sets) == 0 {
		t.Errorf("a change of members is %+v, want it told as members alone", c)
	}
	b.compare()
	b.hosts.Lost()
	if c = b.flush(); !c.Whole || c.Desired == nil {
		t.Errorf("after a loss the change is %+v, want all", c)
	}
	b.compare()
	if _, ok := b.hosts.Flush(); ok {
		t.Error("nothing has changed, and there is something to tell")
	}
}

// The kernel gets the sets that lists of host endpoints name, whenever they begin to,
// and no others.
func TestSetsFollowLists(t *testing.T) {
	b := newBench(t)
	b.upsert(clients("10.1.0.0/16"), host("a", "eth0"))
	pods := v3.GlobalNetworkPolicySpec{}
	pods.Selector = "name == 'nobody'"
	pods.Ingress = []v3.Rule{portRule(v3.Allow, 80, "role == 'client'")}
	b.upsert(globalPolicy("pods", 1, pods))
	if c := b.flush(); len(c.Sets) != 0 {
		t.Errorf("sets of others are told: %+v", c.Sets)
	}
	pods.Selector = "name == 'a'"
	b.upsert(globalPolicy("pods", 1, pods))
	if c := b.flush(); len(c.Sets) != 1 || !slices.Equal(c.Sets[0].Joined, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}) {
		t.Errorf("a set that is new to the kernel is told as %+v", c.Sets)
	}
	pods.Selector = "name == 'nobody'"
	b.upsert(globalPolicy("pods", 1, pods))
	if c := b.flush(); len(c.Gone) != 1 || len(b.sets) != 0 {
		t.Errorf("a set that no list names is kept: %+v", c)
	}
	b.calc.Delete(policy.Key{Kind: v3.KindHostEndpoint, Name: "a"})
	b.hosts.Delete("a")
	if c := b.flush(); c.Desired == nil || len(c.Desired.Endpoints) != 0 {
		t.Errorf("an endpoint that is gone is told as %+v", c.Desired)
	}
}

// What did not change is the same memory, by which a table knows it.
func TestUnchangedIsTheSame(t *testing.T) {
	b := newBench(t)
	for _, o := range objects() {
		b.take(o)
	}
	b.flush()
	was := map[string]nft.Endpoint{}
	for _, e := range b.kernel.Endpoints {
		was[e.Interface] = e
	}
	b.hosts.SetSettings(nft.Settings{Reject: true})
	b.hosts.SetInterfaces([]Interface{{Name: "eth9"}})
	c := b.flush()
	if c.Desired == nil || !c.Desired.Settings.Reject {
		t.Fatalf("other settings are told as %+v", c)
	}
	for _, e := range c.Desired.Endpoints {
		if !reflect.DeepEqual(was[e.Interface], e) || was[e.Interface].Normal[0] != e.Normal[0] {
			t.Errorf("%s was made anew", e.Interface)
		}
	}
}

func TestWords(t *testing.T) {
	rules := map[uint32]policy.RuleRef{
		1: {Object: policy.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}, Tier: "default"},
		2: {Object: policy.Key{Kind: "Profile", Name: "open"}},
		3: {Object: policy.Key{Kind: "GlobalNetworkPolicy", Name: "odd"}, StandsIn: true, Tier: "t"},
	}
	var words Words
	words.know([]map[uint32]policy.RuleRef{{}, rules})
	for id, want := range map[uint32][2]string{
		1: {"NetworkPolicy shop/web", "t=default k=NetworkPolicy n=web p=shop/web 1%: "},
		2: {"Profile open", "t=profile k=Profile n=open p=open 1%: "},
		3: {"GlobalNetworkPolicy odd (not understood)", "t=t k=GlobalNetworkPolicy n=odd p=odd 1%: "},
		9: {"rule 9", "t=profile k= n= p= 1%: "},
	} {
		if got := [2]string{words.Comment(id), words.Prefix("t=%t k=%k n=%n p=%p 1%%", id)}; got != want {
			t.Errorf("rule %d is %q, want %q", id, got, want)
		}
	}
}

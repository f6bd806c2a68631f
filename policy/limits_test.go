package policy

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
)

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

// globalPolicy is a policy with so many rules, for one address each.
func globalPolicy(name, selector string, rules int) *v3.GlobalNetworkPolicy {
	p := &v3.GlobalNetworkPolicy{ObjectMeta: named(name)}
	p.Spec.Selector = selector
	for i := range rules {
		net := fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
		p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{Action: v3.Allow, Source: v3.EntityRule{Nets: []string{net}}})
	}
	return p
}

func workload(name string, labels map[string]string, addresses ...string) *v3.WorkloadEndpoint {
	return &v3.WorkloadEndpoint{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "x", Labels: labels},
		Spec:       v3.WorkloadEndpointSpec{Node: "n1", IPNetworks: addresses},
	}
}

func upsert(t testing.TB, c *Calculation, objects ...metav1.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyRulesOnOneEndpoint has 12,500 of them, in policies at their limit, and
// changes one.
func TestManyRulesOnOneEndpoint(t *testing.T) {
	c, r := New(""), newReceiver(t)
	for i := range 12 {
		upsert(t, c, globalPolicy(fmt.Sprintf("p%02d", i), "all()", 1024))
	}
	upsert(t, c, globalPolicy("p99", "all()", 12_500-12*1024), workload("a", nil, "10.0.0.1"), workload("b", nil, "fd00::1"))
	r.take(c.Flush())
	a, b := r.endpoints[Key{v3.KindWorkloadEndpoint, "x", "a"}], r.endpoints[Key{v3.KindWorkloadEndpoint, "x", "b"}]
	list := a.Normal[Ingress].Tiers[0].Rules
	if len(list.V4) != 12_500 || len(list.V6) != 0 {
		t.Errorf("%d and %d rules, want 12500 and none", len(list.V4), len(list.V6))
	}
	if b.Normal[Ingress].Tiers[0].Rules != list {
		t.Error("two endpoints with the same policies have two lists")
	}
	before := list.V4[500].ID
	changed := globalPolicy("p00", "all()", 1024)
	changed.Spec.Ingress = slices.Delete(changed.Spec.Ingress, 7, 8)
	upsert(t, c, changed)
	changes := c.Flush()
	r.take(changes)
	list = r.endpoints[a.Key].Normal[Ingress].Tiers[0].Rules
	if len(list.V4) != 12_499 || list.V4[499].ID != before || len(changes.Endpoints) != 2 {
		t.Errorf("%d rules, want one less; rule 499 has id %d, want %d as before; %d endpoints", len(list.V4), list.V4[499].ID, before, len(changes.Endpoints))
	}
	if r.endpoints[a.Key].Normal[Egress] != a.Normal[Egress] {
		t.Error("the judgement of the other direction is another, though nothing of it changed")
	}
	if ref, _ := c.Rule(before); ref.Index != 499 || ref.Object.Name != "p00" {
		t.Errorf("the id stands for %v, rule %d", ref.Object, ref.Index)
	}
}

// TestSetOfAMillion puts and changes a set of a million prefixes, and bounds what
// each costs.
func TestSetOfAMillion(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	nets := make([]string, n)
	for i := range nets {
		nets[i] = fmt.Sprintf("%d.%d.%d.0/24", i>>16&31+1, i>>8&255, i&255)
	}
	big := &v3.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: "big", Labels: map[string]string{"big": "yes"}}, Spec: v3.GlobalNetworkSetSpec{Nets: nets}}
	p := &v3.GlobalNetworkPolicy{ObjectMeta: named("p")}
	p.Spec.Ingress = []v3.Rule{{Action: v3.Allow, Source: v3.EntityRule{Selector: "has(big)"}}}
	c := New("")
	upsert(t, c, p, workload("a", nil, "10.0.0.1"))
	first := c.Flush()
	before := heap()
	upsert(t, c, big)
	joined := len(c.Flush().Sets[0].Joined)
	if per := (heap() - before) / uint64(n); joined < n/2 || per > 150 {
		t.Errorf("%d members joined, at %d bytes each, want at most 150", joined, per)
	}
	big = big.DeepCopy()
	big.Spec.Nets[5], big.Spec.Nets = "192.168.0.0/16", big.Spec.Nets[:n-1]
	upsert(t, c, big)
	if s := c.Flush().Sets; len(s) != 1 || len(s[0].Joined) != 1 || len(s[0].Left) != 2 && n == 1_000_000 || s[0].ID != first.Sets[0].ID {
		t.Errorf("another member, and one less, are told as %.200v", fmt.Sprint(s))
	}
	c.Delete(Key{Kind: v3.KindGlobalNetworkPolicy, Name: "p"})
	if s := c.Flush(); len(s.GoneSets) != 1 || len(s.Sets[0].Left) < joined-2 {
		t.Errorf("the set is not gone with all its members")
	}
	runtime.KeepAlive(c)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestPortsThatMultiply has names that stand for hundreds of ports on both ends.
func TestPortsThatMultiply(t *testing.T) {
	c, r := New(""), newReceiver(t)
	for i := range 200 {
		e := workload(fmt.Sprint("e", i), nil, fmt.Sprintf("10.0.%d.1", i))
		e.Spec.Ports = []v3.WorkloadEndpointPort{{Name: "web", Protocol: v3.ProtocolNamed(v3.TCP), Port: uint16(1000 + i)}}
		upsert(t, c, e)
	}
	web := v3.EntityRule{Ports: []v3.Port{v3.NamedPort("web")}}
	p := &v3.GlobalNetworkPolicy{ObjectMeta: named("p")}
	p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress}
	p.Spec.Ingress = []v3.Rule{{Action: v3.Allow, Source: web, Destination: web}, {Action: v3.Log, Source: web, Destination: web}, {Action: v3.Allow, Destination: web}, {Action: v3.Deny, Source: web, Destination: web}}
	upsert(t, c, p)
	r.take(c.Flush())
	list := r.endpoints[Key{v3.KindWorkloadEndpoint, "x", "e0"}].Normal[Ingress].Tiers[0].Rules.V4
	last := list[len(list)-1]
	if len(list) != 201 || last.Action != classifier.Deny || len(last.Source.Sets)+len(last.Destination.Sets)+len(last.Protocols) > 0 {
		t.Errorf("%d rules, want 200 of one end and one that denies everything: %+v", len(list), last)
	}
	if !conditioned(r, "GlobalNetworkPolicy p", "rule 0 of Ingress: names of ports or services") || !conditioned(r, "GlobalNetworkPolicy p", "rule 3 of Ingress") {
		t.Errorf("conditions: %v", r.conditions)
	}
	for i := range 100 {
		c.Delete(Key{v3.KindWorkloadEndpoint, "x", fmt.Sprint("e", i+100)})
	}
	if r.take(c.Flush()); len(r.conditions) > 0 {
		t.Errorf("conditions outlive what caused them: %v", r.conditions)
	}
}

// TestTooManyTiers is about more lists in a row than a verdict can number.
func TestTooManyTiers(t *testing.T) {
	c, r := New(""), newReceiver(t)
	for i := range classifier.MaxTiers + 1 {
		p := globalPolicy(fmt.Sprint("p", i), "all()", 1)
		p.Spec.Tier, p.Spec.Ingress[0].Action = fmt.Sprint("t", i), v3.Pass
		if i == classifier.MaxTiers {
			upsert(t, c, &v3.StagedGlobalNetworkPolicy{ObjectMeta: p.ObjectMeta, Spec: v3.StagedGlobalNetworkPolicySpec{GlobalNetworkPolicySpec: p.Spec}})
		} else {
			upsert(t, c, p)
		}
	}
	upsert(t, c, workload("a", nil, "10.0.0.1"))
	r.take(c.Flush())
	key := Key{v3.KindWorkloadEndpoint, "x", "a"}
	if j := r.endpoints[key].Normal[Ingress]; len(j.Tiers) != classifier.MaxTiers || j.Staged != nil || !conditioned(r, key.String(), "they are not reported on") {
		t.Errorf("%d tiers, staged %v, conditions %v", len(j.Tiers), j.Staged, r.conditions)
	}
	more := globalPolicy("more", "all()", 1)
	more.Spec.Tier = "more"
	upsert(t, c, more)
	r.take(c.Flush())
	if j := r.endpoints[key].Normal[Ingress]; len(j.Tiers)+len(j.Profiles) > 0 || j.End != classifier.Deny || !conditioned(r, key.String(), "everything is denied") {
		t.Errorf("%+v, conditions %v; want all denied and told", j, r.conditions)
	}
	c.Delete(Key{Kind: v3.KindGlobalNetworkPolicy, Name: "more"})
	c.Delete(Key{Kind: v3.KindStagedGlobalNetworkPolicy, Name: fmt.Sprint("p", classifier.MaxTiers)})
	if r.take(c.Flush()); len(r.conditions) > 0 {
		t.Errorf("conditions outlive what caused them: %v", r.conditions)
	}
}

// TestIDsAreReusedWhenSettled takes ids out of use and asks for others.
func TestIDsAreReusedWhenSettled(t *testing.T) {
	c := New("")
	put := func(selector, source string) (classifier.SetID, uint32, Changes) {
		p := globalPolicy("p", selector, 1)
		p.Spec.Ingress[0].Source = v3.EntityRule{Selector: source}
		upsert(t, c, p)
		changes := c.Flush()
		rule := changes.Endpoints[0].Normal[Ingress].Tiers[0].Rules.V4[0]
		return rule.Source.Sets[0], rule.ID, changes
	}
	upsert(t, c, workload("a", nil, "10.0.0.1", "fd00::1"))
	set1, rule1, _ := put("all()", "has(a)")
	set2, rule2, second := put("all()", "has(b)")
	set3, rule3, _ := put("all()", "has(c)")
	if set1 == set2 || set2 == set3 || set1 == set3 || rule1 == rule2 || rule2 == rule3 || rule1 == rule3 {
		t.Errorf("sets %d %d %d and rules %d %d %d: reused before anybody said so", set1, set2, set3, rule1, rule2, rule3)
	}
	if ref, ok := c.Rule(rule1); !ok || ref.Rule.Source.Selector != "has(a)" {
		t.Errorf("the old id stands for %v %+v, want the old rule still", ok, ref)
	}
	c.Settled(second.Generation) // what came out of use with the third is not free yet
	if _, ok := c.Rule(rule1); ok {
		t.Error("an id that settled still stands for a rule")
	}
	set4, rule4, _ := put("all()", "has(d)")
	if set4 != set1 || rule4 != rule1 {
		t.Errorf("set %d and rule %d, want those that settled: %d and %d", set4, rule4, set1, rule1)
	}
}

func TestIDsRunOut(t *testing.T) {
	i := ids{most: 2}
	if a, b, c := i.take(), i.take(), i.take(); a != 1 || b != 2 || c != 0 {
		t.Errorf("took %d %d %d of two", a, b, c)
	}
	if i.free = append(i.free, 2); i.take() != 2 || i.take() != 0 {
		t.Error("what came back is not given again, once")
	}
}

// TestEqualSelectorsShareOneSet spells one selector in three ways.
func TestEqualSelectorsShareOneSet(t *testing.T) {
	c, r := New(""), newReceiver(t)
	p := globalPolicy("p", "", 0)
	for _, text := range []string{"a in {'x','y'}&&has(b)", `a in {"y", "x", "y"} && has( b )`, "((a in {'x', 'y'} && (has(b))))"} {
		p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{Action: v3.Allow, Source: v3.EntityRule{Selector: text}, Destination: v3.EntityRule{NotSelector: text}})
	}
	upsert(t, c, p, workload("a", map[string]string{"a": "x", "b": ""}, "10.0.0.1", "fd00::1"), workload("b", map[string]string{"a": "x", "b": ""}, "10.0.0.1"))
	changes := c.Flush()
	r.take(changes)
	if len(r.sets) != 1 || len(changes.Sets[0].Joined) != 2 {
		t.Errorf("sets %v, want one with an address of each family, once", changes.Sets)
	}
	c.Delete(Key{v3.KindWorkloadEndpoint, "x", "a"})
	if s := c.Flush().Sets; len(s) != 1 || len(s[0].Left) != 1 || !s[0].Left[0].Addr().Is6() {
		t.Errorf("%v: want the address that the other endpoint has too to stay", s)
	}
}

// TestOtherNodes judges the endpoints of one node, and picks from all.
func TestOtherNodes(t *testing.T) {
	c, r := New("n1"), newReceiver(t)
	far := workload("far", map[string]string{"a": "x"}, "10.0.0.2", "fd00::2")
	far.Spec.Node = "n2"
	unused := globalPolicy("unused", "a == 'x'", 3)
	unused.Spec.Ingress[0].Source = v3.EntityRule{Selector: "has(nothing)"}
	p := globalPolicy("p", "!has(a)", 1)
	p.Spec.Ingress[0].Source = v3.EntityRule{Selector: "a == 'x'"}
	upsert(t, c, far, workload("near", nil, "10.0.0.1"), unused, p)
	r.take(c.Flush())
	if len(r.endpoints) != 1 || len(r.sets) != 1 || len(c.rules) != 1 {
		t.Errorf("%d endpoints, %d sets, %d rules, want one each: a policy that judges nobody here needs nothing", len(r.endpoints), len(r.sets), len(c.rules))
	}
	moved := workload("near", nil, "10.0.0.1")
	moved.Spec.Node = "n2"
	near := far.DeepCopy()
	near.Spec.Node = "n1"
	upsert(t, c, moved, near)
	r.take(c.Flush())
	if _, ok := r.endpoints[Key{v3.KindWorkloadEndpoint, "x", "far"}]; !ok || len(r.endpoints) != 1 || len(c.rules) != 4 {
		t.Errorf("endpoints %v and %d rules after both moved", r.endpoints, len(c.rules))
	}
}

// TestNothingNew flushes without an event, and after events that change nothing.
func TestNothingNew(t *testing.T) {
	objects, services := parse(t, cluster()+policyDoc("np", "x/p", "ingress: [{action: Allow, source: {selector: all()}}]")+"\n---\nservice x/s 10.0.0.1:80/tcp\n")
	c, _ := play(t, objects, services, nil)
	before := c.judged.Evaluations() + c.picked.Evaluations()
	again, _ := parse(t, cluster()+policyDoc("np", "x/p", "ingress: [{action: Allow, source: {selector: all()}}]"))
	upsert(t, c, again...)
	c.SetService("x", "s", services["x/s"])
	c.Delete(Key{Kind: v3.KindTier, Name: "never was"})
	c.Delete(Key{Kind: v3.KindProfile, Name: "never was"})
	ch := c.Flush()
	if n := len(ch.Sets) + len(ch.GoneSets) + len(ch.Endpoints) + len(ch.Conditions); n > 0 || c.judged.Evaluations()+c.picked.Evaluations() > before {
		t.Errorf("%+v is told, and selectors were asked, though nothing changed", ch)
	}
}

// TestMembersInDisguise reads prefixes in all their spellings.
func TestMembersInDisguise(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3/8": "10.0.0.0/8", "10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3/104": "10.0.0.0/8",
		"fd00::1/64": "fd00::/64", "fd00::1": "fd00::1/128", "::/0": "::/0", "0.0.0.0/0": "0.0.0.0/0", "::ffff:0:0/95": "::fffe:0:0/95",
		"": "", "10.0.0.0/33": "", "fe80::1%eth0": "", "10.0.0.256": "", "x": "", "10.0.0.0/8/8": "",
	} {
		p, err := parsePrefix(text)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "write one as") {
				t.Errorf("%q is %v, %v; want it refused, and how it is done", text, p, err)
			}
			continue
		}
		if err != nil || p != netip.MustParsePrefix(want) || memberOf(p).prefix() != p {
			t.Errorf("%q is %v, %v, packed %v; want %s", text, p, err, memberOf(p).prefix(), want)
		}
	}
}

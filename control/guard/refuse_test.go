package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/policy"
)

var longKey = policy.Key{Kind: "GlobalNetworkPolicy", Name: "long"}

// told makes sure that an update has, or has not, a condition of an object that
// says all of these.
func told(t *testing.T, u *Update, key policy.Key, words ...string) {
	t.Helper()
	i := slices.IndexFunc(u.Conditions, func(c policy.Condition) bool { return c.Object == key })
	if i < 0 {
		t.Errorf("nothing is said of %v, only %v", key, u.Conditions)
		return
	}
	text := strings.Join(u.Conditions[i].Faults, "\n")
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("of %v is said %q, want %q in it", key, text, w)
		}
	}
	if len(words) == 0 && text != "" {
		t.Errorf("of %v is said %q, want that it is well", key, text)
	}
}

// judges is a policy for endpoints of a role: what it allows is one port.
func judges(t *testing.T, name, role string, port int) *v3.GlobalNetworkPolicy {
	t.Helper()
	o, err := v3.Decode(fmt.Appendf(nil, `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: %s}, spec: {
		selector: "role == '%s'", types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [%d]}}]}}`, name, role, port))
	if err != nil {
		t.Fatal(err)
	}
	return o.(*v3.GlobalNetworkPolicy)
}

// A list that cannot be compiled within the budget is refused for whom it judges:
// who has a policy keeps it, with its sets, who has none is judged by nothing, and
// all else goes on.
func TestListOverBudgetIsRefusedForItself(t *testing.T) {
	s := newScene(t, 5)
	other := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "other"}
	upsert(t, s.Guard, endpoint("other", map[string]string{"role": "other"}, "10.1.0.7", "fd01::7"), judges(t, "o", "other", 1))
	s.Settled(flush(t, s.Guard, s.plane).Generation)
	s.options.Budget = 100 << 10
	long := longPolicy(t, 3000)
	long.Spec.Ingress = long.Spec.Ingress[:3000] // nothing names the set of x any more
	newcomer := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "newcomer"}
	upsert(t, s.Guard, long, endpoint("newcomer", map[string]string{"role": "server"}, "10.1.0.8"), judges(t, "o", "other", 2))
	u := flush(t, s.Guard, s.plane)
	s.Settled(u.Generation)
	told(t, u, s.key, "Ingress by tier default", "compile 3000 rules", "use fewer rules", "the policy before stays in force")
	told(t, u, newcomer, "compile 3000 rules", "nothing is allowed")
	told(t, u, longKey, "compile 3000 rules", "new ones are allowed nothing")
	if stages, there := u.Stages[newcomer]; !there || stages != nil {
		t.Errorf("who came has %v, want to be told to have nothing", stages)
	}
	if _, there := u.Stages[s.key]; there || s.Stats().Refused != 2 {
		t.Errorf("the server has other stages: %v; %d endpoints are refused, want 2", there, s.Stats().Refused)
	}
	s.check(1004, "allow by GlobalNetworkPolicy long 4")
	s.check(1005, "deny by GlobalNetworkPolicy long 5")
	if got := s.plane.verdict(other, "10.1.0.2", 2); got != "allow by GlobalNetworkPolicy o 0" {
		t.Errorf("the rest of the update is not in force: %s", got)
	}
	// Others get no ids of sets and rules that are still needed; nothing is said twice.
	for i := range 4 {
		more := allowFrom(t, "more", fmt.Sprintf("role == 'other' && y != '%d'", i))
		more.Spec.Selector = "role == 'other'"
		upsert(t, s.Guard, more)
		u := flush(t, s.Guard, s.plane)
		s.Settled(u.Generation)
		if len(u.Conditions) != 0 {
			t.Errorf("said again: %v", u.Conditions)
		}
		if got := s.plane.verdict(other, "10.1.0.7", 80); got != "allow by GlobalNetworkPolicy more 1" {
			t.Errorf("a rule of others: %s", got)
		}
	}
	s.check(1005, "deny by GlobalNetworkPolicy long 5")
	s.check(1005, "deny at the end of default", "10.1.0.7", "fd01::7")
	// It is mended.
	s.Guard.Delete(policy.Key{Kind: "GlobalNetworkPolicy", Name: "more"})
	upsert(t, s.Guard, longPolicy(t, 4))
	u = flush(t, s.Guard, s.plane)
	s.Settled(u.Generation)
	for _, key := range []policy.Key{s.key, newcomer, longKey} {
		told(t, u, key)
	}
	s.check(1004, "deny by GlobalNetworkPolicy long 4")
	s.Guard.Delete(longKey)
	s.Guard.Delete(policy.Key{Kind: "GlobalNetworkPolicy", Name: "o"})
	flush(t, s.Guard, s.plane)
	if len(s.plane.sets)+len(s.plane.rules)+len(s.sets)+len(s.dying)+s.Stats().Refused != 0 {
		t.Errorf("%d sets and %d names of rules are left of policies that are gone", len(s.plane.sets), len(s.plane.rules))
	}
}

// A policy that goes while it is refused leaves nothing, nor does an endpoint.
func TestRefusedThingsGo(t *testing.T) {
	for _, gone := range []string{"the policy", "the endpoint"} {
		s := newScene(t, 5)
		s.options.Budget = 100 << 10
		upsert(t, s.Guard, longPolicy(t, 3000))
		flush(t, s.Guard, s.plane)
		key := longKey
		if gone == "the endpoint" {
			key = s.key
		}
		s.Guard.Delete(key)
		u := flush(t, s.Guard, s.plane)
		told(t, u, longKey)
		told(t, u, s.key)
		if n := len(s.refusals.lists) + len(s.refusals.endpoints) + len(s.plane.sets); n != 0 {
			t.Errorf("%s is gone, and %d things that were refused are left", gone, n)
		}
	}
}

// The ids of rules that a policy in force has, and that the refused one has not,
// are not given to others.
func TestIdsOfRulesStayTaken(t *testing.T) {
	s := newScene(t, 5)
	other := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "other"}
	upsert(t, s.Guard, endpoint("other", map[string]string{"role": "other"}, "10.1.0.7"))
	s.options.Budget = 100 << 10
	long := longPolicy(t, 3000)
	long.Spec.Ingress = long.Spec.Ingress[1:]
	upsert(t, s.Guard, long)
	s.Settled(flush(t, s.Guard, s.plane).Generation)
	upsert(t, s.Guard, judges(t, "o", "other", 9))
	s.Settled(flush(t, s.Guard, s.plane).Generation)
	if got := s.plane.verdict(other, "10.1.0.2", 9); got != "allow by GlobalNetworkPolicy o 0" {
		t.Errorf("what is allowed to others is %s", got)
	}
	s.check(1000, "allow by GlobalNetworkPolicy long 0")
}

// manySets is a policy for others with so many sets, all of which have the client.
func manySets(t *testing.T, n int) *v3.GlobalNetworkPolicy {
	o := longPolicy(t, 1)
	o.Name, o.Spec.Selector = "many", "role == 'other'"
	rule := o.Spec.Ingress[0]
	o.Spec.Ingress = nil
	for i := range n {
		rule.Source.Selector = fmt.Sprintf("has(x) && y != '%d'", i)
		o.Spec.Ingress = append(o.Spec.Ingress, rule)
	}
	return o
}

// A set in force that cannot grow stays as it was for those who are judged by it,
// is said of them, and judges nobody else.
func TestSetThatCannotGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a label table")
	}
	s := newScene(t, 5)
	upsert(t, s.Guard, judges(t, "o", "newcomer", 1), longPolicy(t, 5, `{action: Allow, source: {selector: "z == '1'"}}`), manySets(t, label.MaxSets-2),
		endpoint("other", map[string]string{"role": "other"}, "10.1.0.7"))
	flush(t, s.Guard, s.plane)
	if s.Stats().Refused != 0 {
		t.Fatalf("%d endpoints are refused", s.Stats().Refused)
	}
	s.check(9, "deny by GlobalNetworkPolicy long 6")
	newcomer := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "newcomer"}
	upsert(t, s.Guard, endpoint("client", map[string]string{"role": "client", "x": "1", "z": "1"}, "10.1.0.2", "fd01::2"),
		endpoint("newcomer", map[string]string{"role": "server"}, "10.1.0.8"))
	u := flush(t, s.Guard, s.plane)
	told(t, u, s.key, "z ==", "to have 2 members more and 0 less", "the members before stay in force")
	told(t, u, newcomer, "z ==", "nothing is allowed")
	if stages := s.plane.stages[newcomer]; stages != nil {
		t.Errorf("who came is judged by %v", stages)
	}
	s.check(9, "deny by GlobalNetworkPolicy long 6")
	// What changes of it meanwhile is not lost.
	upsert(t, s.Guard, endpoint("third", map[string]string{"z": "1"}, "10.1.0.3", "fd01::3"))
	flush(t, s.Guard, s.plane)
	upsert(t, s.Guard, manySets(t, 3))
	u = flush(t, s.Guard, s.plane)
	told(t, u, s.key)
	told(t, u, newcomer)
	s.check(9, "allow by GlobalNetworkPolicy long 5", "10.1.0.2", "fd01::2", "10.1.0.3", "fd01::3")
	if s.plane.stages[newcomer] == nil {
		t.Error("who came is judged by nothing still")
	}
}

func TestChangesOfASetMerge(t *testing.T) {
	prefixes := func(all string) (out []netip.Prefix) {
		for _, c := range all {
			out = append(out, map[rune]netip.Prefix{'a': netip.MustParsePrefix("10.0.0.1/32"), 'b': netip.MustParsePrefix("10.0.0.2/32"), 'c': netip.MustParsePrefix("fd00::1/128")}[c])
		}
		return out
	}
	for _, tt := range []struct{ joined1, left1, joined2, left2, joined, left string }{
		{"ab", "", "c", "", "abc", ""},
		{"ab", "", "", "a", "b", ""},
		{"", "ab", "a", "", "", "b"},
		{"a", "b", "b", "a", "", ""},
		{"", "a", "", "c", "", "ac"},
	} {
		got := merged(policy.SetChange{ID: 1, Joined: prefixes(tt.joined1), Left: prefixes(tt.left1)}, policy.SetChange{ID: 1, Name: "n", Joined: prefixes(tt.joined2), Left: prefixes(tt.left2)})
		if !slices.Equal(got.Joined, prefixes(tt.joined)) || !slices.Equal(got.Left, prefixes(tt.left)) || got.ID != 1 || got.Name != "n" {
			t.Errorf("%+v: got %+v", tt, got)
		}
	}
}

// A set that finds no room in the label table is refused for the lists that name
// it, and what is narrower is not. When there is room, all of it comes in force.
func TestSetsWithoutRoomAreRefusedForThemselves(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a label table")
	}
	s := newScene(t, 5)
	other := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "other"}
	upsert(t, s.Guard, endpoint("other", map[string]string{"role": "other"}, "10.1.0.7"), manySets(t, label.MaxSets+5),
		judges(t, "o", "server", 2))
	u := flush(t, s.Guard, s.plane)
	told(t, u, other, "has(x)", "narrow the widest prefixes", "use fewer rules or narrower sets", "nothing is allowed")
	if stages, there := u.Stages[other]; !there || stages != nil || s.Stats().Refused != 1 {
		t.Errorf("stages are %v, and %d endpoints are refused", stages, s.Stats().Refused)
	}
	s.check(2, "deny by GlobalNetworkPolicy long 5")
	s.check(2, "allow by GlobalNetworkPolicy o 0", "10.1.0.3", "fd01::3")
	// There is no room for prefixes of rules either, where the client is.
	upsert(t, s.Guard, longPolicy(t, 5, `{action: Allow, source: {nets: ["10.1.0.2/31", "fd01::2/127"]}}`))
	u = flush(t, s.Guard, s.plane)
	told(t, u, s.key, "label 1 prefixes", "narrow the widest prefixes", "the policy before stays in force")
	told(t, u, longKey, "label 1 prefixes")
	s.check(2, "deny by GlobalNetworkPolicy long 6") // the rule of before, by its new place
	// With fewer sets there is room for all, at once.
	upsert(t, s.Guard, manySets(t, 10))
	u = flush(t, s.Guard, s.plane)
	for _, key := range []policy.Key{s.key, other, longKey} {
		told(t, u, key)
	}
	s.check(3, "allow by GlobalNetworkPolicy long 5")
	if got := s.plane.verdict(other, "fd01::2", 1000); got != "allow by GlobalNetworkPolicy many 0" || s.Stats().Refused != 0 {
		t.Errorf("%s; %d endpoints are refused", got, s.Stats().Refused)
	}
}

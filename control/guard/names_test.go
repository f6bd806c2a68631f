package guard

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy"
)

// wellNamed makes sure that the dataplane knows each rule and set by its name of today.
func wellNamed(t *testing.T, g *Guard, p *plane) {
	t.Helper()
	for id, name := range p.rules {
		if want := g.ruleName(id); !proto.Equal(name, want) {
			t.Errorf("rule %d is known as %v, want %v", id, name, want)
		}
	}
	for id := range p.sets {
		if p.names[id] == "" || p.names[id] != v1.Line(p.names[id]) {
			t.Errorf("set %d is called %q", id, p.names[id])
		}
	}
}

func TestSetsAreNamed(t *testing.T) {
	g, p := New("here"), newPlane(t)
	o, err := v3.Decode([]byte(`{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: default}, spec: {
		selector: "role == 'server'", types: [Ingress, Egress], ingress: [
			{action: Allow, protocol: TCP, source: {selector: "role == 'client'", notNets: [192.0.2.0/24]}},
			{action: Allow, protocol: TCP, source: {services: {name: web}}},
			{action: Allow, source: {nets: ["2001:db8::/32", "fd00::/8"]}}],
		egress: [{action: Allow, destination: {services: {name: dns, namespace: kube-system}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	g.SetService("kube-system", "dns", []policy.Backend{{Address: netip.MustParseAddr("fd01::53"), Protocol: 17, Port: 53}})
	upsert(t, g, o, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1"), endpoint("client", map[string]string{"role": "client"}, "fd01::2"))
	flush(t, g, p)
	want := []string{
		`(projectcalico.org/namespace == "default" && role == "client")`,
		"nets 192.0.2.0/24",
		"nets 2001:db8::/32, fd00::/8",
		"service default/web",
		"service kube-system/dns: 17/53",
	}
	if got := slices.Sorted(maps.Values(p.names)); !slices.Equal(got, want) {
		t.Errorf("sets are called\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNameOfALongList(t *testing.T) {
	var nets []netip.Prefix
	for i := range 100 {
		nets = append(nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	const want = "nets 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, 10.5.0.0/16, 10.6.0.0/16, 10.7.0.0/16 and 92 more"
	if got := netsName(nets); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A rule that others were put before is told of by its new place, though nothing
// of it is compiled anew.
func TestRulesThatMoveAreNamedAnew(t *testing.T) {
	g, p := New("here"), newPlane(t)
	upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"), allowFrom(t, "p", "role == 'client'"))
	flush(t, g, p)
	wellNamed(t, g, p)
	longer := allowFrom(t, "p", "role == 'client'")
	six := 6
	longer.Spec.Ingress = append([]v3.Rule{{Action: v3.Allow, IPVersion: &six, Protocol: &v3.Protocol{Name: v3.ICMP}}}, longer.Spec.Ingress...)
	upsert(t, g, longer) // no packet is what its first rule asks for, so the lists stay
	if u := flush(t, g, p); len(u.Delta.Set.Programs) != 0 || len(u.Delta.Set.Rules) != 3 {
		t.Errorf("%d programs and %d names came, want none and 3", len(u.Delta.Set.Programs), len(u.Delta.Set.Rules))
	}
	wellNamed(t, g, p)
	if u := flush(t, g, p); len(u.Delta.Set.Rules) != 0 {
		t.Errorf("%d names came again", len(u.Delta.Set.Rules))
	}
}

func TestRuleText(t *testing.T) {
	tests := map[string]struct{ kind, rule, want string }{
		"no condition":         {"", `{action: Allow}`, "allow everything"},
		"client to ports":      {"", `{action: Allow, protocol: TCP, source: {selector: "role == 'client'"}, destination: {ports: [80, "8000:8080"]}}`, "allow TCP from role == 'client' to ports 80,8000:8080"},
		"of a namespace":       {"NetworkPolicy", `{action: Deny, source: {selector: "role == 'client'"}}`, "deny from role == 'client' in namespace shop"},
		"not of a namespace":   {"NetworkPolicy", `{action: Deny, source: {notSelector: "role == 'client'"}}`, "deny from not (role == 'client') in namespace shop"},
		"another namespace":    {"NetworkPolicy", `{action: Allow, source: {selector: "a || b", notSelector: "has(c)", namespaceSelector: "env == 'prod'"}}`, "allow from (a || b) and not (has(c)) in namespaces with env == 'prod'"},
		"every namespace":      {"NetworkPolicy", `{action: Allow, source: {namespaceSelector: "all()"}}`, "allow from all in any namespace"},
		"no namespace":         {"", `{action: Allow, source: {selector: "all()", namespaceSelector: "global()"}}`, "allow from all() in no namespace"},
		"nets of IPv4":         {"", `{action: Pass, source: {nets: [10.0.0.0/8, 192.0.2.0/24], notNets: [10.1.0.0/16]}}`, "pass from 10.0.0.0/8,192.0.2.0/24 and not 10.1.0.0/16"},
		"nets of IPv6":         {"", `{action: Log, ipVersion: 6, destination: {nets: ["2001:db8::/32"]}}`, "log IPv6 to 2001:db8::/32"},
		"a service":            {"NetworkPolicy", `{action: Allow, destination: {services: {name: web}}}`, "allow to service shop/web"},
		"service accounts":     {"", `{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [a, b], selector: "team == 'x'"}}}`, "allow TCP from service account a|b and service accounts with team == 'x'"},
		"ping":                 {"", `{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}`, "allow ICMP type 8 code 0"},
		"all but ping":         {"", `{action: Deny, protocol: ICMPv6, notICMP: {type: 128}}`, "deny ICMPv6 not type 128"},
		"a number of protocol": {"", `{action: Deny, protocol: 47}`, "deny protocol 47"},
		"not a protocol":       {"", `{action: Deny, notProtocol: UDP}`, "deny not UDP"},
		"ports by name":        {"", `{action: Allow, protocol: UDP, source: {notPorts: [53]}, destination: {ports: [dns]}}`, "allow UDP from not ports 53 to ports dns"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			head := `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {ingress: [`
			ref := policy.RuleRef{Object: policy.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "p"}}
			if tt.kind != "" {
				ref.Object = policy.Key{Kind: tt.kind, Namespace: "shop", Name: "p"}
			}
			o, err := v3.Decode([]byte(head + tt.rule + "]}}"))
			if err != nil {
				t.Fatal(err)
			}
			ref.Rule = o.(*v3.GlobalNetworkPolicy).Spec.Ingress[0]
			if got := ruleText(ref); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// What stands in for something says so, and not what that would have been.
func TestTextOfWhatStandsIn(t *testing.T) {
	g, p := New("here"), newPlane(t)
	server := endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1")
	server.Spec.Profiles = []string{"none"}
	bad := allowFrom(t, "bad", "role == 'client'")
	bad.Spec.Ingress[0].Protocol = &v3.Protocol{Name: "TPC"}
	lost := allowFrom(t, "lost", "role == 'client'")
	lost.Spec.Selector = "role =="
	upsert(t, g, server, bad, lost)
	flush(t, g, p)
	for _, want := range []string{"the profile is missing", "the rule cannot be understood", "whom the policy is for cannot be understood"} {
		if !slices.ContainsFunc(slices.Collect(maps.Values(p.rules)), func(r *v1.RuleName) bool { return r.GetText() == "deny everything: "+want }) {
			t.Errorf("no rule says %q among %v", want, p.rules)
		}
	}
}

func TestTextIsOneLine(t *testing.T) {
	rule := v3.Rule{Action: v3.Allow, Source: v3.EntityRule{Selector: "a == '\x1b[2J" + strings.Repeat("ü", v1.MaxLine) + "'"}}
	got := ruleText(policy.RuleRef{Rule: rule})
	if len(got) > v1.MaxLine || got != v1.Line(got) || !strings.HasPrefix(got, "allow from a == ' [2Jü") {
		t.Errorf("got %q", got)
	}
}

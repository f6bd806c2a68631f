package policy

import (
	"math"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
)

// TestFaults gives objects that validation refuses: nothing may open by them, and
// each is told. The oracle does not know such.
func TestFaults(t *testing.T) {
	np := func(spec string) string { return policyDoc("np", "x/p", spec) }
	gnp := func(spec string) string { return policyDoc("gnp", "p", spec) }
	ingress := func(rule string) string {
		return np("types: [Ingress], ingress: [" + rule + ", {action: Allow, protocol: UDP}]")
	}
	udp := strings.Replace(toServer, "tcp", "udp", 1)
	leftOut := func(fault string) string {
		return toServer + " = Deny default\n" + udp + " = Allow NetworkPolicy/x/p/1\ntold NetworkPolicy x/p = " + fault
	}
	denied := func(fault string) string {
		return toServer + " = Deny NetworkPolicy/x/p/0\n" + udp + " = Deny NetworkPolicy/x/p/0\ntold NetworkPolicy x/p = " + fault
	}
	all := func(object, fault string) string {
		key := strings.NewReplacer("NetworkPolicy x/p", "NetworkPolicy/x/p/-1", "GlobalNetworkPolicy p", "GlobalNetworkPolicy//p/-1").Replace(object)
		return toServer + " = Deny " + key + "\nx/server egress tcp 10.1.0.2 > 10.1.0.1@80 = Deny " + key + "\ntold " + object + " = " + fault
	}
	tests := map[string]struct{ manifest, questions string }{
		"no action":                        {ingress("{action: ''}"), denied("action is")},
		"unknown action":                   {ingress("{action: Reject}"), denied("want Allow, Deny, Pass or Log")},
		"allow with a broken selector":     {ingress("{action: Allow, source: {selector: 'a ='}}"), leftOut("source.selector: read selector")},
		"deny with a broken selector":      {ingress("{action: Deny, source: {selector: 'a ='}}"), denied("it denies everything")},
		"pass with a broken selector":      {ingress("{action: Pass, source: {notSelector: 'a ='}}"), denied("source.notSelector")},
		"log with a broken selector":       {ingress("{action: Log, source: {namespaceSelector: 'a ='}}"), leftOut("it is left out")},
		"account that cannot be named":     {ingress(`{action: Allow, source: {serviceAccounts: {names: ["a'b\"c"]}}}`), leftOut("serviceAccounts.names")},
		"accounts with a broken selector":  {ingress("{action: Deny, source: {serviceAccounts: {selector: '('}}}"), denied("serviceAccounts.selector")},
		"no CIDR":                          {ingress("{action: Allow, source: {nets: [10.0.0.0/33]}}"), leftOut("source.nets: \"10.0.0.0/33\"")},
		"no CIDR in notNets":               {ingress("{action: Deny, destination: {notNets: [x]}}"), denied("destination.notNets")},
		"unknown protocol":                 {ingress("{action: Allow, protocol: XTP}"), leftOut("protocol is \"XTP\"")},
		"unknown notProtocol":              {ingress("{action: Deny, notProtocol: XTP}"), denied("notProtocol is")},
		"version 5":                        {ingress("{action: Deny, ipVersion: 5}"), denied("ipVersion is 5")},
		"ICMP without protocol":            {ingress("{action: Allow, icmp: {type: 8}}"), leftOut("need protocol ICMP")},
		"not ICMP of TCP":                  {ingress("{action: Deny, protocol: TCP, notICMP: {type: 8}}"), denied("need protocol ICMP")},
		"ICMP code without type":           {ingress("{action: Deny, protocol: ICMP, icmp: {code: 8}}"), denied("has no type")},
		"ICMP type 300":                    {ingress("{action: Allow, protocol: ICMP, icmp: {type: 300}}"), leftOut("out of range")},
		"ICMP code -1":                     {ingress("{action: Allow, protocol: ICMP, icmp: {type: 3, code: -1}}"), leftOut("out of range")},
		"number without protocol":          {ingress("{action: Allow, destination: {ports: [80]}}"), leftOut("needs protocol TCP, UDP or SCTP")},
		"not a number without protocol":    {ingress("{action: Deny, destination: {notPorts: [80]}}"), denied("needs protocol")},
		"port upside down":                 {ingress("{action: Deny, protocol: TCP, destination: {ports: ['90:80']}}"), denied("is no port")},
		"name of a port that nobody gives": {ingress("{action: Allow, source: {notPorts: ['a b']}}"), leftOut("source.notPorts")},
		"service where none may be":        {ingress("{action: Allow, destination: {services: {name: s}}}"), leftOut("destination of egress")},
		"service without name":             {ingress("{action: Deny, source: {services: {name: ''}}}"), denied("name is empty")},
		"service of a global policy without namespace": {gnp("types: [Ingress], ingress: [{action: Allow, source: {services: {name: s}}}]"),
			toServer + " = Deny default\ntold GlobalNetworkPolicy p = namespace is empty"},
		"unknown type":                {np("types: [Upward], ingress: [{action: Allow}]"), toServer + " = Allow NetworkPolicy/x/p/0\nx/server egress tcp 10.1.0.2 > 10.1.0.1@80 = Deny default\ntold NetworkPolicy x/p = types has"},
		"policy's selector":           {np("selector: 'a =', types: [Ingress, Egress], ingress: [{action: Allow}]"), all("NetworkPolicy x/p", "denies everything to all that it may mean") + "\nw/client ingress tcp 10.1.0.1 > 10.2.0.1@80 = Allow Profile//kns.w/0"},
		"policy's account selector":   {np("serviceAccountSelector: 'a =', ingress: [{action: Allow}]"), all("NetworkPolicy x/p", "serviceAccountSelector")},
		"policy's namespace selector": {gnp("selector: app == 'server', namespaceSelector: 'a =', ingress: [{action: Allow}]"), all("GlobalNetworkPolicy p", "namespaceSelector") + "\nx/client ingress tcp 10.1.0.2 > 10.1.0.1@80 = Allow Profile//kns.x/0"},
		"doNotTrack and preDNAT":      {gnp("doNotTrack: true, preDNAT: true, applyOnForward: true, ingress: [{action: Allow}]"), all("GlobalNetworkPolicy p", "exclude each other")},
		"preDNAT with egress":         {gnp("preDNAT: true, applyOnForward: true, egress: [{action: Allow}]"), "told GlobalNetworkPolicy p = the egress rules are ignored"},
		"staged action":               {policyDoc("snp", "x/p", "stagedAction: Perhaps"), toServer + " = Allow Profile//kns.x/0\nx/server:staged ingress tcp 10.1.0.1 > 10.1.0.2@80 = Deny default\ntold StagedNetworkPolicy x/p = stagedAction"},
		"tier's default action":       {tierDoc("a", "defaultAction: Allow") + gnp("tier: a, types: [Ingress]"), toServer + " = Deny a\ntold Tier a = want Deny or Pass"},
		"tier that is fixed":          {tierDoc("default", "order: 5, defaultAction: Pass") + gnp("types: [Ingress]"), toServer + " = Deny default\ntold Tier default = are fixed"},
		"profile that is missing": {"---\nkind: WorkloadEndpoint\nmetadata: {namespace: x, name: e}\nspec: {ipNetworks: [10.1.0.77/32], profiles: [gone]}\n",
			toServer + " = Allow Profile//kns.x/0\nx/e ingress tcp 10.1.0.1 > 10.1.0.77@80 = Deny Profile//gone/-1\ntold WorkloadEndpoint x/e = profile \"gone\" is missing"},
		"profile's rule": {"---\nkind: Profile\nmetadata: {name: kns.x}\nspec: {ingress: [{action: Deny, source: {nets: [x]}}, {action: Allow}]}",
			toServer + " = Deny Profile//kns.x/0\ntold Profile kns.x = it denies everything"},
		"address of a set": {set("GlobalNetworkSet", "g", "in: g", "10.9.0.0/16, nonsense") + ingress("{action: Allow, source: {selector: in == 'g', namespaceSelector: global()}}"),
			"x/server ingress tcp 10.9.0.1 > 10.1.0.2 = Allow NetworkPolicy/x/p/0\ntold GlobalNetworkSet g = nets[1]"},
		"namespace of what has none": {set("GlobalNetworkSet", "g", "projectcalico.org/namespace: x", "10.9.0.0/16") + ingress("{action: Allow, source: {selector: all()}}"),
			"x/server ingress tcp 10.9.0.1 > 10.1.0.2 = Deny default\ntold GlobalNetworkSet g = it is ignored"},
		"endpoint": {"---\nkind: WorkloadEndpoint\nmetadata: {namespace: x, name: e}\nspec: {ipNetworks: [10.1.0.77/32, x], ports: [{name: a, protocol: ICMP, port: 7}]}\n" + ingress("{action: Allow, source: {selector: all()}}"),
			"x/server ingress tcp 10.1.0.77 > 10.1.0.2 = Allow NetworkPolicy/x/p/0\ntold WorkloadEndpoint x/e = ipNetworks[1]\ntold WorkloadEndpoint x/e = ports[0]: protocol"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, convert := range []func(string) string{func(s string) string { return s }, toIPv6} {
				checkFaults(t, convert(cluster()+tt.manifest), convert(tt.questions))
			}
		})
	}
}

func checkFaults(t *testing.T, manifest, questions string) {
	t.Helper()
	objects, services := parse(t, manifest)
	c, r := play(t, objects, services, nil)
	for _, line := range strings.Split(questions, "\n") {
		text, want, _ := strings.Cut(line, " = ")
		if object, ok := strings.CutPrefix(text, "told "); ok {
			if !conditioned(r, object, want) {
				t.Errorf("%s is not told %q, but %v", object, want, r.conditions)
			}
			continue
		}
		a := ask(text)
		if got := say(r.judge(c, a.key(), a.direction, a.traffic, a.staged, a.packet)); got != want {
			t.Errorf("%s\n  is   %s\n  want %s\n%v", text, got, want, r.conditions)
		}
	}
	for _, key := range []Key{{Kind: v3.KindGlobalNetworkPolicy, Name: "p"}, {v3.KindNetworkPolicy, "x", "p"}} {
		c.Delete(key)
	}
	if r.take(c.Flush()); len(r.conditions) > 0 && strings.Contains(questions, "told NetworkPolicy") {
		t.Errorf("conditions outlive the object: %v", r.conditions)
	}
	emptied(t, c, r, objects, services)
}

func TestOrdersThatAreNoNumbers(t *testing.T) {
	nan, inf, one := math.NaN(), math.Inf(1), 1.0
	c, r := New(""), newReceiver(t)
	pod, _ := parse(t, cluster())
	put := func(name string, order *float64, action v3.Action) {
		p := &v3.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Spec.Order, p.Spec.Ingress = order, []v3.Rule{{Action: action}}
		pod = append(pod, p)
	}
	put("nan", &nan, v3.Deny)
	put("b", &one, v3.Allow)
	put("a", &inf, v3.Pass)
	put("c", nil, v3.Deny)
	tier := &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: v3.TierSpec{Order: &nan}}
	for _, o := range append(pod, tier) {
		if err := c.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
	r.take(c.Flush())
	server := Key{v3.KindWorkloadEndpoint, "x", "server"}
	names := func() (names []string) {
		for _, rule := range r.endpoints[server].Normal[Ingress].Tiers[0].Rules.V4 {
			names = append(names, describe(c, rule.ID))
		}
		return names
	}
	want := "GlobalNetworkPolicy//b/0 GlobalNetworkPolicy//a/0 GlobalNetworkPolicy//c/0 GlobalNetworkPolicy//nan/0"
	if got := strings.Join(names(), " "); got != want {
		t.Errorf("order is %s, want %s", got, want)
	}
	if len(r.conditions) != 2 {
		t.Errorf("conditions %v, want those of the policy and the tier without a number", r.conditions)
	}
}

func TestUpsertRefusesStrangers(t *testing.T) {
	c, r := New(""), newReceiver(t)
	in := func(namespace string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: "a", Namespace: namespace} }
	for want, objects := range map[string][]metav1.Object{
		"must be converted first": {&v3.StagedKubernetesNetworkPolicy{ObjectMeta: in("x")}, &metav1.ObjectMeta{}},
		"give it one":             {&v3.NetworkPolicy{ObjectMeta: in("")}, &v3.StagedNetworkPolicy{ObjectMeta: in("")}, &v3.NetworkSet{ObjectMeta: in("")}, &v3.WorkloadEndpoint{ObjectMeta: in("")}},
		"take it away":            {&v3.GlobalNetworkPolicy{ObjectMeta: in("x")}, &v3.StagedGlobalNetworkPolicy{ObjectMeta: in("x")}, &v3.GlobalNetworkSet{ObjectMeta: in("x")}, &v3.HostEndpoint{ObjectMeta: in("x")}, &v3.Profile{ObjectMeta: in("x")}, &v3.Tier{ObjectMeta: in("x")}},
	} {
		for _, o := range objects {
			if err := c.Upsert(o); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%T: got %v, want %q", o, err, want)
			}
		}
	}
	if r.take(c.Flush()); r.dump(c) != "" {
		t.Errorf("what was refused left something: %s", r.dump(c))
	}
}

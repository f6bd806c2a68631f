package v3_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// faultsOf are what is wrong with a manifest's object after defaulting.
func faultsOf(t *testing.T, manifest string) []string {
	t.Helper()
	o, err := v3.Decode([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	o.Default(v3.ByLength)
	return texts(o)
}

// texts are the faults of an object, as people see them.
func texts(o v3.Object) []string {
	var all []string
	for _, e := range o.Validate() {
		all = append(all, e.Error())
	}
	return all
}

// agree wants faults that begin with a field and have some words of the mend, in
// this order and no others: "spec.tier: DNS".
func agree(t *testing.T, got, want []string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		path, words, _ := strings.Cut(want[i], ": ")
		ok = strings.HasPrefix(got[i], path+": ") && strings.Contains(got[i], words)
	}
	if !ok {
		t.Errorf("faults are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// rows of a table: what a manifest has in the place that the test is about, and
// what is wrong with it.
type rows map[string]struct {
	in   string
	want []string
}

// run puts each row into the place of "@" of a manifest.
func (rs rows) run(t *testing.T, manifest string) {
	t.Helper()
	for name, tt := range rs {
		t.Run(name, func(t *testing.T) { agree(t, faultsOf(t, strings.Replace(manifest, "@", tt.in, 1)), tt.want) })
	}
}

const group = "apiVersion: projectcalico.org/v3\n"

// times is a list of n values.
func times(n int, value string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(value+", ", n), ", ") + "]"
}

func TestExamplesAreValid(t *testing.T) {
	objects, documents := examples(t)
	for i, o := range objects {
		for _, by := range []v3.TypesBy{v3.ByLength, v3.ByPresence} {
			o := o.DeepCopyObject().(v3.Object)
			o.Default(by)
			if got := texts(o); len(got) > 0 {
				t.Errorf("%s: %s", documents[i], strings.Join(got, "\n"))
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	long := strings.Repeat("n", 64)
	rows{
		"NetworkPolicy with a name of one label":            {"NetworkPolicy\nmetadata: {name: web}", nil},
		"NetworkPolicy with a name of two labels":           {"NetworkPolicy\nmetadata: {name: tier.web}", nil},
		"NetworkPolicy with a name of three labels":         {"NetworkPolicy\nmetadata: {name: a.b.c}", []string{"metadata.name: one label of DNS, or two"}},
		"NetworkPolicy with a name that is too long":        {"NetworkPolicy\nmetadata: {name: " + long + "}", []string{"metadata.name: no more than 63"}},
		"NetworkPolicy with capitals":                       {"NetworkPolicy\nmetadata: {name: Web}", []string{"metadata.name: lower case"}},
		"NetworkPolicy without a name":                      {"NetworkPolicy", []string{"metadata.name: give the object a name"}},
		"NetworkPolicy whose name is made by the server":    {"NetworkPolicy\nmetadata: {generateName: web-}", nil},
		"NetworkPolicy named as a KubernetesNetworkPolicy":  {"NetworkPolicy\nmetadata: {name: knp.default.web}", []string{`metadata.name: "knp.default." is reserved`}},
		"GlobalNetworkPolicy named as one of OpenStack":     {"GlobalNetworkPolicy\nmetadata: {name: ossg.default.x}", []string{`metadata.name: "ossg.default." is reserved`}},
		"GlobalNetworkPolicy in a namespace":                {"GlobalNetworkPolicy\nmetadata: {name: a, namespace: b}", []string{"metadata.namespace: belongs to no namespace"}},
		"NetworkPolicy in a namespace that can be none":     {"NetworkPolicy\nmetadata: {name: a, namespace: b.c}", []string{"metadata.namespace: must not contain dots"}},
		"StagedNetworkPolicy with a name of three labels":   {"StagedNetworkPolicy\nmetadata: {name: a.b.c}", []string{"metadata.name: one label of DNS, or two"}},
		"StagedKubernetesNetworkPolicy as Kubernetes names": {"StagedKubernetesNetworkPolicy\nmetadata: {name: a.b.c}", nil},
		"Tier with a dot":                                   {"Tier\nmetadata: {name: a.b}", []string{"metadata.name: must not contain dots"}},
		"Tier of 63 letters":                                {"Tier\nmetadata: {name: " + long[1:] + "}", nil},
		"Tier of 64 letters":                                {"Tier\nmetadata: {name: " + long + "}", []string{"metadata.name: no more than 63"}},
		"NetworkSet of 253 letters":                         {"NetworkSet\nmetadata: {name: " + strings.Repeat("a.", 126) + "a}", nil},
		"NetworkSet of 254 letters":                         {"NetworkSet\nmetadata: {name: " + strings.Repeat("a.", 126) + "ab}", []string{"metadata.name: no more than 253"}},
		"Profile with a slash":                              {"Profile\nmetadata: {name: a/b}", []string{"metadata.name: subdomain"}},
		"a label whose value is too long":                   {"Profile\nmetadata: {name: a, labels: {x: " + long + "}}", []string{"metadata.labels: no more than 63"}},
		"a label whose name cannot be one":                  {"Profile\nmetadata: {name: a, labels: {'x y': z}}", []string{"metadata.labels: name part"}},
		"an annotation whose name cannot be one":            {"Profile\nmetadata: {name: a, annotations: {a/b/c: z}}", []string{"metadata.annotations: valid label key"}},
		"annotations of 256 KiB":                            {"Profile\nmetadata: {name: a, annotations: {x: " + strings.Repeat("y", 256<<10-1) + "}}", nil},
		"annotations of more than 256 KiB":                  {"Profile\nmetadata: {name: a, annotations: {x: " + strings.Repeat("y", 256<<10) + "}}", []string{"metadata.annotations: 262144"}},
	}.run(t, group+"kind: @")
	p := &v3.NetworkPolicy{}
	agree(t, texts(p), []string{"metadata.name: give", "metadata.namespace: which namespace"})
}

func TestPolicies(t *testing.T) {
	s1024 := "has(" + strings.Repeat("a", 500) + ") || has(" + strings.Repeat("b", 510) + ")"
	nested := strings.Repeat("(", 505) + "has(a)" + strings.Repeat(")", 505)
	if len(s1024) != 1024 {
		t.Fatal(len(s1024))
	}
	rows{
		"nothing":                               {"{}", nil},
		"an order of any size and sign":         {"{order: -1.7e308}", nil},
		"a tier":                                {"{tier: a-b}", nil},
		"a tier that can be none":               {"{tier: a.b}", []string{"spec.tier: must not contain dots"}},
		"a type":                                {"{types: [Egress]}", nil},
		"a type that is none":                   {"{types: [Ingres]}", []string{`spec.types[0]: supported values: "Ingress", "Egress"`}},
		"a type twice":                          {"{types: [Ingress, Ingress]}", []string{"spec.types[1]: Duplicate"}},
		"a hint that is none":                   {"{performanceHints: [Faster]}", []string{"spec.performanceHints[0]: AssumeNeededOnEveryNode"}},
		"a hint twice":                          {"{performanceHints: [AssumeNeededOnEveryNode, AssumeNeededOnEveryNode]}", []string{"spec.performanceHints[1]: Duplicate"}},
		"a selector that cannot be read":        {"{selector: 'role = x'}", []string{"spec.selector: at byte 6"}},
		"a selector of accounts that cannot be": {"{serviceAccountSelector: role}", []string{"spec.serviceAccountSelector: at byte"}},
		"a selector of 1024 characters":         {"{selector: " + s1024 + "}", nil},
		"a selector of 1025 characters":         {"{selector: ' " + s1024 + "'}", []string{"spec.selector: 1025 characters"}},
		"a selector nested as deep as fits":     {"{selector: " + nested + "}", nil},
		"a selector nested 1,000 deep":          {"{selector: " + strings.Repeat("(", 1000) + "has(a)" + strings.Repeat(")", 1000) + "}", []string{"spec.selector: 2006 characters"}},
		"global() in a policy's selector":       {"{selector: global()}", []string{"spec.selector: global() stands in a rule's namespaceSelector only"}},
		"global() within a policy's selector":   {"{selector: \"has(a) || !global()\"}", []string{"spec.selector: global()"}},
		"the word global() in a value":          {"{selector: \"a == 'global()'\"}", nil},
		"global() in a selector of accounts":    {"{serviceAccountSelector: global()}", []string{"spec.serviceAccountSelector: global()"}},
		"1024 rules":                            {"{ingress: " + times(1024, "{action: Deny}") + ", egress: " + times(1024, "{action: Deny}") + "}", nil},
		"1025 rules":                            {"{ingress: " + times(1025, "{action: Deny}") + "}", []string{"spec.ingress: must have at most 1024"}},
		"1025 rules of the other direction":     {"{egress: " + times(1025, "{action: Deny}") + "}", []string{"spec.egress: must have at most 1024"}},
		"all faults at once": {"{tier: a.b, order: 1, selector: '==', types: [x], egress: [{action: Drop, protocol: tcp}, {ipVersion: 5}]}", []string{
			"spec.tier: dots", "spec.selector: at byte 1", "spec.types[0]: Ingress", "spec.egress[0].action: Allow",
			"spec.egress[0].protocol: want TCP", "spec.egress[1].action: Required", "spec.egress[1].ipVersion: want 4 or 6",
		}},
	}.run(t, group+"kind: NetworkPolicy\nmetadata: {name: a}\nspec: @")
	for _, order := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		p := &v3.NetworkPolicy{Spec: v3.NetworkPolicySpec{Order: &order}}
		p.Name = "a"
		p.Default(v3.ByLength)
		agree(t, texts(p), []string{"spec.order: want a number"})
		tier := &v3.Tier{Spec: v3.TierSpec{Order: &order}}
		tier.Name = "a"
		agree(t, texts(tier), []string{"spec.order: want a number"})
	}
}

func TestGlobalPolicies(t *testing.T) {
	rows{
		"a namespaceSelector":                       {"{namespaceSelector: has(a)}", nil},
		"a namespaceSelector with global()":         {"{namespaceSelector: global()}", []string{"spec.namespaceSelector: global()"}},
		"a namespaceSelector that cannot be":        {"{namespaceSelector: a}", []string{"spec.namespaceSelector: at byte"}},
		"applyOnForward alone":                      {"{applyOnForward: true}", nil},
		"doNotTrack needs applyOnForward":           {"{doNotTrack: true}", []string{"spec.applyOnForward: doNotTrack needs it true"}},
		"doNotTrack with applyOnForward":            {"{doNotTrack: true, applyOnForward: true, egress: [{action: Allow}]}", nil},
		"preDNAT needs applyOnForward":              {"{preDNAT: true}", []string{"spec.applyOnForward: preDNAT needs it true"}},
		"preDNAT with applyOnForward":               {"{preDNAT: true, applyOnForward: true}", nil},
		"preDNAT and doNotTrack exclude each other": {"{preDNAT: true, doNotTrack: true, applyOnForward: true}", []string{"spec.preDNAT: not with doNotTrack"}},
		"preDNAT has no egress rules":               {"{preDNAT: true, applyOnForward: true, types: [Ingress], egress: [{action: Deny}]}", []string{"spec.egress: preDNAT judges nothing but what arrives"}},
		"preDNAT has no type Egress":                {"{preDNAT: true, applyOnForward: true, types: [Ingress, Egress]}", []string{"spec.types: want Ingress alone"}},
		"preDNAT with an empty list of egress":      {"{preDNAT: true, applyOnForward: true, egress: []}", nil},
		"a service needs its namespace": {"{egress: [{action: Allow, destination: {services: {name: a}}}]}",
			[]string{"spec.egress[0].destination.services.namespace: which namespace"}},
	}.run(t, group+"kind: GlobalNetworkPolicy\nmetadata: {name: a}\nspec: @")
}

func TestStagedPolicies(t *testing.T) {
	want := []string{"spec: nothing but the tier"}
	rows{
		"no action":                              {"NetworkPolicy\nspec: {order: 1}", nil},
		"an action that is none":                 {"NetworkPolicy\nspec: {stagedAction: Unset}", []string{"spec.stagedAction: Set"}},
		"the rules are judged":                   {"NetworkPolicy\nspec: {selector: x}", []string{"spec.selector: at byte"}},
		"Delete":                                 {"NetworkPolicy\nspec: {stagedAction: Delete}", nil},
		"Delete with a tier":                     {"NetworkPolicy\nspec: {stagedAction: Delete, tier: a}", nil},
		"Delete with an order":                   {"NetworkPolicy\nspec: {stagedAction: Delete, order: 0}", want},
		"Delete with types":                      {"NetworkPolicy\nspec: {stagedAction: Delete, types: [Ingress]}", want},
		"Delete with an empty list":              {"NetworkPolicy\nspec: {stagedAction: Delete, ingress: []}", nil},
		"Delete of a global one":                 {"GlobalNetworkPolicy\nspec: {stagedAction: Delete, tier: a}", nil},
		"Delete of a global one with a selector": {"GlobalNetworkPolicy\nspec: {stagedAction: Delete, selector: all()}", want},
		"Delete of a global one with a flag":     {"GlobalNetworkPolicy\nspec: {stagedAction: Delete, applyOnForward: true}", want},
		"a global one is judged as such":         {"GlobalNetworkPolicy\nspec: {preDNAT: true}", []string{"spec.applyOnForward: preDNAT"}},
		"Delete of Kubernetes":                   {"KubernetesNetworkPolicy\nspec: {stagedAction: Delete}", nil},
		"Delete of Kubernetes with pods":         {"KubernetesNetworkPolicy\nspec: {stagedAction: Delete, podSelector: {matchLabels: {a: b}}}", want},
		"Kubernetes, all at once": {`KubernetesNetworkPolicy
spec:
  stagedAction: Sett
  podSelector: {matchLabels: {"a b": c}, matchExpressions: [{key: a, operator: Is}]}
  policyTypes: [Ingress, Both]
  ingress:
  - from:
    - {}
    - {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}
    - ipBlock: {cidr: 10.0.0.0/33, except: [x]}
    - ipBlock: {cidr: "fd00::/8", except: ["fd00::/8", 10.0.0.0/16, "fe80::/10"]}
    - namespaceSelector: {matchLabels: {a: b c}}
    ports:
    - {protocol: ICMP}
    - {port: 0}
    - {port: a_b}
    - {endPort: 5}
    - {port: x, endPort: 5}
    - {port: 6, endPort: 5}
    - {port: 6, endPort: 65536}
  egress:
  - to: [{}]
    ports: [{port: 65536}]`, []string{
			"spec.stagedAction: Set", "spec.podSelector.matchLabels: name part", "spec.podSelector.matchExpressions[0].operator: not a valid",
			"spec.policyTypes[1]: Egress", "spec.ingress[0].ports[0].protocol: TCP", "spec.ingress[0].ports[1].port: between 1 and 65535",
			"spec.ingress[0].ports[2].port: alpha-numeric", "spec.ingress[0].ports[3].endPort: needs a port", "spec.ingress[0].ports[4].endPort: needs a port",
			"spec.ingress[0].ports[5].endPort: no lower", "spec.ingress[0].ports[6].endPort: no lower", "spec.ingress[0].from[0]: podSelector",
			"spec.ingress[0].from[1]: ipBlock", "spec.ingress[0].from[2].ipBlock.cidr: CIDR", "spec.ingress[0].from[2].ipBlock.except[0]: no address",
			"spec.ingress[0].from[3].ipBlock.except[0]: a part of cidr", "spec.ingress[0].from[3].ipBlock.except[1]: a part of cidr",
			"spec.ingress[0].from[3].ipBlock.except[2]: a part of cidr", "spec.ingress[0].from[4].namespaceSelector.matchLabels: valid label",
			"spec.egress[0].ports[0].port: between 1 and 65535", "spec.egress[0].to[0]: podSelector",
		}},
	}.run(t, group+"metadata: {name: a}\nkind: Staged@")
}

func TestTiers(t *testing.T) {
	rows{
		"no action":                      {"a}", nil},
		"an action that ends the tier":   {"a}\nspec: {defaultAction: Pass}", nil},
		"an action of rules":             {"a}\nspec: {defaultAction: Allow}", []string{`spec.defaultAction: "Deny", "Pass"`}},
		"default with what is fixed":     {"default}\nspec: {order: 1000000, defaultAction: Deny}", nil},
		"default elsewhere":              {"default}\nspec: {order: 5}", []string{"spec.order: its order is 1000000"}},
		"default that passes":            {"default}\nspec: {defaultAction: Pass}", []string{"spec.defaultAction: its action is Deny"}},
		"kube-admin elsewhere":           {"kube-admin}\nspec: {order: 5}", []string{"spec.order: its order is 1000"}},
		"kube-admin that denies":         {"kube-admin}\nspec: {defaultAction: Deny}", []string{"spec.defaultAction: its action is Pass"}},
		"kube-baseline elsewhere":        {"kube-baseline}\nspec: {order: 5}", []string{"spec.order: its order is 10000000"}},
		"kube-baseline with what is set": {"kube-baseline}", nil},
	}.run(t, group+"kind: Tier\nmetadata: {name: @")
}

func TestSetsAndProfiles(t *testing.T) {
	rows{
		"NetworkSet of both families":                {"NetworkSet\nmetadata: {name: a}\nspec: {nets: [10.0.0.0/8, 'fd00::/8', 0.0.0.0/0]}", nil},
		"NetworkSet with host bits":                  {"NetworkSet\nmetadata: {name: a}\nspec: {nets: [10.1.2.3/8]}", nil},
		"NetworkSet of what is no net":               {"NetworkSet\nmetadata: {name: a}\nspec: {nets: [10.0.0.0/8, example.com]}", []string{"spec.nets[1]: want one as 10.0.0.1"}},
		"NetworkSet of a CIDR that is too long":      {"GlobalNetworkSet\nmetadata: {name: a}\nspec: {nets: ['fd00::/129']}", []string{"spec.nets[0]: want one as"}},
		"NetworkSet of IPv4 in the clothes of IPv6":  {"NetworkSet\nmetadata: {name: a}\nspec: {nets: ['::ffff:10.0.0.0/104', '::ffff:1.2.3.4']}", []string{"spec.nets[0]: write it as IPv4", "spec.nets[1]: write it as IPv4"}},
		"NetworkSet with a zone":                     {"NetworkSet\nmetadata: {name: a}\nspec: {nets: ['fe80::1%eth0']}", []string{"spec.nets[0]: no address"}},
		"NetworkSet of domains":                      {"NetworkSet\nmetadata: {name: a}\nspec: {allowedEgressDomains: [example.com, '*.Example.com.', 'a.*.b.c', bücher.example]}", nil},
		"GlobalNetworkSet of what is no domain":      {"GlobalNetworkSet\nmetadata: {name: a}\nspec: {allowedEgressDomains: [example.com, '*', 'g*.com', '*.*.com', 'a..b', '']}", []string{"spec.allowedEgressDomains[1]: last place", "spec.allowedEgressDomains[2]: not a whole label", "spec.allowedEgressDomains[3]: two asterisks", "spec.allowedEgressDomains[4]: a label is empty", "spec.allowedEgressDomains[5]: 0 bytes"}},
		"NetworkSet with the system's label":         {"NetworkSet\nmetadata: {name: a, labels: {projectcalico.org/namespace: a}}", []string{"metadata.labels: take it out"}},
		"GlobalNetworkSet with the system's label":   {"GlobalNetworkSet\nmetadata: {name: a, labels: {projectcalico.org/namespace: a}}", []string{"metadata.labels: take it out"}},
		"Profile with rules that are judged":         {"Profile\nmetadata: {name: a}\nspec: {ingress: [{action: None}], egress: [{action: None}]}", []string{"spec.ingress[0].action: Pass", "spec.egress[0].action: Pass"}},
		"Profile with a label that can be none":      {"Profile\nmetadata: {name: a}\nspec: {labelsToApply: {'a b': c}}", []string{"spec.labelsToApply: name part"}},
		"Profile with a namespace's labels":          {"Profile\nmetadata: {name: a}\nspec: {labelsToApply: {pcns." + strings.Repeat("n", 63) + ": c}}", nil},
		"Profile with a service that is nowhere":     {"Profile\nmetadata: {name: a}\nspec: {egress: [{action: Allow, destination: {services: {name: b}}}]}", []string{"spec.egress[0].destination.services.namespace: Required"}},
		"Profile with 1025 rules, which is too much": {"Profile\nmetadata: {name: a}\nspec: {egress: " + times(1025, "{action: Log}") + "}", []string{"spec.egress: at most 1024"}},
	}.run(t, group+"kind: @")
}

// However many faults an object has, and however long they are, the answer is
// short.
func TestFaultsAreBounded(t *testing.T) {
	p := &v3.NetworkPolicy{}
	p.Name, p.Namespace = strings.Repeat("N", 1<<20), "a"
	rule := v3.Rule{Action: v3.Action(strings.Repeat("x", 1<<16)), Source: v3.EntityRule{Selector: strings.Repeat("é", 1<<12)}}
	for range v3.MaxNets {
		rule.Source.Nets = append(rule.Source.Nets, strings.Repeat("9", 1<<12))
	}
	for range v3.MaxRules {
		p.Spec.Ingress = append(p.Spec.Ingress, rule)
	}
	all := p.Validate()
	if len(all) != v3.MaxFaults+1 || len(all.ToAggregate().Error()) > 100_000 {
		t.Errorf("%d faults in %d bytes", len(all), len(all.ToAggregate().Error()))
	}
	if last := all[v3.MaxFaults].Error(); !strings.Contains(last, "more faults than these 100") {
		t.Errorf("the last is %s", last)
	}
}

// A set of a million nets is judged whole.
func TestMillionNets(t *testing.T) {
	s := &v3.GlobalNetworkSet{}
	s.Name = "world"
	s.Spec.Nets = slices.Repeat([]string{"10.1.2.3/32", "fd00::/64", "192.0.2.1", "2001:db8::1"}, 1<<18)
	s.Spec.Nets[1<<20-1] = "1.2.3.4.5"
	agree(t, texts(s), []string{"spec.nets[1048575]: want one as"})
}

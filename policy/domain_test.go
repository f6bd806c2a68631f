package policy

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// zone is what names of hosts mean in scenes, by entries of network sets.
func zone() map[string][]netip.Addr {
	both := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			a := netip.MustParseAddr(text)
			out = append(out, a, embed(a))
		}
		return out
	}
	return map[string][]netip.Addr{
		"db.example": both("10.7.0.1"), "*.db.example": both("10.7.0.2", "10.7.0.3"), "web.example": both("10.7.0.1", "10.7.0.4"),
	}
}

// learn has the calculation know what the names mean, where that is not known yet,
// and no more.
func (r *receiver) learn(c *Calculation, names map[string][]netip.Addr) {
	r.t.Helper()
	for pattern := range r.names {
		c.SetDomain(pattern, names[pattern], nil)
		var gone []netip.Addr
		for _, a := range r.names[pattern] {
			if !slices.Contains(names[pattern], a) {
				gone = append(gone, a)
			}
		}
		c.SetDomain(pattern, nil, gone)
		r.names[pattern] = slices.Clone(names[pattern])
	}
	r.take(c.Flush())
}

// namesDoc is a network set with names of hosts.
func namesDoc(kind, meta, spec string) string {
	return "---\nkind: " + kind + "\nmetadata: {" + meta + "}\nspec: {" + spec + "}\n"
}

func TestDomains(t *testing.T) {
	sets := namesDoc("NetworkSet", "namespace: x, name: db, labels: {to: db}", "nets: [10.8.0.0/16], allowedEgressDomains: [db.example, '*.DB.example.']") +
		namesDoc("GlobalNetworkSet", "name: web, labels: {to: web}", "allowedEgressDomains: [web.example]")
	with := func(direction, list, questions string) scene {
		s := rules(direction, list, questions)
		s.manifest += sets
		return s
	}
	out := func(answers ...string) (questions string) {
		for i, a := range []string{"10.7.0.1", "10.7.0.3", "10.7.0.4", "10.8.1.1"} {
			questions += "out tcp 10.1.0.2 > " + a + "@80 = " + answers[i] + "\n"
		}
		return questions
	}
	play6(t, map[string]scene{
		"an egress rule that allows":   with("egress", "{action: Allow, destination: {selector: to == 'db'}}", out("yes", "yes", "no", "yes")),
		"of a port":                    with("egress", "{action: Allow, protocol: TCP, destination: {selector: to == 'db', ports: [81]}}", out("no", "no", "no", "no")),
		"within prefixes":              with("egress", "{action: Allow, destination: {selector: to == 'db', nets: [10.7.0.3/32]}}", out("no", "yes", "no", "no")),
		"not to some":                  with("egress", "{action: Allow, destination: {selector: to == 'db', notNets: [10.7.0.3/32]}}", out("yes", "no", "no", "yes")),
		"of a global set":              with("egress", "{action: Allow, destination: {selector: to == 'web', namespaceSelector: global()}}", out("yes", "no", "yes", "no")),
		"of another namespace's":       with("egress", "{action: Allow, destination: {selector: to == 'db', namespaceSelector: team == 'blue'}}", out("no", "no", "no", "no")),
		"of a namespace by its label":  with("egress", "{action: Allow, destination: {selector: to == 'db', namespaceSelector: team == 'red'}}", out("yes", "yes", "no", "yes")),
		"no rule that denies":          with("egress", "{action: Deny, destination: {selector: to == 'db'}}, {action: Allow}", "out tcp 10.1.0.2 > 10.7.0.1@80 = Allow NetworkPolicy/x/p/1\nout tcp 10.1.0.2 > 10.8.0.1@80 = Deny NetworkPolicy/x/p/0"),
		"no rule that excludes":        with("egress", "{action: Allow, destination: {notSelector: to == 'db', namespaceSelector: all()}}", "out tcp 10.1.0.2 > 10.1.0.1@80 = yes\nout tcp 10.1.0.2 > 10.7.0.1@80 = no"),
		"no source":                    with("egress", "{action: Allow, source: {selector: to == 'db'}}", "out tcp 10.7.0.1 > 10.1.0.1@80 = no"),
		"no rule of ingress":           with("ingress", "{action: Allow, source: {selector: to == 'db'}}", "in tcp 10.7.0.1 > 10.1.0.2@80 = no\nin tcp 10.8.0.1 > 10.1.0.2@80 = yes"),
		"a destination of ingress too": with("ingress", "{action: Allow, destination: {selector: to == 'db'}}", "in tcp 10.1.0.1 > 10.7.0.1@80 = no"),
		"a pattern that is none": ruled(namesDoc("GlobalNetworkSet", "name: bad", "allowedEgressDomains: ['*.*.example', db.example]")+
			policyDoc("gnp", "p", "types: [Egress], egress: [{action: Allow, destination: {selector: all()}}]"),
			"x/server egress tcp 10.1.0.2 > 10.7.0.1@80 = Allow GlobalNetworkPolicy//p/0\ntold GlobalNetworkSet bad = allowedEgressDomains[0]: \"*.*.example\" has two asterisks"),
	})
}

// TestDomainsAreTold plays how patterns come into use and out of it, and what of it
// changes rules, and what members alone.
func TestDomainsAreTold(t *testing.T) {
	objects, _ := parse(t, cluster()+policyDoc("gnp", "p", "types: [Egress], egress: [{action: Allow, destination: {selector: has(to)}}]"))
	c, r := New(""), newReceiver(t)
	for _, o := range objects {
		if err := c.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
	r.take(c.Flush())
	sets := len(r.sets)
	put := func(domains ...string) Changes {
		o := &v3.GlobalNetworkSet{Spec: v3.GlobalNetworkSetSpec{AllowedEgressDomains: domains}}
		o.Name, o.Labels = "s", map[string]string{"to": "there"}
		if err := c.Upsert(o); err != nil {
			t.Fatal(err)
		}
		fresh, gone := c.Domains()
		changes := c.Flush()
		if !slices.Equal(fresh, changes.NewDomains) || !slices.Equal(gone, changes.GoneDomains) {
			t.Errorf("before Flush: new %q, gone %q; it tells %q, %q", fresh, gone, changes.NewDomains, changes.GoneDomains)
		}
		r.take(changes)
		if fresh, gone := c.Domains(); len(fresh)+len(gone) > 0 {
			t.Errorf("after Flush: new %q, gone %q", fresh, gone)
		}
		return changes
	}
	first := put("b.example", "A.example.", "a.example")
	if !slices.Equal(first.NewDomains, []string{"a.example", "b.example"}) || len(first.GoneDomains) > 0 || len(r.sets) != sets+1 || len(first.Endpoints) == 0 {
		t.Errorf("the first names: new %q, gone %q, %d sets more, %d endpoints judged otherwise", first.NewDomains, first.GoneDomains, len(r.sets)-sets, len(first.Endpoints))
	}
	shared, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	c.SetDomain("a.example", []netip.Addr{shared, own, shared, {}}, nil)
	c.SetDomain("b.example", []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")}, nil)
	c.SetDomain("nobody.example", []netip.Addr{own}, nil)
	learned := c.Flush()
	if r.take(learned); len(learned.Endpoints) > 0 || len(learned.Sets) != 1 || len(learned.Sets[0].Joined) != 2 {
		t.Errorf("addresses change more than one set's members, or others: %+v", learned)
	}
	second := put("b.example", "c.example")
	if !slices.Equal(second.NewDomains, []string{"c.example"}) || !slices.Equal(second.GoneDomains, []string{"a.example"}) || len(second.Endpoints) > 0 ||
		len(second.Sets) != 1 || len(second.Sets[0].Joined) > 0 || !slices.Equal(second.Sets[0].Left, []netip.Prefix{netip.PrefixFrom(own, 128)}) {
		t.Errorf("a name in the place of another: %+v", second)
	}
	c.SetDomain("b.example", nil, []netip.Addr{shared, own})
	if left := c.Flush(); len(left.Sets) != 1 || len(left.Sets[0].Left) != 1 {
		t.Errorf("an address that no name has any more: %+v", left)
	} else {
		r.take(left)
	}
	last := put()
	if !slices.Equal(last.GoneDomains, []string{"b.example", "c.example"}) || len(r.sets) != sets || len(c.hosts) != 0 {
		t.Errorf("after the last name: gone %q, %d sets too many, %d patterns kept", last.GoneDomains, len(r.sets)-sets, len(c.hosts))
	}
}

// domainEvent has names mean something else.
func (w *writer) domainEvent(c *Calculation, r *receiver, names map[string][]netip.Addr) {
	pattern := pick(w, "a.example", "*.a.example", "b.example")
	var next []netip.Addr
	for range w.below(4) {
		next = append(next, w.address())
	}
	if names[pattern] = next; slices.Contains(slices.Collect(maps.Keys(r.names)), pattern) {
		r.learn(c, names)
	}
}

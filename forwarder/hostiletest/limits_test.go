package hostiletest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/forwarder/plane"
)

// manyRules is policies at their limit that have n ingress rules between them, in
// order. Rule i lets the net of source i of a family in, to port portOf(i).
func manyRules(n int) string {
	var b strings.Builder
	for i := range n {
		if i%v3.MaxRules == 0 {
			fmt.Fprintf(&b, "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p%03d}, spec: {selector: role == 'server', types: [Ingress], ingress: [\n", i/v3.MaxRules)
		}
		s := sourceOf(i)
		fmt.Fprintf(&b, "{action: Allow, protocol: UDP, source: {nets: [%v]}, destination: {ports: [%d]}},\n", netip.PrefixFrom(s, s.BitLen()-8).Masked(), portOf(i))
		if i%v3.MaxRules == v3.MaxRules-1 || i == n-1 {
			b.WriteString("]}}\n")
		}
	}
	return b.String()
}

// sourceOf is an address of rule i's net, by turns of either family.
func sourceOf(i int) netip.Addr {
	if i%2 == 1 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 13: byte(i >> 8), 14: byte(i), 15: 7})
	}
	return netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 7})
}

func portOf(i int) uint16 { return uint16(1000 + i) }

// TestManyRulesOnOneEndpoint has 12,500 of them from a manifest to the packets: the
// first, some in the middle and the last let in whom they name, by the port that
// they name. Then one of them goes.
func TestManyRulesOnOneEndpoint(t *testing.T) {
	n := 12_500
	if testing.Short() {
		n = 2_500
	}
	w := raise(t, 1, plane.Config{Workers: 1})
	policies := w.read(manyRules(n))
	w.put(append(policies, workload(1, map[string]string{"role": "server"}))...)
	check := func(i int, want bool) {
		t.Helper()
		if got := w.passes(uplink, sourceOf(i), 1, portOf(i)); got != want {
			t.Errorf("rule %d of %d: its packets pass: %v, want %v", i, n, got, want)
		}
		if w.passes(uplink, sourceOf(i), 1, portOf(i)+2) {
			t.Errorf("rule %d of %d lets in to another's port", i, n)
		}
	}
	some := []int{0, 1, n/2 - 1, n / 2, n - 2, n - 1}
	for i := 0; i < n; i += n / 50 {
		some = append(some, i)
	}
	for _, i := range some {
		check(i, true)
	}
	middle := policies[len(policies)/2].(*v3.GlobalNetworkPolicy).DeepCopy()
	gone := len(policies) / 2 * v3.MaxRules
	middle.Spec.Ingress = middle.Spec.Ingress[2:]
	w.put(middle)
	check(gone, false)
	check(gone+1, false)
	for _, i := range []int{0, 1, gone - 1, gone + 2, gone + 3, n - 2, n - 1} {
		check(i, true)
	}
}

// tiers is a policy in each of n tiers that passes everybody on.
func tiers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t%02[1]d}, spec: {order: %[1]d}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: t%02[1]d.p}, spec: {tier: t%02[1]d, selector: role == 'server', types: [Ingress],
	ingress: [{action: Allow, protocol: UDP, destination: {ports: [%[2]d]}}, {action: Pass}]}}
`, i, portOf(i))
	}
	return b.String()
}

// TestAsManyTiersAsThereMayBe has each let its own port in. With one tier more
// nothing is let in, another endpoint's policy still changes, and all is as before
// once the tier is gone.
func TestAsManyTiersAsThereMayBe(t *testing.T) {
	const most = classifier.MaxTiers
	w := raise(t, 2, plane.Config{})
	w.put(append(w.read(tiers(most)), workload(1, map[string]string{"role": "server"}))...)
	check := func(want bool) {
		t.Helper()
		for _, six := range families {
			for i := range most {
				if got := w.passes(uplink, outsider(six), 1, portOf(i)); got != want {
					t.Errorf("a packet from %v to the port of tier %d passes: %v, want %v", outsider(six), i, got, want)
				}
			}
			if w.passes(uplink, outsider(six), 1, portOf(most)) {
				t.Error("a packet passes that no tier lets in")
			}
		}
	}
	check(true)
	more := w.read(strings.Join(strings.SplitAfter(tiers(most+1), "---\n")[2*most+1:], ""))
	w.put(more...)
	check(false)
	other := w.read(`{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: other, namespace: default}, spec: {selector: role == 'other', types: [Ingress],
		ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]}}`)
	w.put(append(other, workload(2, map[string]string{"role": "other"}))...)
	for _, six := range families {
		if !w.passes(uplink, outsider(six), 2, 53) || w.passes(uplink, outsider(six), 2, 54) {
			t.Error("another endpoint has not got its policy")
		}
	}
	w.drop(more...)
	check(true)
}

// outsider is an address that no pod has.
func outsider(six bool) netip.Addr {
	if six {
		return netip.MustParseAddr("2001:db8:ffff::9")
	}
	return netip.MustParseAddr("192.0.2.9")
}

// drop takes resources away.
func (w *world) drop(objects ...metav1.Object) {
	w.t.Helper()
	for _, o := range objects {
		w.guard.Delete(w.key(o))
	}
	if err := w.flush(); err != nil {
		w.t.Fatal(err)
	}
}

// TestSelectorsNestedAThousandDeep come by ways that validation does not guard, or
// are refused by it: what they cannot say they do not open.
func TestSelectorsNestedAThousandDeep(t *testing.T) {
	deep := strings.Repeat("role == 'x' || (", 1000) + "role == 'client'" + strings.Repeat(")", 1000)
	fits := strings.Repeat("(", 500) + "role == 'client'" + strings.Repeat(")", 500)
	w := raise(t, 3, plane.Config{})
	p := w.read(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {selector: role == 'server', types: [Ingress],
		ingress: [{action: Allow, source: {selector: all()}}]}}`)[0].(*v3.GlobalNetworkPolicy)
	pods := []metav1.Object{workload(1, map[string]string{"role": "server"}), workload(2, map[string]string{"role": "client"}, "open"), workload(3, map[string]string{"role": "other"}, "open")}
	tests := []struct {
		name, selector string
		clients, other bool // what is let in
	}{
		{"any endpoint", "all()", true, true},
		{"as deep as may be", fits, true, false},
		{"a thousand deep", deep, true, false},
		{"a million deep", strings.Repeat("(", 1_000_000) + "all()" + strings.Repeat(")", 1_000_000), false, false},
		{"and back", "role == 'client'", true, false},
	}
	w.put(append(pods, w.read(openProfile)...)...)
	for _, tt := range tests {
		p = p.DeepCopy()
		p.Spec.Ingress[0].Source.Selector = tt.selector
		w.put(p)
		for _, six := range families {
			for from, want := range map[int]bool{2: tt.clients, 3: tt.other} {
				if got := w.passes(pod(from), addr(from, six), 1, 53); got != want {
					t.Errorf("selector %s: packets from %v pass: %v, want %v", tt.name, addr(from, six), got, want)
				}
			}
		}
	}
}

// TestContradictoryObjects come together with sound ones: they open nothing, and
// close nothing that is not theirs.
func TestContradictoryObjects(t *testing.T) {
	const sound = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: sound}, spec: {order: 100, selector: role == 'server', types: [Ingress],
		ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]}}`
	in := func(rule string) string {
		return "order: 1, selector: role == 'server', types: [Ingress], ingress: [" + rule + "]"
	}
	tests := []struct {
		name, odd string
		sound     bool // packets to port 53 pass as they do without it
	}{
		{"nothing matches both selectors", in("{action: Allow, source: {selector: all(), notSelector: all()}}"), true},
		{"an allow of nets and of none of them", in("{action: Allow, source: {nets: [0.0.0.0/0, '::/0'], notNets: [0.0.0.0/0, '::/0']}}"), true},
		{"a deny from one family to the other", in("{action: Deny, source: {nets: [0.0.0.0/0]}, destination: {nets: ['::/0']}}"), true},
		{"a deny of IPv4 nets by IPv6", in("{action: Deny, ipVersion: 6, source: {nets: [0.0.0.0/0]}}"), true},
		{"an allow that cannot be read", in("{action: Allow, source: {selector: 'a ='}}"), true},
		{"a deny that cannot be read", in("{action: Deny, source: {selector: 'a ='}}"), false},
		{"an action that nobody knows", in("{action: Perhaps}"), false},
		{"whom it is for cannot be read", "order: 1, selector: '((', ingress: [{action: Allow}]", false},
		{"before tracking and before translation", "order: 1, doNotTrack: true, preDNAT: true, applyOnForward: true, ingress: [{action: Allow}]", false},
		{"empty lists", in(""), true},
	}
	w := raise(t, 2, plane.Config{})
	w.put(append(w.read(openProfile+"---\n"+sound), workload(1, map[string]string{"role": "server"}), workload(2, map[string]string{"role": "client"}, "open"))...)
	check := func(name string, want bool) {
		t.Helper()
		for _, six := range families {
			if got := w.passes(pod(2), addr(2, six), 1, 53); got != want {
				t.Errorf("%s: a packet from %v that the sound policy lets in passes: %v, want %v", name, addr(2, six), got, want)
			}
			if w.passes(pod(2), addr(2, six), 1, 54) {
				t.Errorf("%s: a packet from %v passes that nothing lets in", name, addr(2, six))
			}
		}
	}
	check("before", true)
	for _, tt := range tests {
		odd, err := v3.Decode([]byte("{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: odd}, spec: {" + tt.odd + "}}"))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		w.put(odd)
		check(tt.name, tt.sound)
		w.drop(odd)
		check("after "+tt.name, true)
	}
}

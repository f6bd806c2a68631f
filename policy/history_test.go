package policy

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/oracle"
)

var histories = flag.Int("histories", 30, "random histories of events that TestHistories plays")

// TestHistories plays random histories.
func TestHistories(t *testing.T) {
	for seed := range *histories {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(uint64(seed), 3))
			text := make([]byte, 3000)
			for i := range text {
				text[i] = byte(dice.Uint32())
			}
			playHistory(t, text)
		})
	}
}

// FuzzHistory plays the histories that the fuzzer writes.
func FuzzHistory(f *testing.F) {
	f.Add([]byte("an endpoint before its profile, a policy before its tier"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) < 5000 {
			playHistory(t, text)
		}
	})
}

// playHistory does what the bytes say: objects come, change and go, in any order.
// What was told must add up to what a fresh start with the objects of the moment
// tells, and judge packets as the oracle does. At the end everything goes.
func playHistory(t *testing.T, text []byte) {
	w := &writer{text: text}
	c, r := New(""), newReceiver(t)
	objects, services, names := make(map[Key]metav1.Object), make(map[string][]Backend), make(map[string][]netip.Addr)
	for rounds := 0; len(w.text) > 0; rounds++ {
		for range 1 + w.below(6) {
			w.event(t, c, objects, services)
			if w.one(8) {
				w.domainEvent(c, r, names)
			}
		}
		changes := c.Flush()
		r.take(changes)
		if w.one(2) {
			c.Settled(changes.Generation)
		}
		if rounds%8 == 0 || len(w.text) == 0 {
			r.learn(c, names)
			compareWithFresh(t, c, r, objects, services, names)
			compareWithOracle(t, w, c, r, objects, services, names)
		}
	}
	emptied(t, c, r, slices.Collect(maps.Values(objects)), services)
}

func compareWithFresh(t *testing.T, c *Calculation, r *receiver, objects map[Key]metav1.Object, services map[string][]Backend, names map[string][]netip.Addr) {
	t.Helper()
	var all []metav1.Object
	for _, key := range slices.SortedFunc(maps.Keys(objects), Key.compare) {
		all = append(all, objects[key])
	}
	fresh, heard := play(t, all, services, nil)
	heard.learn(fresh, names)
	if got, want := r.dump(c), heard.dump(fresh); got != want {
		t.Fatalf("the history ends elsewhere than a fresh start: %s", firstDifference(got, want))
	}
}

func compareWithOracle(t *testing.T, w *writer, c *Calculation, r *receiver, objects map[Key]metav1.Object, services map[string][]Backend, names map[string][]netip.Addr) {
	t.Helper()
	world := worldOf(slices.Collect(maps.Values(objects)), services)
	world.Domains = names
	for range 24 {
		p := w.packet()
		for key := range r.endpoints {
			who := oracle.Endpoint{Host: key.Kind == v3.KindHostEndpoint, Namespace: key.Namespace, Name: key.Name}
			kinds := []oracle.Traffic{oracle.Normal, oracle.Forward, oracle.Untracked, oracle.PreDNAT}
			if !who.Host {
				kinds = kinds[:1]
			}
			for _, kind := range kinds {
				for d := range []Direction{Ingress, Egress} {
					for _, staged := range []bool{false, true} {
						got := say(r.judge(c, key, Direction(d), kind, staged, p))
						want := say(world.Judge(who, v3.PolicyType(Direction(d).String()), kind, staged, p))
						if got != want {
							t.Fatalf("%v, %v, traffic %d, staged %v, %+v\n  rules say   %s\n  oracle says %s\n%s", key, Direction(d), kind, staged, p, got, want, r.dump(c))
						}
					}
				}
			}
		}
	}
}

// writer makes objects of bytes; when there are none left it says 0.
type writer struct{ text []byte }

func (w *writer) below(n int) int {
	if len(w.text) == 0 {
		return 0
	}
	b := w.text[0]
	w.text = w.text[1:]
	return int(b) % n
}

// one is true once in n times.
func (w *writer) one(n int) bool { return w.below(n) == n-1 }

func pick[T any](w *writer, from ...T) T { return from[w.below(len(from))] }

// some is a few of these.
func some[T any](w *writer, from ...T) []T {
	var out []T
	for range w.below(3) {
		out = append(out, pick(w, from...))
	}
	return out
}

// maybe is a pointer to one of these, or nil, which is likelier.
func maybe[T any](w *writer, from ...T) *T {
	if !w.one(3) {
		return nil
	}
	v := pick(w, from...)
	return &v
}

// event changes one object, in the calculation and in the list of them.
func (w *writer) event(t *testing.T, c *Calculation, objects map[Key]metav1.Object, services map[string][]Backend) {
	if w.one(12) {
		name := pick(w, "s", "r")
		var backends []Backend
		for range w.below(4) {
			backends = append(backends, Backend{w.address(), pick[uint8](w, 6, 17), pick[uint16](w, 80, 8080)})
		}
		services["x/"+name] = backends
		c.SetService("x", name, backends)
		return
	}
	o := w.object()
	key, err := KeyOf(o)
	if err != nil {
		t.Fatal(err)
	}
	if w.one(4) {
		delete(objects, key)
		c.Delete(key)
		return
	}
	objects[key] = o
	if err := c.Upsert(o); err != nil {
		t.Fatal(err)
	}
}

func (w *writer) object() metav1.Object {
	meta := metav1.ObjectMeta{Name: pick(w, "a", "a-b", "b"), Labels: w.labels()}
	spaced := meta
	spaced.Namespace = pick(w, "x", "y")
	switch w.below(14) {
	case 0:
		meta.Name = pick(w, "t", "u", "default")
		return &v3.Tier{ObjectMeta: meta, Spec: v3.TierSpec{Order: maybe(w, 1.0, 2.0), DefaultAction: maybe(w, v3.Deny, v3.Pass)}}
	case 1, 2:
		meta.Name = pick(w, "kns.x", "kns.y", "p")
		return &v3.Profile{ObjectMeta: meta, Spec: v3.ProfileSpec{Ingress: w.rules(true, true), Egress: w.rules(true, false), LabelsToApply: w.labels()}}
	case 3:
		return &v3.NetworkSet{ObjectMeta: spaced, Spec: v3.NetworkSetSpec{Nets: some(w, w.nets()...), AllowedEgressDomains: w.domains()}}
	case 4:
		return &v3.GlobalNetworkSet{ObjectMeta: meta, Spec: v3.GlobalNetworkSetSpec{Nets: some(w, w.nets()...), AllowedEgressDomains: w.domains()}}
	case 5:
		return &v3.HostEndpoint{ObjectMeta: meta, Spec: v3.HostEndpointSpec{
			InterfaceName: pick(w, "eth0", "*"), ExpectedIPs: some(w, w.address().String()), Profiles: []string{"p", "gone"}[:w.below(3)],
			Ports: some(w, v3.EndpointPort{Name: "web", Protocol: v3.ProtocolNamed(v3.TCP), Port: pick[uint16](w, 80, 8080)})}}
	case 6, 7, 8:
		return &v3.WorkloadEndpoint{ObjectMeta: spaced, Spec: v3.WorkloadEndpointSpec{
			IPNetworks: []string{w.address().String(), w.address().String()}, Profiles: []string{"kns." + spaced.Namespace, pick(w, "p", "gone")}[:1+w.below(2)],
			ServiceAccountName: pick(w, "", "sa"), Ports: some(w,
				v3.WorkloadEndpointPort{Name: "web", Protocol: v3.ProtocolNamed(v3.TCP), Port: pick[uint16](w, 80, 8080)},
				v3.WorkloadEndpointPort{Name: "dns", Protocol: v3.ProtocolNumbered(17), Port: 80})}}
	case 9:
		return &v3.StagedNetworkPolicy{ObjectMeta: spaced, Spec: v3.StagedNetworkPolicySpec{StagedAction: w.staged(), NetworkPolicySpec: w.spec(false)}}
	case 10:
		return &v3.StagedGlobalNetworkPolicy{ObjectMeta: meta, Spec: v3.StagedGlobalNetworkPolicySpec{StagedAction: w.staged(), GlobalNetworkPolicySpec: w.globalSpec()}}
	case 11:
		return &v3.GlobalNetworkPolicy{ObjectMeta: meta, Spec: w.globalSpec()}
	}
	return &v3.NetworkPolicy{ObjectMeta: spaced, TypeMeta: metav1.TypeMeta{Kind: pick(w, "", "KubernetesNetworkPolicy")}, Spec: w.spec(false)}
}

func (w *writer) domains() []string {
	return some(w, "a.example", "*.a.example", "b.example")
}

func (w *writer) staged() v3.StagedAction {
	return pick(w, "", v3.StagedActionSet, v3.StagedActionDelete, v3.StagedActionIgnore)
}

func (w *writer) labels() map[string]string {
	out := map[string]string{}
	for _, name := range some(w, "a", "b", "pcns.n", "pcsa.s") {
		out[name] = pick(w, "0", "1")
	}
	return out
}

func (w *writer) selector() string {
	if !w.one(3) {
		return ""
	}
	return pick(w, "a == '0'", "a != '0'", "has(a)", "!has(a)", "a == '0' || b == '1'", "all()", "b in {'0', '1'}")
}

func (w *writer) spec(global bool) v3.NetworkPolicySpec {
	return v3.NetworkPolicySpec{
		Tier: pick(w, "", "t", "u", "phantom", "kube-admin"), Order: maybe(w, 1.0, 2.0), Selector: w.selector(),
		ServiceAccountSelector: pick(w, "", "", "", "s == '0'"), Types: some(w, v3.PolicyTypeIngress, v3.PolicyTypeEgress),
		Ingress: w.rules(global, true), Egress: w.rules(global, false),
	}
}

func (w *writer) globalSpec() v3.GlobalNetworkPolicySpec {
	s := v3.GlobalNetworkPolicySpec{NetworkPolicySpec: w.spec(true), NamespaceSelector: pick(w, "", "", "n == '0'", "all()"), ApplyOnForward: w.one(2)}
	switch w.below(4) {
	case 0:
		s.DoNotTrack = true
	case 1:
		s.PreDNAT, s.Egress = true, nil
	}
	return s
}

func (w *writer) rules(global, ingress bool) []v3.Rule {
	var rules []v3.Rule
	for range w.below(4) {
		r := v3.Rule{Action: pick(w, v3.Allow, v3.Allow, v3.Deny, v3.Deny, v3.Pass, v3.Log), IPVersion: maybe(w, 4, 6)}
		switch w.below(6) {
		case 0, 1:
			p := v3.ProtocolNamed(pick(w, v3.TCP, v3.UDP))
			r.Protocol = &p
		case 2:
			p := v3.ProtocolNamed(pick(w, v3.ICMP, v3.ICMPv6))
			r.Protocol = &p
			r.ICMP = maybe(w, v3.ICMPFields{}, v3.ICMPFields{Type: new(8)})
			r.NotICMP = maybe(w, v3.ICMPFields{Type: new(8), Code: new(0)})
		}
		r.NotProtocol = maybe(w, v3.ProtocolNamed(v3.TCP), v3.ProtocolNumbered(47))
		hasPorts := r.Protocol != nil && r.Protocol.HasPorts()
		r.Source, r.Destination = w.entity(global, hasPorts, ingress), w.entity(global, hasPorts, !ingress)
		rules = append(rules, r)
	}
	return rules
}

func (w *writer) entity(global, hasPorts, serves bool) v3.EntityRule {
	var e v3.EntityRule
	if w.one(2) {
		return e
	}
	ports := []v3.Port{v3.NamedPort("web"), v3.NamedPort("dns"), v3.NamedPort("none")}
	if hasPorts {
		ports = append(ports, v3.SinglePort(80), v3.PortRange(53, 90))
	}
	if serves && w.one(4) {
		e.Services = &v3.ServiceMatch{Name: pick(w, "s", "none"), Namespace: "x"}
		return e
	}
	e.Nets, e.NotNets = some(w, w.nets()...), some(w, w.nets()[2:]...)
	if w.one(2) { // a list of prefixes is often all that decides
		e.Nets, e.NotNets = nil, nil
	}
	e.Selector, e.NotSelector = w.selector(), w.selector()
	e.NamespaceSelector = pick(w, "", "", "", "n == '0'", "all()", "global()", "n != '1'")
	if w.one(5) {
		e.ServiceAccounts = &v3.ServiceAccountMatch{Names: some(w, "sa", "other"), Selector: pick(w, "", "s == '0'", "all()")}
	}
	if w.one(3) {
		e.Ports, e.NotPorts = some(w, ports...), some(w, ports...)
	}
	return e
}

// nets are prefixes; the first two are everything.
func (w *writer) nets() []string {
	return []string{"0.0.0.0/0", "::/0", "10.0.0.0/30", "10.0.0.4/30", "10.0.0.1/32", "10.0.0.0/28", "fd00::/126", "fd00::4/126", "fd00::1/128", "fd00::/124"}
}

func (w *writer) address() netip.Addr {
	return netip.MustParseAddr(pick(w, "10.0.0.", "fd00::") + fmt.Sprint(w.below(8)))
}

func (w *writer) packet() oracle.Packet {
	p := oracle.Packet{Protocol: pick[uint8](w, 6, 17, 6, 17, 1, 58, 47)}
	for p.Source, p.Destination = w.address(), w.address(); p.Source.Is4() != p.Destination.Is4(); {
		if p.Source = netip.MustParseAddr("10.0.0.1"); p.Destination.Is6() {
			p.Source = netip.MustParseAddr("fd00::1")
		}
	}
	if p.Protocol == 6 || p.Protocol == 17 {
		p.SourcePort, p.DestinationPort = pick[uint16](w, 80, 8080, 7), pick[uint16](w, 80, 8080, 53, 7)
	}
	if p.Protocol == 1 || p.Protocol == 58 {
		p.Type, p.Code = pick[uint8](w, 8, 0), pick[uint8](w, 0, 1)
	}
	return p
}

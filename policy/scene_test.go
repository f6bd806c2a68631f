package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/oracle"
)

// parse reads a manifest of several documents. What stands after "service" in a
// first line is one: service NAMESPACE/NAME ADDRESS:PORT/PROTOCOL...
func parse(t testing.TB, manifest string) (objects []metav1.Object, services map[string][]Backend) {
	t.Helper()
	services = make(map[string][]Backend)
	for _, doc := range regexp.MustCompile(`(?m)^---$`).Split(manifest, -1) {
		doc = strings.TrimSpace(doc)
		if rest, ok := strings.CutPrefix(doc, "service "); ok {
			fields := strings.Fields(rest)
			services[fields[0]] = []Backend{}
			for _, f := range fields[1:] {
				address, protocol, _ := strings.Cut(f, "/")
				ap := netip.MustParseAddrPort(address)
				services[fields[0]] = append(services[fields[0]], Backend{ap.Addr(), protocols[protocol], ap.Port()})
			}
			continue
		}
		if doc != "" {
			objects = append(objects, decode(t, doc))
		}
	}
	return objects, services
}

var protocols = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "gre": 47}

func decode(t testing.TB, doc string) metav1.Object {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
		t.Fatal(err)
	}
	o, ok := map[string]metav1.Object{
		"NetworkPolicy": &v3.NetworkPolicy{}, "KubernetesNetworkPolicy": &v3.NetworkPolicy{},
		"GlobalNetworkPolicy": &v3.GlobalNetworkPolicy{}, "Tier": &v3.Tier{}, "Profile": &v3.Profile{},
		"StagedNetworkPolicy": &v3.StagedNetworkPolicy{}, "StagedGlobalNetworkPolicy": &v3.StagedGlobalNetworkPolicy{},
		"NetworkSet": &v3.NetworkSet{}, "GlobalNetworkSet": &v3.GlobalNetworkSet{},
		"WorkloadEndpoint": &v3.WorkloadEndpoint{}, "HostEndpoint": &v3.HostEndpoint{},
	}[meta.Kind]
	if !ok {
		t.Fatalf("no kind %q in %q", meta.Kind, doc)
	}
	if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
		t.Fatalf("%v in %q", err, doc)
	}
	return o
}

// worldOf gives the oracle what the calculation was given.
func worldOf(objects []metav1.Object, services map[string][]Backend) *oracle.World {
	w := &oracle.World{Services: make(map[string][]oracle.Backend), Domains: zone()}
	w.Domains["*.DB.example."] = w.Domains["*.db.example"]
	for _, o := range objects {
		key, _ := KeyOf(o)
		p := oracle.Policy{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}
		switch o := o.(type) {
		case *v3.NetworkPolicy:
			p.Spec = v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec}
		case *v3.GlobalNetworkPolicy:
			p.Spec = o.Spec
		case *v3.StagedNetworkPolicy:
			p.Spec, p.Staged, p.Action = v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec.NetworkPolicySpec}, true, o.Spec.StagedAction
		case *v3.StagedGlobalNetworkPolicy:
			p.Spec, p.Staged, p.Action = o.Spec.GlobalNetworkPolicySpec, true, o.Spec.StagedAction
		case *v3.Tier:
			w.Tiers = append(w.Tiers, o)
		case *v3.Profile:
			w.Profiles = append(w.Profiles, o)
		case *v3.NetworkSet:
			w.Sets = append(w.Sets, o)
		case *v3.GlobalNetworkSet:
			w.Global = append(w.Global, o)
		case *v3.WorkloadEndpoint:
			w.Workloads = append(w.Workloads, o)
		case *v3.HostEndpoint:
			w.Hosts = append(w.Hosts, o)
		}
		if strings.HasSuffix(key.Kind, "Policy") {
			w.Policies = append(w.Policies, p)
		}
	}
	for name, backends := range services {
		for _, b := range backends {
			w.Services[name] = append(w.Services[name], oracle.Backend(b))
		}
	}
	return w
}

// question is one packet and the endpoint that is asked about it, as
//
//	ENDPOINT DIRECTION PROTOCOL SOURCE > DESTINATION
//
// where ENDPOINT is namespace/name of a workload or the name of a host, with
// ":forward", ":untracked", ":prednat" or ":staged" behind it; PROTOCOL a name, and
// of ICMP "icmp:TYPE:CODE"; SOURCE and DESTINATION an address, and a port behind @.
type asked struct {
	who       oracle.Endpoint
	direction Direction
	traffic   oracle.Traffic
	staged    bool
	packet    oracle.Packet
}

func ask(text string) asked {
	f := strings.Fields(text)
	name, kind, _ := strings.Cut(f[0], ":")
	a := asked{staged: kind == "staged", traffic: map[string]oracle.Traffic{
		"forward": oracle.Forward, "untracked": oracle.Untracked, "prednat": oracle.PreDNAT}[kind]}
	namespace, pod, workload := strings.Cut(name, "/")
	if a.who = (oracle.Endpoint{Host: true, Name: name}); workload {
		a.who = oracle.Endpoint{Namespace: namespace, Name: pod}
	}
	if f[1] == "egress" {
		a.direction = Egress
	}
	p := strings.Split(f[2], ":")
	a.packet.Protocol = protocols[p[0]]
	if len(p) == 3 {
		a.packet.Type, a.packet.Code = byte(atoi(p[1])), byte(atoi(p[2]))
	}
	side := func(text string) (netip.Addr, uint16) {
		address, port, _ := strings.Cut(text, "@")
		return netip.MustParseAddr(address), uint16(atoi(port))
	}
	a.packet.Source, a.packet.SourcePort = side(f[3])
	a.packet.Destination, a.packet.DestinationPort = side(f[5])
	return a
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func (a asked) key() Key {
	if a.who.Host {
		return Key{Kind: v3.KindHostEndpoint, Name: a.who.Name}
	}
	return Key{v3.KindWorkloadEndpoint, a.who.Namespace, a.who.Name}
}

func (a asked) type3() v3.PolicyType { return v3.PolicyType(a.direction.String()) }

// say is a verdict as tables have it: action, and what decided.
func say(v oracle.Verdict) string {
	s := strings.TrimSpace(string(v.Action) + " " + v.By)
	if len(v.Logged) > 0 {
		s += fmt.Sprint(" after ", v.Logged)
	}
	return s
}

// toIPv6 puts IPv6 addresses in the place of IPv4's, 0a01:0203 below fd00:: for
// 10.1.2.3.
func toIPv6(text string) string {
	text = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)\.(\d+)(/\d+)?(:\d+/)?`).ReplaceAllStringFunc(text, func(v4 string) string {
		bits := ""
		if at := strings.LastIndex(v4, "/"); at >= 0 && !strings.Contains(v4, ":") {
			n := atoi(v4[at+1:])
			if v4, bits = v4[:at], fmt.Sprint("/", n+96); n == 0 {
				return "::/0"
			}
		}
		if ap, err := netip.ParseAddrPort(strings.TrimSuffix(v4, "/")); err == nil {
			return netip.AddrPortFrom(embed(ap.Addr()), ap.Port()).String() + "/"
		}
		return embed(netip.MustParseAddr(v4)).String() + bits
	})
	return strings.NewReplacer("protocol: ICMP", "protocol: ICMPv6", " icmp: ", " icmp: ", " icmp:", " icmpv6:", "ipVersion: 4", "ipVersion: 6").Replace(text)
}

func embed(a netip.Addr) netip.Addr {
	b := a.As4()
	return netip.AddrFrom16([16]byte{0: 0xfd, 12: b[0], 13: b[1], 14: b[2], 15: b[3]})
}

// play brings a scene about in some order, with a Flush wherever the dice say so.
func play(t testing.TB, objects []metav1.Object, services map[string][]Backend, dice *rand.Rand) (*Calculation, *receiver) {
	t.Helper()
	c, r := New(""), newReceiver(t)
	var events []func()
	for _, o := range objects {
		events = append(events, func() {
			if err := c.Upsert(o); err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, backends := range services {
		namespace, name, _ := strings.Cut(name, "/")
		events = append(events, func() { c.SetService(namespace, name, backends) })
	}
	if dice != nil {
		dice.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	}
	for _, event := range events {
		if event(); dice != nil && dice.IntN(3) == 0 {
			r.take(c.Flush())
		}
	}
	r.take(c.Flush())
	if len(r.names) > 0 {
		r.learn(c, zone())
	}
	return c, r
}

// scene is a manifest, and what becomes of packets there: each line is a question,
// then "=", then the answer. The oracle must give it too. Lines that begin with
// "told" are conditions: told OBJECT = part of its fault.
type scene struct{ manifest, questions string }

func (s scene) test(t *testing.T) {
	objects, services := parse(t, s.manifest)
	c, r := play(t, objects, services, nil)
	told := 0
	world := worldOf(objects, services)
	for _, line := range strings.Split(strings.TrimSpace(s.questions), "\n") {
		text, want, ok := strings.Cut(line, " = ")
		if !ok {
			t.Fatalf("no answer in %q", line)
		}
		if object, ok := strings.CutPrefix(text, "told "); ok {
			told++
			if !conditioned(r, object, want) {
				t.Errorf("%s is not told %q, but %v", object, want, r.conditions)
			}
			continue
		}
		a, want := ask(strings.TrimSpace(text)), strings.TrimSpace(want)
		if got := say(r.judge(c, a.key(), a.direction, a.traffic, a.staged, a.packet)); got != want {
			t.Errorf("%s\n  rules say  %s\n  want       %s", text, got, want)
		}
		if got := say(world.Judge(a.who, a.type3(), a.traffic, a.staged, a.packet)); got != want {
			t.Errorf("%s\n  oracle says %s\n  want        %s", text, got, want)
		}
	}
	if told != len(r.conditions) {
		t.Errorf("conditions of %d objects, want %d: %v", len(r.conditions), told, r.conditions)
	}
	want := r.dump(c)
	for seed := range uint64(4) {
		c, r := play(t, objects, services, rand.New(rand.NewPCG(seed, 1)))
		if got := r.dump(c); got != want {
			t.Fatalf("order %d of events ends elsewhere: %s", seed, firstDifference(got, want))
		}
		emptied(t, c, r, objects, services)
	}
}

// conditioned reports whether the object has a fault with this text in it.
func conditioned(r *receiver, object, text string) bool {
	for key, faults := range r.conditions {
		if key.String() == object && strings.Contains(strings.Join(faults, "; "), text) {
			return true
		}
	}
	return false
}

// firstDifference is the first line that two texts do not share.
func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n  is   %s\n  want %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

// emptied takes everything away again and finds what stays.
func emptied(t testing.TB, c *Calculation, r *receiver, objects []metav1.Object, services map[string][]Backend) {
	t.Helper()
	for name := range services {
		namespace, name, _ := strings.Cut(name, "/")
		c.SetService(namespace, name, nil)
	}
	for _, o := range slices.Backward(objects) {
		key, _ := KeyOf(o)
		c.Delete(key)
	}
	changes := c.Flush()
	r.take(changes)
	c.Settled(changes.Generation)
	if got := r.dump(c); got != "" {
		t.Fatalf("left over after all is deleted:\n%s", got)
	}
	if n := len(c.policies) + len(c.profiles) + len(c.endpoints) + len(c.sources) + len(c.services) + len(c.hosts) + len(c.gathered) + len(c.lists) + len(c.rules) + len(c.faults) + len(c.gone); n > 0 {
		t.Fatalf("left over inside: %d policies, %d profiles, %d endpoints, %d sources, %d services, %d names of hosts, %d gatherings, %d lists, %d rules, %d faults, %d gone",
			len(c.policies), len(c.profiles), len(c.endpoints), len(c.sources), len(c.services), len(c.hosts), len(c.gathered), len(c.lists), len(c.rules), len(c.faults), len(c.gone))
	}
}

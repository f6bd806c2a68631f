package guard

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/policy"
)

// plane is what a dataplane has after the updates so far. It refuses what the
// contract refuses.
type plane struct {
	t        *testing.T
	sets     map[uint32]map[netip.Prefix]bool
	names    map[uint32]string // of sets
	programs map[uint32]*classifier.Program
	images   map[uint32][]byte
	rules    map[uint32]*v1.RuleName
	stages   map[policy.Key]*Stages
}

func newPlane(t *testing.T) *plane {
	return &plane{t, map[uint32]map[netip.Prefix]bool{}, map[uint32]string{}, map[uint32]*classifier.Program{}, map[uint32][]byte{}, map[uint32]*v1.RuleName{}, map[policy.Key]*Stages{}}
}

func (p *plane) apply(u *Update) {
	p.t.Helper()
	d := &u.Delta
	changed := map[uint32]bool{}
	for _, s := range d.Set.Sets {
		if p.sets[s.ID] == nil {
			p.sets[s.ID] = map[netip.Prefix]bool{}
		}
		p.names[s.ID] = s.Name
		for _, m := range s.Members {
			p.sets[s.ID][m] = true
		}
		changed[s.ID] = true
	}
	for _, s := range d.Left {
		for _, m := range s.Members {
			if !p.sets[s.ID][m] {
				p.t.Errorf("%v leaves set %d and was no member", m, s.ID)
			}
			delete(p.sets[s.ID], m)
		}
		changed[s.ID] = true
	}
	for _, x := range d.Set.Programs {
		loaded, err := classifier.Load(x.Image)
		if err != nil || p.programs[x.ID] != nil {
			p.t.Errorf("program %d comes twice, or is broken: %v", x.ID, err)
		}
		p.programs[x.ID], p.images[x.ID] = loaded, x.Image
	}
	told := map[uint32]bool{}
	for _, r := range d.Set.Rules {
		if told[r.GetId()] {
			p.t.Errorf("rule %d is named twice in one update", r.GetId())
		}
		told[r.GetId()] = true
		p.rules[r.GetId()] = r
	}
	for key, s := range u.Stages {
		if s == nil {
			delete(p.stages, key)
		} else {
			p.stages[key] = s
		}
	}
	p.remove(d, changed)
}

// remove takes out what goes, which nothing may need any more.
func (p *plane) remove(d *dataplane.Delta, changed map[uint32]bool) {
	p.t.Helper()
	for _, id := range d.RemovedSets {
		if changed[id] {
			p.t.Errorf("set %d is changed and removed at once", id)
		}
		delete(p.sets, id)
		delete(p.names, id)
	}
	for _, id := range d.RemovedPrograms {
		if p.programs[id] == nil {
			p.t.Errorf("program %d is removed and was not there", id)
		}
		delete(p.programs, id)
	}
	for _, id := range d.RemovedRules {
		delete(p.rules, id)
	}
	named := map[uint32]bool{}
	for key, s := range p.stages {
		for _, stage := range slices.Concat(s.Egress, s.Ingress, s.StagedEgress, s.StagedIngress) {
			for _, id := range []uint32{stage.GetProgram4(), stage.GetProgram6()} {
				if id == 0 {
					continue
				}
				if named[id] = true; p.programs[id] == nil {
					p.t.Errorf("%v names program %d, which is not there", key, id)
				}
			}
		}
	}
	if len(named) != len(p.programs) {
		p.t.Errorf("%d programs are there, %d are named", len(p.programs), len(named))
	}
}

// verdict is what ingress of an endpoint says of TCP from a source to a port: the
// action, and the name of the rule that decided.
func (p *plane) verdict(key policy.Key, source string, port uint16) string {
	p.t.Helper()
	addr := netip.MustParseAddr(source)
	var in []classifier.SetID
	for id, members := range p.sets {
		for m := range members {
			if m.Contains(addr) {
				in = append(in, classifier.SetID(id))
				break
			}
		}
	}
	slices.Sort(in)
	packet := classifier.Packet{Protocol: 6, DestinationPort: port, SourceClass: 1 << 16}
	if addr.Is4() {
		b := addr.As4()
		packet.Source = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	for _, stage := range p.stages[key].Ingress {
		id := stage.GetProgram4()
		if addr.Is6() {
			id = stage.GetProgram6()
		}
		program, _ := classifier.Load(p.images[id])
		program.AddClass(1<<16, in)
		var k classifier.Key
		program.Key(&packet, &k)
		switch v := program.MatchOne(&k); {
		case v.Action() == classifier.Allow, v.Action() == classifier.Deny:
			name := p.rules[v.Rule()]
			return fmt.Sprintf("%v by %s %d", v.Action(), name.GetPolicy(), name.GetIndex())
		case v.Action() == classifier.NoMatch && !stage.GetUndecidedPasses():
			return "deny at the end of " + stage.GetName()
		}
	}
	return "deny at the end"
}

func endpoint(name string, labels map[string]string, addrs ...string) *v3.WorkloadEndpoint {
	w := v3.New("WorkloadEndpoint").(*v3.WorkloadEndpoint)
	w.Namespace, w.Name, w.Labels = "default", name, labels
	w.Spec.Node, w.Spec.Orchestrator = "here", "k8s"
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(ip, ip.BitLen()).String())
	}
	return w
}

func allowFrom(t *testing.T, name, selector string) *v3.GlobalNetworkPolicy {
	t.Helper()
	o, err := v3.Decode(fmt.Appendf(nil, `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: %s}, spec: {
		selector: "role == 'server'", types: [Ingress], ingress: [
			{action: Deny, protocol: TCP, destination: {ports: [22]}},
			{action: Allow, protocol: TCP, source: {selector: %q}, destination: {ports: [80, "8000:8080"]}},
			{action: Allow, source: {nets: ["192.0.2.0/24", "198.51.100.0/24"]}}]}}`, name, selector))
	if err != nil {
		t.Fatal(err)
	}
	return o.(*v3.GlobalNetworkPolicy)
}

func upsert(t *testing.T, g *Guard, objects ...metav1.Object) {
	t.Helper()
	for _, o := range objects {
		if err := g.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
}

func flush(t *testing.T, g *Guard, p *plane) *Update {
	t.Helper()
	u := g.Flush()
	p.apply(u)
	g.sound(t)
	return u
}

func TestPolicyReachesTheDataplane(t *testing.T) {
	g, p := New("here"), newPlane(t)
	server := endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1")
	client := endpoint("client", map[string]string{"role": "client"}, "10.1.0.2", "fd01::2")
	upsert(t, g, server, client, allowFrom(t, "p", "role == 'client'"))
	flush(t, g, p)
	key := policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"}
	check := func(source string, port uint16, want string) {
		t.Helper()
		if got := p.verdict(key, source, port); got != want {
			t.Errorf("TCP from %s to port %d: %s, want %s", source, port, got, want)
		}
	}
	const by = "GlobalNetworkPolicy p "
	for _, source := range []string{"10.1.0.2", "fd01::2"} {
		check(source, 80, "allow by "+by+"1")
		check(source, 8042, "allow by "+by+"1")
		check(source, 22, "deny by "+by+"0")
		check(source, 81, "deny at the end of default")
	}
	check("10.1.0.3", 80, "deny at the end of default")
	check("198.51.100.7", 9, "allow by "+by+"2")
	// A client that comes is a member more, and no program less.
	upsert(t, g, endpoint("other", map[string]string{"role": "client"}, "10.1.0.3"))
	if u := flush(t, g, p); len(u.Delta.Set.Programs) != 0 {
		for _, x := range u.Delta.Set.Programs {
			t.Errorf("program %d was compiled for a client that came", x.ID)
		}
	}
	check("10.1.0.3", 80, "allow by "+by+"1")
	g.Delete(policy.Key{Kind: "GlobalNetworkPolicy", Name: "p"})
	flush(t, g, p)
	check("10.1.0.2", 80, "deny at the end")
	if len(p.sets) != 0 || len(p.rules) != 0 {
		t.Errorf("%d sets and %d names of rules are left of a policy that is gone", len(p.sets), len(p.rules))
	}
}

// Of a host endpoint the dataplane gets what it forwards: nothing while no policy is
// about that, and then no profile, and none of the policies about its own traffic.
func TestHostsForwardedTrafficReachesTheDataplane(t *testing.T) {
	g, p := New("here"), newPlane(t)
	host := &v3.HostEndpoint{Spec: v3.HostEndpointSpec{Node: "here", InterfaceName: "eth0", Profiles: []string{"missing"}}}
	host.Name, host.Labels = "eth0", map[string]string{"host": "yes"}
	own := allowFrom(t, "own", "all()")
	own.Spec.Selector = "has(host)"
	upsert(t, g, host, own)
	flush(t, g, p)
	key := policy.Key{Kind: v3.KindHostEndpoint, Name: "eth0"}
	judged := func() *v1.Endpoint {
		e := &v1.Endpoint{Host: true}
		p.stages[key].Judge(e)
		return e
	}
	if e := judged(); e.GetPolicy() != v1.Endpoint_POLICY_OFF || len(e.GetIngress())+len(e.GetEgress()) != 0 {
		t.Errorf("without a policy about what it forwards it is %v", e)
	}
	forward := allowFrom(t, "forward", "role == 'client'")
	forward.Spec.Selector, forward.Spec.ApplyOnForward = "has(host)", true
	upsert(t, g, forward, endpoint("client", map[string]string{"role": "client"}, "10.1.0.2", "fd01::2"))
	flush(t, g, p)
	if e := judged(); e.GetPolicy() != v1.Endpoint_POLICY_ENFORCED || len(e.GetIngress()) != 1 || len(e.GetEgress()) != 0 {
		t.Errorf("with a policy about ingress that it forwards it is %v", e)
	}
	for source, want := range map[string]string{"10.1.0.2": "allow by GlobalNetworkPolicy forward 1", "fd01::2": "allow by GlobalNetworkPolicy forward 1", "10.1.0.3": "deny at the end of default"} {
		if got := p.verdict(key, source, 80); got != want {
			t.Errorf("what it forwards from %s: %s, want %s", source, got, want)
		}
	}
	for i := range classifier.MaxTiers + 1 {
		name := fmt.Sprintf("tier-%d", i)
		upsert(t, g, &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: name}})
		more := allowFrom(t, name+".forward", "all()")
		more.Spec.Selector, more.Spec.ApplyOnForward, more.Spec.Tier = "has(host)", true, name
		upsert(t, g, more)
	}
	flush(t, g, p)
	if e := judged(); e.GetPolicy() != v1.Endpoint_POLICY_ENFORCED || len(e.GetIngress()) != 1 || e.GetIngress()[0].GetUndecidedPasses() || e.GetIngress()[0].GetProgram4() != 0 {
		t.Errorf("with more tiers than there may be it is %v, want one that denies everything", e)
	}
}

// Programs are compiled anew when addresses come to be in sets together.
func TestCombinationsOfSetsAreCompiledIn(t *testing.T) {
	g, p := New("here"), newPlane(t)
	both, err := v3.Decode([]byte(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {
		selector: "role == 'server'", types: [Ingress], ingress: [
			{action: Allow, source: {selector: "a == 'y'", notSelector: "b == 'y'"}},
			{action: Deny, source: {selector: "b == 'y'"}},
			{action: Allow, source: {selector: "c == 'y'"}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	upsert(t, g, both, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1"))
	flush(t, g, p)
	upsert(t, g, endpoint("x", map[string]string{"b": "y", "c": "y"}, "10.1.0.2"), endpoint("z", map[string]string{"a": "y", "c": "y"}, "fd01::3"))
	flush(t, g, p)
	if folds(t, g, p); g.Stats().Folded == 0 {
		t.Error("nothing was compiled anew")
	}
	knowing(t, g, p)
	if u := flush(t, g, p); len(u.Delta.Set.Programs)+len(u.Stages) != 0 {
		t.Error("what is known was compiled again")
	}
}

// knowing makes sure that programs know all combinations of sets that there are.
func knowing(t *testing.T, g *Guard, p *plane) {
	t.Helper()
	for id, image := range p.images {
		if p.programs[id] == nil {
			continue
		}
		program, _ := classifier.Load(image)
		for class, sets := range g.classes {
			program.AddClass(uint32(class), sets)
		}
		if n := program.Strange(); n != 0 {
			t.Errorf("program %d does not know %d combinations", id, n)
		}
	}
}

// folds waits for what is compiled in the background, until nothing is.
func folds(t *testing.T, g *Guard, p *plane) {
	t.Helper()
	for n := 0; g.Folding() != nil; n++ {
		if n > 100 {
			t.Fatal("there is no end of compiling anew")
		}
		<-g.Folding()
		g.Settled(flush(t, g, p).Generation)
	}
}

// somePolicy is a policy of some of ten rules in an order that is always the same.
func somePolicy(t *testing.T, r *rand.Rand, name string) *v3.GlobalNetworkPolicy {
	t.Helper()
	var rules []string
	for i := range 10 {
		if r.IntN(4) > 0 {
			rules = append(rules, fmt.Sprintf([]string{
				"{action: Allow, protocol: TCP, destination: {ports: [%d]}}",
				"{action: Deny, protocol: TCP, source: {selector: \"x == '1'\"}, destination: {ports: [%d, 80]}}",
				"{action: Pass, source: {nets: [10.1.0.%d/32, 10.1.0.4/31]}}",
				"{action: Allow, source: {selector: \"role != 'r%d'\", notNets: [\"fd01::2/127\"]}}",
				"{action: Log, protocol: TCP, destination: {ports: [%d]}}",
			}[i%5], []int{22, 443, i, i, 80}[i%5]))
		}
	}
	o, err := v3.Decode(fmt.Appendf(nil, `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: %s}, spec: {
		selector: "role == 'server'", types: [Ingress], ingress: [%s]}}`, name, strings.Join(rules, ", ")))
	if err != nil {
		t.Fatal(err)
	}
	return o.(*v3.GlobalNetworkPolicy)
}

// event is a change of something among few endpoints and policies.
func event(t *testing.T, r *rand.Rand, g *Guard, now map[policy.Key]metav1.Object) {
	t.Helper()
	var o metav1.Object
	n := r.IntN(11)
	switch {
	case n < 5:
		o = endpoint(fmt.Sprint("e", n), map[string]string{"role": []string{"server", "client", "none"}[r.IntN(3)], "x": fmt.Sprint(r.IntN(2))},
			fmt.Sprintf("10.1.0.%d", 1+n), fmt.Sprintf("fd01::%d", 1+n))
	case n < 8:
		o = allowFrom(t, fmt.Sprint("p", n), []string{"role == 'client'", "x == '1'", "has(role) && x != '0'"}[r.IntN(3)])
	default:
		o = somePolicy(t, r, fmt.Sprint("q", n))
	}
	key, err := policy.KeyOf(o)
	if err != nil {
		t.Fatal(err)
	}
	if r.IntN(4) == 0 {
		delete(now, key)
		g.Delete(key)
	} else {
		now[key] = o
		upsert(t, g, o)
	}
}

// Any history of changes leaves in the dataplane what a fresh start would: also
// where lists are edited rather than compiled, and compiled anew in between.
func TestHistoriesJudgeAsAFreshStart(t *testing.T) {
	var all Stats
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2))
		g, p := New("here"), newPlane(t)
		if seed%3 > 0 {
			g.short = 0
		}
		now := map[policy.Key]metav1.Object{}
		for range 25 {
			if r.IntN(3) == 0 && g.Folding() != nil {
				<-g.Folding()
			}
			for range 1 + r.IntN(3) {
				event(t, r, g, now)
			}
			g.Settled(flush(t, g, p).Generation)
			wellNamed(t, g, p)
		}
		folds(t, g, p)
		s := g.Stats()
		all.Compiled, all.Edited, all.Folded = all.Compiled+s.Compiled, all.Edited+s.Edited, all.Folded+s.Folded
		fresh, q := New("here"), newPlane(t)
		for _, o := range now {
			upsert(t, fresh, o)
		}
		flush(t, fresh, q)
		folds(t, fresh, q)
		if len(p.stages) != len(q.stages) || len(p.programs) != len(q.programs) {
			t.Errorf("seed %d: %d endpoints by %d programs, after a fresh start %d by %d", seed, len(p.stages), len(p.programs), len(q.stages), len(q.programs))
		}
		for key := range q.stages {
			for n := range 7 {
				for _, source := range []string{fmt.Sprintf("10.1.0.%d", n), fmt.Sprintf("fd01::%d", n), "192.0.2.1"} {
					for _, port := range []uint16{22, 80, 443} {
						if got, want := p.verdict(key, source, port), q.verdict(key, source, port); got != want {
							t.Fatalf("seed %d: %v of %s to port %d: %s, after a fresh start %s", seed, key, source, port, got, want)
						}
					}
				}
			}
		}
	}
	if all.Edited < 20 || all.Folded < 20 {
		t.Errorf("of all programs %d were compiled, %d edited, %d folded: this shows little", all.Compiled, all.Edited, all.Folded)
	}
	t.Logf("%+v", all)
}

// Who comes after another guard has other sets by other numbers.
func TestGuardsNumberSetsByThemselves(t *testing.T) {
	numbers := map[uint32]bool{}
	for range 2 {
		g, p := New("here"), newPlane(t)
		upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"), allowFrom(t, "p", "role == 'client'"))
		flush(t, g, p)
		for id := range p.sets {
			if numbers[id] {
				t.Errorf("two guards have a set %d", id)
			}
			numbers[id] = true
		}
	}
	if len(numbers) < 4 {
		t.Errorf("there are %d sets, want those of a selector and of prefixes, twice", len(numbers))
	}
}

package policing

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pb "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/policy"
	"margay.dev/margay/policy/oracle"
)

var worlds = flag.Int("worlds", 6, "random policies to hold what is told of packets against")

// scene is random policies in force for two pods of a lab, and what the oracle
// expects to be told of the packets so far.
type scene struct {
	*Writer
	t      testing.TB
	lab    *gt.Lab
	world  *oracle.World
	state  *desired.State
	staged map[string]bool // endpoint and direction of which something is staged

	rules, pending map[string]uint64 // packets by rule
	ends           map[End]uint64
	logged         uint64
	judged         int
}

// The pods of a scene, by port; others are elsewhere.
var pods = map[uint16]string{gt.Pod: "one", gt.Veth: "two"}

func newScene(t testing.TB, seed uint64) *scene {
	s := &scene{
		Writer: New(), t: t, lab: gt.Standard(t, 1), world: &oracle.World{}, staged: map[string]bool{},
		rules: map[string]uint64{}, pending: map[string]uint64{}, ends: map[End]uint64{},
	}
	s.lab.Tables.Court.Labels = s.Labels()
	s.Ledger().Keep(&s.lab.Tables.Court.Record)
	g := guard.New("here")
	for _, o := range s.objects(rand.New(rand.NewPCG(seed, 7))) {
		if err := g.Upsert(o); err != nil {
			t.Fatal(err)
		}
	}
	s.apply(g.Flush())
	return s
}

// objects makes policies, and gives them to the oracle, too.
func (s *scene) objects(r *rand.Rand) (all []metav1.Object) {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	decode := func(format string, args ...any) metav1.Object {
		o, err := v3.Decode(fmt.Appendf(nil, "{apiVersion: projectcalico.org/v3, "+format+"}", args...))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, o)
		return o
	}
	s.world.Tiers = append(s.world.Tiers, decode(`kind: Tier, metadata: {name: t}, spec: {order: %d, defaultAction: %s}`, 1+r.IntN(2)*2000000, pick("Pass", "Deny")).(*v3.Tier))
	s.world.Profiles = append(s.world.Profiles, decode(`kind: Profile, metadata: {name: open}, spec: {ingress: [{action: %s}], egress: [{action: Allow}]}`, pick("Allow", "Log")).(*v3.Profile))
	rules := func() string {
		var out []string
		for range r.IntN(4) {
			rule := "action: " + pick("Allow", "Allow", "Deny", "Deny", "Pass", "Log")
			if r.IntN(2) == 0 {
				rule += `, protocol: UDP, destination: {ports: [` + pick("1", "2", "1, 3", `"2:3"`) + `]}`
			}
			if r.IntN(2) == 0 {
				rule += `, source: ` + pick(`{selector: "role == 'client'"}`, `{notSelector: "has(role)"}`, `{nets: ["10.0.0.0/8", "2001:db8::/32"]}`)
			}
			out = append(out, "{"+rule+"}")
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	spec := func() string {
		return fmt.Sprintf(`tier: %s, order: %d, selector: %q, types: [%s], ingress: %s, egress: %s`, pick("t", "default", "default"), r.IntN(3),
			pick("role == 'server'", "all()", "a == '1'"), pick("Ingress", "Egress", "Ingress, Egress"), rules(), rules())
	}
	for i := range 2 + r.IntN(3) {
		p := decode(`kind: GlobalNetworkPolicy, metadata: {name: p%d}, spec: {%s}`, i, spec()).(*v3.GlobalNetworkPolicy)
		s.world.Policies = append(s.world.Policies, oracle.Policy{Kind: p.Kind, Name: p.Name, Spec: p.Spec})
	}
	for i := range r.IntN(4) {
		body := spec() + ", stagedAction: " + pick("Set", "Set", "Ignore")
		if r.IntN(4) == 0 {
			body = "stagedAction: Delete"
		}
		p := decode(`kind: StagedGlobalNetworkPolicy, metadata: {name: p%d}, spec: {%s}`, i, body).(*v3.StagedGlobalNetworkPolicy)
		s.world.Policies = append(s.world.Policies, oracle.Policy{Kind: p.Kind, Name: p.Name, Spec: p.Spec.GlobalNetworkPolicySpec, Staged: true, Action: p.Spec.StagedAction})
	}
	for _, w := range []struct {
		name, node, labels string
		host, net          int
	}{{"one", "here", "{role: server, a: '1'}", gt.PodHost, gt.NetPods}, {"two", "here", "{role: client}", gt.VethHost, gt.NetPods}, {"far", "there", "{role: client}", 9, gt.NetRemote}} {
		e := decode(`kind: WorkloadEndpoint, metadata: {namespace: x, name: %s, labels: %s}, spec: {node: %s, orchestrator: k8s, profiles: [%s], ipNetworks: [%s/32, "%s/128"]}`,
			w.name, w.labels, w.node, pick("", "open"), gt.Addr(false, w.net, w.host), gt.Addr(true, w.net, w.host)).(*v3.WorkloadEndpoint)
		s.world.Workloads = append(s.world.Workloads, e)
	}
	return all
}

// chunk is an update as the contract has it.
func (s *scene) chunk(u *guard.Update) *pb.Chunk {
	c := &pb.Chunk{Rules: u.Delta.Set.Rules}
	member := func(list []dataplane.Set) {
		for _, set := range list {
			var names []string
			for _, p := range set.Members {
				names = append(names, p.String())
			}
			c.Sets = append(c.Sets, &pb.SetMembers{Set: set.ID, Joined: members(names...)})
		}
	}
	member(u.Delta.Set.Sets)
	for _, p := range u.Delta.Set.Programs {
		c.Programs = append(c.Programs, &pb.ProgramPart{Id: p.ID, Size: uint32(len(p.Image)), Image: p.Image})
	}
	for port, name := range pods {
		e := &pb.Endpoint{Id: name, Port: name}
		c.Ports = append(c.Ports, &pb.Port{Name: name, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}})
		stages := u.Stages[policy.Key{Kind: "WorkloadEndpoint", Namespace: "x", Name: name}]
		if stages == nil {
			s.t.Fatalf("no stages for port %d", port)
		}
		stages.Judge(e)
		s.staged[name+"Egress"], s.staged[name+"Ingress"] = len(e.StagedEgress) > 0, len(e.StagedIngress) > 0
		c.Endpoints = append(c.Endpoints, e)
	}
	return c
}

func (s *scene) apply(u *guard.Update) {
	change := desired.NewChange()
	change.Add(s.chunk(u))
	var faults []string
	if s.state, faults = desired.Empty().Apply(change, true); faults != nil {
		s.t.Fatalf("the state is refused: %s", strings.Join(faults, "\n"))
	}
	s.Ledger().Open(s.state, nil)
	if err := s.Join(s.state, nil); err != nil {
		s.t.Fatal(err)
	}
	s.Begin()
	for port, name := range pods {
		e, err := s.Endpoint(s.state.Endpoints[name], uint32(port))
		if err != nil {
			s.t.Fatal(err)
		}
		s.lab.Police(port, e)
	}
	s.Ledger().Close(s.state)
}

// expect has the oracle judge a packet for one endpoint, and says whether it passes.
func (s *scene) expect(name string, d v3.PolicyType, p oracle.Packet) bool {
	who := oracle.Endpoint{Namespace: "x", Name: name}
	is, would := s.world.Judge(who, d, oracle.Normal, false, p), s.world.Judge(who, d, oracle.Normal, true, p)
	s.judged++
	s.logged += uint64(len(is.Logged))
	s.book(s.rules, name, d, TierDenies, p, is)
	if !s.staged[name+string(d)] {
		if is.Action != would.Action || is.By != would.By {
			s.t.Errorf("nothing is staged for %v of %s, and %+v would get %+v in place of %+v", d, name, p, would, is)
		}
		return is.Action == v3.Allow
	}
	s.book(s.pending, name, d, StagedTierDenies, p, would)
	if turned := (End{Endpoint: name, Egress: d == v3.PolicyTypeEgress, Kind: StagedDenies}); is.Action != would.Action {
		if would.Action == v3.Allow {
			turned.Kind = StagedPermits
		}
		s.ends[turned]++
	}
	return is.Action == v3.Allow
}

// book notes what a verdict is counted by.
func (s *scene) book(rules map[string]uint64, name string, d v3.PolicyType, kind EndKind, p oracle.Packet, v oracle.Verdict) {
	if strings.Contains(v.By, "/") {
		rules[fmt.Sprint(v.By, " ", d == v3.PolicyTypeEgress)]++
		return
	}
	s.ends[End{Endpoint: name, Egress: d == v3.PolicyTypeEgress, Kind: kind, IPv6: p.Source.Is6(), Tier: v.By}]++
}

// send lets a new connection's first packet come, and the oracle judge it.
func (s *scene) send(r *rand.Rand, ipv6 bool, n uint16) {
	addrs := map[string]netip.Addr{"one": gt.Addr(ipv6, gt.NetPods, gt.PodHost), "two": gt.Addr(ipv6, gt.NetPods, gt.VethHost),
		"far": gt.Addr(ipv6, gt.NetRemote, 9), "stranger": gt.Addr(ipv6, gt.NetRemote, 10)}
	ports := map[string]uint16{"one": gt.Pod, "two": gt.Veth, "far": gt.Up, "stranger": gt.Up}
	names := slices.Sorted(maps.Keys(addrs))
	from, to := names[r.IntN(4)], names[r.IntN(4)]
	if from == to || ports[from] == gt.Up && ports[to] == gt.Up {
		return
	}
	p := oracle.Packet{Source: addrs[from], Destination: addrs[to], Protocol: 17, SourcePort: 1000 + n, DestinationPort: uint16(1 + r.IntN(4))}
	passes := ports[from] == gt.Up || s.expect(from, v3.PolicyTypeEgress, p)
	if passes && ports[to] != gt.Up {
		passes = s.expect(to, v3.PolicyTypeIngress, p)
	}
	s.lab.CollectAll()
	s.lab.SendIP(ports[from], gt.UDPPorts(p.Source, p.Destination, 10, p.SourcePort, p.DestinationPort))
	if got := len(s.lab.Collect(ports[to])); (got == 1) != passes {
		s.t.Errorf("%d packets of %+v passed, want one: %v", got, p, passes)
	}
}

// compare holds what is told against what the oracle expects.
func (s *scene) compare() {
	l, sum := s.Ledger(), uint64(0)
	rules, pending, ends := map[string]uint64{}, map[string]uint64{}, map[End]uint64{}
	for id := range s.state.Rules {
		name, ok := l.Rule(id)
		kind, object, _ := strings.Cut(name.Policy, " ")
		key := fmt.Sprintf("%s//%s/%d %v", kind, object, name.Index, name.Egress)
		if !ok {
			s.t.Errorf("rule %d has no name", id)
		}
		if n := l.Count(id).Packets; n > 0 {
			rules[key] += n
			sum += n
		}
		if n := l.Pending(id).Packets; n > 0 {
			pending[key] += n
		}
	}
	for _, e := range l.Ends() {
		if e.Count.Packets > 0 {
			ends[e.End] = e.Count.Packets
		}
		if e.Kind == TierDenies {
			sum += e.Count.Packets
		}
	}
	if !maps.Equal(rules, s.rules) {
		s.t.Errorf("rules decided\n%v, want\n%v", rules, s.rules)
	}
	if !maps.Equal(pending, s.pending) {
		s.t.Errorf("rules would decide\n%v, want\n%v", pending, s.pending)
	}
	if !maps.Equal(ends, s.ends) {
		s.t.Errorf("ends denied\n%v, want\n%v", ends, s.ends)
	}
	if sum != uint64(s.judged) {
		s.t.Errorf("rules and ends decided %d packets, and %d were judged", sum, s.judged)
	}
	if st := l.Log().Stats(); st.Logged+st.Suppressed+st.Lost != s.logged {
		s.t.Errorf("the log counts %+v, want %d in all", st, s.logged)
	}
}

// What is told of packets that went through the nodes is what the oracle says of
// each: of policies in force, and of those that are staged.
func TestWhatIsToldAgreesWithTheOracle(t *testing.T) {
	n := *worlds
	if testing.Short() {
		n = min(n, 4)
	}
	turned, logged := 0, uint64(0)
	for seed := range uint64(n) {
		s := newScene(t, seed)
		r := rand.New(rand.NewPCG(seed, 8))
		for i := range uint16(150) {
			s.send(r, i%2 == 1, i)
		}
		s.compare()
		for e := range s.ends {
			if e.Kind == StagedDenies || e.Kind == StagedPermits {
				turned++
			}
		}
		logged += s.logged
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if turned == 0 || logged == 0 {
		t.Errorf("staged policies turned the packets of %d ends, and %d were logged: want some", turned, logged)
	}
}

package inspect

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// shownPolicy reads all chunks of an answer, each of which is to be small, and puts
// tiers together that came in parts.
func shownPolicy(t *testing.T, client pb.InspectClient, endpoint string) (all *pb.EndpointPolicy, chunks int) {
	t.Helper()
	stream, err := client.ShowPolicy(t.Context(), &pb.ShowPolicyRequest{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	all = &pb.EndpointPolicy{}
	for ; ; chunks++ {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(chunk); n > 3<<20 {
			t.Errorf("a chunk has %d bytes", n)
		}
		if len(chunk.Tiers) > 0 && chunk.Tiers[0].Continued {
			last := all.Tiers[len(all.Tiers)-1]
			last.Rules = append(last.Rules, chunk.Tiers[0].Rules...)
			chunk.Tiers = chunk.Tiers[1:]
		}
		proto.Merge(all, chunk)
	}
}

// lines are a policy's tiers and rules, for tests to compare.
func lines(p *pb.EndpointPolicy) (out []string) {
	for _, t := range p.GetTiers() {
		out = append(out, fmt.Sprintf("egress %v staged %v tier %q passes %v denied %d", t.GetEgress(), t.GetStaged(), t.GetName(), t.GetPasses(), t.GetDenied().GetPackets()))
		for _, r := range t.GetRules() {
			out = append(out, fmt.Sprintf("  %d %s %s[%d] %v %v: %d", r.GetName().GetId(), r.GetAction(), r.GetName().GetPolicy(), r.GetName().GetIndex(),
				r.GetIpv4(), r.GetIpv6(), r.GetDecided().GetPackets()))
		}
	}
	return out
}

func TestPolicyIsShown(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	for v6 := range annAt {
		b.Port("a").Inject(0, graphtest.UDPPorts(annAt[v6], bobAt[v6], 5, 1000, 53))
	}
	hostnettest.Eventually(t, "two flows begin", func() bool { return len(list(t, client, &pb.ListFlowsRequest{}).GetFlows()) == 2 })
	p, chunks := shownPolicy(t, client, "bob")
	if chunks != 1 || p.GetEndpoint() != "pod/bob" || p.GetPort() != "b" || p.GetPolicy() != pb.Endpoint_POLICY_ENFORCED || p.GetClosed() || p.GetFlows() != 2 || p.GetGeneration() != 2 {
		t.Errorf("%d chunks begin with %v", chunks, p)
	}
	want := []string{
		`egress true staged false tier "" passes false denied 0`,
		"  9 allow [0] true true: 0",
		"  0 deny [0] true true: 0",
		`egress false staged false tier "platform" passes true denied 0`,
		"  5 deny GlobalNetworkPolicy no-ssh[0] true true: 0",
		`egress false staged false tier "default" passes false denied 0`,
		"  8 allow NetworkPolicy shop/web[0] false true: 0",
		"  7 allow NetworkPolicy shop/web[1] true true: 2",
		`egress false staged true tier "default" passes false denied 2`,
		"  5 deny GlobalNetworkPolicy no-ssh[0] true true: 0",
	}
	if got := lines(p); !slices.Equal(got, want) {
		t.Errorf("policy is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	d := p.GetDirections()
	if len(d) != 2 || !d[0].GetEgress() || d[0].GetStaged() || !d[1].GetStaged() || d[1].GetWouldDeny().GetPackets() != 2 || d[1].GetWouldPermit().GetPackets() != 0 {
		t.Errorf("directions are %v", d)
	}
	if text := p.GetTiers()[2].GetRules()[1].GetName().GetText(); text != longText {
		t.Errorf("a rule says %q", text)
	}
	p, _ = shownPolicy(t, client, "ann")
	if len(p.GetTiers()) != 0 || p.GetPolicy() != pb.Endpoint_POLICY_OFF || p.GetClosed() {
		t.Errorf("who has no policy is shown as %v", p)
	}
	for i, prefix := range []string{"10.1.0.2/32", "fd00::2/128"} {
		a := p.GetAddresses()[i]
		if a.GetPrefix() != prefix || a.GetClass() == 0 || len(a.GetSets()) != 1 || a.GetSets()[0].GetId() != 1 || a.GetSets()[0].GetName() != "role == 'client'" {
			t.Errorf("address %d is %v", i, a)
		}
	}
}

// A list of many rules comes in chunks that are small, and is what it was.
func TestPolicyOfManyRules(t *testing.T) {
	_, b, client := served(t)
	const rules = 5000
	c := shop(t)
	var all []classifier.Rule
	for i := range uint32(rules) {
		port := uint16(i)
		all = append(all, classifier.Rule{
			ID: 100 + i, Action: classifier.Allow, Protocols: []classifier.Range{{First: 17, Last: 17}},
			Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}},
		})
		c.Rules = append(c.Rules, &pb.RuleName{Id: 100 + i, Policy: "NetworkPolicy shop/many", Index: i, Text: strings.Repeat("x", 120)})
	}
	c.Programs = append(c.Programs, image(t, 9, all...))
	c.Endpoints[1].Ingress = append(c.Endpoints[1].Ingress, &pb.Stage{Program4: 9, Program6: 9})
	b.Snapshot(c)
	p, chunks := shownPolicy(t, client, "pod/bob")
	if chunks != 1+rules/rulesPerChunk {
		t.Errorf("%d chunks came", chunks)
	}
	tier := p.GetTiers()[3]
	if len(p.GetTiers()) != 5 || len(tier.GetRules()) != rules || !p.GetTiers()[4].GetStaged() {
		t.Fatalf("%d tiers, the fourth with %d rules", len(p.GetTiers()), len(tier.GetRules()))
	}
	for i, r := range tier.GetRules() {
		if r.GetName().GetIndex() != uint32(i) {
			t.Fatalf("rule %d is %v", i, r)
		}
	}
}

func TestPoliciesAreListed(t *testing.T) {
	_, b, client := served(t)
	c := shop(t)
	c.Ports = append(c.Ports, &pb.Port{Name: "c", Device: "c", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}})
	c.Endpoints = append(c.Endpoints, &pb.Endpoint{Id: "pod/eve", Port: "c", Addresses: []string{"10.1.0.9", "fd00::9"}})
	b.Snapshot(c)
	l, err := client.ListPolicies(t.Context(), &pb.ListPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range l.GetEndpoints() {
		got = append(got, fmt.Sprintf("%s %s %v closed %v: %d out, %d in, %d rules, staged %v, %d flows", e.GetEndpoint(), e.GetPort(), e.GetPolicy(),
			e.GetClosed(), e.GetEgressTiers(), e.GetIngressTiers(), e.GetRules(), e.GetStaged(), e.GetFlows()))
	}
	want := []string{
		"pod/ann a POLICY_OFF closed false: 0 out, 0 in, 0 rules, staged false, 0 flows",
		"pod/bob b POLICY_ENFORCED closed false: 1 out, 2 in, 9 rules, staged true, 0 flows",
		"pod/eve c POLICY_NONE closed false: 0 out, 0 in, 0 rules, staged false, 0 flows",
	}
	if !slices.Equal(got, want) || l.GetGeneration() != 2 {
		t.Errorf("of generation %d\n%s\nwant\n%s", l.GetGeneration(), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPolicyThatCannotBeShown(t *testing.T) {
	_, b, client := served(t)
	c := shop(t)
	c.Endpoints = append(c.Endpoints, &pb.Endpoint{Id: "zoo/ann", Port: "a"})
	b.Snapshot(c)
	tests := map[string]struct {
		code codes.Code
		says string
	}{
		"":                         {codes.NotFound, `no endpoint is called ""; there are pod/ann, pod/bob, zoo/ann`},
		"nn":                       {codes.NotFound, `no endpoint is called "nn"`},
		"ann":                      {codes.InvalidArgument, "may be any of pod/ann, zoo/ann"},
		strings.Repeat("x", 1<<20): {codes.NotFound, "no endpoint is called"},
	}
	for name, tt := range tests {
		stream, err := client.ShowPolicy(t.Context(), &pb.ShowPolicyRequest{Endpoint: name})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 500 {
			t.Errorf("%.20q is answered with %v, want %v: %q", name, err, tt.code, tt.says)
		}
	}
}

// Whatever rules are left out of either family, the order is that of the list which
// both came from.
func TestListedKeepsTheOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 4))
		var both [2][]classifier.Rule
		var want []listedRule
		for id := range uint32(rng.IntN(12)) {
			r := listedRule{id: 1 + id, action: classifier.Action(1 + rng.IntN(4)), in: [2]bool{rng.IntN(3) > 0, rng.IntN(3) > 0}}
			if r.in == [2]bool{} {
				continue
			}
			for family := range both {
				for range 1 + rng.IntN(2) { // a rule that became several
					if r.in[family] {
						both[family] = append(both[family], classifier.Rule{ID: r.id, Action: r.action})
					}
				}
			}
			want = append(want, r)
		}
		got := listed([2]*classifier.Program{load(t, both[0]), load(t, both[1])})
		if len(got) != len(want) {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
		for family := range both {
			of := func(list []listedRule) (out []uint32) {
				for _, r := range list {
					if r.in[family] {
						out = append(out, r.id)
					}
				}
				return out
			}
			if !slices.Equal(of(got), of(want)) {
				t.Errorf("seed %d: rules of family %d are %v, want %v", seed, family, of(got), of(want))
			}
		}
		for _, r := range want {
			if !slices.Contains(got, r) {
				t.Errorf("seed %d: %v is not in %v", seed, r, got)
			}
		}
	}
	if got := listed([2]*classifier.Program{}); len(got) != 0 {
		t.Errorf("no programs have %v", got)
	}
	deny := classifier.Rule{Action: classifier.Deny}
	nameless := load(t, []classifier.Rule{deny, {ID: 1, Action: classifier.Allow}, deny})
	other := load(t, []classifier.Rule{{ID: 1, Action: classifier.Allow}, {ID: 2, Action: classifier.Pass}})
	if got := fmt.Sprint(listed([2]*classifier.Program{nameless, other})); got != "[{0 2 [true false]} {1 1 [true true]} {2 3 [false true]} {0 2 [true false]}]" {
		t.Errorf("rules without an id are %v", got)
	}
}

func load(t *testing.T, rules []classifier.Rule) *classifier.Program {
	t.Helper()
	p, err := classifier.Load(image(t, 1, rules...).GetImage())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

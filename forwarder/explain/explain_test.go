package explain

import (
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
)

var seeds = flag.Int("explain.seeds", 25, "random policies that explanations are held against")

// What is explained is what the graph does with a real packet, and each change
// that is told turns what it does, once it is made: under random policies, in both
// families.
func TestExplanationsAreTrue(t *testing.T) {
	rounds := *seeds
	if testing.Short() {
		rounds = min(rounds, 4)
	}
	outcomes, kinds, hosts := map[string]int{}, map[pb.Explanation_Change_Kind]int{}, map[string]int{}
	b := newBench(t)
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 9))
		s := newScene(r)
		b.apply(s)
		tried := 0
		for range 60 {
			q := randomQuestion(r)
			p, ask := b.packet(q)
			e := b.explain(ask)
			got := b.send(q.from, p)
			want := e.Reason
			if e.Outcome != pb.Explanation_OUTCOME_DROPPED {
				want = e.Destination.Port
			}
			if got != want {
				t.Fatalf("seed %d, %+v: %s became of it; explained as\n%v", seed, q, got, e)
			}
			outcomes[got]++
			for _, j := range []*pb.Explanation_Judgement{e.Egress, e.Ingress} {
				if j.Host != "" {
					hosts[j.Said.String()]++
				}
			}
			consistent(t, e)
			if tried < 10 && len(e.Changes) > 0 && q.dst != q.src {
				tried++
				for _, c := range e.Changes {
					b.turns(s, q, e, c, kinds)
				}
				b.apply(s)
			}
		}
	}
	for _, want := range []string{"up", "p1", "p4", "egress-denied", "ingress-denied", "blackhole", "prohibited", "no-route", "encapsulated", "loop"} {
		if outcomes[want] == 0 && !testing.Short() {
			t.Errorf("none came to %s: %v", want, outcomes)
		}
	}
	if len(hosts) != 2 {
		t.Errorf("the host's policy said %v, want some allowed and some denied", hosts)
	}
	kinds[pb.Explanation_Change_KIND_SOURCE_PREFIX] += kinds[pb.Explanation_Change_KIND_DESTINATION_PREFIX]
	for kind := pb.Explanation_Change_KIND_PROTOCOL; kind <= pb.Explanation_Change_KIND_RULE_ADDED; kind++ {
		if kinds[kind] == 0 && kind != pb.Explanation_Change_KIND_SOURCE_PORT && kind != pb.Explanation_Change_KIND_DESTINATION_PREFIX && !testing.Short() {
			t.Errorf("no change was of %v: %v", kind, kinds)
		}
	}
}

// consistent holds the parts of an explanation against each other.
func consistent(t *testing.T, e *pb.Explanation) {
	t.Helper()
	for name, j := range map[string]*pb.Explanation_Judgement{"egress": e.Egress, "ingress": e.Ingress} {
		denied := j.Said == pb.Explanation_Judgement_SAID_DENY
		decided := j.End
		for i, s := range j.Stages {
			switch s.Did {
			case pb.Explanation_Stage_DID_NOT_ASKED:
				if !decided {
					t.Errorf("%s: stage %d was not asked and none before it decided: %v", name, i, j)
				}
			case pb.Explanation_Stage_DID_ALLOW, pb.Explanation_Stage_DID_DENY, pb.Explanation_Stage_DID_END_DENY:
				if (s.Did == pb.Explanation_Stage_DID_ALLOW) == denied || decided {
					t.Errorf("%s: stage %d decides otherwise, or twice: %v", name, i, j)
				}
				decided = true
			}
		}
		if (j.Said == pb.Explanation_Judgement_SAID_NOTHING) != (j.Exempt != "") {
			t.Errorf("%s: nobody judges, and nobody says why, or the other way: %v", name, j)
		}
		if j.Said != pb.Explanation_Judgement_SAID_NOTHING && !decided {
			t.Errorf("%s: nothing decided: %v", name, j)
		}
	}
}

// turns makes a change and wants a packet to show it.
func (b *bench) turns(old *scene, q question, e *pb.Explanation, c *pb.Explanation_Change, kinds map[pb.Explanation_Change_Kind]int) {
	b.t.Helper()
	s := old.clone()
	for _, p := range c.Parts {
		kinds[p.Kind]++
		s.change(&q, p, c.Then)
	}
	b.apply(s)
	p, ask := b.packet(q)
	after := b.explain(ask)
	allowed := after.Reason != "egress-denied" && after.Reason != "ingress-denied"
	if got := b.send(q.from, p); (got != "egress-denied" && got != "ingress-denied") != allowed || allowed != (c.Then == pb.Explanation_Judgement_SAID_ALLOW) {
		b.t.Errorf("%+v: %s became of it after\n%v\nexplained before as\n%v\nand after as\n%v", q, got, c, e, after)
	}
}

func (s *scene) clone() *scene {
	out := &scene{members: map[uint32][]netip.Addr{}, hosted: s.hosted, next: s.next}
	for set, m := range s.members {
		out.members[set] = slices.Clone(m)
	}
	for i := range s.stages {
		for d := range s.stages[i] {
			for _, st := range s.stages[i][d] {
				st.rules = [2][]classifier.Rule{slices.Clone(st.rules[0]), slices.Clone(st.rules[1])}
				out.stages[i][d] = append(out.stages[i][d], st)
			}
		}
	}
	return out
}

// change makes a part of a change in the scene, or in what is asked.
func (s *scene) change(q *question, p *pb.Explanation_Change_Part, then pb.Explanation_Judgement_Said) {
	addr := q.src
	switch p.Kind {
	case pb.Explanation_Change_KIND_PROTOCOL:
		q.proto = uint8(p.Number)
		if q.proto == 58 {
			q.proto = 1
		}
	case pb.Explanation_Change_KIND_DESTINATION_PORT:
		q.dport = uint16(p.Number)
	case pb.Explanation_Change_KIND_SOURCE_PREFIX:
		uplink := netip.MustParseAddr("10.2.0.1") // the first of the net behind the uplink
		q.src, q.from = netip.MustParseAddr(p.Address), "p1"
		if q.src == uplink {
			q.from = "up"
		}
	case pb.Explanation_Change_KIND_DESTINATION_PREFIX:
		q.dst = netip.MustParseAddr(p.Address)
	case pb.Explanation_Change_KIND_DESTINATION_JOINS:
		addr = q.dst
		fallthrough
	case pb.Explanation_Change_KIND_SOURCE_JOINS:
		s.members[p.Set.Id] = append(s.members[p.Set.Id], addr)
	case pb.Explanation_Change_KIND_DESTINATION_LEAVES:
		addr = q.dst
		fallthrough
	case pb.Explanation_Change_KIND_SOURCE_LEAVES:
		s.members[p.Set.Id] = slices.DeleteFunc(s.members[p.Set.Id], func(a netip.Addr) bool { return a == addr })
	case pb.Explanation_Change_KIND_RULE_REMOVED:
		s.each(func(st *stage) {
			for f := range st.rules {
				st.rules[f] = slices.DeleteFunc(st.rules[f], func(r classifier.Rule) bool { return r.ID == p.Rule.Id })
			}
		})
	case pb.Explanation_Change_KIND_RULE_ADDED:
		s.add(p, then)
	}
}

func (s *scene) each(do func(*stage)) {
	for i := range s.stages {
		for d := range s.stages[i] {
			for j := range s.stages[i][d] {
				do(&s.stages[i][d][j])
			}
		}
	}
}

// add puts a rule into a tier: before another one, or before its end.
func (s *scene) add(p *pb.Explanation_Change_Part, then pb.Explanation_Judgement_Said) {
	i, d := int(p.Endpoint[len(p.Endpoint)-1]-'1'), 1
	if p.Egress {
		d = 0
	}
	r := classifier.Rule{ID: s.next, Action: classifier.Allow}
	if s.next++; then == pb.Explanation_Judgement_SAID_DENY {
		r.Action = classifier.Deny
	}
	for j := range s.stages[i][d] {
		if st := &s.stages[i][d][j]; strings.HasSuffix(p.Stage, string(rune('0'+j))) && p.Stage != "" {
			if st.absent {
				*st = stage{passes: st.passes}
			}
			for f := range st.rules {
				at := len(st.rules[f])
				if p.Rule != nil {
					at = slices.IndexFunc(st.rules[f], func(r classifier.Rule) bool { return r.ID == p.Rule.Id })
				}
				st.rules[f] = slices.Insert(st.rules[f], at, r)
			}
			return
		}
	}
	s.stages[i][d] = append(s.stages[i][d], stage{rules: [2][]classifier.Rule{{r}, {r}}})
}

func TestQuestionsThatMakeNoSense(t *testing.T) {
	b := newBench(t)
	b.apply(newScene(rand.New(rand.NewPCG(1, 1))))
	tests := map[string]struct {
		ask  *pb.ExplainRequest
		kind error
		says string
	}{
		"nothing":                  {&pb.ExplainRequest{}, ErrQuestion, "protocol is 0"},
		"no ends":                  {&pb.ExplainRequest{Protocol: 6, DestinationPort: 80}, ErrQuestion, "source has 0 bytes"},
		"no destination":           {&pb.ExplainRequest{Source: "p1", Protocol: 6, DestinationPort: 80}, ErrQuestion, "destination has 0 bytes"},
		"garbage for an end":       {&pb.ExplainRequest{Source: "p1", Destination: "\x1b[2J", Protocol: 6, DestinationPort: 80}, ErrUnknown, `"\x1b[2J"`},
		"a very long name":         {&pb.ExplainRequest{Source: strings.Repeat("x", 2000), Destination: "p1", Echo: true}, ErrQuestion, "source has 2000 bytes"},
		"nobody's name":            {&pb.ExplainRequest{Source: "p1", Destination: "zoe", Echo: true}, ErrUnknown, "pod/ns/p1, pod/ns/p2"},
		"families that differ":     {&pb.ExplainRequest{Source: "10.1.0.1", Destination: "fd01::2", Protocol: 6, DestinationPort: 80}, ErrQuestion, "an IPv4 address and"},
		"a zone":                   {&pb.ExplainRequest{Source: "fe80::1%eth0", Destination: "fd01::2", Echo: true}, ErrQuestion, "without a zone"},
		"a prefix":                 {&pb.ExplainRequest{Source: "10.0.0.0/8", Destination: "p1", Echo: true}, ErrUnknown, "neither an address"},
		"a port too high":          {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 6, DestinationPort: 65536}, ErrQuestion, "at most 65535"},
		"a source port too high":   {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 6, DestinationPort: 5, SourcePort: 1 << 31}, ErrQuestion, "at most 65535"},
		"no port":                  {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 17}, ErrQuestion, "destination port is 0"},
		"a protocol too high":      {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 256}, ErrQuestion, "protocol is 256"},
		"a port of what has none":  {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 47, DestinationPort: 1}, ErrQuestion, "has no ports"},
		"ICMP that is no echo":     {&pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 1}, ErrQuestion, "echo request"},
		"an echo with a port":      {&pb.ExplainRequest{Source: "p1", Destination: "p2", Echo: true, DestinationPort: 1}, ErrQuestion, "want none"},
		"an echo with a protocol":  {&pb.ExplainRequest{Source: "p1", Destination: "p2", Echo: true, Protocol: 58}, ErrQuestion, "want none"},
		"another protocol is fine": {&pb.ExplainRequest{Source: "p1", Destination: "p4", Protocol: 47}, nil, ""},
		"an extension header too":  {&pb.ExplainRequest{Source: "p1", Destination: "::ffff:10.1.0.4", Protocol: 43}, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Ask(t.Context(), b.Plane, tt.ask)
			if !errors.Is(err, tt.kind) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("answered with %v and %v, want an error that says %q", got, err, tt.says)
			}
		})
	}
}

// An endpoint is asked for by its name, in each family; what is known of its
// connections is told.
func TestNamesAndKnownConnections(t *testing.T) {
	b := newBench(t)
	s := &scene{members: map[uint32][]netip.Addr{1: {addr(false, netPods, 1), addr(true, netPods, 1)}}, next: 2}
	r := classifier.Rule{ID: 1, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{1}}}
	s.stages[1][1] = []stage{{rules: [2][]classifier.Rule{{r}, {r}}}}
	s.stages[0][0] = []stage{{rules: [2][]classifier.Rule{{r}, {r}}}}
	b.apply(s)
	for i, src := range []netip.Addr{addr(false, netPods, 1), addr(true, netPods, 1)} {
		p, ask := b.packet(question{"p1", src, addr(i == 1, netPods, 2), 6, 80})
		b.send("p1", p)
		back := &pb.ExplainRequest{Source: ask.Destination, Destination: ask.Source, Protocol: 6, SourcePort: 80, DestinationPort: ask.SourcePort}
		if f := b.explain(back).Flows; len(f) != 1 || !f[0].Reply {
			t.Errorf("the way back knows of %v", f)
		}
	}
	list, err := Ask(t.Context(), b.Plane, &pb.ExplainRequest{Source: "ns/p1", Destination: "p2", Protocol: 6, DestinationPort: 80})
	if err != nil || len(list.Explanations) != 2 {
		t.Fatalf("answered with %v, %v, want both families", list, err)
	}
	for _, e := range list.Explanations {
		f := e.Flows
		if e.Outcome != pb.Explanation_OUTCOME_FORWARDED || e.Source.Endpoint != "pod/ns/p1" || e.Source.Sets[0].Name != `role == "b"` ||
			e.Back.Reason != "" || len(f) != 1 || !f[0].Current || f[0].State != "opening" || f[0].Ingress != pb.Explanation_Judgement_SAID_ALLOW {
			t.Errorf("explained as %v", e)
		}
	}
	s.members[1] = nil
	b.apply(s)
	for _, e := range must(Ask(t.Context(), b.Plane, &pb.ExplainRequest{Source: "p1", Destination: "p2", Protocol: 6, DestinationPort: 80})).Explanations {
		if f := e.Flows; len(f) != 1 || f[0].Current || f[0].Ingress != pb.Explanation_Judgement_SAID_DENY {
			t.Errorf("of a connection that is to be cut: %v", f)
		}
		if c := e.Changes; len(c) == 0 || len(c[0].Parts) != 1 || c[0].Parts[0].Kind != pb.Explanation_Change_KIND_SOURCE_JOINS || c[0].Parts[0].Set.Name != `role == "b"` {
			t.Errorf("the nearest change is %v", c)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

package policing

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
)

// pass is a commit as the dataplane makes it.
func (b *bed) pass(m *pb.Chunk, snapshot bool) {
	b.t.Helper()
	c := desired.NewChange()
	c.Add(m)
	s, faults := b.state.Apply(c, snapshot)
	if faults != nil {
		b.t.Fatalf("the state is refused: %s", strings.Join(faults, "\n"))
	}
	b.state = s
	if b.Ledger().Open(s, c.Rules()); snapshot {
		b.Ledger().Open(s, nil)
	}
	if err := b.Join(s, nil); err != nil {
		b.t.Fatal(err)
	}
	b.Begin()
	for i, id := range slices.Sorted(maps.Keys(s.Endpoints)) {
		if _, err := b.Endpoint(s.Endpoints[id], uint32(i)); err != nil {
			b.t.Fatal(err)
		}
	}
	b.Ledger().Close(s)
}

// counting is a bed whose record has workers.
func counting(t *testing.T, workers int) (*bed, *judge.Record) {
	l := gt.Standard(t, workers)
	b := &bed{New(), t, desired.Empty()}
	b.Ledger().Keep(&l.Tables.Court.Record)
	return b, &l.Tables.Court.Record
}

func named(id uint32, policy string) *pb.RuleName {
	return &pb.RuleName{Id: id, Tier: "default", Policy: policy, Index: 1}
}

// What was counted for a rule is never another's that has its id.
func TestCountersAreOfOneRule(t *testing.T) {
	one := judge.Count{Packets: 3, Segments: 4, Bytes: 500}
	tests := map[string]struct {
		second   *pb.Chunk
		snapshot bool
		stays    bool
	}{
		"nothing changes":                         {&pb.Chunk{}, false, true},
		"the same name comes again":               {&pb.Chunk{Rules: []*pb.RuleName{named(5000, "a")}}, false, true},
		"a snapshot with the same rule":           {&pb.Chunk{Rules: []*pb.RuleName{named(5000, "a")}}, true, true},
		"another rule is new":                     {&pb.Chunk{Rules: []*pb.RuleName{named(5001, "a")}}, false, true},
		"others are put before it":                {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5000, Tier: "default", Policy: "a", Index: 7}}}, false, true},
		"it says something else":                  {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5000, Tier: "default", Policy: "a", Index: 1, Text: "allow"}}}, false, false},
		"the rule goes":                           {&pb.Chunk{RemovedRules: []uint32{5000}}, false, false},
		"a snapshot without it":                   {&pb.Chunk{}, true, false},
		"its id is another rule's":                {&pb.Chunk{Rules: []*pb.RuleName{named(5000, "b")}}, false, false},
		"its id is another rule's, in a snapshot": {&pb.Chunk{Rules: []*pb.RuleName{named(5000, "b")}}, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, r := counting(t, 2)
			r.Rules.Expect(slices.Values([]uint32{5000}))
			r.Pending.Expect(slices.Values([]uint32{5000}))
			b.pass(&pb.Chunk{Rules: []*pb.RuleName{named(5000, "a")}}, true)
			r.Rules.Adopt(5000, one)
			r.Pending.Adopt(5000, one)
			want := judge.Count{}
			if tt.stays {
				want = one
			}
			b.pass(tt.second, tt.snapshot)
			if got := b.Ledger().Count(5000); got != want {
				t.Errorf("it counts %+v, want %+v", got, want)
			}
			if got := b.Ledger().Pending(5000); got != want {
				t.Errorf("it would count %+v, want %+v", got, want)
			}
			if n, ok := b.Ledger().Rule(5000); ok != (b.state.Rules[5000] != nil) || ok && n != *b.state.Rules[5000] {
				t.Errorf("it is %+v, %v; want %+v", n, ok, b.state.Rules[5000])
			}
		})
	}
}

// While workers may still judge by a rule that goes, it has its name.
func TestRulesHaveNamesFromOpenToClose(t *testing.T) {
	b, _ := counting(t, 1)
	b.pass(&pb.Chunk{Rules: []*pb.RuleName{named(1, "a")}}, true)
	next := desired.NewChange()
	next.Add(&pb.Chunk{RemovedRules: []uint32{1}, Rules: []*pb.RuleName{named(2, "b")}})
	s, _ := b.state.Apply(next, false)
	b.Ledger().Open(s, next.Rules())
	for id, want := range map[uint32]string{1: "a", 2: "b"} {
		if n, ok := b.Ledger().Rule(id); !ok || n.Policy != want {
			t.Errorf("rule %d is %+v, want %s", id, n, want)
		}
	}
	b.Ledger().Close(s)
	if _, ok := b.Ledger().Rule(1); ok {
		t.Error("a rule that is gone has a name")
	}
}

// Ends have numbers of their own, which are given again when nobody counts by
// them any more; the end of a stage without a program is that of its tier.
func TestNumbersOfEnds(t *testing.T) {
	b, r := counting(t, 1)
	parts := func() []*pb.ProgramPart { return []*pb.ProgramPart{program(t, 1), program(t, 2)} }
	ports := []*pb.Port{{Name: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}, {Name: "b", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}}
	e := &pb.Endpoint{Id: "a", Port: "a", Policy: pb.Endpoint_POLICY_ENFORCED,
		Egress:       []*pb.Stage{{Name: "first", Program4: 1, UndecidedPasses: true}, {Name: "second", Program6: 2}, {Name: "third", Program4: 1, Program6: 1}},
		StagedEgress: []*pb.Stage{{UndecidedPasses: true}},
	}
	b.pass(&pb.Chunk{Programs: parts(), Ports: ports, Endpoints: []*pb.Endpoint{e}}, true)
	j, err := b.Endpoint(b.state.Endpoints["a"], 3)
	if err != nil {
		t.Fatal(err)
	}
	names := func(numbers []uint32) (out []string) {
		for _, n := range numbers {
			for end, number := range b.Ledger().ends {
				if number == n {
					out = append(out, end.Tier)
				}
			}
		}
		return out
	}
	// For IPv4 the second tier has no program and denies all; for IPv6 the first decides nothing.
	if got, want := names(j.Ends[0][0]), []string{"first", "second"}; !slices.Equal(got, want) {
		t.Errorf("ends of IPv4 are %q, want %q", got, want)
	}
	if got, want := names(j.Ends[0][1]), []string{"second", "third", ""}; !slices.Equal(got, want) {
		t.Errorf("ends of IPv6 are %q, want %q", got, want)
	}
	if j.Staged[0] == nil || j.Staged[1] != nil || j.Staged[0].Denies == j.Staged[0].Permits || b.Ledger().Tenant(3) != "a" {
		t.Errorf("egress is staged as %+v, ingress as %+v", j.Staged[0], j.Staged[1])
	}
	numbers := len(b.Ledger().ends)
	r.Ends.Adopt(j.Ends[0][0][1], judge.Count{Packets: 9})
	if ends := b.Ledger().Ends(); len(ends) != numbers || !slices.ContainsFunc(ends, func(e EndCount) bool {
		return e.End == End{"a", true, TierDenies, false, "second"} && e.Count.Packets == 9
	}) {
		t.Errorf("ends count %+v", ends)
	}
	// Another endpoint takes the numbers of one that goes, and none of its counts.
	e.Id, e.Port = "b", "b"
	b.pass(&pb.Chunk{RemovedEndpoints: []string{"a"}}, false)
	b.pass(&pb.Chunk{Endpoints: []*pb.Endpoint{e}}, false)
	for _, e := range b.Ledger().Ends() {
		if e.Count != (judge.Count{}) {
			t.Errorf("%+v counts what another has counted", e)
		}
	}
	if last := b.Ledger().last; int(last) != numbers {
		t.Errorf("%d numbers were given for %d ends at a time", last, numbers)
	}
	b.pass(&pb.Chunk{}, true)
	if n := len(b.Ledger().ends) + len(b.Ledger().pending); n != 0 {
		t.Errorf("%d are left of endpoints that are gone", n)
	}
}

// Another process with the same state goes on from what one has counted, also
// between its offer and its end.
func TestCountersAreHandedOver(t *testing.T) {
	state := func() *pb.Chunk {
		return &pb.Chunk{
			Programs: []*pb.ProgramPart{program(t, 1)}, Ports: []*pb.Port{{Name: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
			Rules:     []*pb.RuleName{named(1, "a"), named(2, "b"), named(3, "c")},
			Endpoints: []*pb.Endpoint{{Id: "a", Port: "a", Policy: pb.Endpoint_POLICY_ENFORCED, Egress: []*pb.Stage{{Name: "t", Program4: 1, Program6: 1}}}},
		}
	}
	b, r := counting(t, 2)
	b.pass(state(), true)
	end := b.Ledger().ends[End{"a", true, TierDenies, false, "t"}]
	count := func(n uint64) judge.Count { return judge.Count{Packets: n, Segments: 2 * n, Bytes: 100 * n} }
	r.Rules.Adopt(1, count(5))
	r.Pending.Adopt(2, count(6))
	r.Ends.Adopt(end, count(7))
	r.Log.Adopt(judge.LogStats{Logged: 1, Suppressed: 2, Lost: 3})
	var offer, rest Counted
	carry := func(from Counted, to *Counted) {
		bytes, err := json.Marshal(from)
		if err == nil {
			err = json.Unmarshal(bytes, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	carry(b.Ledger().Offer(), &offer)
	r.Rules.Adopt(1, count(10))
	r.Rules.Adopt(3, count(1))
	r.Ends.Adopt(end, count(20))
	r.Log.Adopt(judge.LogStats{Logged: 10})
	carry(b.Ledger().Rest(), &rest)
	if len(rest.Rules) != 2 || len(rest.Pending) != 0 || len(rest.Ends) != 1 {
		t.Errorf("what is told while packets stand is %+v, want what has changed", rest)
	}
	next, got := counting(t, 2)
	next.pass(state(), true)
	offer.Ends = append(offer.Ends, EndCount{End{Endpoint: "gone"}, count(99)})
	next.Ledger().Adopt(offer)
	next.Ledger().Adopt(rest)
	end = next.Ledger().ends[End{"a", true, TierDenies, false, "t"}]
	for what, c := range map[string][2]judge.Count{
		"rule 1": {got.Count(1), count(15)}, "rule 3": {got.Count(3), count(1)}, "staged": {got.Pending.Count(2), count(6)}, "end": {got.Ends.Count(end), count(27)},
	} {
		if c[0] != c[1] {
			t.Errorf("%s counts %+v, want %+v", what, c[0], c[1])
		}
	}
	if s := got.Log.Stats(); s != (judge.LogStats{Logged: 11, Suppressed: 2, Lost: 3}) {
		t.Errorf("the log counts %+v", s)
	}
	next.Ledger().Name(7, "eth0")
	if p := next.Ledger().Port(7); p != "eth0" || next.Ledger().Port(graph.NoPort) != "" {
		t.Errorf("port 7 is %q", p)
	}
}

// An endpoint of which nothing has changed is the same, so that its flows stand;
// what is staged, or counted otherwise, makes it another.
func TestWhatEndpointsAreCountedByIsPartOfThem(t *testing.T) {
	e := func(change func(*pb.Endpoint)) *pb.Endpoint {
		e := &pb.Endpoint{Id: "a", Port: "a", Policy: pb.Endpoint_POLICY_ENFORCED, Egress: []*pb.Stage{{Name: "t", Program4: 1, Program6: 1}},
			StagedIngress: []*pb.Stage{{Name: "t", Program4: 1, Program6: 1}}}
		change(e)
		return e
	}
	for name, tt := range map[string]struct {
		change func(*pb.Endpoint)
		same   bool
	}{
		"nothing":                   {func(*pb.Endpoint) {}, true},
		"its addresses":             {func(e *pb.Endpoint) { e.Addresses = []string{"10.0.0.1", "fd00::1"} }, true},
		"a stage":                   {func(e *pb.Endpoint) { e.Ingress = e.Egress }, false},
		"the name of a tier":        {func(e *pb.Endpoint) { e.Egress[0].Name = "u" }, false},
		"what is staged":            {func(e *pb.Endpoint) { e.StagedIngress = []*pb.Stage{{Program4: 1}} }, false},
		"the name of what is":       {func(e *pb.Endpoint) { e.StagedIngress[0].Name = "u" }, false},
		"something more is":         {func(e *pb.Endpoint) { e.StagedEgress = e.Egress }, false},
		"nothing is staged":         {func(e *pb.Endpoint) { e.StagedIngress = nil }, false},
		"it may not reach the node": {func(e *pb.Endpoint) { e.HostDenied = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := counting(t, 1)
			first := &pb.Chunk{Programs: []*pb.ProgramPart{program(t, 1)}, Ports: []*pb.Port{{Name: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
				Endpoints: []*pb.Endpoint{e(func(*pb.Endpoint) {})}}
			b.pass(first, true)
			was := b.seats[0]
			b.pass(&pb.Chunk{Endpoints: []*pb.Endpoint{e(tt.change)}}, false)
			if now := b.seats[0]; (now == was) != tt.same {
				t.Errorf("the endpoint is the same: %v, want %v", now == was, tt.same)
			}
		})
	}
}

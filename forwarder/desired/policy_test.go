package desired

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
)

func members4(prefixes ...string) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		b := p.Addr().As4()
		c.Addresses4, c.Lengths4 = append(c.Addresses4, b[:]...), append(c.Lengths4, byte(p.Bits()))
	}
	return c
}

func members6(prefixes ...string) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		b := p.Addr().As16()
		c.Addresses6, c.Lengths6 = append(c.Addresses6, b[:]...), append(c.Lengths6, byte(p.Bits()))
	}
	return c
}

// image is a compiled list that allows one port.
func image(port uint16) []byte {
	compiled, err := classifier.Compile([]classifier.Rule{{
		ID: 7, Action: classifier.Allow, Protocols: []classifier.Range{{First: 6, Last: 6}},
		Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}},
	}}, classifier.Options{})
	if err != nil {
		panic(err)
	}
	return compiled.Image
}

// programParts is an image that allows the port of its id, in parts of so many bytes.
func programParts(id uint32, size int) (parts []*pb.ProgramPart) {
	all := image(uint16(id))
	for at := 0; at < len(all); at += size {
		parts = append(parts, &pb.ProgramPart{Id: id, Size: uint32(len(all)), Offset: uint32(at), Image: all[at:min(at+size, len(all))]})
	}
	return parts
}

func enforced(id, port string, programs ...uint32) *pb.Endpoint {
	e := &pb.Endpoint{Id: id, Port: port, Policy: pb.Endpoint_POLICY_ENFORCED}
	for _, p := range programs {
		e.Ingress = append(e.Ingress, &pb.Stage{Program4: p})
	}
	return e
}

// staged is an endpoint that some programs would judge, and none does.
func staged(id, port string, programs ...uint32) *pb.Endpoint {
	e := enforced(id, port, programs...)
	e.Ingress, e.StagedIngress = nil, e.Ingress
	return e
}

func TestFaultsOfPolicy(t *testing.T) {
	whole := image(9)
	broken := append([]byte(nil), whole...)
	broken[len(broken)/2] ^= 1
	part := func(id, offset uint32, image []byte) *pb.ProgramPart {
		return &pb.ProgramPart{Id: id, Size: uint32(len(whole)), Offset: offset, Image: image}
	}
	tests := map[string]struct {
		chunk *pb.Chunk
		want  string
	}{
		"a stage of an unknown program":   {&pb.Chunk{Endpoints: []*pb.Endpoint{enforced("x", "b", 99)}}, "endpoint/x: stage \"\" names program 99"},
		"stages and no policy":            {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Ingress: []*pb.Stage{{Program4: 1}}}}}, "want POLICY_ENFORCED where there are stages"},
		"a policy state to come":          {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Policy: 9}}}, "policy is 9"},
		"33 stages":                       {&pb.Chunk{Endpoints: []*pb.Endpoint{enforced("x", "b", make([]uint32, 33)...)}}, "ingress is 33, want at most 32 stages"},
		"a long name of a stage":          {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Policy: 2, Egress: []*pb.Stage{{Name: strings.Repeat("t", 254)}}}}}, "egress name length is 254"},
		"a staged stage of no program":    {&pb.Chunk{Endpoints: []*pb.Endpoint{staged("x", "b", 99)}}, "endpoint/x: stage \"\" names program 99"},
		"a host with addresses":           {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Host: true, Addresses: []string{"10.0.0.1"}}}}, "it is a host's and has addresses"},
		"a host with the other family's":  {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Host: true, Addresses: []string{"fd00::1"}}}}, "it is a host's and has addresses"},
		"a host that takes nothing":       {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Host: true, HostDenied: true}}}, "or host_denied"},
		"a host and another on its port":  {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Host: true}, {Id: "y", Port: "b", Policy: pb.Endpoint_POLICY_OFF}}}, "or it is a host's"},
		"staged stages and no policy":     {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", StagedEgress: []*pb.Stage{{Program4: 1}}}}}, "want POLICY_ENFORCED where there are stages"},
		"33 staged stages":                {&pb.Chunk{Endpoints: []*pb.Endpoint{staged("x", "b", make([]uint32, 33)...)}}, "staged_ingress is 33, want at most 32 stages"},
		"a long name of a staged stage":   {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Policy: 2, StagedEgress: []*pb.Stage{{Name: strings.Repeat("t", 254)}}}}}, "staged_egress name length is 254"},
		"a staged program removed":        {&pb.Chunk{RemovedPrograms: []uint32{2}, Endpoints: []*pb.Endpoint{staged("ns/a", "a", 2)}}, "names program 2"},
		"two endpoints at a policed port": {&pb.Chunk{Endpoints: []*pb.Endpoint{enforced("x", "a", 1)}}, "port a has another endpoint, ns/a, and policy is enforced there"},
		"a program removed in use":        {&pb.Chunk{RemovedPrograms: []uint32{1, 2}}, "program/1: removed, but 2 stages of endpoints name it"},
		"a program removed and named":     {&pb.Chunk{RemovedPrograms: []uint32{1}, Endpoints: []*pb.Endpoint{enforced("x", "b", 1)}}, "names program 1"},
		"a program that is there":         {&pb.Chunk{Programs: programParts(1, 1<<20)}, "program/1: it is there already"},
		"a program twice":                 {&pb.Chunk{Programs: append(programParts(9, 1<<20), programParts(9, 1<<20)...)}, "program/9: set or removed twice"},
		"a broken image":                  {&pb.Chunk{Programs: []*pb.ProgramPart{part(9, 0, broken)}}, "program/9: load image"},
		"half an image":                   {&pb.Chunk{Programs: []*pb.ProgramPart{part(9, 0, whole[:100])}}, "program/9: 100 of"},
		"the second half alone":           {&pb.Chunk{Programs: []*pb.ProgramPart{part(9, 100, whole[100:])}}, "at 100 of"},
		"a part beyond the end":           {&pb.Chunk{Programs: []*pb.ProgramPart{part(9, 0, append(whole[:len(whole):len(whole)], 0))}}, "reach beyond the end"},
		"an empty part":                   {&pb.Chunk{Programs: []*pb.ProgramPart{part(9, 0, nil)}}, "part of 0 bytes"},
		"an image of no size":             {&pb.Chunk{Programs: []*pb.ProgramPart{{Id: 9}}}, "size 0, want"},
		"an image of 2 GiB":               {&pb.Chunk{Programs: []*pb.ProgramPart{{Id: 9, Size: 1 << 31}}}, "want an id above 0 and 1 to"},
		"program 0":                       {&pb.Chunk{Programs: []*pb.ProgramPart{part(0, 0, whole)}}, "program/0: id is 0"},
		"set 0":                           {&pb.Chunk{Sets: []*pb.SetMembers{{Joined: members4("10.0.0.0/8")}}}, "set/0: set is 0"},
		"a set changed and removed":       {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1}}, RemovedSets: []uint32{1}}, "set/1: changed and removed"},
		"a set removed twice":             {&pb.Chunk{RemovedSets: []uint32{1, 1}}, "set/1: changed and removed, or removed twice"},
		"a member that comes and goes":    {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members4("10.9.0.0/16"), Left: members4("10.9.0.0/16")}}}, "member 10.9.0.0/16 joins and leaves"},
		"an IPv6 one":                     {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members6("fd09::/16"), Left: members6("fd09::/16")}}}, "member fd09::/16 joins and leaves"},
		"a member with bits too many":     {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members4("10.9.0.1/16")}}}, "set/1: prefix 10.9.0.1/16 has bits behind its length"},
		"a mapped member":                 {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members6("::ffff:1.2.3.4/128")}}}, "mapped into IPv6"},
		"a member of 129 bits":            {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: &pb.PrefixColumns{Addresses6: make([]byte, 16), Lengths6: []byte{129}}}}}, "length of :: is 129"},
		"columns of unequal length":       {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Left: &pb.PrefixColumns{Addresses4: make([]byte, 7), Lengths4: []byte{8}}}}}, "columns hold 7 bytes of addresses and 1 lengths"},
		"rule 0":                          {&pb.Chunk{Rules: []*pb.RuleName{{Tier: "t"}}}, "rule/0: id is 0"},
		"rule 2^24":                       {&pb.Chunk{Rules: []*pb.RuleName{{Id: 1 << 24}}}, "rule/16777216: id is"},
		"a rule set and removed":          {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5}}, RemovedRules: []uint32{5}}, "rule/5: set or removed twice"},
		"a set of a long name":            {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Name: strings.Repeat("s", 1025)}}}, "set/1: name length is 1025"},
		"a set of two names":              {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Name: "a"}, {Set: 1, Name: "b"}}}, "set/1: named twice in one commit, \"a\" and \"b\""},
		"a name that clears the screen":   {&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Name: "\x1b[2J"}}}, "set/1: name is \"\\x1b[2J\", want letters that can be shown"},
		"a rule of a long text":           {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5, Text: strings.Repeat("t", 1025)}}}, "rule/5: text length is 1025"},
		"a rule's text of two lines":      {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5, Text: "allow\ndeny"}}}, "rule/5: text is"},
		"a rule of a long name":           {&pb.Chunk{Rules: []*pb.RuleName{{Id: 5, Tier: strings.Repeat("t", 254)}}}, "rule/5: tier and policy have 254 and 0 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			got, faults := s.Apply(changeOf(tt.chunk), false)
			if !strings.Contains(strings.Join(faults, "\n"), tt.want) {
				t.Errorf("faults are\n%s\nwant %q among them", strings.Join(faults, "\n"), tt.want)
			}
			if got != s || !reflect.DeepEqual(s, start(t)) {
				t.Error("a commit with faults changed the state")
			}
		})
	}
}

func TestDeltasOfPolicyMerge(t *testing.T) {
	tests := map[string]struct {
		chunks []*pb.Chunk
		check  func(*State) bool
	}{
		"members join and leave": {[]*pb.Chunk{
			{Sets: []*pb.SetMembers{{Set: 1, Joined: members4("10.3.0.0/16"), Left: members4("10.1.0.0/24")}}},
			{Sets: []*pb.SetMembers{{Set: 1, Joined: members6("fd03::/64")}, {Set: 2, Left: members6("fd00::/64")}}},
		}, func(s *State) bool { return s.Sets[1].Len() == 3 && s.Sets[2].Len() == 0 }},
		"a member that left before": {[]*pb.Chunk{{Sets: []*pb.SetMembers{{Set: 1, Left: members4("10.9.0.0/16")}}}},
			func(s *State) bool { return s.Sets[1].Len() == 2 }},
		"a set goes": {[]*pb.Chunk{{RemovedSets: []uint32{1, 77}}}, func(s *State) bool { return len(s.Sets) == 2 }},
		"a program comes in two chunks": {[]*pb.Chunk{{Programs: programParts(9, 300)[:1]}, {Programs: programParts(9, 300)[1:]}},
			func(s *State) bool { return s.Programs[9].Loaded.Rules() == 1 }},
		"programs change place with others": {[]*pb.Chunk{
			{RemovedPrograms: []uint32{1, 2}, Programs: programParts(9, 1<<20)},
			{Endpoints: []*pb.Endpoint{enforced("ns/a", "a", 9)}},
		}, func(s *State) bool { return len(s.Programs) == 1 && len(s.stages) == 1 && s.stages[9] == 1 }},
		"a policed endpoint moves to a port that another leaves": {[]*pb.Chunk{{
			RemovedEndpoints: []string{"ns/b"}, Endpoints: []*pb.Endpoint{enforced("ns/a", "b", 1)},
		}}, func(s *State) bool { return s.Endpoints["ns/a"].Port == "b" }},
		"an endpoint goes with its stages": {[]*pb.Chunk{{RemovedEndpoints: []string{"ns/a"}, RemovedPrograms: []uint32{1, 2}}},
			func(s *State) bool { return len(s.stages) == 0 && len(s.Programs) == 0 }},
		"a staged stage keeps its program": {[]*pb.Chunk{{RemovedPrograms: []uint32{1}, Endpoints: []*pb.Endpoint{staged("ns/a", "a", 2)}}},
			func(s *State) bool {
				return len(s.stages) == 1 && s.stages[2] == 1 && len(s.Endpoints["ns/a"].StagedIngress) == 1
			}},
		"a set gets another name": {[]*pb.Chunk{{Sets: []*pb.SetMembers{{Set: 1, Name: "role == \"server\""}}}},
			func(s *State) bool { return s.SetName(1) == "role == \"server\"" && s.Sets[1].Len() == 2 }},
		"members change and the name stays": {[]*pb.Chunk{{Sets: []*pb.SetMembers{{Set: 1, Left: members4("10.1.0.0/24")}}}},
			func(s *State) bool { return s.SetName(1) == "role == \"client\"" && s.Sets[1].Len() == 1 }},
		"a set goes with its name": {[]*pb.Chunk{{RemovedSets: []uint32{1}}},
			func(s *State) bool { return s.SetName(1) == "" && len(s.setNames) == 0 }},
		"names of rules": {[]*pb.Chunk{{RemovedRules: []uint32{7}, Rules: []*pb.RuleName{{Id: 8, Policy: "Profile/kns.x", Text: "allow"}}}},
			func(s *State) bool {
				return s.RuleName(7) == nil && *s.RuleName(8) == RuleName{Policy: "Profile/kns.x", Text: "allow"}
			}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, faults := start(t).Apply(changeOf(tt.chunks...), false)
			if faults != nil {
				t.Fatalf("refused: %s", strings.Join(faults, "\n"))
			}
			if !tt.check(s) {
				t.Errorf("state is %+v", s)
			}
			if got := wire(t, s); !reflect.DeepEqual(got, s) {
				t.Errorf("the indexes beside the objects are\n%+v\nwant\n%+v", s, got)
			}
		})
	}
}

// A large set and a large image are exported in chunks that each fit.
func TestLargePolicyIsExportedInChunks(t *testing.T) {
	c := changeOf(example())
	big := &pb.PrefixColumns{}
	for i := range 150_000 {
		big.Addresses4 = append(big.Addresses4, 20, byte(i>>16), byte(i>>8), byte(i))
		big.Lengths4 = append(big.Lengths4, 32)
	}
	c.Add(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 50, Name: strings.Repeat("s", pb.MaxLine), Joined: big}}})
	s, faults := Empty().Apply(c, true)
	if faults != nil {
		t.Fatalf("refused: %s", strings.Join(faults, "\n"))
	}
	if got := wire(t, s); !reflect.DeepEqual(got, s) {
		t.Error("export and apply give another state")
	}
}

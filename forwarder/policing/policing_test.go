package policing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/forwarder/desired"
)

// inSet is the image of a list that allows sources in a set.
func inSet(t *testing.T, set uint32) []byte {
	t.Helper()
	c, err := classifier.Compile([]classifier.Rule{
		{ID: set, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{classifier.SetID(set)}}},
	}, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

func members(prefixes ...string) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		if p.Addr().Is4() {
			c.Addresses4, c.Lengths4 = append(c.Addresses4, p.Addr().AsSlice()...), append(c.Lengths4, byte(p.Bits()))
		} else {
			c.Addresses6, c.Lengths6 = append(c.Addresses6, p.Addr().AsSlice()...), append(c.Lengths6, byte(p.Bits()))
		}
	}
	return c
}

func program(t *testing.T, id uint32) *pb.ProgramPart {
	image := inSet(t, id)
	return &pb.ProgramPart{Id: id, Size: uint32(len(image)), Image: image}
}

// bed is a writer, and the state that it is at.
type bed struct {
	*Writer
	t     *testing.T
	state *desired.State
}

func (b *bed) apply(m *pb.Chunk, snapshot bool) {
	b.t.Helper()
	c := desired.NewChange()
	c.Add(m)
	s, faults := b.state.Apply(c, snapshot)
	if faults != nil {
		b.t.Fatalf("the state is refused: %s", strings.Join(faults, "\n"))
	}
	b.state = s
	sets := c.Sets()
	if snapshot {
		sets = nil
	}
	if err := b.Join(s, sets); err != nil {
		b.t.Fatal(err)
	}
	b.Quiesced(b.Generation())
	if err := b.Leave(s, sets); err != nil {
		b.t.Fatal(err)
	}
}

// allowed says which programs allow a source.
func (b *bed) allowed(source string) (ids []uint32) {
	view := b.Labels().View()
	k := classifier.Packet{SourceClass: uint32(view.Lookup(netip.MustParseAddr(source)))}
	for id, l := range b.lists {
		var key classifier.Key
		l.Program().Key(&k, &key)
		if l.Program().MatchOne(&key).Action() == classifier.Allow {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestProgramsKnowTheirSets(t *testing.T) {
	b := &bed{New(), t, desired.Empty()}
	check := func(source string, want ...uint32) {
		t.Helper()
		if got := b.allowed(source); !slices.Equal(got, want) {
			t.Errorf("%s is allowed by programs %v, want %v", source, got, want)
		}
	}
	b.apply(&pb.Chunk{
		Sets:     []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16", "fd01::/64")}, {Set: 2, Joined: members("10.1.2.0/24")}},
		Programs: []*pb.ProgramPart{program(t, 1), program(t, 2)},
	}, true)
	check("10.1.2.3", 1, 2)
	check("10.1.3.3", 1)
	check("fd01::1", 1)
	check("fd02::1")
	b.apply(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 2, Joined: members("fd01::2/128"), Left: members("10.1.2.0/24")}}}, false)
	check("10.1.2.3", 1)
	check("fd01::2", 1, 2)
	// A program that comes later knows the classes that were there before.
	b.apply(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 3, Joined: members("10.1.0.0/16")}}}, false)
	b.apply(&pb.Chunk{Programs: []*pb.ProgramPart{program(t, 3)}}, false)
	check("10.1.2.3", 1, 3)
	b.apply(&pb.Chunk{RemovedSets: []uint32{1}, RemovedPrograms: []uint32{2}}, false)
	check("10.1.2.3", 3)
	check("fd01::2")
	b.apply(&pb.Chunk{}, true)
	b.Quiesced(b.Generation())
	if b.Labels().Len() != 0 || len(b.lists) != 0 || len(b.sets) != 0 || len(b.classes) != 0 {
		t.Errorf("an empty state leaves %d members, %d programs, %d sets and %d classes", b.Labels().Len(), len(b.lists), len(b.sets), len(b.classes))
	}
}

// Any history ends where a fresh start with the last state ends.
func TestHistoriesEndAsAFreshStart(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := &bed{New(), t, desired.Empty()}
		for range 30 {
			m := &pb.Chunk{}
			for id := uint32(1); id < 5; id++ {
				switch r.IntN(6) {
				case 0:
					m.RemovedSets = append(m.RemovedSets, id)
				case 1, 2, 3:
					m.Sets = append(m.Sets, &pb.SetMembers{Set: id, Joined: random(r, 0), Left: random(r, 1)})
				}
				switch _, there := b.state.Programs[id]; {
				case there && r.IntN(4) == 0:
					m.RemovedPrograms = append(m.RemovedPrograms, id)
				case !there && r.IntN(2) == 0:
					m.Programs = append(m.Programs, program(t, id))
				}
			}
			b.apply(m, false)
		}
		fresh := &bed{New(), t, desired.Empty()}
		for _, m := range b.state.Export() {
			fresh.apply(m, false)
		}
		for i := range 256 {
			for _, source := range []string{fmt.Sprintf("10.0.%d.%d", i/16, i%16), fmt.Sprintf("fd00::%x:%x", i/16, i%16)} {
				if got, want := b.allowed(source), fresh.allowed(source); !slices.Equal(got, want) {
					t.Fatalf("seed %d: %s is allowed by %v, after a fresh start by %v", seed, source, got, want)
				}
			}
		}
	}
}

// random is a few prefixes in a small world; those of one half are odd.
func random(r *rand.Rand, half int) *pb.PrefixColumns {
	var list []string
	for range r.IntN(4) {
		i, j := r.IntN(16), 2*r.IntN(8)+half
		list = append(list, []string{fmt.Sprintf("10.0.%d.%d/32", i, j), fmt.Sprintf("10.0.%d.0/24", i&^1+half), fmt.Sprintf("fd00::%x:%x/128", i, j)}[r.IntN(3)])
	}
	slices.Sort(list)
	return members(slices.Compact(list)...)
}

func TestChains(t *testing.T) {
	b := &bed{New(), t, desired.Empty()}
	b.apply(&pb.Chunk{
		Sets:     []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16", "fd01::/64")}, {Set: 2, Joined: members("10.2.0.0/16", "fd02::/64")}},
		Programs: []*pb.ProgramPart{program(t, 1), program(t, 2)},
	}, true)
	both := func(id uint32, passes bool) desired.Stage {
		return desired.Stage{Program4: id, Program6: id, UndecidedPasses: passes}
	}
	tests := map[string]struct {
		stages []desired.Stage
		want   [2]string // who is allowed: members of set 1, of set 2
	}{
		"none":                        {nil, [2]string{"", ""}},
		"one":                         {[]desired.Stage{both(1, false)}, [2]string{"1", ""}},
		"one passes what is left":     {[]desired.Stage{both(1, true), both(2, false)}, [2]string{"1", "2"}},
		"one denies what is left":     {[]desired.Stage{both(1, false), both(2, false)}, [2]string{"1", ""}},
		"nothing that passes":         {[]desired.Stage{both(0, true), both(2, true)}, [2]string{"", "2"}},
		"nothing that denies":         {[]desired.Stage{both(0, false), both(2, true)}, [2]string{"", ""}},
		"a stage, nothing, and a way": {[]desired.Stage{both(1, true), both(0, false), both(2, true)}, [2]string{"1", ""}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b.Begin()
			j, err := b.Endpoint(&desired.Endpoint{ID: "e", Egress: tt.stages, Ingress: tt.stages}, 7)
			again, err2 := b.Endpoint(&desired.Endpoint{ID: "f", Egress: tt.stages}, 8)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if j.Egress != again.Egress || j.Account != 7 {
				t.Error("equal stages have chains of their own")
			}
			view := b.Labels().View()
			for family, sources := range [][2]string{{"10.1.0.1", "10.2.0.1"}, {"fd01::1", "fd02::1"}} {
				for i, source := range sources {
					packets := []classifier.Packet{{SourceClass: uint32(view.Lookup(netip.MustParseAddr(source)))}}
					var out [1]classifier.Verdict
					j.Ingress[family].Match(packets, out[:])
					got := ""
					if out[0].Action() == classifier.Allow {
						got = fmt.Sprint(out[0].Rule())
					}
					if got != tt.want[i] {
						t.Errorf("%s: allowed by rule %q, want %q", source, got, tt.want[i])
					}
				}
			}
		})
	}
}

// Until workers have moved on they judge by programs that the state has no more,
// and these must know what addresses have come to be in meanwhile.
func TestProgramsThatGoKnowWhoComes(t *testing.T) {
	for name, change := range map[string]*pb.Chunk{
		"removed":  {RemovedPrograms: []uint32{1}, Sets: []*pb.SetMembers{{Set: 2, Joined: members("10.1.2.0/24", "fd01::2/128")}}},
		"replaced": {Sets: []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16", "fd01::/64")}, {Set: 2, Joined: members("10.1.2.0/24", "fd01::2/128")}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bed{New(), t, desired.Empty()}
			b.apply(&pb.Chunk{
				Sets: []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16", "fd01::/64")}}, Programs: []*pb.ProgramPart{program(t, 1)},
			}, true)
			old := b.lists[1].Program()
			c := desired.NewChange()
			if name == "replaced" {
				image := inSet(t, 2)
				change.Programs = []*pb.ProgramPart{{Id: 1, Size: uint32(len(image)), Image: image}}
			}
			c.Add(change)
			s, faults := b.state.Apply(c, name == "replaced")
			if faults != nil {
				t.Fatal(faults)
			}
			if err := b.Join(s, nil); err != nil {
				t.Fatal(err)
			}
			view := b.Labels().View()
			for _, source := range []string{"10.1.2.3", "fd01::2"} {
				k := classifier.Packet{SourceClass: uint32(view.Lookup(netip.MustParseAddr(source)))}
				var key classifier.Key
				old.Key(&k, &key)
				if old.MatchOne(&key).Action() != classifier.Allow {
					t.Errorf("the program that goes does not know any more what %s is in", source)
				}
			}
			if b.Quiesced(b.Generation()); len(b.retired) != 0 {
				t.Errorf("%d programs that nobody judges by are kept", len(b.retired))
			}
		})
	}
}

// A client that begins anew gives numbers that were given before, to other things.
func TestNumbersThatMeanSomethingElse(t *testing.T) {
	b := &bed{New(), t, desired.Empty()}
	for _, allowed := range []uint32{1, 2, 1} {
		image := inSet(t, allowed)
		b.apply(&pb.Chunk{
			Sets:     []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16", "fd01::/64")}, {Set: 2, Joined: members("10.2.0.0/16", "fd02::/64")}},
			Programs: []*pb.ProgramPart{{Id: 7, Size: uint32(len(image)), Image: image}},
		}, true)
		b.Begin()
		j, err := b.Endpoint(&desired.Endpoint{ID: "e", Egress: []desired.Stage{{Program4: 7, Program6: 7}}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		view := b.Labels().View()
		for family, format := range []string{"10.%d.0.1", "fd0%d::1"} {
			for set := range uint32(3) {
				packets := []classifier.Packet{{SourceClass: uint32(view.Lookup(netip.MustParseAddr(fmt.Sprintf(format, set))))}}
				var out [1]classifier.Verdict
				j.Egress[family].Match(packets, out[:])
				if got := out[0].Action() == classifier.Allow; got != (set == allowed) {
					t.Errorf("program 7 allows set %d: set %d is allowed %v by IPv%d", allowed, set, got, 4+2*family)
				}
			}
		}
	}
}

// A set that the table has no room for is refused whole, and what was in force stays.
func TestTableThatIsFull(t *testing.T) {
	b := &bed{New(), t, desired.Empty()}
	b.apply(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members("10.1.0.0/16")}}, Programs: []*pb.ProgramPart{program(t, 1)}}, true)
	m := &pb.Chunk{}
	for id := range uint32(label.MaxSets + 1) {
		m.Sets = append(m.Sets, &pb.SetMembers{Set: 100 + id, Joined: members("10.1.0.0/16")})
	}
	c := desired.NewChange()
	c.Add(m)
	s, faults := b.state.Apply(c, false)
	if faults != nil {
		t.Fatal(faults)
	}
	if err := b.Join(s, c.Sets()); err == nil || !strings.Contains(err.Error(), "narrow the widest prefixes") {
		t.Errorf("error is %v", err)
	}
	if got := b.allowed("10.1.0.1"); !slices.Equal(got, []uint32{1}) {
		t.Errorf("10.1.0.1 is allowed by %v, want what was in force", got)
	}
}

// Who judges an endpoint stays the same from round to round, unless by what changes:
// flows that it has judged need not be judged again.
func TestEndpointsStayTheSame(t *testing.T) {
	b := &bed{Writer: New(), t: t, state: desired.Empty()}
	b.apply(&pb.Chunk{Programs: []*pb.ProgramPart{program(t, 1), program(t, 2)}}, true)
	e := &desired.Endpoint{ID: "e", Ingress: []desired.Stage{{Program4: 1, Program6: 1}}}
	round := func() *judge.Endpoint {
		t.Helper()
		b.Begin()
		j, err := b.Endpoint(e, 5)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	last := round()
	for _, s := range []struct {
		name    string
		change  func()
		another bool
	}{
		{"nothing", func() {}, false},
		{"a set and its members", func() {
			b.apply(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: members("10.0.0.1/32", "fd00::1/128")}}}, false)
		}, false},
		{"another program", func() { e.Ingress[0].Program4 = 2 }, true},
		{"one of the other family", func() { e.Ingress[0].Program6 = 2 }, true},
		{"a stage of the other direction", func() { e.Egress = e.Ingress }, true},
		{"what it says to the node", func() { e.HostDenied = true }, true},
		{"a program again of that number", func() {
			b.apply(&pb.Chunk{RemovedPrograms: []uint32{2}}, false)
			b.Begin()
			b.apply(&pb.Chunk{Programs: []*pb.ProgramPart{program(t, 2)}}, false)
		}, true},
		{"a round without it", func() { b.Begin() }, true},
		{"nothing more", func() {}, false},
	} {
		s.change()
		j := round()
		if (j != last) != s.another {
			t.Errorf("%s: it is another one: %v, want %v", s.name, j != last, s.another)
		}
		last = j
	}
}

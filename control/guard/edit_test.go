package guard

import (
	"fmt"
	"slices"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy"
)

// longPolicy allows servers TCP from clients at ports 1000 to 1000+n-1, each by a
// rule of its own, then whatever more says, and then denies what has x.
func longPolicy(t testing.TB, n int, more ...string) *v3.GlobalNetworkPolicy {
	t.Helper()
	var rules []v3.Rule
	add := func(text string) {
		o, err := v3.Decode(fmt.Appendf(nil, `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: long}, spec: {
			selector: "role == 'server'", types: [Ingress], ingress: [%s]}}`, text))
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, o.(*v3.GlobalNetworkPolicy).Spec.Ingress...)
	}
	add(`{action: Allow, protocol: TCP, source: {selector: "role == 'client'"}, destination: {ports: [1000]}}`)
	for i := range n - 1 {
		r := rules[0]
		r.Destination.Ports = []v3.Port{v3.SinglePort(uint16(1001 + i))}
		rules = append(rules, r)
	}
	for _, text := range more {
		add(text)
	}
	add(`{action: Deny, source: {selector: "x == '1'"}}`)
	o := v3.New("GlobalNetworkPolicy").(*v3.GlobalNetworkPolicy)
	o.Name = "long"
	o.Spec.Selector, o.Spec.Types, o.Spec.Ingress = "role == 'server'", []v3.PolicyType{v3.PolicyTypeIngress}, rules
	return o
}

// scene is a guard with a server and two clients, at a dataplane.
type scene struct {
	*Guard
	t     *testing.T
	plane *plane
	key   policy.Key
}

func newScene(t *testing.T, rules int) *scene {
	s := &scene{New("here"), t, newPlane(t), policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"}}
	upsert(t, s.Guard, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1"),
		endpoint("client", map[string]string{"role": "client", "x": "1"}, "10.1.0.2", "fd01::2"), longPolicy(t, rules))
	flush(t, s.Guard, s.plane)
	return s
}

// check asks about TCP from both addresses of the client, or of others.
func (s *scene) check(port uint16, want string, sources ...string) {
	s.t.Helper()
	if len(sources) == 0 {
		sources = []string{"10.1.0.2", "fd01::2"}
	}
	for _, source := range sources {
		if got := s.plane.verdict(s.key, source, port); got != want {
			s.t.Errorf("TCP from %s to port %d: %s, want %s", source, port, got, want)
		}
	}
}

// edited is how many programs of the dataplane have edits.
func (s *scene) edited() (n int) {
	for _, p := range s.plane.programs {
		if p.Edited() {
			n++
		}
	}
	return n
}

// A rule more in a long list goes out with the next update, though nothing is
// compiled for it, also if it names sets that no rule has named before; what is
// compiled in the background comes later, and says the same.
func TestChangesOfLongListsGoOutAtOnce(t *testing.T) {
	const by = "GlobalNetworkPolicy long "
	for name, tt := range map[string]struct {
		rule    string
		sources []string
	}{
		"a port":          {`{action: Allow, protocol: TCP, source: {selector: "role == 'client'"}, destination: {ports: [9]}}`, []string{"10.1.0.2", "fd01::2"}},
		"a new selector":  {`{action: Allow, protocol: TCP, source: {selector: "x == '1' && role != 'y'"}, destination: {ports: [9]}}`, []string{"10.1.0.2", "fd01::2"}},
		"prefixes of IP4": {`{action: Allow, protocol: TCP, source: {nets: [10.1.0.0/30, 10.1.0.2/32]}, destination: {ports: [9]}}`, []string{"10.1.0.2"}},
		"prefixes of IP6": {`{action: Allow, protocol: TCP, source: {notNets: ["fd01::3/128"]}, destination: {ports: [9]}}`, []string{"fd01::2", "fd01::2:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 300)
			s.check(9, "deny by "+by+"300")
			s.check(1299, "allow by "+by+"299")
			folds(t, s.Guard, s.plane)
			compiled := s.Stats().Compiled
			upsert(t, s.Guard, longPolicy(t, 300, tt.rule))
			u := flush(t, s.Guard, s.plane)
			if now := s.Stats(); now.Compiled != compiled || len(u.Delta.Set.Programs) == 0 || s.edited() == 0 {
				t.Errorf("%d programs were compiled, %d sent, %d of them edited", now.Compiled-compiled, len(u.Delta.Set.Programs), s.edited())
			}
			s.check(9, "allow by "+by+"300", tt.sources...)
			s.check(8, "deny by "+by+"301")
			if s.Folding() == nil {
				t.Fatal("nothing is compiled in the background")
			}
			folds(t, s.Guard, s.plane)
			if s.edited() != 0 {
				t.Errorf("%d programs have edits still", s.edited())
			}
			s.check(9, "allow by "+by+"300", tt.sources...)
			s.check(8, "deny by "+by+"301")
			s.check(1299, "allow by "+by+"299")
			// And back.
			upsert(t, s.Guard, longPolicy(t, 300))
			flush(t, s.Guard, s.plane)
			s.check(9, "deny by "+by+"300")
			folds(t, s.Guard, s.plane)
			s.check(9, "deny by "+by+"300")
		})
	}
}

// What changes while a list is compiled is not lost, and what was compiled is not
// either.
func TestChangesDuringACompile(t *testing.T) {
	const rule = `{action: Allow, protocol: TCP, source: {selector: "role == 'client'"}, destination: {ports: [%d]}}`
	s := newScene(t, 300)
	folds(t, s.Guard, s.plane)
	var more []string
	for i := range 5 {
		more = append(more, fmt.Sprintf(rule, 10+i))
		upsert(t, s.Guard, longPolicy(t, 300, more...))
		flush(t, s.Guard, s.plane)
		if s.Folding() == nil {
			t.Fatal("nothing is compiled in the background")
		}
	}
	<-s.Folding() // of the first
	upsert(t, s.Guard, longPolicy(t, 300, append(more, fmt.Sprintf(rule, 20))...))
	flush(t, s.Guard, s.plane)
	for _, p := range s.programs {
		if p.edits > 5 {
			t.Errorf("a program has %d edits: what was compiled was not made use of", p.edits)
		}
	}
	for _, port := range []uint16{10, 14, 20, 1000, 1299} {
		s.check(port, "allow by GlobalNetworkPolicy long "+fmt.Sprint(map[uint16]int{10: 300, 14: 304, 20: 305, 1000: 0, 1299: 299}[port]))
	}
	folds(t, s.Guard, s.plane)
	if n := s.edited(); n != 0 || s.Stats().Folded == 0 {
		t.Errorf("%d programs have edits still", n)
	}
}

// late keeps back what is compiled in the background, compiled already, until the
// function that it returns is called.
func (s *scene) late() (release func()) {
	s.t.Helper()
	if s.Folding() == nil {
		s.t.Fatal("nothing is compiled in the background")
	}
	<-s.fold.done
	s.fold = &fold{done: make(chan struct{}), work: s.fold.work}
	return func() { close(s.fold.done) }
}

// A list of prefixes that nobody had for a while has another number when it comes
// back: what was compiled with the old one is not put in force.
func TestPrefixesComeBackDuringACompile(t *testing.T) {
	const rule = `{action: Allow, protocol: TCP, source: {nets: ["10.1.0.2/31", "fd01::2/127"]}, destination: {ports: [9]}}`
	s := newScene(t, 300)
	folds(t, s.Guard, s.plane)
	upsert(t, s.Guard, longPolicy(t, 300, rule))
	flush(t, s.Guard, s.plane)
	release := s.late()
	for _, more := range [][]string{nil, {rule}} {
		upsert(t, s.Guard, longPolicy(t, 300, more...))
		s.Settled(flush(t, s.Guard, s.plane).Generation) // so that the rule comes back under its id
	}
	release()
	flush(t, s.Guard, s.plane)
	s.check(9, "allow by GlobalNetworkPolicy long 300")
	folds(t, s.Guard, s.plane)
	s.check(9, "allow by GlobalNetworkPolicy long 300")
}

// Combinations of sets that come up while a list is compiled have it compiled again.
func TestCombinationsDuringACompile(t *testing.T) {
	s := newScene(t, 300)
	upsert(t, s.Guard, longPolicy(t, 299, `{action: Deny, source: {selector: "z == '1'"}}`))
	flush(t, s.Guard, s.plane)
	release := s.late()
	upsert(t, s.Guard, endpoint("new", map[string]string{"role": "client", "z": "1"}, "10.1.0.5", "fd01::5"))
	flush(t, s.Guard, s.plane)
	release()
	folds(t, s.Guard, s.plane)
	knowing(t, s.Guard, s.plane)
	s.check(9, "deny by GlobalNetworkPolicy long 299", "10.1.0.5", "fd01::5")
}

// A list that has changed too much is compiled.
func TestManyChangesAreCompiled(t *testing.T) {
	s := newScene(t, 300)
	before := s.Stats()
	upsert(t, s.Guard, longPolicy(t, 500))
	flush(t, s.Guard, s.plane)
	if now := s.Stats(); now.Edited != before.Edited || now.Compiled == before.Compiled {
		t.Errorf("before %+v, now %+v", before, now)
	}
	s.check(1499, "allow by GlobalNetworkPolicy long 499")
}

// Endpoints with equal lists share programs, edited ones too; one that comes to a
// list which was edited gets the same.
func TestEditedListsAreShared(t *testing.T) {
	s := newScene(t, 300)
	upsert(t, s.Guard, endpoint("second", map[string]string{"role": "server"}, "10.1.0.9", "fd01::9"))
	flush(t, s.Guard, s.plane)
	upsert(t, s.Guard, longPolicy(t, 299))
	flush(t, s.Guard, s.plane)
	if s.edited() == 0 {
		t.Error("no program is edited")
	}
	upsert(t, s.Guard, endpoint("third", map[string]string{"role": "server"}, "10.1.0.8"))
	flush(t, s.Guard, s.plane)
	var all [][]uint32
	for _, stages := range s.plane.stages {
		var ids []uint32
		for _, stage := range stages.Ingress {
			ids = append(ids, stage.GetProgram4(), stage.GetProgram6())
		}
		if len(ids) > 0 {
			all = append(all, ids)
		}
	}
	if len(all) != 3 || !slices.Equal(all[0], all[1]) || !slices.Equal(all[1], all[2]) { // edited still, or compiled meanwhile
		t.Errorf("three servers are judged by programs %v", all)
	}
}

// What a rule more in one of a hundred policies takes until the update is there:
// edited, and, beside it, compiled.
func BenchmarkChangeOfALongList(b *testing.B) {
	for _, how := range []string{"edited", "compiled"} {
		b.Run("rules=10000/"+how, func(b *testing.B) {
			g := New("here")
			if how == "compiled" {
				g.short = 1 << 20
			}
			put := func(i int, more ...string) {
				o := longPolicy(b, 100, more...)
				o.Name = fmt.Sprintf("p%02d", i)
				if err := g.Upsert(o); err != nil {
					b.Fatal(err)
				}
			}
			if err := g.Upsert(endpoint("server", map[string]string{"role": "server"}, "10.1.0.1", "fd01::1")); err != nil {
				b.Fatal(err)
			}
			for i := range 100 {
				put(i)
			}
			g.Flush()
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				if done := g.Folding(); done != nil {
					<-done
					g.Flush()
				}
				put(50, []string{`{action: Allow, protocol: TCP, source: {selector: "role == 'new'"}, destination: {ports: [9]}}`}[:(n+1)%2]...)
				b.StartTimer()
				g.Flush()
			}
		})
	}
}

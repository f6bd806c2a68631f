// Package guard brings what policy calculates to a dataplane:
//
//	resources ─► policy.Calculation ─Flush─► lists ─► programs ─► images ┐
//	                                          └─► sets, names of rules ──┴─► Update: a delta, stages of endpoints
//
// Lists are compiled here, so that no worker's machine time goes into it there,
// and what the dataplane gets is small and checked once. A list that has changed
// by a few rules is not compiled: its program is edited, and sent at once. In the
// background it is compiled anew (folded), as is a program of a list that does
// not know a combination of sets which addresses have come to be in: until then
// the dataplane judges their packets rule by rule.
//
// What cannot be compiled, or finds no room, is refused for itself alone: the
// endpoints that it concerns keep what they have, and those that have nothing
// yet get nothing.
package guard

import (
	"fmt"
	"math/rand/v2"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/policy"
)

// Guard keeps a dataplane's policy what resources make it. It is for one
// goroutine, which waits for Folding before it ends.
type Guard struct {
	*policy.Calculation
	literals *classifier.Literals
	labels   *label.Table
	classes  map[label.Class][]classifier.SetID
	sets     map[classifier.SetID]*set
	dying    map[classifier.SetID]struct{} // sets that nobody wants any more

	programs map[uint32]*program           // by id
	lists    map[*classifier.Rule]*program // by the first rule of the list
	rules    map[uint32]int                // programs that name a rule
	lastID   uint32
	judged   map[policy.Key]*Stages
	unstaged map[policy.Key]struct{} // those of judged of which what is staged is not reported on
	slow     map[uint32]struct{}     // programs that may have to be folded
	fold     *fold                   // in the background

	refusals refusals
	stats    Stats

	options classifier.Options // of every compile
	short   int                // rules of a list that is compiled at once rather than edited
}

// Stages are what judges an endpoint, as v1.Endpoint has them: of a host, what it
// forwards (applyOnForward).
type Stages struct {
	Egress, Ingress             []*v1.Stage
	StagedEgress, StagedIngress []*v1.Stage

	off       bool // a host's, which has nothing to say of what is forwarded
	judgement [2]*policy.Judgement
	programs  []*program
	unstaged  error // why what is staged is not reported on
}

// Update is what has changed. Delta has no endpoints: who knows their ports adds
// those of Stages to it, so that all comes into force at once.
type Update struct {
	Delta      dataplane.Delta
	Stages     map[policy.Key]*Stages // nil: the endpoint is judged no longer, or may not be judged yet: it forwards nothing
	Conditions []policy.Condition
	Generation uint64         // for Settled, once the dataplane has acknowledged
	Calculated policy.Changes // what all of this follows from, for other dataplanes

	NewDomains, GoneDomains []string // as policy.Changes has them
}

// Stats count what a guard has done, and what it is at.
type Stats struct {
	Compiled, Edited, Folded uint64 // programs, by the way they were made
	Programs                 int    // that the dataplane has
	Refused                  int    // endpoints that are not judged as resources say, because something did not fit
}

// shortList is how many rules are compiled about as fast as they are edited.
const shortList = 200

// New makes a guard for the endpoints of a node, or of all nodes where it is empty.
func New(node string) *Guard {
	g := &Guard{
		Calculation: policy.New(node), literals: classifier.NewLiterals(), classes: map[label.Class][]classifier.SetID{},
		sets: map[classifier.SetID]*set{}, dying: map[classifier.SetID]struct{}{}, programs: map[uint32]*program{}, lists: map[*classifier.Rule]*program{},
		rules: map[uint32]int{}, judged: map[policy.Key]*Stages{}, unstaged: map[policy.Key]struct{}{}, slow: map[uint32]struct{}{}, refusals: noRefusals(), short: shortList,
	}
	g.labels = label.New(watcher{g})
	g.options.Literals, g.options.Editable = g.literals, true
	// Whoever fed the dataplane before numbered sets, too. One of the same number would
	// have the members of both for a moment, when this guard's state takes the place of
	// that one's.
	first := rand.Uint32N(1 << 30)
	g.NumberSetsAbove(first)
	g.literals.NumberAbove(first)
	return g
}

// Stats tell of the guard, up to the last Flush.
func (g *Guard) Stats() Stats {
	s := g.stats
	s.Programs, s.Refused = len(g.programs), len(g.refusals.endpoints)
	return s
}

// watcher learns which sets addresses are in together, and tells programs.
type watcher struct{ *Guard }

func (w watcher) ClassBorn(c label.Class, sets []classifier.SetID) {
	w.classes[c] = slices.Clone(sets)
	for _, p := range w.programs {
		p.loaded.AddClass(uint32(c), sets)
		w.noteSlow(p)
	}
}

func (w watcher) ClassDied(c label.Class) { delete(w.classes, c) }

// Flush brings everything up to date and returns what differs from the last
// Update. Where Folding says so there is something to send without a change of
// resources.
func (g *Guard) Flush() *Update {
	changes := g.Calculation.Flush()
	r := round{Guard: g, u: &Update{
		Stages: map[policy.Key]*Stages{}, Generation: changes.Generation, Calculated: changes,
		NewDomains: changes.NewDomains, GoneDomains: changes.GoneDomains,
	}}
	r.finish()
	r.changeSets(changes)
	for _, e := range changes.Endpoints {
		if isHost(e.Key) { // what is its own is judged by others: the node's kernel
			r.put(e.Key, e.Forward)
		} else {
			r.put(e.Key, e.Normal)
		}
	}
	r.release()
	r.retry()
	g.rename(r.u, changes.Rules)
	if r.made {
		g.literals.Retain(g.anonymous())
	}
	g.labels.Reclaim()
	r.tell(changes.Conditions)
	g.startFold()
	return r.u
}

// round is one Flush.
type round struct {
	*Guard
	u    *Update
	gone []*Stages // that nobody has any more when the round is over
	room bool      // something has left the label table
	made bool      // programs or sets were made, or are gone, so that literal sets may be nobody's
}

// put gives an endpoint the judgements that resources make, if all of it fits.
func (r *round) put(key policy.Key, by [2]*policy.Judgement) {
	old := r.judged[key]
	now, err := r.stages(key, by, old)
	if err != nil {
		r.refuse(key, by, err)
		return
	}
	delete(r.refusals.endpoints, key)
	r.exchange(key, now)
}

// exchange puts stages of an endpoint in force, in the place of those it has.
func (r *round) exchange(key policy.Key, now *Stages) {
	if old := r.judged[key]; old != nil {
		r.gone = append(r.gone, old)
	}
	delete(r.unstaged, key)
	if r.u.Stages[key] = now; now == nil {
		delete(r.judged, key)
		return
	}
	if r.judged[key] = now; now.unstaged != nil {
		r.unstaged[key] = struct{}{}
	}
}

// isHost says whether a key is a host endpoint's.
func isHost(key policy.Key) bool { return key.Kind == v3.KindHostEndpoint }

// stages makes the stages of an endpoint's two judgements, nil where it has none.
// old are those that it has, nil if none.
func (r *round) stages(key policy.Key, by [2]*policy.Judgement, old *Stages) (*Stages, error) {
	if by[policy.Ingress] == nil && by[policy.Egress] == nil {
		return nil, nil
	}
	if old == nil {
		old = &Stages{}
	}
	m := making{round: r, made: &Stages{judgement: by}, old: old, host: isHost(key)}
	if err := m.all(); err != nil {
		r.gone = append(r.gone, m.made)
		return nil, err
	}
	return m.made, nil
}

// release takes back the programs of stages that nobody has any more, and then
// sets that no list and no program names.
func (r *round) release() {
	for _, s := range r.gone {
		for _, p := range s.programs {
			if p.users--; p.users == 0 {
				r.remove(p)
			}
		}
	}
	r.gone = nil
	r.dropSets()
}

// making is stages that come into being.
type making struct {
	*round
	made, old *Stages
	host      bool // it is open at its end: a denial needs a stage
}

// all makes the stages of both directions.
func (m *making) all() error {
	for d, now := range m.made.judgement {
		if now == nil {
			continue
		}
		old := m.old.judgement[d]
		if old == nil {
			old = &policy.Judgement{}
		}
		out, err := m.judgement(now, old)
		if err != nil {
			return fmt.Errorf("%v by %w", policy.Direction(d), err)
		}
		if m.host && now.End == classifier.Deny {
			out = append(out, &v1.Stage{})
		}
		staged := m.staged(now, old)
		if policy.Direction(d) == policy.Ingress {
			m.made.Ingress, m.made.StagedIngress = out, staged
		} else {
			m.made.Egress, m.made.StagedEgress = out, staged
		}
	}
	s := m.made
	s.off = m.host && len(s.Egress)+len(s.Ingress)+len(s.StagedEgress)+len(s.StagedIngress) == 0
	return nil
}

// judgement is a judgement's tiers, and then its profiles, as stages. In old are
// those that the endpoint had, whose lists these may be changes of.
func (m *making) judgement(now, old *policy.Judgement) (out []*v1.Stage, err error) {
	for _, t := range now.Tiers {
		was := &policy.List{}
		if i := slices.IndexFunc(old.Tiers, func(o policy.Tier) bool { return o.Name == t.Name }); i >= 0 {
			was = old.Tiers[i].Rules
		}
		s := &v1.Stage{UndecidedPasses: t.End == classifier.Pass, Name: t.Name}
		if err := m.stage(s, t.Rules, was); err != nil {
			return nil, fmt.Errorf("tier %s: %w", t.Name, err)
		}
		out = append(out, s)
	}
	for i, l := range now.Profiles {
		was := &policy.List{}
		if i < len(old.Profiles) {
			was = old.Profiles[i]
		}
		s := &v1.Stage{UndecidedPasses: true} // what a profile does not decide is for the next one
		if err := m.stage(s, l, was); err != nil {
			return nil, fmt.Errorf("profiles: %w", err)
		}
		out = append(out, s)
	}
	return out, nil
}

// stage gives a stage the programs of a list.
func (m *making) stage(s *v1.Stage, now, was *policy.List) error {
	four, err := m.acquire(now.V4, was.V4)
	if err != nil {
		return err
	}
	six, err := m.acquire(now.V6, was.V6)
	if err != nil {
		return err
	}
	s.Program4, s.Program6 = four.id, six.id
	return nil
}

// acquire is the program of a list, made if it is new, with a stage more that
// names it.
func (m *making) acquire(rules, was []classifier.Rule) (*program, error) {
	p := m.lists[first(rules)]
	if p == nil {
		var err error
		if p, err = m.build(rules, m.lists[first(was)]); err != nil {
			return nil, err
		}
	} else if !slices.ContainsFunc(m.old.programs, func(o *program) bool { return first(o.rules) == first(rules) }) {
		if err := m.crowded(p); err != nil {
			return nil, err
		}
	}
	p.users++
	m.made.programs = append(m.made.programs, p)
	return p, nil
}

// first names a list: lists that are equal are one, so their first rules are.
func first(rules []classifier.Rule) *classifier.Rule {
	if len(rules) == 0 {
		return nil
	}
	return &rules[0]
}

func (g *Guard) ruleName(id uint32) *v1.RuleName {
	r, _ := g.Rule(id)
	return &v1.RuleName{Id: id, Tier: r.Tier, Policy: r.Object.String(), Egress: r.Direction == policy.Egress, Index: uint32(max(r.Index, 0)), Text: ruleText(r)}
}

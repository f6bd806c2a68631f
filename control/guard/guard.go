// Package guard brings what policy calculates to a dataplane:
//
//	resources ─► policy.Calculation ─Flush─► lists ─► classifier.Compile ─► programs ┐
//	                                          └─► sets, names of rules ──────────────┴─► Update: a delta, stages of endpoints
//
// Lists are compiled here, so that no worker's machine time goes into it there,
// and what the dataplane gets is small and checked once. A list is compiled with
// all combinations of sets that addresses are in; when others come up that it
// does not know, it is compiled anew (until then the dataplane judges their
// packets rule by rule).
package guard

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/policy"
)

// Guard keeps a dataplane's policy what resources make it. It is for one
// goroutine.
type Guard struct {
	*policy.Calculation
	literals *classifier.Literals
	labels   *label.Table
	classes  map[label.Class][]classifier.SetID
	lists    map[*classifier.Rule]*program // by the first rule of the list
	empty    *program                      // of the list without rules
	judged   map[policy.Key]*Stages
	rules    map[uint32]int           // programs that name a rule
	sets     map[classifier.SetID]int // programs that name an anonymous set
	lastID   uint32
}

// program is a list in the dataplane.
type program struct {
	id     uint32
	rules  []classifier.Rule
	loaded *classifier.Program
	sets   []classifier.SetID // anonymous ones
	users  int                // stages that name it
}

// Stages are what judges an endpoint, as v1.Endpoint has them.
type Stages struct {
	Egress, Ingress []*v1.Stage

	judgement [2]*policy.Judgement
	programs  []*program
}

// Update is what has changed. Delta has no endpoints: who knows their ports adds
// those of Stages to it, so that all comes into force at once.
type Update struct {
	Delta      dataplane.Delta
	Stages     map[policy.Key]*Stages // nil for an endpoint that is judged no longer
	Conditions []policy.Condition
	Generation uint64 // for Settled, once the dataplane has acknowledged
}

// New makes a guard for the endpoints of a node, or of all nodes where it is empty.
func New(node string) *Guard {
	g := &Guard{
		Calculation: policy.New(node), literals: classifier.NewLiterals(), classes: map[label.Class][]classifier.SetID{},
		lists: map[*classifier.Rule]*program{}, judged: map[policy.Key]*Stages{}, rules: map[uint32]int{}, sets: map[classifier.SetID]int{},
	}
	g.labels = label.New(watcher{g})
	return g
}

// watcher learns which sets addresses are in together.
type watcher struct{ *Guard }

func (w watcher) ClassBorn(c label.Class, sets []classifier.SetID) {
	w.classes[c] = slices.Clone(sets)
}

func (w watcher) ClassDied(c label.Class) { delete(w.classes, c) }

// Flush brings everything up to date and returns what differs from the last
// Update. On an error, of a list that cannot be compiled, nothing of the Update
// is to be used, and the dataplane's policy stays as it was: make another Guard.
func (g *Guard) Flush() (*Update, error) {
	changes := g.Calculation.Flush()
	u := &Update{Stages: map[policy.Key]*Stages{}, Conditions: changes.Conditions, Generation: changes.Generation}
	if err := g.changeSets(u, changes.Sets); err != nil {
		return nil, err
	}
	var gone []*Stages
	for _, e := range changes.Endpoints {
		if old := g.judged[e.Key]; old != nil {
			gone = append(gone, old)
		}
		stages, err := g.stages(u, e.Normal)
		if err != nil {
			return nil, fmt.Errorf("policy of %v: %w", e.Key, err)
		}
		if u.Stages[e.Key] = stages; stages == nil {
			delete(g.judged, e.Key)
		} else {
			g.judged[e.Key] = stages
		}
	}
	if err := g.renew(u, &gone); err != nil {
		return nil, err
	}
	for _, s := range gone {
		g.release(u, s)
	}
	u.removeSets(changes.GoneSets)
	g.literals.Retain(used(g.sets))
	g.labels.Reclaim()
	return u, nil
}

// changeSets lets members join and leave.
func (g *Guard) changeSets(u *Update, changes []policy.SetChange) error {
	var all []label.Change
	for _, c := range changes {
		u.Delta.Set.Sets = append(u.Delta.Set.Sets, dataplane.Set{ID: uint32(c.ID), Members: c.Joined})
		if len(c.Left) > 0 {
			u.Delta.Left = append(u.Delta.Left, dataplane.Set{ID: uint32(c.ID), Members: c.Left})
		}
		all = append(all, each(c.ID, c.Joined, false)...)
		all = append(all, each(c.ID, c.Left, true)...)
	}
	if err := g.labels.Apply(all); err != nil {
		return fmt.Errorf("change members of %d sets: %w", len(changes), err)
	}
	return nil
}

func each(id classifier.SetID, prefixes []netip.Prefix, leave bool) (out []label.Change) {
	for _, p := range prefixes {
		out = append(out, label.Change{Set: id, Prefix: p, Leave: leave})
	}
	return out
}

// stages makes the stages of an endpoint's two judgements, nil where it has none.
func (g *Guard) stages(u *Update, by [2]*policy.Judgement) (*Stages, error) {
	if by[policy.Ingress] == nil && by[policy.Egress] == nil {
		return nil, nil
	}
	s := &Stages{judgement: by}
	var err error
	if s.Ingress, err = g.judgement(u, s, by[policy.Ingress]); err == nil {
		s.Egress, err = g.judgement(u, s, by[policy.Egress])
	}
	return s, err
}

// judgement is a judgement's tiers, and then its profiles, as stages.
func (g *Guard) judgement(u *Update, s *Stages, j *policy.Judgement) (out []*v1.Stage, err error) {
	if j == nil {
		return nil, nil
	}
	add := func(name string, l *policy.List, passes bool) error {
		four, err := g.acquire(u, s, l.V4)
		if err != nil {
			return fmt.Errorf("tier %s for IPv4: %w", name, err)
		}
		six, err := g.acquire(u, s, l.V6)
		if err != nil {
			return fmt.Errorf("tier %s for IPv6: %w", name, err)
		}
		out = append(out, &v1.Stage{Program4: four.id, Program6: six.id, UndecidedPasses: passes, Name: name})
		return nil
	}
	for _, t := range j.Tiers {
		if err := add(t.Name, t.Rules, t.End == classifier.Pass); err != nil {
			return nil, err
		}
	}
	for _, p := range j.Profiles {
		if err := add("", p, true); err != nil { // what a profile does not decide is for the next one
			return nil, err
		}
	}
	return out, nil
}

// acquire is the program of a list of rules, compiled if it is new, with a stage
// more that names it.
func (g *Guard) acquire(u *Update, s *Stages, rules []classifier.Rule) (*program, error) {
	p := g.known(rules)
	if p == nil {
		var err error
		if p, err = g.compile(u, rules); err != nil {
			return nil, err
		}
		g.know(rules, p)
	}
	p.users++
	s.programs = append(s.programs, p)
	return p, nil
}

// known is the program of a list. Lists that are equal are one, so the first rule tells.
func (g *Guard) known(rules []classifier.Rule) *program {
	if len(rules) == 0 {
		return g.empty
	}
	return g.lists[&rules[0]]
}

func (g *Guard) know(rules []classifier.Rule, p *program) {
	if len(rules) == 0 {
		g.empty = p
	} else {
		g.lists[&rules[0]] = p
	}
}

// compile makes a program of a list and adds it to the update, with the sets and
// the names of rules that it needs.
func (g *Guard) compile(u *Update, rules []classifier.Rule) (*program, error) {
	combinations := slices.Collect(maps.Values(g.classes))
	compiled, err := classifier.Compile(rules, classifier.Options{Literals: g.literals, Combinations: combinations})
	if err != nil {
		return nil, err
	}
	g.lastID++
	p := &program{id: g.lastID, rules: rules}
	for _, s := range compiled.Sets {
		if s.ID&classifier.AnonymousSet == 0 {
			continue
		}
		p.sets = append(p.sets, s.ID)
		if g.sets[s.ID]++; g.sets[s.ID] == 1 {
			u.Delta.Set.Sets = append(u.Delta.Set.Sets, dataplane.Set{ID: uint32(s.ID), Members: s.Prefixes})
			if err := g.labels.Apply(each(s.ID, s.Prefixes, false)); err != nil {
				return nil, fmt.Errorf("label %d prefixes of its rules: %w", len(s.Prefixes), err)
			}
		}
	}
	for i := range rules {
		if id := rules[i].ID; id != 0 {
			if g.rules[id]++; g.rules[id] == 1 {
				u.Delta.Set.Rules = append(u.Delta.Set.Rules, g.ruleName(id))
			}
		}
	}
	if p.loaded, err = classifier.Load(compiled.Image); err != nil {
		return nil, err
	}
	u.Delta.Set.Programs = append(u.Delta.Set.Programs, dataplane.Program{ID: p.id, Image: compiled.Image})
	return p, nil
}

func (g *Guard) ruleName(id uint32) *v1.RuleName {
	r, _ := g.Rule(id)
	return &v1.RuleName{Id: id, Tier: r.Tier, Policy: r.Object.String(), Egress: r.Direction == policy.Egress, Index: uint32(max(r.Index, 0))}
}

func used(sets map[classifier.SetID]int) map[classifier.SetID]bool {
	out := make(map[classifier.SetID]bool, len(sets))
	for id := range sets {
		out[id] = true
	}
	return out
}

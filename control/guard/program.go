package guard

import (
	"maps"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
)

// program is a list in the dataplane. It does not change: what is made of it by
// edits, or by a compile, is another one, with another id.
type program struct {
	id     uint32
	line   uint32 // the id of the program that was compiled, and of which this is made by edits
	edits  int    // made since
	rules  []classifier.Rule
	loaded *classifier.Program
	sets   map[classifier.SetID]int // that rules name, and how many do
	known  int                      // combinations that the compile left out, so that another would, too
	users  int                      // stages that name it
	final  bool                     // its list could not be compiled anew: it stays as it is
}

// wantsFold says whether packets would be judged faster by a program compiled anew.
func (p *program) wantsFold() bool {
	return !p.final && (p.loaded.Edited() || p.loaded.Strange() > p.known)
}

// build makes the program of a list: of one that it differs little from, by edits,
// or else by a compile.
func (r *round) build(rules []classifier.Rule, base *program) (*program, error) {
	if err := r.refusals.lists[first(rules)]; err != nil {
		return nil, err
	}
	if err := r.whole(rules); err != nil {
		return nil, err
	}
	r.made = true
	p := r.edit(rules, base)
	if p == nil {
		var err error
		if p, err = r.compile(rules); err != nil {
			return nil, r.refuseList(rules, err)
		}
	}
	if err := r.add(p); err != nil {
		return nil, r.refuseList(rules, err)
	}
	return p, nil
}

// edit makes a program by edits of another one; nil if there is none, if they
// would be too many, or a compile is as fast.
func (g *Guard) edit(rules []classifier.Rule, base *program) *program {
	if base == nil || len(rules) <= g.short {
		return nil
	}
	edits, gone, ok := diff(base.rules, rules)
	if !ok {
		return nil
	}
	loaded, err := base.loaded.Edit(g.literals, edits...)
	if err != nil {
		return nil
	}
	p := &program{line: base.line, edits: base.edits + len(edits), rules: rules, loaded: loaded, known: base.known, sets: maps.Clone(base.sets)}
	if loaded.Mode() == classifier.Classes {
		for i := range gone {
			g.count(p.sets, &gone[i], -1)
		}
		for i := range edits {
			if !edits[i].Remove {
				g.count(p.sets, &edits[i].Rule, 1)
			}
		}
	}
	g.stats.Edited++
	return p
}

// count counts the sets that a rule of a program over classes names.
func (g *Guard) count(sets map[classifier.SetID]int, r *classifier.Rule, by int) {
	add := func(id classifier.SetID) {
		if sets[id] += by; sets[id] == 0 {
			delete(sets, id)
		}
	}
	for _, s := range []*classifier.Side{&r.Source, &r.Destination} {
		if len(s.Nets) > 0 {
			add(g.literals.ID(s.Nets))
		}
		if len(s.NotNets) > 0 {
			add(g.literals.ID(s.NotNets))
		}
		for _, id := range s.Sets {
			add(id)
		}
		for _, id := range s.NotSets {
			add(id)
		}
	}
}

// compile makes a program of a list.
func (g *Guard) compile(rules []classifier.Rule) (*program, error) {
	c := compilation{rules: rules, options: g.compileOptions()}
	if c.run(); c.err != nil {
		return nil, c.err
	}
	g.stats.Compiled++
	return &program{rules: rules, loaded: c.loaded, known: c.left, sets: g.setsOf(rules, c.loaded)}, nil
}

func (g *Guard) compileOptions() classifier.Options {
	o := g.options
	o.Combinations = slices.Collect(maps.Values(g.classes))
	return o
}

// compilation is a list that is compiled.
type compilation struct {
	rules   []classifier.Rule
	options classifier.Options

	loaded *classifier.Program // was told of the combinations
	left   int                 // combinations that the compile had no room for
	sets   map[classifier.SetID]bool
	err    error
}

// run does the work, in whatever goroutine.
func (c *compilation) run() {
	compiled, err := classifier.Compile(c.rules, c.options)
	if err == nil {
		c.loaded, err = classifier.Load(compiled.Image)
	}
	if c.err = err; err != nil {
		return
	}
	for i, sets := range c.options.Combinations {
		c.loaded.AddClass(uint32(i), sets)
	}
	c.left, c.sets = c.loaded.Strange(), map[classifier.SetID]bool{}
	for _, s := range compiled.Sets {
		c.sets[s.ID] = true
	}
}

// setsOf are the sets that a program of rules has, and how many rules name each.
func (g *Guard) setsOf(rules []classifier.Rule, loaded *classifier.Program) map[classifier.SetID]int {
	sets := map[classifier.SetID]int{}
	if loaded.Mode() == classifier.Classes {
		for i := range rules {
			g.count(sets, &rules[i], 1)
		}
	}
	return sets
}

// add adds a program to the dataplane, with the sets and the names of rules that
// it needs, or nothing of it if a set finds no room.
func (r *round) add(p *program) error {
	r.lastID++
	if p.id = r.lastID; p.line == 0 {
		p.line = p.id
	}
	r.programs[p.id] = p // it is to hear of the combinations that its own sets make
	if err := r.addAnonymous(p); err != nil {
		delete(r.programs, p.id)
		return err
	}
	for i := range p.rules {
		r.name(p.rules[i].ID)
	}
	r.lists[first(p.rules)] = p
	r.noteSlow(p)
	r.u.Delta.Set.Programs = append(r.u.Delta.Set.Programs, dataplane.Program{ID: p.id, Image: p.loaded.Image()})
	return nil
}

// remove takes a program out of the dataplane, with what only it named. What
// came into being by this very update is not sent at all.
func (r *round) remove(p *program) {
	delete(r.programs, p.id)
	if r.lists[first(p.rules)] == p {
		delete(r.lists, first(p.rules))
	}
	d := &r.u.Delta
	if !drop(&d.Set.Programs, func(x dataplane.Program) bool { return x.ID == p.id }) {
		d.RemovedPrograms = append(d.RemovedPrograms, p.id)
	}
	for id := range p.sets {
		r.unname(id)
	}
	for i := range p.rules {
		r.unnameRule(p.rules[i].ID)
	}
}

// name counts a program that names a rule, 0 for none.
func (r *round) name(id uint32) {
	if id == 0 {
		return
	}
	if r.rules[id]++; r.rules[id] == 1 && !drop(&r.u.Delta.RemovedRules, func(x uint32) bool { return x == id }) {
		r.u.Delta.Set.Rules = append(r.u.Delta.Set.Rules, r.ruleName(id))
	}
}

// unnameRule counts a program less.
func (r *round) unnameRule(id uint32) {
	if id == 0 {
		return
	}
	if r.rules[id]--; r.rules[id] > 0 {
		return
	}
	delete(r.rules, id)
	if !drop(&r.u.Delta.Set.Rules, func(x *v1.RuleName) bool { return x.GetId() == id }) {
		r.u.Delta.RemovedRules = append(r.u.Delta.RemovedRules, id)
	}
}

// drop takes the element out of list for which is holds, if there is one.
func drop[T any](list *[]T, is func(T) bool) bool {
	i := slices.IndexFunc(*list, is)
	if i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
	return i >= 0
}

package guard

import (
	"fmt"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
)

// renew compiles programs anew that do not know a combination of sets which
// addresses are in now, and gives the endpoints that they judge new stages.
// Those it replaces are added to gone.
func (g *Guard) renew(u *Update, gone *[]*Stages) error {
	strange := map[*program]bool{}
	for _, s := range g.judged {
		for _, p := range s.programs {
			if _, seen := strange[p]; !seen {
				strange[p] = g.isStrange(p)
			}
		}
	}
	for _, again := range strange {
		if !again {
			continue
		}
		for p, s := range strange {
			if s {
				g.forget(p)
			}
		}
		return g.replace(u, strange, gone)
	}
	return nil
}

// isStrange tells whether a program judges packets rule by rule that it need not.
func (g *Guard) isStrange(p *program) bool {
	before := p.loaded.Strange()
	for class, sets := range g.classes {
		p.loaded.AddClass(uint32(class), sets)
	}
	return p.loaded.Strange() > before
}

// forget lets a list be compiled again.
func (g *Guard) forget(p *program) {
	if g.known(p.rules) != p {
		return
	}
	if len(p.rules) == 0 {
		g.empty = nil
	} else {
		delete(g.lists, &p.rules[0])
	}
}

// replace gives new stages to every endpoint that a program of old judges.
func (g *Guard) replace(u *Update, old map[*program]bool, gone *[]*Stages) error {
	for key, was := range g.judged {
		if !slices.ContainsFunc(was.programs, func(p *program) bool { return old[p] }) {
			continue
		}
		now, err := g.stages(u, was.judgement)
		if err != nil {
			return fmt.Errorf("policy of %v, compiled anew: %w", key, err)
		}
		g.judged[key], u.Stages[key] = now, now
		*gone = append(*gone, was)
	}
	return nil
}

// release takes back the programs of stages that nobody has any more.
func (g *Guard) release(u *Update, s *Stages) {
	for _, p := range s.programs {
		if p.users--; p.users == 0 {
			g.remove(u, p)
		}
	}
}

// remove takes a program out of the dataplane, with what only it named. What
// came into being by this very update is not sent at all.
func (g *Guard) remove(u *Update, p *program) {
	g.forget(p)
	d := &u.Delta
	if !drop(&d.Set.Programs, func(x dataplane.Program) bool { return x.ID == p.id }) {
		d.RemovedPrograms = append(d.RemovedPrograms, p.id)
	}
	for _, id := range p.sets {
		if g.sets[id]--; g.sets[id] > 0 {
			continue
		}
		delete(g.sets, id)
		_ = g.labels.Apply(each(id, g.literals.Prefixes(id), true)) // they have joined: nothing can keep them from leaving
		if !drop(&d.Set.Sets, func(x dataplane.Set) bool { return x.ID == uint32(id) }) {
			d.RemovedSets = append(d.RemovedSets, uint32(id))
		}
	}
	for i := range p.rules {
		id := p.rules[i].ID
		if id == 0 {
			continue
		}
		if g.rules[id]--; g.rules[id] > 0 {
			continue
		}
		delete(g.rules, id)
		if !drop(&d.Set.Rules, func(x *v1.RuleName) bool { return x.GetId() == id }) {
			d.RemovedRules = append(d.RemovedRules, id)
		}
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

// removeSets takes sets of selectors out that no list names any more.
func (u *Update) removeSets(gone []classifier.SetID) {
	for _, id := range gone {
		is := func(x dataplane.Set) bool { return x.ID == uint32(id) }
		drop(&u.Delta.Set.Sets, is)
		drop(&u.Delta.Left, is)
		u.Delta.RemovedSets = append(u.Delta.RemovedSets, uint32(id))
	}
}

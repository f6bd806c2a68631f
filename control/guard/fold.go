package guard

import (
	"maps"
	"slices"

	"margay.dev/margay/classifier"
)

// foldRules is how many rules are compiled together in the background, longer
// lists one by one.
const foldRules = 20_000

// fold is compiles in the background, by the line of programs that they are for.
type fold struct {
	done chan struct{}
	work map[uint32]*compilation
}

// Folding is closed when what is being compiled in the background is ready, and
// Flush has something to send; nil if nothing is.
func (g *Guard) Folding() <-chan struct{} {
	if g.fold == nil {
		return nil
	}
	return g.fold.done
}

// noteSlow notes a program that has come to be judged faster if it were folded.
func (g *Guard) noteSlow(p *program) {
	if p.wantsFold() {
		g.slow[p.id] = struct{}{}
	}
}

// startFold begins to compile what would be judged faster, if nothing is being
// compiled.
func (g *Guard) startFold() {
	if g.fold != nil {
		return
	}
	f := &fold{done: make(chan struct{}), work: map[uint32]*compilation{}}
	rules := 0
	for _, id := range slices.Sorted(maps.Keys(g.slow)) {
		p := g.programs[id]
		if p == nil || !p.wantsFold() {
			delete(g.slow, id)
			continue
		}
		if f.work[p.line] != nil || rules > 0 && rules+len(p.rules) > foldRules {
			continue
		}
		rules += max(len(p.rules), 1)
		f.work[p.line] = &compilation{rules: p.rules, options: g.compileOptions()}
	}
	if len(f.work) == 0 {
		return
	}
	g.fold = f
	go func() {
		for _, c := range f.work {
			c.run()
		}
		close(f.done)
	}()
}

// finish takes what was compiled, if it is ready: programs of the same lines are
// replaced by what was compiled, with what has changed since as edits.
func (r *round) finish() {
	if r.fold == nil {
		return
	}
	select {
	case <-r.fold.done:
	default:
		return
	}
	r.made = true
	work := r.fold.work
	r.Guard.fold = nil
	replaced := map[*program]bool{}
	lines := map[uint32]uint32{}
	for _, id := range slices.Sorted(maps.Keys(r.programs)) {
		p := r.programs[id]
		c := work[p.line]
		if c == nil {
			continue
		}
		if q := r.folded(p, c); q != nil {
			q.line = lines[p.line]
			if r.add(q) == nil {
				lines[p.line] = q.line
				replaced[p] = true
				r.stats.Folded++
			}
		}
	}
	r.replace(replaced)
}

// folded is a program in the place of p, made of what was compiled; nil if that
// is no better.
func (r *round) folded(p *program, c *compilation) *program {
	if c.err != nil {
		p.final = p.final || first(p.rules) == first(c.rules)
		return nil
	}
	edits, _, ok := diff(c.rules, p.rules)
	if !ok || len(edits) > 0 && len(edits) >= p.edits {
		return nil
	}
	q := &program{edits: len(edits), rules: p.rules, loaded: c.loaded, known: c.left, sets: p.sets}
	if len(edits) > 0 {
		var err error
		if q.loaded, err = c.loaded.Edit(r.literals, edits...); err != nil {
			return nil
		}
	}
	if q.loaded.Mode() != p.loaded.Mode() {
		q.sets = r.setsOf(q.rules, q.loaded)
	}
	if !r.current(q, c, edits) {
		return nil
	}
	for class, sets := range r.classes {
		q.loaded.AddClass(uint32(class), sets)
	}
	return q
}

// current reports whether what was compiled knows literal prefixes by the ids that
// they have now: those that nobody had for a while have got others.
func (g *Guard) current(q *program, c *compilation, edits []classifier.Edit) bool {
	added := map[classifier.SetID]int{}
	for i := range edits {
		if !edits[i].Remove {
			g.count(added, &edits[i].Rule, 1)
		}
	}
	for id := range q.sets {
		if id&classifier.AnonymousSet != 0 && !c.sets[id] && added[id] == 0 {
			return false
		}
	}
	return true
}

// replace gives new stages to every endpoint that one of some programs judges:
// their lists have other programs now.
func (r *round) replace(old map[*program]bool) {
	if len(old) == 0 {
		return
	}
	for _, key := range slices.SortedFunc(maps.Keys(r.judged), compareKeys) {
		was := r.judged[key]
		if !slices.ContainsFunc(was.programs, func(p *program) bool { return old[p] }) {
			continue
		}
		if now, err := r.stages(key, was.judgement, was); err == nil {
			r.exchange(key, now)
		}
	}
}

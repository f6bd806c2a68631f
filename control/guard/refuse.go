package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/policy"
)

// refusals are what does not fit, and what was said of it.
type refusals struct {
	endpoints  map[policy.Key]*wanted
	lists      map[*classifier.Rule]error // that endpoints want, by the first rule
	sets       map[classifier.SetID]struct{}
	calculated map[policy.Key][]string // faults that Calculation told of last
	told       map[policy.Key][]string // those of the guard's own
}

func noRefusals() refusals {
	return refusals{
		endpoints: map[policy.Key]*wanted{}, lists: map[*classifier.Rule]error{}, sets: map[classifier.SetID]struct{}{},
		calculated: map[policy.Key][]string{}, told: map[policy.Key][]string{},
	}
}

// wanted is what would judge an endpoint if it fitted.
type wanted struct {
	by    [2]*policy.Judgement
	err   error
	since uint64 // the generation from which on the endpoint has been left behind
}

// listError is why a list is not in force. Most of its rules are those of object.
type listError struct {
	object policy.Key
	err    error
}

// Error says what did not fit.
func (e *listError) Error() string { return e.err.Error() }

// Unwrap is what was wrong.
func (e *listError) Unwrap() error { return e.err }

// refuse leaves an endpoint as it is: judged as before, or, where nothing has
// judged it, not at all.
func (r *round) refuse(key policy.Key, by [2]*policy.Judgement, err error) {
	w := &wanted{by: by, err: err, since: r.u.Generation}
	if old := r.refusals.endpoints[key]; old != nil {
		w.since = old.since
	}
	r.refusals.endpoints[key] = w
	if r.judged[key] == nil {
		r.u.Stages[key] = nil
	}
}

// refuseList notes that a list cannot be made, so that it is not tried for each
// endpoint anew.
func (r *round) refuseList(rules []classifier.Rule, err error) error {
	count := map[policy.Key]int{}
	most := policy.Key{}
	for i := range rules {
		if ref, ok := r.Rule(rules[i].ID); ok {
			if count[ref.Object]++; count[ref.Object] > count[most] {
				most = ref.Object
			}
		}
	}
	err = &listError{most, err}
	r.refusals.lists[first(rules)] = err
	return err
}

// whole reports a set of a list that does not have all its members, because they
// find no room.
func (g *Guard) whole(rules []classifier.Rule) error {
	if len(g.refusals.sets) == 0 {
		return nil
	}
	for i := range rules {
		for _, s := range []*classifier.Side{&rules[i].Source, &rules[i].Destination} {
			for _, id := range slices.Concat(s.Sets, s.NotSets) {
				if s := g.sets[id]; s != nil && s.refused != nil {
					return s.refused
				}
			}
		}
	}
	return nil
}

// crowded is whole for the list of a program.
func (g *Guard) crowded(p *program) error {
	for _, id := range slices.Sorted(maps.Keys(g.refusals.sets)) {
		if p.sets[id] > 0 {
			return g.sets[id].refused
		}
	}
	return nil
}

// waiting are the changes of sets that found no room.
func (g *Guard) waiting() (due []policy.SetChange) {
	for _, id := range slices.Sorted(maps.Keys(g.refusals.sets)) {
		due = append(due, g.sets[id].change)
	}
	return due
}

// retry tries again what found no room, for as long as there is more room and it
// helps.
func (r *round) retry() {
	count := func() int { return len(r.refusals.sets) + len(r.refusals.endpoints) }
	for before := count(); r.room && before > 0; {
		r.room = false
		r.labels.Reclaim() // nobody looks anything up here
		r.join(r.waiting())
		maps.DeleteFunc(r.refusals.lists, func(_ *classifier.Rule, err error) bool { return errors.Is(err, label.ErrFull) })
		for _, key := range slices.SortedFunc(maps.Keys(r.refusals.endpoints), compareKeys) {
			r.put(key, r.refusals.endpoints[key].by)
		}
		r.release()
		after := count()
		if after >= before {
			break
		}
		before = after
	}
	r.forgetLists()
}

func compareKeys(a, b policy.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// forgetLists forgets lists that were refused and that no endpoint wants any more.
func (g *Guard) forgetLists() {
	if len(g.refusals.lists) == 0 {
		return
	}
	still := map[*classifier.Rule]bool{}
	for _, w := range g.refusals.endpoints {
		for _, j := range w.by {
			if j == nil {
				continue
			}
			lists := slices.Clone(j.Profiles)
			for _, t := range slices.Concat(j.Tiers, j.Staged) {
				lists = append(lists, t.Rules)
			}
			for _, l := range lists {
				still[first(l.V4)], still[first(l.V6)] = true, true
			}
		}
	}
	maps.DeleteFunc(g.refusals.lists, func(l *classifier.Rule, _ error) bool { return !still[l] })
}

// tell adds to the update the conditions that Calculation has changed, and those
// of what does not fit.
func (r *round) tell(changed []policy.Condition) {
	f := &r.refusals
	keys := map[policy.Key]bool{}
	for _, c := range changed {
		keys[c.Object] = true
		if f.calculated[c.Object] = c.Faults; len(c.Faults) == 0 {
			delete(f.calculated, c.Object)
		}
	}
	own := r.faults()
	for key := range own {
		keys[key] = keys[key] || !slices.Equal(own[key], f.told[key])
	}
	for key := range f.told {
		keys[key] = keys[key] || own[key] == nil
	}
	f.told = own
	for _, key := range slices.SortedFunc(maps.Keys(keys), compareKeys) {
		if keys[key] {
			r.u.Conditions = append(r.u.Conditions, policy.Condition{Object: key, Faults: slices.Concat(f.calculated[key], own[key])})
		}
	}
}

// faults are what does not fit, by the objects that it concerns: endpoints, and
// the policy that has most rules of a list.
func (g *Guard) faults() map[policy.Key][]string {
	own := map[policy.Key][]string{}
	say := func(key policy.Key, fault string) {
		if !slices.Contains(own[key], fault) {
			own[key] = append(own[key], fault)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.refusals.endpoints), compareKeys) {
		w := g.refusals.endpoints[key]
		until := "until it fits, the policy before stays in force"
		if g.judged[key] == nil {
			until = "until it fits, nothing is allowed"
		}
		say(key, fmt.Sprintf("%v; use fewer rules or narrower sets; %s", w.err, until))
		var list *listError
		if errors.As(w.err, &list) && list.object != (policy.Key{}) {
			say(list.object, fmt.Sprintf("%v; use fewer rules or narrower sets; until it fits, endpoints keep the policy before, and new ones are allowed nothing", w.err))
		}
	}
	for key := range g.unstaged {
		say(key, fmt.Sprintf("%v; use fewer rules or narrower sets; until it fits, staged policies are not reported on", g.judged[key].unstaged))
	}
	if len(g.refusals.sets) == 0 {
		return own
	}
	for key, s := range g.judged {
		for _, p := range s.programs {
			if err := g.crowded(p); err != nil {
				say(key, fmt.Sprintf("%v; use narrower sets; until it fits, the members before stay in force", err))
			}
		}
	}
	return own
}

// Settled says that the dataplane has acknowledged the Update of this generation.
// Ids of rules and sets that an endpoint which was left behind may still name are
// not given to others before it has caught up.
func (g *Guard) Settled(generation uint64) {
	for _, w := range g.refusals.endpoints {
		generation = min(generation, w.since-1)
	}
	for id := range g.dying {
		if s := g.sets[id]; s.gone > 0 {
			generation = min(generation, s.gone-1)
		}
	}
	g.Calculation.Settled(generation)
}

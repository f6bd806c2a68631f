package guard

import (
	"cmp"
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

// set is a set of addresses: of a selector, or, anonymous, of literal prefixes.
type set struct {
	users   int              // programs that name it
	since   uint64           // the update that brought it to the dataplane; 0: none has
	gone    uint64           // the update from which on nobody wants it but programs that name it; 0: it is wanted
	change  policy.SetChange // that found no room
	refused error            // why
}

// changeSets lets members join and leave. A set that finds no room stays as it
// was, and what was to change of it waits.
func (r *round) changeSets(changes policy.Changes) {
	gone := map[classifier.SetID]bool{}
	for _, id := range changes.GoneSets {
		gone[id] = true
	}
	var due []policy.SetChange
	for _, c := range changes.Sets {
		s := r.sets[c.ID]
		if s == nil {
			s = &set{}
			r.sets[c.ID] = s
		}
		switch {
		case gone[c.ID]:
			s.gone, s.refused, s.change = r.u.Generation, nil, policy.SetChange{}
			r.dying[c.ID] = struct{}{}
			delete(r.refusals.sets, c.ID)
		case s.refused != nil:
			s.change = merged(s.change, c)
			due = append(due, s.change)
		default:
			due = append(due, c)
		}
	}
	r.dropSets()
	r.join(due)
}

// merged is two changes of a set, one after the other, as one.
func merged(a, b policy.SetChange) policy.SetChange {
	by := map[netip.Prefix]int{}
	for _, c := range []policy.SetChange{a, b} {
		for _, p := range c.Joined {
			by[p]++
		}
		for _, p := range c.Left {
			by[p]--
		}
	}
	b.Joined, b.Left = nil, nil
	for _, p := range slices.SortedFunc(maps.Keys(by), netip.Prefix.Compare) {
		switch {
		case by[p] > 0:
			b.Joined = append(b.Joined, p)
		case by[p] < 0:
			b.Left = append(b.Left, p)
		}
	}
	return b
}

// join makes changes of sets, or as many of them as there is room for: first what
// makes sets smaller, and what makes them the largest last.
func (r *round) join(due []policy.SetChange) {
	if r.apply(due) == nil {
		return
	}
	slices.SortStableFunc(due, func(a, b policy.SetChange) int {
		return cmp.Compare(len(a.Joined)-len(a.Left), len(b.Joined)-len(b.Left))
	})
	r.joinHalves(due)
}

// joinHalves makes those changes of many that find room.
func (r *round) joinHalves(due []policy.SetChange) {
	r.labels.Reclaim()
	err := r.apply(due)
	switch n := len(due) / 2; {
	case err == nil:
	case n > 0:
		r.joinHalves(due[:n])
		r.joinHalves(due[n:])
	default:
		c := due[0]
		r.refusals.sets[c.ID] = struct{}{}
		s := r.sets[c.ID]
		s.change, s.refused = c, fmt.Errorf("%q is to have %d members more and %d less: %w", c.Name, len(c.Joined), len(c.Left), err)
	}
}

// apply makes changes of sets, or none of them.
func (r *round) apply(changes []policy.SetChange) error {
	var all []label.Change
	for _, c := range changes {
		all = append(append(all, each(c.ID, c.Joined, false)...), each(c.ID, c.Left, true)...)
	}
	if err := r.labels.Apply(all); err != nil {
		return err
	}
	for _, c := range changes {
		s := r.sets[c.ID]
		s.change, s.refused = policy.SetChange{}, nil
		delete(r.refusals.sets, c.ID)
		r.send(c.ID, v1.Line(c.Name), c.Joined)
		if len(c.Left) > 0 {
			r.u.Delta.Left = append(r.u.Delta.Left, dataplane.Set{ID: uint32(c.ID), Members: c.Left})
			r.room = true
		}
	}
	return nil
}

func each(id classifier.SetID, prefixes []netip.Prefix, leave bool) []label.Change {
	out := make([]label.Change, len(prefixes))
	for i, p := range prefixes {
		out[i] = label.Change{Set: id, Prefix: p, Leave: leave}
	}
	return out
}

// send adds members to what the dataplane has of a set.
func (r *round) send(id classifier.SetID, name string, members []netip.Prefix) {
	if s := r.sets[id]; s.since == 0 {
		s.since = r.u.Generation
	}
	r.u.Delta.Set.Sets = append(r.u.Delta.Set.Sets, dataplane.Set{ID: uint32(id), Name: name, Members: members})
}

// addAnonymous counts a program more for its sets, and brings those of literal
// prefixes to the dataplane that it does not have, all or none.
func (r *round) addAnonymous(p *program) error {
	var fresh []classifier.SetID
	var joins []label.Change
	for id := range p.sets {
		if r.sets[id] == nil && id&classifier.AnonymousSet != 0 {
			fresh = append(fresh, id)
			joins = append(joins, each(id, r.literals.Prefixes(id), false)...)
		}
	}
	if err := r.labels.Apply(joins); err != nil {
		return fmt.Errorf("label %d prefixes of its rules: %w", len(joins), err)
	}
	slices.Sort(fresh)
	for _, id := range fresh {
		r.sets[id] = &set{}
		if drop(&r.u.Delta.RemovedSets, func(x uint32) bool { return x == uint32(id) }) {
			r.sets[id].since = r.u.Generation - 1 // the dataplane has it, as it is to be
			continue
		}
		nets := r.literals.Prefixes(id)
		r.send(id, netsName(nets), nets)
	}
	for id := range p.sets {
		if r.sets[id] == nil {
			r.sets[id] = &set{}
		}
		r.sets[id].users++
		if id&classifier.AnonymousSet != 0 {
			delete(r.dying, id)
		}
	}
	return nil
}

// unname counts a program less for a set.
func (r *round) unname(id classifier.SetID) {
	s := r.sets[id]
	if s.users--; s.users == 0 && (s.gone > 0 || id&classifier.AnonymousSet != 0) {
		r.dying[id] = struct{}{}
	}
}

// dropSets takes sets away that nobody wants and no program names. Those that
// remain may need room of their own: if there is none, it is for another time.
func (r *round) dropSets() {
	var gone []classifier.SetID
	var leaves []label.Change
	for _, id := range slices.Sorted(maps.Keys(r.dying)) {
		if r.sets[id].users == 0 {
			gone = append(gone, id)
			for p := range r.labels.Prefixes(id) {
				leaves = append(leaves, label.Change{Set: id, Prefix: p, Leave: true})
			}
		}
	}
	if len(gone) == 0 || r.labels.Apply(leaves) != nil {
		return
	}
	r.room, r.made = true, true
	for _, id := range gone {
		s := r.sets[id]
		delete(r.dying, id)
		delete(r.sets, id)
		is := func(x dataplane.Set) bool { return x.ID == uint32(id) }
		for drop(&r.u.Delta.Set.Sets, is) || drop(&r.u.Delta.Left, is) {
		}
		if s.since != r.u.Generation && s.since != 0 {
			r.u.Delta.RemovedSets = append(r.u.Delta.RemovedSets, uint32(id))
		}
	}
}

// anonymous are the sets that stand for literal prefixes of rules.
func (g *Guard) anonymous() map[classifier.SetID]bool {
	out := map[classifier.SetID]bool{}
	for id := range g.sets {
		if id&classifier.AnonymousSet != 0 {
			out[id] = true
		}
	}
	return out
}

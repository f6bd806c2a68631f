// Package policing brings to the workers what a desired state says of policy:
//
//	sets of addresses ─► label table ─► classes ─┐
//	images of programs ─────────► programs ◄─────┘ (what each class holds)
//	stages of endpoints ─► chains ─► judge.Endpoint
//
// A change is made in three steps, between which others publish it: members join
// (Join), endpoints are judged by what is new (Endpoint), members leave (Leave).
// So there is no moment at which a program in force meets a set that it does not
// know yet, or one that has been emptied for a program to come.
package policing

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/forwarder/desired"
)

// Writer is the one writer of the label table and of programs. It is for one
// goroutine at a time.
type Writer struct {
	labels  *label.Table
	classes map[label.Class][]classifier.SetID
	dead    map[label.Class]struct{} // classes that readers may still meet
	sets    map[uint32]struct{}      // that were ever told of and are not gone
	lists   map[uint32]*chain.List   // by program
	chains  map[string]*chain.Chain  // by the stages that it is made of
	used    map[string]*chain.Chain  // of those, since Begin
}

// New makes a writer with tables that are empty.
func New() *Writer {
	w := &Writer{
		classes: map[label.Class][]classifier.SetID{}, dead: map[label.Class]struct{}{}, sets: map[uint32]struct{}{},
		lists: map[uint32]*chain.List{}, chains: map[string]*chain.Chain{}, used: map[string]*chain.Chain{},
	}
	w.labels = label.New(watcher{w})
	return w
}

// Labels is the table that workers read.
func (w *Writer) Labels() *label.Table { return w.labels }

// watcher tells programs of classes, before any reader can meet them.
type watcher struct{ *Writer }

func (w watcher) ClassBorn(c label.Class, sets []classifier.SetID) {
	delete(w.dead, c)
	w.classes[c] = slices.Clone(sets)
	for _, l := range w.lists {
		l.Program().AddClass(uint32(c), sets)
	}
}

func (w watcher) ClassDied(c label.Class) { w.dead[c] = struct{}{} }

// Join takes up new programs and lets members join their sets. changed says which
// sets to look at; nil asks for all. On an error nobody has joined, and nothing
// may be judged by the state until a later call succeeds.
func (w *Writer) Join(s *desired.State, changed desired.SetChanges) error {
	w.load(s.Programs)
	var joins []label.Change
	if changed == nil {
		joins = w.missing(s)
	} else {
		for id, set := range changed {
			for p := range set.Joined() {
				if !w.holds(id, p) {
					joins = append(joins, label.Change{Set: classifier.SetID(id), Prefix: p})
				}
			}
		}
	}
	if err := w.labels.Apply(joins); err != nil {
		return fmt.Errorf("let %d members join their sets: %w", len(joins), err)
	}
	for id := range s.Sets {
		w.sets[id] = struct{}{}
	}
	return nil
}

// load takes up the programs of a state and lets go of others.
func (w *Writer) load(programs map[uint32]*desired.Program) {
	for id, p := range programs {
		if w.lists[id] != nil {
			continue
		}
		for c, sets := range w.classes {
			p.Loaded.AddClass(uint32(c), sets)
		}
		w.lists[id] = chain.NewList(p.Loaded)
	}
	maps.DeleteFunc(w.lists, func(id uint32, _ *chain.List) bool { return programs[id] == nil })
}

// missing are the members of the state's sets that have not joined.
func (w *Writer) missing(s *desired.State) (joins []label.Change) {
	for id, members := range s.Sets {
		has := w.members(id)
		for p := range members.All() {
			if _, ok := has[p]; !ok {
				joins = append(joins, label.Change{Set: classifier.SetID(id), Prefix: p})
			}
		}
	}
	return joins
}

// members are those of a set that have joined.
func (w *Writer) members(id uint32) map[netip.Prefix]struct{} {
	has := map[netip.Prefix]struct{}{}
	for p := range w.labels.Prefixes(classifier.SetID(id)) {
		has[p] = struct{}{}
	}
	return has
}

func (w *Writer) holds(id uint32, p netip.Prefix) bool {
	return w.labels.Holds(classifier.SetID(id), p)
}

// Leave lets go those who are no members any more, when no program in force may
// still want them. changed is as in Join.
func (w *Writer) Leave(s *desired.State, changed desired.SetChanges) error {
	var leaves []label.Change
	leave := func(id uint32, p netip.Prefix) {
		leaves = append(leaves, label.Change{Set: classifier.SetID(id), Prefix: p, Leave: true})
	}
	for id := range w.sets {
		wanted, stays := s.Sets[id]
		if change, hinted := changed[id]; stays && changed != nil {
			if hinted {
				for p := range change.Left() {
					if w.holds(id, p) {
						leave(id, p)
					}
				}
			}
			continue
		}
		for p := range w.members(id) {
			if _, ok := wanted.Get(p); !stays || !ok {
				leave(id, p)
			}
		}
	}
	if err := w.labels.Apply(leaves); err != nil {
		return fmt.Errorf("let %d members leave their sets: %w", len(leaves), err)
	}
	maps.DeleteFunc(w.sets, func(id uint32, _ struct{}) bool { _, stays := s.Sets[id]; return !stays })
	return nil
}

// Generation numbers the changes of labels, for Quiesced.
func (w *Writer) Generation() uint64 { return w.labels.Generation() }

// Quiesced says that every worker has begun another pass since Generation was
// upTo: what was left behind until then may be used again.
func (w *Writer) Quiesced(upTo uint64) {
	w.labels.Quiesced(upTo)
	if upTo != w.labels.Generation() {
		return
	}
	for c := range w.dead {
		delete(w.classes, c)
	}
	clear(w.dead)
}

// Begin begins another round of calls of Endpoint, for all endpoints.
func (w *Writer) Begin() {
	w.chains, w.used = w.used, map[string]*chain.Chain{}
}

// Endpoint is what judges an endpoint's packets. Those with equal stages share
// their chains. account is what its flows are charged to.
func (w *Writer) Endpoint(e *desired.Endpoint, account uint32) (*judge.Endpoint, error) {
	j := &judge.Endpoint{Account: account, HostDenied: e.HostDenied}
	for family := range 2 {
		var err error
		if j.Egress[family], err = w.chain(e.Egress, family); err == nil {
			j.Ingress[family], err = w.chain(e.Ingress, family)
		}
		if err != nil {
			return nil, fmt.Errorf("chain the tiers of endpoint %s: %w", e.ID, err)
		}
	}
	return j, nil
}

// chain is the stages of one family, 0 for IPv4. It ends early at a stage that has
// no program and passes nothing: that denies all.
func (w *Writer) chain(stages []desired.Stage, family int) (*chain.Chain, error) {
	var tiers []chain.Tier
	key := ""
	for _, s := range stages {
		id, end := s.Program4, classifier.Deny
		if family == 1 {
			id = s.Program6
		}
		if s.UndecidedPasses {
			end = classifier.Pass
		}
		if id == 0 && !s.UndecidedPasses {
			break
		}
		if id != 0 {
			tiers = append(tiers, chain.Tier{List: w.lists[id], End: end})
			key += fmt.Sprint(id, end, " ")
		}
	}
	c := w.used[key]
	if c == nil {
		c = w.chains[key]
	}
	if c == nil {
		var err error
		if c, err = chain.NewChain(tiers...); err != nil {
			return nil, err
		}
	}
	w.used[key] = c
	return c, nil
}

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
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/forwarder/desired"
)

// Writer is the one writer of the label table and of programs. It is for one
// goroutine at a time.
type Writer struct {
	labels  *label.Table
	classes map[label.Class][]classifier.SetID
	dead    map[label.Class]struct{}    // classes that readers may still meet
	sets    map[uint32]struct{}         // that were ever told of and are not gone
	lists   map[uint32]*chain.List      // by program
	loaded  map[uint32]*desired.Program // what lists were made from
	retired []*chain.List               // that workers may still judge by
	chains  map[string]*chain.Chain     // by the stages that it is made of
	used    map[string]*chain.Chain     // of those, since Begin
	ledger  *Ledger
	seated  judges // before Begin
	seats   judges // since Begin
}

// New makes a writer with tables that are empty.
func New() *Writer {
	w := &Writer{
		classes: map[label.Class][]classifier.SetID{}, dead: map[label.Class]struct{}{}, sets: map[uint32]struct{}{},
		lists: map[uint32]*chain.List{}, loaded: map[uint32]*desired.Program{}, chains: map[string]*chain.Chain{}, used: map[string]*chain.Chain{},
		ledger: newLedger(),
		seated: judges{}, seats: judges{},
	}
	w.labels = label.New(watcher{w})
	return w
}

// Ledger knows what workers count by.
func (w *Writer) Ledger() *Ledger { return w.ledger }

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
	for _, l := range w.retired {
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

// load takes up the programs of a state and lets go of others. A client that begins
// anew may give a number to another list than the client before it: then no chain
// may be used again, since by their numbers the stages are the same.
func (w *Writer) load(programs map[uint32]*desired.Program) {
	for id, p := range w.loaded {
		if now := programs[id]; now != p && (now == nil || !bytes.Equal(now.Image, p.Image)) {
			if now != nil {
				clear(w.used)
			}
			w.retired = append(w.retired, w.lists[id])
			delete(w.lists, id)
			delete(w.loaded, id)
			delete(w.ledger.pending, id)
		}
	}
	for id, p := range programs {
		if w.lists[id] != nil {
			continue
		}
		for c, sets := range w.classes {
			p.Loaded.AddClass(uint32(c), sets)
		}
		w.lists[id], w.loaded[id] = chain.NewList(p.Loaded), p
		w.ledger.expect(p.Loaded)
	}
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
	w.retired = nil
}

// Begin begins another round of calls of Endpoint, for all endpoints.
func (w *Writer) Begin() {
	w.chains, w.used = w.used, map[string]*chain.Chain{}
	w.seated, w.seats = w.seats, judges{}
	w.ledger.begin()
}

// Asked are those of an endpoint's stages that have a program in a family, 0 for
// IPv4: the tiers of its chain, one for one. They end early at a stage that has no
// program and passes nothing: that denies all.
func Asked(stages []desired.Stage, family int) []desired.Stage {
	asked, _, _ := ask(stages, family)
	return asked
}

// ask is Asked, with the name of the stage that denies all the rest, if one of them
// does.
func ask(stages []desired.Stage, family int) (out []desired.Stage, last string, blocked bool) {
	for i := range stages {
		switch s := &stages[i]; {
		case Program(s, family) != 0:
			out = append(out, *s)
		case !s.UndecidedPasses:
			return out, s.Name, true
		}
	}
	return out, "", false
}

// Program is a stage's in a family, 0 for none.
func Program(s *desired.Stage, family int) uint32 {
	if family == 1 {
		return s.Program6
	}
	return s.Program4
}

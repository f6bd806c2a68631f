package classifier_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
	"margay.dev/margay/classifier/oracle"
)

// A list that is read says what its trees say, of classes that the compile knew
// and of others, before and after edits; and its clauses match what its rules do.
func TestReadingSaysWhatTheTreesSay(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := classifiertest.NewWorld(rng, seed%2 == 1)
		list := w.Rules(rng, 1+rng.IntN(40))
		p := w.Compile(t, rng, list, classifier.Options{})
		w.Tell(p)
		reads(t, w, rng, p, list)
		edits, after := classifiertest.Edits(rng, list, w.Rules(rng, 8), 6)
		if edited, err := p.Edit(w.Literals, edits...); err == nil {
			w.Learn(after)
			w.Tell(edited)
			reads(t, w, rng, edited, after)
		}
	}
}

func reads(t *testing.T, w *classifiertest.World, rng *rand.Rand, p *classifier.Program, list []classifier.Rule) {
	t.Helper()
	r := p.Read()
	if r == nil {
		t.Fatal("the list is not there")
	}
	for range 100 {
		k := w.Packet(rng, list)
		key := w.Key(p, k)
		packet := classifier.Packet{Protocol: k.Protocol, SourcePort: k.SourcePort, DestinationPort: k.DestinationPort}
		if !w.V6 {
			a, b := k.Source.As4(), k.Destination.As4()
			packet.Source, packet.Destination = binary.BigEndian.Uint32(a[:]), binary.BigEndian.Uint32(b[:])
		}
		want := p.MatchOne(&key)
		sets := [2][]classifier.SetID{w.Combos[w.Class(k.Source)], w.Combos[w.Class(k.Destination)]}
		if got := r.Match(&packet, sets, classifier.EndOfTier); got != want {
			t.Fatalf("%+v: read as %v, the trees say %v", k, got, want)
		}
		first := classifier.Verdict(0)
		for c := range r.Clauses() {
			if c.Verdict.Action() != classifier.Log && matches(c, packet, sets) {
				first = c.Verdict
				break
			}
		}
		if first != want {
			t.Fatalf("%+v: the first clause that matches is of %v, want %v", k, first, want)
		}
		gone := slices.DeleteFunc(slices.Clone(list), func(r classifier.Rule) bool { return r.ID == want.Rule() })
		left := classifier.Verdict(0)
		if at, _ := oracle.Match(gone, w.Sets, k); at < len(gone) {
			left = classifier.NewVerdict(gone[at].Action, gone[at].ID, 0)
		}
		if got := r.Match(&packet, sets, want.Rule()); want != 0 && got != left {
			t.Fatalf("%+v: without rule %d read as %v, want %v", k, want.Rule(), got, left)
		}
	}
}

func matches(c classifier.Clause, k classifier.Packet, sets [2][]classifier.SetID) bool {
	within := func(r classifier.Range, v uint16) bool { return r.First <= v && v <= r.Last }
	for _, t := range c.Terms {
		side := 0
		if t.Destination {
			side = 1
		}
		if slices.Contains(sets[side], t.Set) == t.Not {
			return false
		}
	}
	return within(c.Protocol, uint16(k.Protocol)) && within(c.SourcePort, k.SourcePort) && within(c.DestinationPort, k.DestinationPort) &&
		c.Source[0] <= k.Source && k.Source <= c.Source[1] && c.Destination[0] <= k.Destination && k.Destination <= c.Destination[1]
}

func TestReadingNeedsTheList(t *testing.T) {
	list := []classifier.Rule{{ID: 1, Action: classifier.Deny, Source: classifier.Side{Nets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}}}
	if classifiertest.Load(t, list, classifier.Options{}).Read() != nil {
		t.Error("trees alone are read as a list")
	}
	r := classifiertest.Load(t, list, classifier.Options{Editable: true}).Read()
	for c := range r.Clauses() {
		if c.Source != [2]uint32{10<<24 | 1<<16, 10<<24 | 1<<16 | 0xffff} || c.Verdict.Rule() != 1 {
			t.Errorf("clause is %+v", c)
		}
	}
	if classifiertest.Load(t, nil, classifier.Options{}).Read() == nil {
		t.Error("an empty list is not read")
	}
}

package explain

import (
	"net/netip"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/forwarder/plane"
)

// shut is a scene in which p1 may send nothing to p2 but what is of set 1, in which p1 is not.
func shut() *scene {
	s := &scene{members: map[uint32][]netip.Addr{1: {addr(false, netPods, 3), addr(true, netPods, 3)}}, next: 2}
	r := classifier.Rule{ID: 1, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{1}}}
	s.stages[1][1] = []stage{{rules: [2][]classifier.Rule{{r}, {r}}}}
	open := classifier.Rule{ID: 2, Action: classifier.Allow}
	s.stages[0][0] = []stage{{rules: [2][]classifier.Rule{{open}, {open}}}}
	return s
}

// begin explains a packet from p1 to p2 as far as the plane is looked at once.
func (b *bench) begin(ipv6 bool) *search {
	b.t.Helper()
	_, ask := b.packet(question{"p1", addr(ipv6, netPods, 1), addr(ipv6, netPods, 2), 6, 80})
	var s *search
	b.Plane.Look(func(l plane.Live) {
		asked, err := read(l.State, ask)
		if err != nil {
			b.t.Fatal(err)
		}
		_, s = explain(l, &asked[0], connections{})
	})
	s.look = b.Plane.Look
	return s
}

// Lists are read without the plane's lock, which others may have as long as they like.
func TestListsAreReadWhileOthersHaveThePlane(t *testing.T) {
	b := newBench(t)
	b.apply(shut())
	for _, ipv6 := range []bool{false, true} {
		s := b.begin(ipv6)
		b.Plane.Look(func(plane.Live) { // who would look as well here, waits for ever
			if near := s.near(); len(near) == 0 {
				t.Error("no rule is near")
			}
			s.removals()
			s.general()
		})
	}
}

// What was found of lists that do not decide any more is not told.
func TestSearchThatTheTablesOvertake(t *testing.T) {
	joins := func(i int) func(*bench) {
		return func(b *bench) {
			b.Delta(&pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: columns([]netip.Addr{addr(false, netPods, i), addr(true, netPods, i)})}}})
		}
	}
	tests := map[string]struct {
		change func(*bench)
		stale  bool
	}{
		"nothing":                 {func(*bench) {}, false},
		"a member of no interest": {joins(4), false},
		"the source joins":        {joins(1), true},
		"another list":            {func(b *bench) { b.apply(shut()) }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, ipv6 := range []bool{false, true} {
				b := newBench(t)
				b.apply(shut())
				s := b.begin(ipv6)
				tt.change(b)
				changes := s.changes()
				if s.stale != tt.stale || !tt.stale && len(changes) == 0 || tt.stale && len(changes) != 0 {
					t.Errorf("stale is %v with %d changes, want %v", s.stale, len(changes), tt.stale)
				}
			}
		})
	}
}

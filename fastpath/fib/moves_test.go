package fib

import (
	"net/netip"
	"testing"
)

// Who remembers where packets went asks Moves whether that may be another place now.
func TestMovesCountsWhatSendsPacketsElsewhere(t *testing.T) {
	for name, prefixes := range map[string][2]string{
		"IPv4": {"10.0.0.0/8", "10.1.0.0/16"}, "IPv6": {"2001:db8::/32", "2001:db8:1::/48"},
	} {
		t.Run(name, func(t *testing.T) {
			tab := New()
			wide, narrow := netip.MustParsePrefix(prefixes[0]), netip.MustParsePrefix(prefixes[1])
			group := []Member{{1, 1}, {2, 1}}
			neighbour := Adjacency{Kind: Incomplete, Port: 3}
			known := Adjacency{Kind: Rewrite, Port: 3, HeaderLen: 14, MTU: 1500}
			steps := []struct {
				name  string
				do    func() error
				moves bool
			}{
				{"an adjacency", func() error { return tab.SetAdjacency(1, neighbour) }, true},
				{"its neighbour is known", func() error { return tab.SetAdjacency(1, known) }, false},
				{"its port is another", func() error { known.Port = 4; return tab.SetAdjacency(1, known) }, true},
				{"its MTU is another", func() error { known.MTU = 900; return tab.SetAdjacency(1, known) }, false},
				{"it drops", func() error { return tab.SetAdjacency(1, Adjacency{Kind: Blackhole}) }, true},
				{"it is punted", func() error { return tab.SetAdjacency(1, Adjacency{Kind: Punt}) }, true},
				{"it is none", func() error { return tab.SetAdjacency(1, Adjacency{}) }, true},
				{"it is back", func() error { return tab.SetAdjacency(1, known) }, true},
				{"a next hop", func() error { return tab.SetNextHop(7, []Member{{1, 1}}) }, true},
				{"the same one", func() error { return tab.SetNextHop(7, []Member{{1, 1}}) }, false},
				{"another member", func() error { return tab.SetNextHop(7, []Member{{2, 1}}) }, true},
				{"a group", func() error { return tab.SetNextHop(7, group) }, true},
				{"the same group", func() error { return tab.SetNextHop(7, group) }, false},
				{"a member is down", func() error { tab.SetMemberDown(2, true); return nil }, true},
				{"it was down", func() error { tab.SetMemberDown(2, true); return nil }, false},
				{"nobody's member is down", func() error { tab.SetMemberDown(9, true); return nil }, false},
				{"it is up", func() error { tab.SetMemberDown(2, false); return nil }, true},
				{"other members", func() error { return tab.SetNextHop(7, []Member{{1, 1}, {3, 1}}) }, true},
				{"a route", func() error { return tab.SetRoute(wide, 7) }, true},
				{"the same route", func() error { return tab.SetRoute(wide, 7) }, false},
				{"another next hop", func() error { return tab.SetRoute(wide, 8) }, true},
				{"a route below", func() error { return tab.SetRoute(narrow, 8) }, true},
				{"it is gone", func() error { tab.DeleteRoute(narrow); return nil }, true},
				{"it was gone", func() error { tab.DeleteRoute(narrow); return nil }, false},
				{"no member", func() error { return tab.SetNextHop(7, nil) }, true},
			}
			for _, s := range steps {
				before := tab.Moves()
				if err := s.do(); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if moved := tab.Moves() != before; moved != s.moves {
					t.Errorf("%s: counted as a move: %v, want %v", s.name, moved, s.moves)
				}
			}
		})
	}
}

package dataplane

import (
	"net/netip"
	"reflect"
	"testing"

	v1 "margay.dev/margay/api/dataplane/v1"
)

func TestStateWithADelta(t *testing.T) {
	p := netip.MustParsePrefix
	before := State{
		Ports:     []*v1.Port{{Name: "a"}, {Name: "b"}},
		Addresses: []*v1.Address{{Port: "a", Prefix: "10.0.0.1/32"}},
		NextHops:  []*v1.NextHop{{Id: 1}, {Id: 2}},
		Routes:    []Route{{p("10.0.0.0/8"), 1}, {p("fd00::/8"), 1}},
		Endpoints: []*v1.Endpoint{{Id: "x", Port: "a"}, {Id: "y", Port: "b"}},
		HostPort:  &v1.HostPort{Name: "h"},
		Sets:      []Set{{ID: 1, Members: []netip.Prefix{p("10.0.0.0/8"), p("fd00::/8")}}, {ID: 2, Members: []netip.Prefix{}}},
		Programs:  []Program{{1, []byte("one")}, {2, []byte("two")}},
		Rules:     []*v1.RuleName{{Id: 1}, {Id: 2}},
	}
	after := before.With(Delta{
		Set: State{
			Ports: []*v1.Port{{Name: "c"}}, Routes: []Route{{p("fd00::/8"), 3}}, NextHops: []*v1.NextHop{{Id: 3}},
			Endpoints: []*v1.Endpoint{{Id: "y", Port: "c"}}, Steering: &v1.Steering{Prefixes: []string{"10.0.0.0/8"}},
			Sets: []Set{{ID: 2, Members: []netip.Prefix{p("fd01::/16")}}}, Programs: []Program{{3, []byte("three")}}, Rules: []*v1.RuleName{{Id: 3}},
		},
		RemovedPorts: []string{"b"}, RemovedNextHops: []uint32{2}, RemovedRoutes: []netip.Prefix{p("10.0.0.0/8")}, RemovedEndpoints: []string{"x"},
		RemovedAddresses: before.Addresses, RemovedHostPort: true, Left: []Set{{ID: 1, Members: []netip.Prefix{p("10.0.0.0/8")}}},
		RemovedPrograms: []uint32{1}, RemovedRules: []uint32{2},
	})
	want := State{
		Ports: []*v1.Port{{Name: "a"}, {Name: "c"}}, NextHops: []*v1.NextHop{{Id: 1}, {Id: 3}}, Routes: []Route{{p("fd00::/8"), 3}},
		Endpoints: []*v1.Endpoint{{Id: "y", Port: "c"}}, Steering: &v1.Steering{Prefixes: []string{"10.0.0.0/8"}},
		Sets:     []Set{{ID: 1, Members: []netip.Prefix{p("fd00::/8")}}, {ID: 2, Members: []netip.Prefix{p("fd01::/16")}}},
		Programs: []Program{{2, []byte("two")}, {3, []byte("three")}}, Rules: []*v1.RuleName{{Id: 1}, {Id: 3}},
	}
	if !reflect.DeepEqual(after, want) {
		t.Errorf("it is\n%+v\nwant\n%+v", after, want)
	}
	if len(before.Sets[0].Members) != 2 || len(before.Ports) != 2 {
		t.Errorf("the state before has changed: %+v", before)
	}
}

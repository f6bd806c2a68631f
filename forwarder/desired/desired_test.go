package desired

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
)

func xsk(name string, takeover bool) *pb.Port {
	return &pb.Port{Name: name, Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: takeover}}}
}

func tun(name, netns string) *pb.Port {
	return &pb.Port{Name: name, Device: "eth0", Netns: netns, Kind: &pb.Port_Tun{Tun: &pb.TunPort{Keep: true}}}
}

func forward(id uint32, port, gateway string) *pb.NextHop {
	return &pb.NextHop{Id: id, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: port, Gateway: gateway}}}
}

func route4to(hop uint32, bits byte, addr ...byte) *pb.RouteColumns {
	return &pb.RouteColumns{Addresses4: addr, Lengths4: []byte{bits}, NextHops4: []uint32{hop}}
}

func route6to(hop uint32, bits byte, addr string) *pb.RouteColumns {
	b := netip.MustParseAddr(addr).As16()
	return &pb.RouteColumns{Addresses6: b[:], Lengths6: []byte{bits}, NextHops6: []uint32{hop}}
}

// example is a state that uses every kind of object.
func example() *pb.Chunk {
	routes := route4to(1, 8, 10, 0, 0, 0)
	six := route6to(2, 32, "2001:db8::")
	routes.Addresses6, routes.Lengths6, routes.NextHops6 = six.Addresses6, six.Lengths6, six.NextHops6
	return &pb.Chunk{
		Ports:     []*pb.Port{xsk("up0", true), xsk("eth9", false), tun("a", "/run/netns/a"), tun("b", "/run/netns/b")},
		Addresses: []*pb.Address{{Port: "up0", Prefix: "172.16.0.1/24"}, {Port: "up0", Prefix: "fd16::1/64"}},
		NextHops: []*pb.NextHop{
			forward(1, "up0", "172.16.0.9"), forward(2, "up0", "fd16::9"),
			{Id: 3, Kind: pb.NextHop_KIND_BLACKHOLE}, {Id: 4, Kind: pb.NextHop_KIND_PUNT}, {Id: 5, Kind: pb.NextHop_KIND_PROHIBIT},
		},
		Routes:   routes,
		Sets:     []*pb.SetMembers{{Set: 1, Name: "role == \"client\"", Joined: members4("10.1.0.0/24", "10.2.0.1/32")}, {Set: 2, Joined: members6("fd00::/64")}, {Set: 3}},
		Programs: append(programParts(1, 1<<20), programParts(2, 300)...),
		Rules:    []*pb.RuleName{{Id: 7, Tier: "default", Policy: "NetworkPolicy/ns/p", Egress: true, Index: 3, Text: "allow TCP to ports 80"}},
		Endpoints: []*pb.Endpoint{
			{Id: "ns/a", Port: "a", Addresses: []string{"10.1.0.2", "fd00::2"}, Policy: pb.Endpoint_POLICY_ENFORCED,
				Egress: []*pb.Stage{{Program4: 1, Program6: 2, UndecidedPasses: true, Name: "default"}, {Program4: 1}}, Ingress: []*pb.Stage{{Program6: 2}},
				StagedEgress: []*pb.Stage{{Name: "first", UndecidedPasses: true}}, StagedIngress: []*pb.Stage{{Program4: 2, Name: "default"}, {Program6: 2}}},
			{Id: "ns/b", Port: "b", Addresses: []string{"10.1.0.3/32"}, Mac: []byte{2, 0, 0, 0, 0, 3}},
		},
		HostPort: &pb.HostPort{Addresses: []string{"10.1.0.1", "fd00::1"}, Routes: []string{"10.1.0.0/24"}, Guarded: []string{"10.1.0.0/24"}},
		Steering: &pb.Steering{Prefixes: []string{"10.1.0.0/24"}, Local: []string{"172.16.0.1"},
			Services: []*pb.Steering_Service{{Protocol: 17, First: 4789, Last: 4789}}},
	}
}

func changeOf(chunks ...*pb.Chunk) *Change {
	c := NewChange()
	for _, m := range chunks {
		c.Add(m)
	}
	return c
}

func start(t testing.TB) *State {
	t.Helper()
	s, faults := Empty().Apply(changeOf(example()), true)
	if faults != nil {
		t.Fatalf("the example is refused: %s", strings.Join(faults, "\n"))
	}
	return s
}

// wire is a state in a form that can be compared.
func wire(t testing.TB, s *State) *State {
	t.Helper()
	chunks := s.Export()
	for i, m := range chunks {
		if n := proto.Size(m); n > MaxChunk {
			t.Errorf("chunk %d of the export has %d bytes, want at most %d", i, n, MaxChunk)
		}
	}
	out, faults := Empty().Apply(changeOf(chunks...), true)
	if faults != nil {
		t.Fatalf("a state's own export is refused: %s", strings.Join(faults, "\n"))
	}
	return out
}

func TestExportGivesTheStateAgain(t *testing.T) {
	s := start(t)
	if got := wire(t, s); !reflect.DeepEqual(got, s) {
		t.Errorf("export and apply give\n%+v\nwant\n%+v", got, s)
	}
}

func TestFaults(t *testing.T) {
	big := &pb.Chunk{RemovedEndpoints: []string{strings.Repeat("x", MaxChunk)}}
	tests := map[string]struct {
		chunk *pb.Chunk
		want  []string
	}{
		"an endpoint on an unknown port": {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "p"}}}, []string{`endpoint/x: port is "p"`}},
		"an address on an unknown port":  {&pb.Chunk{Addresses: []*pb.Address{{Port: "p", Prefix: "10.0.0.1/24"}}}, []string{"address/p/10.0.0.1/24: port is"}},
		"an address on a shared port":    {&pb.Chunk{Addresses: []*pb.Address{{Port: "eth9", Prefix: "fd00::9/64"}}}, []string{"shared with the kernel"}},
		"a next hop to an unknown port":  {&pb.Chunk{NextHops: []*pb.NextHop{forward(9, "p", "")}}, []string{`next-hop/9: port is "p"`}},
		"a route to an unknown next hop": {&pb.Chunk{Routes: route4to(99, 8, 11, 0, 0, 0)}, []string{"route/11.0.0.0/8: next_hop is 99, want a next hop of this state"}},
		"an IPv6 one":                    {&pb.Chunk{Routes: route6to(99, 64, "fd01::")}, []string{"route/fd01::/64: next_hop is 99"}},
		"a next hop removed under a route": {&pb.Chunk{RemovedNextHops: []uint32{1, 2, 3}},
			[]string{"next-hop/1: removed, but 1 routes lead to it", "next-hop/2: removed"}},
		"a port removed under everything": {&pb.Chunk{RemovedPorts: []string{"up0", "a"}},
			[]string{"endpoint/ns/a: port is", "next-hop/1: port is", "next-hop/2: port is", "address/up0/172.16.0.1/24: port is", "address/up0/fd16::1/64"}},
		"two endpoints with one address": {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Addresses: []string{"10.1.0.2", "fd00::2"}}}},
			[]string{"address 10.1.0.2/32 is endpoint ns/a's", "address fd00::2/128 is"}},
		"two new endpoints with one address": {&pb.Chunk{Endpoints: []*pb.Endpoint{
			{Id: "x", Port: "b", Addresses: []string{"10.1.0.9"}}, {Id: "y", Port: "b", Addresses: []string{"10.1.0.9"}},
		}}, []string{"is named twice"}},
		"an unmasked prefix": {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Addresses: []string{"10.1.0.9/24", "fd00::9/64"}}}},
			[]string{"addresses is 10.1.0.9/24, want no bits behind its length: 10.1.0.0/24", "fd00::/64"}},
		"words for a prefix":             {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Addresses: []string{"ten"}}}}, []string{`addresses is "ten"`}},
		"a mapped prefix":                {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Addresses: []string{"::ffff:10.0.0.1"}}}}, []string{"plain IPv4"}},
		"a zone":                         {&pb.Chunk{NextHops: []*pb.NextHop{forward(9, "up0", "fe80::1%eth0")}}, []string{"member gateway is"}},
		"a multicast gateway":            {&pb.Chunk{NextHops: []*pb.NextHop{forward(9, "up0", "ff02::1")}}, []string{"address of one station"}},
		"a MAC of five bytes":            {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Mac: make([]byte, 5)}}}, []string{"mac length is 5"}},
		"a MAC of a group":               {&pb.Chunk{Endpoints: []*pb.Endpoint{{Id: "x", Port: "b", Mac: []byte{1, 0, 0, 0, 0, 0}}}}, []string{"not of a group"}},
		"next hop 0":                     {&pb.Chunk{NextHops: []*pb.NextHop{{Kind: pb.NextHop_KIND_PUNT}}}, []string{"next-hop/0: id is 0"}},
		"next hop 2^24":                  {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 1 << 24, Kind: pb.NextHop_KIND_PUNT}}}, []string{"id is 16777216"}},
		"a next hop without kind":        {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 9}}}, []string{"next-hop/9: kind is 0"}},
		"a next hop of a kind to come":   {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 9, Kind: 77}}}, []string{"next-hop/9: kind is 77"}},
		"a next hop without members":     {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 9, Kind: pb.NextHop_KIND_FORWARD}}}, []string{"members is 0"}},
		"a blackhole with members":       {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 9, Kind: 2, Members: []*pb.NextHop_Member{{Port: "up0"}}}}}, []string{"none for kind blackhole"}},
		"a member twice":                 {&pb.Chunk{NextHops: []*pb.NextHop{{Id: 9, Kind: 1, Members: []*pb.NextHop_Member{{Port: "up0"}, {Port: "up0"}}}}}, []string{"twice"}},
		"columns of unequal length":      {&pb.Chunk{Routes: &pb.RouteColumns{Addresses4: make([]byte, 7), Lengths4: []byte{8, 9}, NextHops4: []uint32{1}}}, []string{"7 bytes of addresses, 2 lengths and 1 next hops"}},
		"IPv6 columns of unequal length": {&pb.Chunk{Routes: &pb.RouteColumns{Addresses6: make([]byte, 16), Lengths6: []byte{8}}}, []string{"routes.6: columns hold"}},
		"next hops of removed routes":    {&pb.Chunk{RemovedRoutes: route4to(1, 8, 10, 0, 0, 0)}, []string{"removed_routes.4: columns hold"}},
		"a length over 32":               {&pb.Chunk{Routes: route4to(1, 33, 10, 0, 0, 0)}, []string{"routes.4: length of 10.0.0.0 is 33, want 0 to 32"}},
		"a length over 128":              {&pb.Chunk{Routes: route6to(1, 129, "fd00::")}, []string{"routes.6: length of fd00:: is 129, want 0 to 128"}},
		"a route with bits too many":     {&pb.Chunk{Routes: route4to(1, 8, 10, 0, 0, 1)}, []string{"routes.4: prefix 10.0.0.1/8 has bits behind its length"}},
		"a mapped route":                 {&pb.Chunk{Routes: route6to(1, 128, "::ffff:1.2.3.4")}, []string{"mapped into IPv6"}},
		"a route twice":                  {&pb.Chunk{Routes: &pb.RouteColumns{Addresses4: make([]byte, 8), Lengths4: []byte{0, 0}, NextHops4: []uint32{3, 4}}}, []string{"set or removed twice"}},
		"a port set and removed":         {&pb.Chunk{Ports: []*pb.Port{xsk("x", true)}, RemovedPorts: []string{"x"}}, []string{"port/x: set or removed twice"}},
		"a port without kind":            {&pb.Chunk{Ports: []*pb.Port{{Name: "x"}}}, []string{"port/x: kind is missing"}},
		"a port without name":            {&pb.Chunk{Ports: []*pb.Port{xsk("", true)}}, []string{"port/: name is", "device is"}},
		"a port that names a path":       {&pb.Chunk{Ports: []*pb.Port{xsk("../x", true)}}, []string{"without blanks or slashes"}},
		"a relative namespace":           {&pb.Chunk{Ports: []*pb.Port{tun("x", "netns/x")}}, []string{"want an absolute path"}},
		"two ports with one device":      {&pb.Chunk{Ports: []*pb.Port{tun("x", "/run/netns/a")}}, []string{`device is "eth0", which port a has`}},
		"a ring of 100":                  {&pb.Chunk{Ports: []*pb.Port{{Name: "x", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{RingSize: 100}}}}}, []string{"xsk.ring_size is 100"}},
		"a mode to come":                 {&pb.Chunk{Ports: []*pb.Port{{Name: "x", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Mode: 9}}}}}, []string{"xsk.mode is 9"}},
		"an MTU of 100":                  {&pb.Chunk{Ports: []*pb.Port{{Name: "x", Mtu: 100, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}}}, []string{"mtu is 100"}},
		"two host addresses":             {&pb.Chunk{HostPort: &pb.HostPort{Addresses: []string{"10.0.0.1", "10.0.0.2"}}}, []string{"at most one per family"}},
		"a host prefix":                  {&pb.Chunk{HostPort: &pb.HostPort{Addresses: []string{"10.0.0.0/24"}}}, []string{"an address, not a prefix"}},
		"a host port on a port's device": {&pb.Chunk{HostPort: &pb.HostPort{Name: "up0"}}, []string{`name is "up0", which is the device of port up0`}},
		"a falling range of a service":   {&pb.Chunk{Steering: &pb.Steering{Services: []*pb.Steering_Service{{Protocol: 6, First: 9, Last: 8}}}}, []string{"steering: service"}},
		"a chunk over its size":          {big, []string{"chunk 1: size is"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			got, faults := s.Apply(changeOf(tt.chunk), false)
			for _, want := range tt.want {
				if !strings.Contains(strings.Join(faults, "\n"), want) {
					t.Errorf("faults are\n%s\nwant %q among them", strings.Join(faults, "\n"), want)
				}
			}
			if got != s || !reflect.DeepEqual(s, start(t)) {
				t.Error("a commit with faults changed the state")
			}
		})
	}
}

func TestDeltasMerge(t *testing.T) {
	tests := map[string]struct {
		chunks []*pb.Chunk
		check  func(*State) bool
	}{
		"a port and all that names it go": {[]*pb.Chunk{{
			RemovedPorts: []string{"up0"}, RemovedAddresses: example().Addresses, RemovedNextHops: []uint32{1, 2},
			RemovedRoutes: &pb.RouteColumns{Addresses4: []byte{10, 0, 0, 0}, Lengths4: []byte{8},
				Addresses6: route6to(0, 32, "2001:db8::").Addresses6, Lengths6: []byte{32}},
		}}, func(s *State) bool {
			return len(s.Ports) == 3 && len(s.Addresses) == 0 && len(s.NextHops) == 3 && s.Routes.Len() == 0
		}},
		"a next hop goes in the commit that moves its routes": {[]*pb.Chunk{
			{RemovedNextHops: []uint32{1}}, {Routes: route4to(3, 8, 10, 0, 0, 0)},
		}, func(s *State) bool {
			hop, _ := s.Routes.Get(netip.MustParsePrefix("10.0.0.0/8"))
			return hop == 3 && s.NextHops[1] == nil
		}},
		"an address moves from one endpoint to another": {[]*pb.Chunk{{Endpoints: []*pb.Endpoint{
			{Id: "ns/b", Port: "b", Addresses: []string{"10.1.0.2"}}, {Id: "ns/a", Port: "a", Addresses: []string{"10.1.0.3"}},
		}}}, func(s *State) bool {
			return s.owners[netip.MustParsePrefix("10.1.0.2/32")] == "ns/b" && len(s.owners) == 2
		}},
		"an endpoint's address is free once it is gone": {[]*pb.Chunk{{
			RemovedEndpoints: []string{"ns/a"}, Endpoints: []*pb.Endpoint{{Id: "new", Port: "a", Addresses: []string{"10.1.0.2"}}},
		}}, func(s *State) bool { return s.Endpoints["ns/a"] == nil && s.Endpoints["new"] != nil }},
		"two ports swap their devices": {[]*pb.Chunk{{Ports: []*pb.Port{tun("a", "/run/netns/b"), tun("b", "/run/netns/a")}}},
			func(s *State) bool { return s.devices[device{"/run/netns/a", "eth0"}] == "b" }},
		"removing what is not there is nothing": {[]*pb.Chunk{{
			RemovedPorts: []string{"x"}, RemovedNextHops: []uint32{77}, RemovedEndpoints: []string{"x"},
			RemovedRoutes: &pb.RouteColumns{Addresses4: []byte{9, 0, 0, 0}, Lengths4: []byte{8}},
		}}, func(s *State) bool { return len(s.Ports) == 4 && s.Routes.Len() == 2 }},
		"the host port goes": {[]*pb.Chunk{{RemovedHostPort: true}}, func(s *State) bool { return s.Host == nil }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, faults := start(t).Apply(changeOf(tt.chunks...), false)
			if faults != nil {
				t.Fatalf("refused: %s", strings.Join(faults, "\n"))
			}
			if !tt.check(s) {
				t.Errorf("state is %+v", s)
			}
			if got := wire(t, s); !reflect.DeepEqual(got, s) {
				t.Errorf("the indexes beside the objects are\n%+v\nwant\n%+v", s, got)
			}
		})
	}
}

func TestManyFaultsAreCounted(t *testing.T) {
	m := &pb.Chunk{Routes: &pb.RouteColumns{}}
	for i := range 1000 {
		m.Routes.Addresses4 = append(m.Routes.Addresses4, byte(i>>8), byte(i), 0, 0)
		m.Routes.Lengths4, m.Routes.NextHops4 = append(m.Routes.Lengths4, 16), append(m.Routes.NextHops4, 500)
	}
	_, faults := start(t).Apply(changeOf(m), false)
	if len(faults) != maxFaults+1 || faults[maxFaults] != "and 900 more" {
		t.Errorf("%d faults are told, the last %q", len(faults), faults[len(faults)-1])
	}
}

// FuzzChunk sends any bytes as a delta and as a snapshot. They must be refused
// and change nothing, or give a state that agrees with its own export.
func FuzzChunk(f *testing.F) {
	b, err := proto.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, b[:len(b)/2], true)
	f.Add([]byte{}, b[:40], false)
	f.Fuzz(func(t *testing.T, one, two []byte, snapshot bool) {
		c := NewChange()
		for _, raw := range [][]byte{one, two} {
			var m pb.Chunk
			if proto.Unmarshal(raw, &m) == nil {
				c.Add(&m)
			}
		}
		s := start(t)
		got, faults := s.Apply(c, snapshot)
		if faults != nil {
			if got != s || !reflect.DeepEqual(s, start(t)) {
				t.Fatalf("refused, and yet the state changed: %v", faults)
			}
			return
		}
		if again := wire(t, got); !same(again, got) {
			t.Fatalf("state\n%+v\nexports to\n%+v", got, again)
		}
	})
}

// same compares states, taking an empty list for none.
func same(a, b *State) bool {
	return reflect.DeepEqual(a.owners, b.owners) && reflect.DeepEqual(a.devices, b.devices) && reflect.DeepEqual(a.routed, b.routed) &&
		reflect.DeepEqual(a.Routes, b.Routes) && reflect.DeepEqual(a.Ports, b.Ports) && reflect.DeepEqual(a.NextHops, b.NextHops) &&
		reflect.DeepEqual(a.Endpoints, b.Endpoints) && reflect.DeepEqual(a.Addresses, b.Addresses) && a.Host.Equal(b.Host)
}

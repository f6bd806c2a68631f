package paths

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"

	pb "margay.dev/margay/api/dataplane/v1"
)

// bench is a writer with two owned Ethernet ports, a shared one and a TUN.
type bench struct {
	*Writer
	t     *testing.T
	clock time.Time
	state *desired.State
	ports map[string]Port
}

var macs = map[string]desired.MAC{"e1": {2, 1}, "e2": {2, 2}, "nic": {2, 3}}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, clock: time.Unix(1000, 0), state: desired.Empty()}
	b.Writer = New(fib.New(), func() time.Time { return b.clock })
	b.ports = map[string]Port{
		"e1":     {Name: "e1", Index: 1, L2: true, Owned: true, MTU: 1500, MAC: macs["e1"], Up: true},
		"e2":     {Name: "e2", Index: 2, L2: true, Owned: true, MTU: 1400, MAC: macs["e2"], Up: true},
		"nic":    {Name: "nic", Index: 3, L2: true, MTU: 1500, MAC: macs["nic"], Up: true},
		"t1":     {Name: "t1", Index: 4, Owned: true, MTU: 1500, Up: true},
		HostName: {Name: HostName, Index: 5, Owned: true, MTU: 1500, Up: true},
	}
	b.apply(&pb.Chunk{Ports: []*pb.Port{
		{Name: "e1", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}}, {Name: "e2", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}},
		{Name: "nic", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{}}}, {Name: "t1", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}},
	}})
	return b
}

// apply makes a delta and converges to it as the plane does.
func (b *bench) apply(chunks ...*pb.Chunk) {
	b.t.Helper()
	c := desired.NewChange()
	for _, m := range chunks {
		c.Add(m)
	}
	s, faults := b.state.Apply(c, false)
	if faults != nil {
		b.t.Fatalf("refused: %v", faults)
	}
	b.state = s
	changed := c.Routes()
	if err := b.Converge(Want{State: s, Ports: b.ports, Changed: &changed}); err != nil {
		b.t.Fatal(err)
	}
	b.Quiesced()
}

// at is the adjacency that packets to addr take.
func (b *bench) at(addr string) fib.Adjacency {
	b.t.Helper()
	r, ok := b.Covering(netip.MustParseAddr(addr))
	if !ok {
		return fib.Adjacency{}
	}
	v := b.fib.View()
	return *v.Adjacency(v.Resolve(r.Hop, 0))
}

func (b *bench) wantKind(addr string, kind fib.Kind, port string) fib.Adjacency {
	b.t.Helper()
	a := b.at(addr)
	if a.Kind != kind || a.Port != b.ports[port].Index {
		b.t.Errorf("packets to %s: %v by port %d, want %v by %s", addr, a.Kind, a.Port, kind, port)
	}
	return a
}

func (b *bench) wantMAC(addr string, dst desired.MAC, port string, etherType uint16) {
	b.t.Helper()
	a := b.wantKind(addr, fib.Rewrite, port)
	var want fib.Adjacency
	header(&want, dst, macs[port], etherType == etherIPv6)
	if a.Header != want.Header || a.HeaderLen != want.HeaderLen {
		b.t.Errorf("packets to %s get the header % x, want % x", addr, a.Header[:a.HeaderLen], want.Header[:want.HeaderLen])
	}
}

func endpoint(id, port string, mac []byte, addrs ...string) *pb.Chunk {
	return &pb.Chunk{Endpoints: []*pb.Endpoint{{Id: id, Port: port, Mac: mac, Addresses: addrs, Policy: pb.Endpoint_POLICY_OFF}}}
}

func route(hop uint32, prefix string) *pb.RouteColumns {
	p := netip.MustParsePrefix(prefix)
	if p.Addr().Is4() {
		return &pb.RouteColumns{Addresses4: p.Addr().AsSlice(), Lengths4: []byte{byte(p.Bits())}, NextHops4: []uint32{hop}}
	}
	return &pb.RouteColumns{Addresses6: p.Addr().AsSlice(), Lengths6: []byte{byte(p.Bits())}, NextHops6: []uint32{hop}}
}

func TestEndpoints(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "10.0.0.2", "IPv6": "fd00::2"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.apply(endpoint("x", "t1", nil, addr))
			if a := b.wantKind(addr, fib.Rewrite, "t1"); a.HeaderLen != 0 || a.MTU != 1500 {
				t.Errorf("a TUN's adjacency is %+v, want one without a header", a)
			}
			b.apply(endpoint("x", "e1", []byte{2, 0, 0, 0, 0, 9}, addr))
			ether := map[string]uint16{"IPv4": etherIPv4, "IPv6": etherIPv6}[name]
			b.wantMAC(addr, desired.MAC{2, 0, 0, 0, 0, 9}, "e1", ether)
			b.apply(endpoint("x", "e2", nil, addr))
			b.wantKind(addr, fib.Incomplete, "e2")
			if !b.Reached("e2", netip.MustParseAddr(addr), desired.MAC{2, 8}, FromGraph) {
				t.Error("the first answer of a neighbour changes nothing")
			}
			b.wantMAC(addr, desired.MAC{2, 8}, "e2", ether)
			if b.Reached("e2", netip.MustParseAddr(addr), desired.MAC{2, 8}, FromGraph) {
				t.Error("the same answer again changes something")
			}
			b.apply(&pb.Chunk{RemovedEndpoints: []string{"x"}})
			b.wantKind(addr, fib.Drop, "")
		})
	}
}

func TestPrecedence(t *testing.T) {
	b := newBench(t)
	b.apply(&pb.Chunk{
		NextHops:  []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_BLACKHOLE}, {Id: 2, Kind: pb.NextHop_KIND_PROHIBIT}},
		Routes:    route(1, "10.0.0.2/32"),
		Addresses: []*pb.Address{{Port: "e1", Prefix: "10.5.0.1/24"}},
	}, endpoint("x", "t1", nil, "10.0.0.2"))
	b.wantKind("10.0.0.2", fib.Rewrite, "t1")
	b.wantKind("10.5.0.1", fib.Local, "e1")
	b.wantKind("10.5.0.9", fib.Attached, "e1")
	b.apply(&pb.Chunk{RemovedEndpoints: []string{"x"}})
	b.wantKind("10.0.0.2", fib.Blackhole, "") // the route was there all the time
	b.apply(&pb.Chunk{Routes: route(2, "10.5.0.0/24")})
	b.wantKind("10.5.0.9", fib.Prohibit, "")
	b.apply(&pb.Chunk{RemovedRoutes: &pb.RouteColumns{Addresses4: []byte{10, 5, 0, 0}, Lengths4: []byte{24}}})
	b.wantKind("10.5.0.9", fib.Attached, "e1")
}

func TestLearnedNeighbours(t *testing.T) {
	for name, f := range map[string]struct{ prefix, addr, outside string }{
		"IPv4": {"10.5.0.1/24", "10.5.0.9", "10.6.0.9"}, "IPv6": {"fd05::1/64", "fd05::9", "fd06::9"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			addr := netip.MustParseAddr(f.addr)
			b.apply(&pb.Chunk{Addresses: []*pb.Address{{Port: "e1", Prefix: f.prefix}}})
			if b.Reached("e1", netip.MustParseAddr(f.outside), desired.MAC{2, 7}, FromGraph) {
				t.Error("a neighbour outside of every prefix on link was learnt")
			}
			if b.Reached("e2", addr, desired.MAC{2, 7}, FromGraph) {
				t.Error("a neighbour was learnt on a port where its prefix is not on link")
			}
			if !b.Reached("e1", addr, desired.MAC{2, 7}, FromGraph) {
				t.Fatal("a neighbour on link was not learnt")
			}
			ether := map[string]uint16{"IPv4": etherIPv4, "IPv6": etherIPv6}[name]
			b.wantMAC(f.addr, desired.MAC{2, 7}, "e1", ether)
			b.apply() // a pass that nothing asked for leaves it
			b.wantMAC(f.addr, desired.MAC{2, 7}, "e1", ether)
			b.clock = b.clock.Add(learnedAge + time.Second)
			b.Age()
			b.wantKind(f.addr, fib.Attached, "e1")
			b.Reached("e1", addr, desired.MAC{2, 7}, FromGraph)
			b.apply(&pb.Chunk{RemovedAddresses: []*pb.Address{{Port: "e1", Prefix: f.prefix}}})
			b.wantKind(f.addr, fib.Drop, "")
			if n := len(b.ways) + len(b.hops) + len(b.neigh) + len(b.glean) + b.fib.Len(); n != 0 {
				t.Errorf("%d things are left of an empty state", n)
			}
		})
	}
}

func TestLearnedNeighboursAreBounded(t *testing.T) {
	b := newBench(t)
	b.apply(&pb.Chunk{Addresses: []*pb.Address{{Port: "e1", Prefix: "fd05::1/64"}}})
	base := netip.MustParseAddr("fd05::1:0").As16()
	for i := range MaxLearned + 100 {
		base[14], base[15] = byte(i>>8), byte(i)
		b.Reached("e1", netip.AddrFrom16(base), desired.MAC{2, 7}, FromGraph)
	}
	if len(b.glean) != MaxLearned {
		t.Errorf("%d neighbours learnt on a port, want at most %d", len(b.glean), MaxLearned)
	}
}

func (b *bench) gateways() {
	members := []*pb.NextHop_Member{{Port: "e1", Gateway: "10.5.0.9"}, {Port: "nic", Gateway: "10.6.0.9"}}
	b.apply(&pb.Chunk{NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: members}}, Routes: route(1, "0.0.0.0/0")})
}

// spread counts the members that flows to addr really take.
func (b *bench) spread(addr string) map[uint16]int {
	r, _ := b.Covering(netip.MustParseAddr(addr))
	v := b.fib.View()
	out := map[uint16]int{}
	for hash := range uint32(1000) {
		out[v.Adjacency(v.Resolve(r.Hop, hash<<20^hash)).Port]++
	}
	return out
}

func TestMembersThatFailLeaveTheirGroup(t *testing.T) {
	b := newBench(t)
	b.gateways()
	b.Reached("e1", netip.MustParseAddr("10.5.0.9"), desired.MAC{2, 7}, FromGraph)
	b.Reached("nic", netip.MustParseAddr("10.6.0.9"), desired.MAC{2, 8}, FromKernel)
	want := func(what string, ports ...uint16) {
		t.Helper()
		got := b.spread("8.8.8.8")
		for _, p := range ports {
			if got[p] == 0 {
				t.Errorf("%s: flows go by %v, want some by port %d", what, got, p)
			}
		}
		if len(got) != len(ports) {
			t.Errorf("%s: flows go by %v, want ports %v", what, got, ports)
		}
	}
	want("both are well", 1, 3)
	b.Lost("nic", netip.MustParseAddr("10.6.0.9"))
	want("the kernel lost one", 1)
	b.Reached("nic", netip.MustParseAddr("10.6.0.9"), desired.MAC{2, 8}, FromKernel)
	want("it is back", 1, 3)
	down := b.ports["e1"]
	down.Up = false
	b.SetPort(down)
	want("a port went down", 3)
	b.SetPort(b.ports["e1"])
	want("it came up", 1, 3)

	b.Forget("e1")
	b.Needed("e1", netip.MustParseAddr("10.5.0.9"))
	b.clock = b.clock.Add(answerTime + time.Second)
	b.Age()
	want("a neighbour on a port of ours does not answer", 3)
	b.clock = b.clock.Add(retryTime + time.Second)
	b.Age()
	want("it is asked again", 1, 3)
}

func TestPortsChangeInPlace(t *testing.T) {
	b := newBench(t)
	b.apply(endpoint("x", "e1", []byte{2, 0, 0, 0, 0, 9}, "10.0.0.2"))
	changed := b.ports["e1"]
	changed.MAC, changed.MTU = desired.MAC{2, 0xee}, 900
	b.SetPort(changed)
	a := b.at("10.0.0.2")
	if a.MTU != 900 || desired.MAC(a.Header[6:12]) != changed.MAC {
		t.Errorf("adjacency is %+v, want MTU 900 and the new source", a)
	}
}

// TestChurn makes random deltas and compares every decision with a plain model:
// the list of objects, looked through from the longest prefix.
func TestChurn(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(1, 2))
	kinds := []pb.NextHop_Kind{pb.NextHop_KIND_BLACKHOLE, pb.NextHop_KIND_PROHIBIT, pb.NextHop_KIND_PUNT, pb.NextHop_KIND_FORWARD}
	for round := range 400 {
		m := &pb.Chunk{}
		id := uint32(r.IntN(6) + 1)
		h := &pb.NextHop{Id: id, Kind: kinds[r.IntN(len(kinds))]}
		if h.Kind == pb.NextHop_KIND_FORWARD {
			h.Members = []*pb.NextHop_Member{{Port: []string{"t1", "e1", "nic"}[r.IntN(3)], Gateway: "10.5.0.9"}}
		}
		m.NextHops = append(m.NextHops, h)
		switch e := fmt.Sprint("ep", r.IntN(8)); r.IntN(4) {
		case 0:
			m.Routes = route(id, fmt.Sprintf("10.%d.0.0/%d", r.IntN(4), 16))
		case 1:
			m.Routes = route(id, fmt.Sprintf("fd0%d::/16", r.IntN(4)))
		case 2:
			m.Endpoints = []*pb.Endpoint{{Id: e, Port: "t1", Addresses: []string{"10.1.0." + e[2:], "fd01::" + e[2:]}}}
		case 3:
			m.RemovedEndpoints = []string{e}
		}
		b.apply(m)
		for i := range 8 {
			for _, addr := range []string{fmt.Sprintf("10.%d.0.%d", i%4, i), fmt.Sprintf("fd0%d::%d", i%4, i)} {
				a := b.at(addr)
				if want := b.model(netip.MustParseAddr(addr)); a.Kind != want {
					t.Fatalf("round %d: packets to %s: %v, want %v", round, addr, a.Kind, want)
				}
			}
		}
	}
	if b.adjIDs.next > 64 || b.hopIDs.next > 64 {
		t.Errorf("%d adjacencies and %d next hops were handed out: ids are not used again", b.adjIDs.next, b.hopIDs.next)
	}
}

func (b *bench) model(addr netip.Addr) fib.Kind {
	for _, e := range b.state.Endpoints {
		for _, p := range e.Addresses {
			if p.Contains(addr) {
				return fib.Rewrite
			}
		}
	}
	for p, id := range b.state.Routes.All() { // they do not overlap
		if !p.Contains(addr) {
			continue
		}
		switch h := b.state.NextHops[id]; h.Kind {
		case desired.Blackhole:
			return fib.Blackhole
		case desired.Prohibit:
			return fib.Prohibit
		case desired.Punt:
			return fib.Punt
		default:
			if h.Members[0].Port == "t1" {
				return fib.Rewrite
			}
			return fib.Incomplete
		}
	}
	return fib.Drop
}

// In every pause of a large change, what is routed before and after is routed,
// and what is heard of neighbours meanwhile counts.
func TestNothingIsMissingInAPause(t *testing.T) {
	b := newBench(t)
	many := func(hop uint32, from, to int) *pb.Chunk {
		r := &pb.RouteColumns{}
		for i := from; i < to; i++ {
			r.Addresses4 = append(r.Addresses4, 20, byte(i>>8), byte(i), 0)
			r.Addresses6 = append(r.Addresses6, append([]byte{0xfd, 1, byte(i >> 8), byte(i)}, make([]byte, 12)...)...)
			r.Lengths4, r.Lengths6 = append(r.Lengths4, 24), append(r.Lengths6, 64)
			r.NextHops4, r.NextHops6 = append(r.NextHops4, hop), append(r.NextHops6, hop)
		}
		return &pb.Chunk{Routes: r, NextHops: []*pb.NextHop{{Id: hop, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{
			{Port: "e1", Gateway: "10.5.0.7"},
		}}}}
	}
	both := []string{"20.39.16.1", "fd01:2710::1"} // route 10,000 of each family
	b.apply(many(1, 0, 20_000))
	c := desired.NewChange()
	c.Add(&pb.Chunk{Ports: portsOf(b.state), Addresses: []*pb.Address{{Port: "e1", Prefix: "10.5.0.1/24"}}})
	c.Add(many(2, 10_000, 30_000))
	s, faults := b.state.Apply(c, true)
	if faults != nil {
		t.Fatal(faults)
	}
	pauses := 0
	pause := func() {
		for _, addr := range both {
			if a := b.at(addr); a.Kind != fib.Rewrite && a.Kind != fib.Incomplete {
				t.Fatalf("in pause %d packets to %s are %v", pauses, addr, a.Kind)
			}
		}
		pauses++
		b.Reached("e1", netip.MustParseAddr("10.5.0.7"), desired.MAC{2, byte(pauses)}, FromGraph)
		b.Reached("e1", netip.AddrFrom4([4]byte{10, 5, 0, byte(20 + pauses)}), desired.MAC{2, 9}, FromGraph)
	}
	if err := b.Converge(Want{State: s, Ports: b.ports, Pause: pause}); err != nil {
		t.Fatal(err)
	}
	b.Quiesced()
	if want := 100_000 / batch; pauses < want-1 {
		t.Errorf("there were %d pauses, want about %d", pauses, want)
	}
	b.wantKind("20.0.0.1", fib.Drop, "")
	b.wantKind("fd01::1", fib.Drop, "")
	b.wantMAC("20.117.47.1", desired.MAC{2, byte(pauses)}, "e1", etherIPv4)
	b.wantMAC("fd01:752f::1", desired.MAC{2, byte(pauses)}, "e1", etherIPv6)
	for i := range pauses {
		b.wantMAC(fmt.Sprintf("10.5.0.%d", 21+i), desired.MAC{2, 9}, "e1", etherIPv4)
	}
}

// portsOf is the ports of a state as a client would send them again.
func portsOf(s *desired.State) (ports []*pb.Port) {
	for _, m := range s.Export() {
		ports = append(ports, m.Ports...)
	}
	return ports
}

package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
)

// scene is a node with four pods, three of them with policy, and an uplink:
//
//	p1 ┤      ├ p3
//	p2 ┤ node ├ p4 (policy is off)
//	   └─ up ─┘ 10.2.0.0/16, fd02::/32
//
// On the uplink the node itself may have policy for what it forwards.
type scene struct {
	members map[uint32][]netip.Addr
	stages  [5][2][]stage // of p1 to p4, and of the host: egress, ingress
	hosted  bool
	next    uint32 // id of a rule
}

// stage is a tier's rules for both families; ids are shared.
type stage struct {
	rules  [2][]classifier.Rule
	passes bool
	absent bool // has no program
}

func addr(ipv6 bool, n, h int) netip.Addr {
	if ipv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: byte(n), 15: byte(h)})
	}
	return netip.AddrFrom4([4]byte{10, byte(n), 0, byte(h)})
}

// The nets of the scene, by their second byte.
const (
	netPods = 1 + iota
	netUp
	netBlackhole
	netProhibited
	netNowhere
)

func newScene(r *rand.Rand) *scene {
	s := &scene{members: map[uint32][]netip.Addr{}, hosted: r.IntN(2) == 0, next: 1}
	for set := uint32(1); set <= 3; set++ {
		s.members[set] = nil
		for i := 1; i <= 5; i++ {
			if r.IntN(2) == 0 {
				n := netPods
				if i == 5 {
					n = netUp
				}
				s.members[set] = append(s.members[set], addr(false, n, i), addr(true, n, i))
			}
		}
	}
	for _, i := range []int{0, 1, 2, 4} {
		for d := range 2 {
			for range r.IntN(4) {
				s.stages[i][d] = append(s.stages[i][d], s.stage(r))
			}
		}
	}
	return s
}

func (s *scene) stage(r *rand.Rand) stage {
	out := stage{passes: r.IntN(3) > 0, absent: r.IntN(12) == 0}
	plain := r.IntN(3) == 0
	for range r.IntN(5) {
		four := classifier.Rule{ID: s.next, Action: []classifier.Action{classifier.Allow, classifier.Allow, classifier.Allow, classifier.Deny, classifier.Pass, classifier.Log}[r.IntN(6)]}
		s.next++
		if n := []uint16{0, 0, 6, 6, 17, 17, 1}[r.IntN(7)]; n != 0 {
			four.Protocols = []classifier.Range{{First: n, Last: n}}
		}
		if n := []uint16{0, 0, 80, 443, 1000}[r.IntN(5)]; n != 0 && (four.Protocols == nil || four.Protocols[0].First != 1) {
			four.Destination.Ports = []classifier.Range{{First: n, Last: n + n/1000*50}}
		}
		six := four
		if four.Protocols != nil && four.Protocols[0].First == 1 {
			six.Protocols = []classifier.Range{{First: 58, Last: 58}}
		}
		for i, at := range [][2]*classifier.Side{{&four.Source, &six.Source}, {&four.Destination, &six.Destination}} {
			set := classifier.SetID(1 + r.IntN(3))
			switch {
			case plain && r.IntN(4) == 0: // IPv4 addresses as they are
				at[0].Nets = []netip.Prefix{netip.PrefixFrom(addr(false, 1+i, 0), 16)}
			case plain:
			case r.IntN(3) == 0:
				at[0].Sets = []classifier.SetID{set}
				at[1].Sets = at[0].Sets
			case r.IntN(5) == 0:
				at[0].NotSets = []classifier.SetID{set}
				at[1].NotSets = at[0].NotSets
			}
		}
		out.rules[0], out.rules[1] = append(out.rules[0], four), append(out.rules[1], six)
	}
	return out
}

// bench is the scene in a dataplane with ports in memory.
type bench struct {
	*planetest.Bench
	t       *testing.T
	program uint32
	port    uint16 // of the next packet's source
}

func newBench(t *testing.T) *bench {
	return &bench{Bench: planetest.New(t, plane.Config{Workers: 1, Spin: time.Millisecond, FlowBytes: 2 << 20}), t: t, port: 20000}
}

// apply puts the scene in force.
func (b *bench) apply(s *scene) {
	b.t.Helper()
	m := &pb.Chunk{Routes: &pb.RouteColumns{}, NextHops: []*pb.NextHop{
		{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: "up"}}},
		{Id: 2, Kind: pb.NextHop_KIND_BLACKHOLE}, {Id: 3, Kind: pb.NextHop_KIND_PROHIBIT},
	}}
	for i, name := range []string{"p1", "p2", "p3", "p4", "up"} {
		m.Ports = append(m.Ports, &pb.Port{Name: name, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}})
		if name == "up" {
			if s.hosted {
				m.Endpoints = append(m.Endpoints, &pb.Endpoint{Id: "host/5", Port: name, Host: true, Policy: pb.Endpoint_POLICY_ENFORCED,
					Egress: b.stages(m, s.stages[i][0]), Ingress: b.stages(m, s.stages[i][1])})
			}
			continue
		}
		e := &pb.Endpoint{Id: "pod/ns/" + name, Port: name, Addresses: []string{addr(false, netPods, i+1).String(), addr(true, netPods, i+1).String()}, Policy: pb.Endpoint_POLICY_OFF}
		if i < 3 {
			e.Policy = pb.Endpoint_POLICY_ENFORCED
			e.Egress, e.Ingress = b.stages(m, s.stages[i][0]), b.stages(m, s.stages[i][1])
		}
		m.Endpoints = append(m.Endpoints, e)
	}
	for hop, n := range []int{netUp, netBlackhole, netProhibited} {
		four, six := addr(false, n, 0).As4(), addr(true, n, 0).As16()
		m.Routes.Addresses4, m.Routes.Lengths4 = append(m.Routes.Addresses4, four[:]...), append(m.Routes.Lengths4, 16)
		m.Routes.Addresses6, m.Routes.Lengths6 = append(m.Routes.Addresses6, six[:]...), append(m.Routes.Lengths6, 32)
		m.Routes.NextHops4, m.Routes.NextHops6 = append(m.Routes.NextHops4, uint32(hop+1)), append(m.Routes.NextHops6, uint32(hop+1))
	}
	for set, addrs := range s.members {
		m.Sets = append(m.Sets, &pb.SetMembers{Set: set, Name: fmt.Sprintf("role == %q", string(rune('a'+set))), Joined: columns(addrs)})
	}
	b.Snapshot(m)
}

func columns(addrs []netip.Addr) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, a := range addrs {
		if a.Is4() {
			c.Addresses4, c.Lengths4 = append(c.Addresses4, a.AsSlice()...), append(c.Lengths4, 32)
		} else {
			c.Addresses6, c.Lengths6 = append(c.Addresses6, a.AsSlice()...), append(c.Lengths6, 128)
		}
	}
	return c
}

func (b *bench) stages(m *pb.Chunk, list []stage) (out []*pb.Stage) {
	for i, s := range list {
		to := &pb.Stage{UndecidedPasses: s.passes, Name: fmt.Sprint("tier", i)}
		out = append(out, to)
		if s.absent {
			continue
		}
		for f, at := range []*uint32{&to.Program4, &to.Program6} {
			c, err := classifier.Compile(s.rules[f], classifier.Options{Editable: true})
			if err != nil {
				b.t.Fatal(err)
			}
			b.program++
			*at = b.program
			m.Programs = append(m.Programs, &pb.ProgramPart{Id: b.program, Size: uint32(len(c.Image)), Image: c.Image})
		}
		for j, r := range s.rules[0] {
			if !slices.ContainsFunc(m.Rules, func(n *pb.RuleName) bool { return n.Id == r.ID }) {
				m.Rules = append(m.Rules, &pb.RuleName{Id: r.ID, Tier: to.Name, Policy: "NetworkPolicy/ns/p", Index: uint32(j)})
			}
		}
	}
	return out
}

// question is a packet to be: from a port of the scene, to an address.
type question struct {
	from     string
	src, dst netip.Addr
	proto    uint8
	dport    uint16
}

// packet is the first packet of a new connection, and what is asked about it.
func (b *bench) packet(q question) ([]byte, *pb.ExplainRequest) {
	b.port++
	ask := &pb.ExplainRequest{Source: q.src.String(), Destination: q.dst.String(), Protocol: uint32(q.proto), SourcePort: uint32(b.port), DestinationPort: uint32(q.dport)}
	var l gopacket.SerializableLayer
	switch q.proto {
	case 6:
		l = &layers.TCP{SrcPort: layers.TCPPort(b.port), DstPort: layers.TCPPort(q.dport), Seq: 9, SYN: true, Window: 1000}
	case 17:
		l = &layers.UDP{SrcPort: layers.UDPPort(b.port), DstPort: layers.UDPPort(q.dport)}
	default:
		ask.Echo, ask.Protocol, ask.SourcePort, ask.DestinationPort = true, 0, 0, 0
		p := graphtest.Echo(q.src, q.dst, 4)
		at := 24
		if q.src.Is6() {
			at = 44
		}
		p[at], p[at+1] = byte(b.port>>8), byte(b.port)
		return p, ask
	}
	return graphtest.Frame(graphtest.IP(q.src, q.dst, layers.IPProtocol(q.proto)), l, graphtest.Payload(4)), ask
}

// send sends a packet and says what became of it: the reason of its drop, or the
// port that it left by.
func (b *bench) send(from string, p []byte) string {
	b.t.Helper()
	before := b.Engine().Total()
	b.Port(from).Inject(0, p)
	var after graph.Counters
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		if after = b.Engine().Total(); after.Rx > before.Rx && after.In() == after.Out() {
			break
		}
		if time.Now().After(end) {
			b.t.Fatalf("nothing became of a packet: %+v", after)
		}
	}
	out := ""
	for _, name := range []string{"p1", "p2", "p3", "p4", "up"} {
		if len(b.Port(name).Collect(0)) > 0 {
			out = name
		}
	}
	for i := range after.Drops {
		if after.Drops[i] != before.Drops[i] {
			return graph.Reason(i).String()
		}
	}
	return out
}

// explain asks about one packet.
func (b *bench) explain(ask *pb.ExplainRequest) *pb.Explanation {
	b.t.Helper()
	list, err := Ask(b.t.Context(), b.Plane, ask)
	if err != nil || len(list.Explanations) != 1 {
		b.t.Fatalf("ask %v: %v, %v", ask, list, err)
	}
	return list.Explanations[0]
}

func randomQuestion(r *rand.Rand) question {
	ipv6 := r.IntN(2) == 0
	from := 1 + r.IntN(5)
	q := question{from: fmt.Sprint("p", from), src: addr(ipv6, netPods, from), dst: addr(ipv6, netPods, 1+r.IntN(4)),
		proto: []uint8{6, 6, 17, 1}[r.IntN(4)], dport: []uint16{80, 81, 443, 1020, 4789}[r.IntN(5)]}
	if from == 5 {
		q.from, q.src = "up", addr(ipv6, netUp, 5)
	}
	switch r.IntN(12) {
	case 0, 1:
		q.dst = addr(ipv6, netUp, 5)
	case 2:
		q.dst = addr(ipv6, netBlackhole+r.IntN(3), 9)
	}
	return q
}

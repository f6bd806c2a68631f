package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/tap"
)

const (
	mostTraced  = 1000
	longestTime = 10 * time.Minute

	traceSnap   = 128                   // bytes of a packet at each step: its headers
	stepsOfOne  = 16                    // that a packet may have between two looks at the rings
	refusalTime = 20 * time.Millisecond // in which a queue refuses what it was offered
)

// Trace follows packets from stop to stop.
func (s *Server) Trace(in *pb.TraceRequest, out grpc.ServerStreamingServer[pb.TracedPacket]) error {
	if err := within("count", uint64(in.GetCount()), 1, mostTraced); err != nil {
		return err
	}
	if err := within("timeout_ms", uint64(in.GetTimeoutMs()), 1, uint64(longestTime.Milliseconds())); err != nil {
		return err
	}
	count := int(in.GetCount())
	room := stepsOfOne * (count + graph.VectorMax)
	w, err := s.open(out.Context(), in.GetFilter(), tap.Want{
		Follow: true, Made: in.GetMade(), Count: count, Snap: traceSnap, Events: room, Bytes: room * traceSnap,
	})
	if err != nil {
		return err
	}
	t := &tracer{server: s, watch: w, names: portNames{server: s}, want: count, open: map[uint32]*story{}}
	return watch(out, w, time.Duration(in.GetTimeoutMs())*time.Millisecond, t)
}

// tracer puts the events of followed packets together.
type tracer struct {
	server *Server
	watch  *tap.Watch
	names  portNames
	want   int
	told   int
	open   map[uint32]*story
}

// story is one packet's way so far.
type story struct {
	packet *pb.TracedPacket
	sent   time.Time // when we saw that it was offered to its port
	over   bool
}

func (t *tracer) take(e *tap.Event, data []byte) {
	one := t.open[e.Packet]
	if one == nil {
		one = &story{packet: &pb.TracedPacket{Packet: e.Packet}}
		t.open[e.Packet] = one
	}
	step := t.step(e, data)
	one.packet.Steps = append(one.packet.Steps, step)
	switch {
	case e.Kind == tap.Dropped:
		one.packet.End, one.over = pb.TracedPacket_END_DROPPED, true
	case e.Kind == tap.Transmitted:
		one.packet.End, one.sent = pb.TracedPacket_END_SENT, time.Now()
	case e.Kind == tap.Visited && e.Edge == graph.Gone && step.Edge == stepConsumed:
		one.packet.End, one.over = pb.TracedPacket_END_CONSUMED, true
	}
}

// ready gives the packets whose way has ended. One that was offered to a port may
// still be refused by it.
func (t *tracer) ready() (out []*pb.TracedPacket) {
	for _, one := range t.open {
		if one.over || !one.sent.IsZero() && time.Since(one.sent) > refusalTime {
			out = append(out, t.close(one))
		}
	}
	return inOrder(out)
}

// rest gives those that are still under way.
func (t *tracer) rest() (out []*pb.TracedPacket) {
	for _, one := range t.open {
		out = append(out, t.close(one))
	}
	return inOrder(out)
}

func (t *tracer) close(one *story) *pb.TracedPacket {
	delete(t.open, one.packet.Packet)
	t.told++
	one.packet.Lost = t.watch.Lost()
	// Workers hand packets to each other, and their rings are read one after the other.
	slices.SortStableFunc(one.packet.Steps, func(a, b *pb.TracedPacket_Step) int { return int(int64(a.TimeNs) - int64(b.TimeNs)) })
	return one.packet
}

func inOrder(packets []*pb.TracedPacket) []*pb.TracedPacket {
	slices.SortFunc(packets, func(a, b *pb.TracedPacket) int { return int(int32(a.Packet - b.Packet)) })
	return packets
}

func (t *tracer) done() bool { return t.told >= t.want }

// What becomes of packets that a stop keeps.
const (
	stepHeld     = "held"
	stepConsumed = "consumed"
)

// step tells one event.
func (t *tracer) step(e *tap.Event, data []byte) *pb.TracedPacket_Step {
	g := t.server.plane.Engine().Graph()
	m := &e.Meta
	out := &pb.TracedPacket_Step{
		Kind: pb.TracedPacket_Kind(e.Kind), Stop: g.Nodes()[e.Stop], InPort: t.names.of(m.InPort), OutPort: t.names.of(e.Port),
		TimeNs: uint64(e.Time), Worker: uint32(e.Worker), Vector: uint32(e.Vector), Length: m.Len, Segments: uint32(m.Segments),
		GsoSize: uint32(m.GSOSize), Facts: facts(m), Ethernet: e.L2, Data: slices.Clone(data),
	}
	if m.Reason != graph.NoReason {
		out.Reason = m.Reason.String()
	}
	switch e.Kind {
	case tap.Dropped:
		out.Stop, out.Reason = "", e.Reason.String()
	case tap.Transmitted:
		out.Stop = ""
	case tap.Visited:
		out.NsPerPacket = float64(e.Took) / float64(max(e.Vector, 1))
		fallthrough
	case tap.Made:
		out.Edge = edge(g, int(e.Stop), e.Edge)
		out.Route = t.route(out, m, data)
	}
	return out
}

// edge names the way that a packet takes from a stop.
func edge(g *graph.Graph, at int, e graph.Edge) string {
	names := g.Edges(at)
	switch {
	case int(e) < len(names):
		return names[e]
	case g.Holds(at):
		return stepHeld
	}
	return stepConsumed
}

// facts are what is known of a packet besides its bytes.
func facts(m *graph.Meta) []string {
	out := m.Flags.Names()
	if m.VLAN != 0 {
		out = append(out, fmt.Sprintf("vlan %d", m.VLAN))
	}
	if m.Bufs > 1 {
		out = append(out, fmt.Sprintf("%d buffers", m.Bufs))
	}
	if m.Aux != 0 && (m.Reason == graph.TooBig || m.Reason == graph.NoReason) {
		out = append(out, fmt.Sprintf("mtu %d", m.Aux))
	}
	return out
}

// route looks up again what a stop has looked up for m. The packet itself says
// which adjacency it took; where the table has another answer by now, it changed.
func (t *tracer) route(step *pb.TracedPacket_Step, m *graph.Meta, data []byte) *pb.TracedPacket_Route {
	unasked := m.Reason == graph.NoPolicy || m.Reason == graph.SpoofedSource || m.Reason == graph.EchoInvalid
	if looks := step.Stop == "route" || step.Stop == "icmp-echo" || step.Stop == "icmp-error" && step.Kind == pb.TracedPacket_KIND_MADE; !looks || unasked {
		return nil
	}
	dst, ok := destination(m, data)
	if !ok {
		return nil
	}
	out := &pb.TracedPacket_Route{Destination: dst.String(), Adjacency: m.Adjacency}
	r, hops, ok := t.server.plane.Covering(dst)
	if !ok {
		out.Changed = m.Adjacency != 0
		return out
	}
	out.Prefix, out.NextHop = r.Prefix.String(), hops[r.Hop].Client
	for _, a := range hops[r.Hop].Proto() {
		if a.Id == m.Adjacency {
			out.Chosen = a
		}
	}
	out.Changed = out.Chosen == nil
	return out
}

// destination is where the packet in data goes to.
func destination(m *graph.Meta, data []byte) (netip.Addr, bool) {
	at, size := int(m.L3)+16, 4
	if m.Flags&graph.IPv6 != 0 {
		at, size = int(m.L3)+24, 16
	}
	if len(data) < at+size {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(data[at : at+size])
}

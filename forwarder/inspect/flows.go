package inspect

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/pkt"
)

const (
	// flowsPerChunk keeps a message well below what gRPC takes by default.
	flowsPerChunk = 512
	// placesPerLook is how many places of the table are looked at while nothing else
	// can change.
	placesPerLook = 1 << 14
)

// ListFlows streams the connections that a filter picks. Between two chunks the
// forwarder goes on as it likes, however long the client takes to read.
func (s *Server) ListFlows(in *pb.ListFlowsRequest, out grpc.ServerStreamingServer[pb.FlowList]) error {
	list, err := s.newFlowList(in)
	if err != nil {
		return err
	}
	for next, begun := uint32(0), false; next != 0 || !begun; begun = true {
		if err := out.Context().Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		chunk := &pb.FlowList{}
		if !s.plane.Look(func(l plane.Live) { next = list.part(&l, next, chunk) }) {
			return errEnded
		}
		if len(chunk.Flows) == 0 && !chunk.More {
			continue
		}
		if err := out.Send(chunk); err != nil || chunk.More {
			return err
		}
	}
	return nil
}

// flowList is a listing under way.
type flowList struct {
	want  flowFilter
	left  int // of the limit; below 0: there is none
	hops  map[fib.NextHopID]paths.Hop
	of    uint64 // generation of hops
	shown map[fib.NextHopID][]*pb.RouteList_Adjacency
}

// flowFilter picks flows. What is zero picks all.
type flowFilter struct {
	endpoint  string
	addresses []netip.Prefix // of the endpoint
	address   netip.Prefix
	protocol  uint8
	port      uint16
	verdict   pb.ListFlowsRequest_Verdict
}

func (s *Server) newFlowList(in *pb.ListFlowsRequest) (*flowList, error) {
	list := &flowList{left: -1}
	f := &list.want
	if in.GetLimit() > 0 {
		list.left = int(in.GetLimit())
	}
	if in.GetProtocol() > 255 {
		return nil, status.Errorf(codes.InvalidArgument, "protocol is %d, want 1 to 255, or 0 for any", in.GetProtocol())
	}
	if in.GetPort() > 65535 {
		return nil, status.Errorf(codes.InvalidArgument, "port is %d, want 1 to 65535, or 0 for any", in.GetPort())
	}
	f.protocol, f.port, f.verdict = uint8(in.GetProtocol()), uint16(in.GetPort()), in.GetVerdict()
	if f.port != 0 && f.protocol != 0 && !hasPorts(f.protocol) {
		return nil, status.Errorf(codes.InvalidArgument, "port is %d, but protocol %d has no ports: leave one of them out", f.port, f.protocol)
	}
	if f.verdict < 0 || f.verdict > pb.ListFlowsRequest_VERDICT_DENIED {
		return nil, status.Errorf(codes.InvalidArgument, "verdict is %d, want any, allowed or denied", f.verdict)
	}
	if text := in.GetAddress(); text != "" {
		var ok bool
		if f.address, ok = prefixOf(text); !ok {
			return nil, status.Errorf(codes.InvalidArgument, "address is %.64q, want an address or a prefix", text)
		}
	}
	if in.GetEndpoint() == "" {
		return list, nil
	}
	var err error
	looked := s.plane.Look(func(l plane.Live) {
		var e *desired.Endpoint
		if e, err = find(l.State, in.GetEndpoint()); err == nil {
			f.endpoint, f.addresses = e.ID, e.Addresses
		}
	})
	if !looked {
		err = errEnded
	}
	return list, err
}

// prefixOf reads an address, for a prefix of that address alone, or a prefix. IPv4
// in IPv6 is IPv4.
func prefixOf(text string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil && !p.Addr().Is4In6()
}

func hasPorts(protocol uint8) bool {
	return protocol == pkt.ProtoTCP || protocol == pkt.ProtoUDP || protocol == pkt.ProtoSCTP
}

// part adds to a chunk what is from a place of the table on, and returns the place
// to go on at, 0 at the end.
func (f *flowList) part(l *plane.Live, from uint32, chunk *pb.FlowList) uint32 {
	if f.hops == nil || f.of != l.Generation {
		f.hops, f.of, f.shown = l.Paths.Hops(), l.Generation, map[fib.NextHopID][]*pb.RouteList_Adjacency{}
	}
	return l.Tables.Court.Flows.Scan(from, placesPerLook, l.Now, func(one flow.Flow) bool {
		if !f.want.picks(l.State, &one) {
			return true
		}
		if f.left == 0 {
			chunk.More = true
			return false
		}
		f.left--
		chunk.Flows = append(chunk.Flows, f.show(l, &one))
		return len(chunk.Flows) < flowsPerChunk
	})
}

// picks tells whether a flow is asked for.
func (f *flowFilter) picks(s *desired.State, one *flow.Flow) bool {
	k := &one.Key[0]
	from, to := k.Addrs()
	source, destination := k.Ports()
	switch {
	case f.protocol != 0 && k.Proto() != f.protocol:
		return false
	case f.port != 0 && (!hasPorts(k.Proto()) || source != f.port && destination != f.port):
		return false
	case f.verdict != pb.ListFlowsRequest_VERDICT_ANY && denied(one) != (f.verdict == pb.ListFlowsRequest_VERDICT_DENIED):
		return false
	case f.address.IsValid() && !f.address.Contains(from) && !f.address.Contains(to):
		return false
	}
	return f.endpoint == "" || f.owns(s, from) || f.owns(s, to)
}

// owns tells whether an address is the endpoint's.
func (f *flowFilter) owns(s *desired.State, a netip.Addr) bool {
	if !slices.ContainsFunc(f.addresses, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return false
	}
	e := s.Owner(a)
	return e != nil && e.ID == f.endpoint
}

// show is a flow as the contract tells of it.
func (f *flowList) show(l *plane.Live, one *flow.Flow) *pb.FlowList_Flow {
	out := &pb.FlowList_Flow{
		Protocol: uint32(one.Key[0].Proto()), State: one.State.String(),
		AgeMs: uint64(one.Age / time.Millisecond), IdleMs: uint64(one.Idle / time.Millisecond),
		Original: f.direction(one, 0), Reply: f.direction(one, 1),
		Outdated: one.Decision.Generation != l.Tables.Court.Generation(),
	}
	out.Egress, out.Ingress = rulings(l, one)
	return out
}

func (f *flowList) direction(one *flow.Flow, d int) *pb.FlowList_Direction {
	from, to := one.Key[d].Addrs()
	source, destination := one.Key[d].Ports()
	id := fib.NextHopID(one.Decision.NextHop[d])
	ways, ok := f.shown[id]
	if !ok {
		ways = f.hops[id].Proto()
		f.shown[id] = ways
	}
	return &pb.FlowList_Direction{
		Source: from.String(), Destination: to.String(), SourcePort: uint32(source), DestinationPort: uint32(destination),
		Packets: one.Packets[d], Bytes: one.Bytes[d], NextHop: f.hops[id].Client, Adjacencies: ways,
	}
}

// SummarizeFlows tells how full the table of connections is, and who fills it.
func (s *Server) SummarizeFlows(context.Context, *pb.SummarizeFlowsRequest) (*pb.FlowSummary, error) {
	const most = 10 // holders
	out := &pb.FlowSummary{ByState: map[string]uint64{}, Refused: map[string]uint64{}}
	looked := s.plane.Look(func(l plane.Live) {
		tally := l.Tables.Court.Flows.Stats()
		out.Limit, out.Flows, out.Waiting = uint64(tally.Limit), uint64(tally.Flows), uint64(tally.Waiting)
		out.Inserted, out.Expired, out.Retired, out.Partial = tally.Inserted, tally.Expired, tally.Retired, uint64(tally.Partial)
		for state := flow.Free + 1; int(state) < flow.States; state++ {
			out.ByState[state.String()] = uint64(tally.ByState[state])
		}
		for why := flow.NoReason + 1; int(why) < flow.Reasons; why++ {
			out.Refused[why.String()] = tally.Refused[why]
		}
		out.Holders = holders(&l)
	})
	if !looked {
		return nil, errEnded
	}
	slices.SortFunc(out.Holders, func(a, b *pb.FlowSummary_Holder) int {
		return cmp.Or(cmp.Compare(b.GetFlows(), a.GetFlows()), cmp.Compare(a.GetEndpoint(), b.GetEndpoint()))
	})
	out.Holders = out.Holders[:min(most, len(out.Holders))]
	return out, nil
}

// holders are those who hold any flows: an endpoint, or the port where several share it.
func holders(l *plane.Live) (out []*pb.FlowSummary_Holder) {
	tenants := map[string]string{}
	for id, e := range l.State.Endpoints {
		if _, shared := tenants[e.Port]; shared {
			id = e.Port
		}
		tenants[e.Port] = id
	}
	for port, i := range l.Ports {
		if n := l.Tables.Court.Flows.Held(uint32(i)); n > 0 {
			out = append(out, &pb.FlowSummary_Holder{Endpoint: cmp.Or(tenants[port], port), Flows: uint64(n)})
		}
	}
	return out
}

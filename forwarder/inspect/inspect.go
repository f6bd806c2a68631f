// Package inspect answers the Inspect service from the live tables. It changes
// nothing, and a slow reader holds nobody up.
package inspect

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/tap"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/version"
)

// Facts are what the service cannot ask the plane.
type Facts struct {
	BootID    string
	Started   time.Time
	Connected func() (now, ever bool) // a client; whether any has sent a state since the start
	Restored  bool                    // the state came from disk
	Diagnose  func(context.Context) (*pb.Diagnosis, error)
}

// Server is the Inspect service.
type Server struct {
	pb.UnimplementedInspectServer
	plane *plane.Plane
	facts Facts
	taps  *tap.Taps
}

// NewServer makes the service over p.
func NewServer(p *plane.Plane, f Facts) *Server {
	return &Server{plane: p, facts: f, taps: tap.New(p.Engine(), node.EntryL2)}
}

// GetStatus tells how the forwarder fares.
func (s *Server) GetStatus(context.Context, *pb.StatusRequest) (*pb.Status, error) {
	now, ever := s.facts.Connected()
	frames, free := s.plane.Frames()
	out := &pb.Status{
		Version: version.Version(), Contract: pb.Version, BootId: s.facts.BootID, Generation: s.plane.Generation(),
		ClientConnected: now, Restored: s.facts.Restored && !ever, UptimeSeconds: uint64(time.Since(s.facts.Started) / time.Second),
		Frames: uint32(frames), FramesFree: uint32(free), Fallbacks: s.plane.Fallbacks(),
	}
	for _, c := range s.plane.Conditions() {
		out.Conditions = append(out.Conditions, c.Proto())
	}
	return out, nil
}

// ListNodes tells what each stop of the graph did, all workers together.
func (s *Server) ListNodes(context.Context, *pb.ListNodesRequest) (*pb.NodeList, error) {
	out := &pb.NodeList{}
	for i, n := range Nodes(s.plane.Engine().Stats()) {
		out.Nodes = append(out.Nodes, nodeOf(s.plane.Engine().Graph().Nodes()[i], n))
	}
	return out, nil
}

func nodeOf(name string, n graph.NodeCounters) *pb.NodeList_Node {
	out := &pb.NodeList_Node{
		Name: name, Calls: n.Calls, Packets: n.Packets, SampledPackets: n.SampledPackets, SampledNanos: n.SampledNanos,
	}
	if n.Calls > 0 {
		out.VectorsPerCall = float64(n.Packets) / float64(n.Calls)
	}
	if n.SampledPackets > 0 {
		out.NsPerPacket = float64(n.SampledNanos) / float64(n.SampledPackets)
	}
	return out
}

// Nodes sums the counters of all workers by node, in the order of the walk.
func Nodes(workers []graph.Stats) []graph.NodeCounters {
	out := make([]graph.NodeCounters, len(workers[0].Nodes))
	for _, w := range workers {
		for i := range w.Nodes {
			out[i].Add(&w.Nodes[i])
		}
	}
	return out
}

// ListPorts tells how each port fares.
func (s *Server) ListPorts(context.Context, *pb.ListPortsRequest) (*pb.PortList, error) {
	out := &pb.PortList{}
	for _, p := range s.plane.Ports() {
		out.Ports = append(out.Ports, portOf(p))
	}
	return out, nil
}

func portOf(p plane.PortState) *pb.PortList_PortState {
	return &pb.PortList_PortState{
		Name: p.Name, Index: uint32(p.Index), Kind: p.Kind, Device: p.Device, State: p.State, Mode: p.Mode,
		Queues: uint32(p.Queues), Mtu: uint32(p.MTU), Mac: mac(p.MAC),
		RxPackets: p.Counters.RxPackets, RxBytes: p.Counters.RxBytes,
		TxPackets: p.Counters.TxPackets, TxBytes: p.Counters.TxBytes, TxDrops: p.Counters.TxDrops,
		Fallbacks: p.Fallbacks, Driver: p.Driver,
	}
}

func mac(m desired.MAC) string {
	if m == (desired.MAC{}) {
		return ""
	}
	return hostnet.MAC(m).String()
}

// routesPerChunk keeps a message well below what gRPC takes by default.
const routesPerChunk = 4096

// ListRoutes streams the FIB, or the one route that decides for an address.
func (s *Server) ListRoutes(in *pb.ListRoutesRequest, out grpc.ServerStreamingServer[pb.RouteList]) error {
	if in.GetCovering() != "" {
		return s.covering(in.GetCovering(), out)
	}
	var routes []paths.Route
	var hops map[fib.NextHopID]paths.Hop
	s.plane.Look(func(v plane.Live) { routes, hops = v.Paths.Routes(), v.Paths.Hops() })
	shown := map[fib.NextHopID][]*pb.RouteList_Adjacency{}
	for len(routes) > 0 {
		n := min(len(routes), routesPerChunk)
		chunk := &pb.RouteList{Routes: make([]*pb.RouteList_Route, 0, n)}
		for _, r := range routes[:n] {
			ways, ok := shown[r.Hop]
			if !ok {
				ways = hops[r.Hop].Proto()
				shown[r.Hop] = ways
			}
			chunk.Routes = append(chunk.Routes, &pb.RouteList_Route{Prefix: r.Prefix.String(), NextHop: hops[r.Hop].Client, Adjacencies: ways})
		}
		if err := out.Send(chunk); err != nil {
			return err
		}
		routes = routes[n:]
	}
	return nil
}

func (s *Server) covering(text string, out grpc.ServerStreamingServer[pb.RouteList]) error {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is4In6() || addr.Zone() != "" {
		return status.Errorf(codes.InvalidArgument, "covering is %.64q, want an address", text)
	}
	r, hops, ok := s.plane.Covering(addr)
	if !ok {
		return nil
	}
	return out.Send(&pb.RouteList{Routes: []*pb.RouteList_Route{{
		Prefix: r.Prefix.String(), NextHop: hops[r.Hop].Client, Adjacencies: hops[r.Hop].Proto(),
	}}})
}

// ListNeighbors tells which stations are known, and by whom, by port and address.
func (s *Server) ListNeighbors(context.Context, *pb.ListNeighborsRequest) (*pb.NeighborList, error) {
	out := &pb.NeighborList{}
	var all []paths.Neighbour
	s.plane.Look(func(v plane.Live) { all = v.Paths.Neighbours() })
	slices.SortFunc(all, func(a, b paths.Neighbour) int {
		return cmp.Or(strings.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr))
	})
	for _, n := range all {
		out.Neighbors = append(out.Neighbors, &pb.NeighborList_Neighbor{
			Address: n.Addr.String(), Port: n.Port, Mac: mac(n.MAC), State: n.State, Source: string(n.Source),
		})
	}
	return out, nil
}

// ListDrops tells what was dropped and why, and the whole account.
func (s *Server) ListDrops(context.Context, *pb.ListDropsRequest) (*pb.DropList, error) {
	return drops(s.plane.Engine().Total()), nil
}

func drops(c graph.Counters) *pb.DropList {
	out := &pb.DropList{Account: &pb.Account{
		Rx: c.Rx, Tx: c.Tx, Punt: c.Punt, Dropped: c.Dropped(), Held: c.Held, MadeRefused: c.MadeRefused,
		Made: map[string]uint64{}, Consumed: map[string]uint64{},
	}}
	for r, n := range c.Drops {
		if n > 0 {
			out.Drops = append(out.Drops, &pb.DropList_Drop{Reason: graph.Reason(r).String(), Packets: n})
		}
	}
	for o, n := range c.Made {
		out.Account.Made[graph.Origin(o).String()] = n
	}
	for u, n := range c.Consumed {
		out.Account.Consumed[graph.Use(u).String()] = n
	}
	return out
}

// ListWorkers tells how each worker spends its time.
func (s *Server) ListWorkers(context.Context, *pb.ListWorkersRequest) (*pb.WorkerList, error) {
	out := &pb.WorkerList{}
	cpus, pinErrors := s.plane.CPUs(), s.plane.Engine().PinErrors()
	for i, w := range s.plane.Engine().Stats() {
		one := worker(i, w)
		if i < len(cpus) {
			one.Cpu = int32(cpus[i])
		}
		if err := pinErrors[i]; err != nil {
			one.Error = err.Error()
		}
		out.Workers = append(out.Workers, one)
	}
	return out, nil
}

// worker is what one counted; it may be on any CPU.
func worker(id int, s graph.Stats) *pb.WorkerList_Worker {
	return &pb.WorkerList_Worker{
		Id: uint32(id), Cpu: -1, Loops: s.Load.Loops, BusyLoops: s.Load.BusyLoops, Sleeps: s.Load.Sleeps,
		Load: Ratio(s.Load), Packets: s.Counters.In(), BusyNanos: s.Load.BusyNanos, ElapsedNanos: s.Load.Elapsed,
	}
}

// Ratio is the share of a worker's time that went into moving packets, 0 to 1.
func Ratio(l graph.Load) float64 {
	if l.Elapsed == 0 {
		return 0
	}
	return float64(l.BusyNanos) / float64(l.Elapsed)
}

// Diagnose looks for what keeps the forwarder from working well.
func (s *Server) Diagnose(ctx context.Context, _ *pb.DiagnoseRequest) (*pb.Diagnosis, error) {
	return s.facts.Diagnose(ctx)
}

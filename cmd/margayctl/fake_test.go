//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

// forwarder answers Inspect as a forwarder with two nodes' worth of state would.
type forwarder struct {
	dataplanev1.UnimplementedInspectServer
	status    *dataplanev1.Status
	drops     *dataplanev1.DropList
	diagnosis *dataplanev1.Diagnosis
	fail      error         // answers every question but status, if set
	stuck     chan struct{} // questions wait for it to be closed, if set
}

// serve runs f at a socket until the test ends, and tells where.
func serve(t *testing.T, f dataplanev1.InspectServer) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "f.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	dataplanev1.RegisterInspectServer(s, f)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

func (f *forwarder) GetStatus(ctx context.Context, _ *dataplanev1.StatusRequest) (*dataplanev1.Status, error) {
	if f.stuck != nil {
		select {
		case <-f.stuck:
		case <-ctx.Done():
		}
	}
	if f.status != nil {
		return f.status, nil
	}
	return &dataplanev1.Status{
		Version: "v0.1.0", Contract: 1, BootId: "5e2f", Generation: 42, ClientConnected: true,
		UptimeSeconds: 266_400, Frames: 16384, FramesFree: 12288,
	}, nil
}

func (f *forwarder) ListNodes(context.Context, *dataplanev1.ListNodesRequest) (*dataplanev1.NodeList, error) {
	return &dataplanev1.NodeList{Nodes: []*dataplanev1.NodeList_Node{
		{Name: "ip-input", Calls: 12_345, Packets: 1_234_567, VectorsPerCall: 100.005, NsPerPacket: 4.26},
		{Name: "route", Calls: 12_345, Packets: 1_234_000, VectorsPerCall: 99.96, NsPerPacket: 5.04},
		{Name: "icmp-error"},
		{Name: "rewrite", Calls: 7, Packets: 7, VectorsPerCall: 1},
	}}, f.fail
}

func (f *forwarder) ListPorts(context.Context, *dataplanev1.ListPortsRequest) (*dataplanev1.PortList, error) {
	return &dataplanev1.PortList{Ports: []*dataplanev1.PortList_PortState{
		{
			Name: "uplink", Index: 1, Kind: "xsk", Device: "eth0", State: "up", Mode: "native/copy", Queues: 2, Mtu: 1500, Mac: "02:00:00:00:00:01",
			RxPackets: 1_234_567, RxBytes: 1_851_850_500, TxPackets: 999, TxBytes: 59_940, TxDrops: 3,
			Fallbacks: []string{"eth0 queue 0: copy mode instead of zero-copy mode: operation not supported"},
			Driver:    map[string]uint64{"rx_dropped": 0, "steer/redirected": 1_234_567, "steer/passed": 12},
		},
		{Name: "pod-a", Index: 2, Kind: "tun", Device: "eth0", State: "missing", Mode: "tso4 tso6 uso", Mtu: 1500},
	}}, f.fail
}

func (f *forwarder) ListRoutes(r *dataplanev1.ListRoutesRequest, s dataplanev1.Inspect_ListRoutesServer) error {
	route := func(prefix string, hop uint32, ways ...*dataplanev1.RouteList_Adjacency) *dataplanev1.RouteList_Route {
		return &dataplanev1.RouteList_Route{Prefix: prefix, NextHop: hop, Adjacencies: ways}
	}
	pod := route("10.1.0.2/32", 3, &dataplanev1.RouteList_Adjacency{Id: 9, Kind: "attached", Port: "pod-a", Mtu: 1500})
	v6 := route("2001:db8::/32", 5, &dataplanev1.RouteList_Adjacency{Id: 4, Kind: "blackhole"})
	chunks := [][]*dataplanev1.RouteList_Route{
		{
			route("0.0.0.0/0", 1,
				&dataplanev1.RouteList_Adjacency{Id: 1, Kind: "remote", Port: "uplink", Gateway: "198.51.100.1", Mac: "02:00:00:00:00:fe", Mtu: 1500},
				&dataplanev1.RouteList_Adjacency{Id: 2, Kind: "remote", Port: "uplink", Gateway: "198.51.100.2", Mtu: 1500, Down: true}),
			pod,
		},
		{v6},
	}
	switch r.GetCovering() {
	case "10.1.0.2":
		chunks = [][]*dataplanev1.RouteList_Route{{pod}}
	case "2001:db8::1":
		chunks = [][]*dataplanev1.RouteList_Route{{v6}}
	case "2001:dead::1":
		chunks = nil
	}
	for _, c := range chunks {
		if err := s.Send(&dataplanev1.RouteList{Routes: c}); err != nil {
			return err
		}
	}
	return f.fail
}

func (f *forwarder) ListNeighbors(context.Context, *dataplanev1.ListNeighborsRequest) (*dataplanev1.NeighborList, error) {
	return &dataplanev1.NeighborList{Neighbors: []*dataplanev1.NeighborList_Neighbor{
		{Address: "198.51.100.1", Port: "uplink", Mac: "02:00:00:00:00:fe", State: "reachable", Source: "kernel"},
		{Address: "2001:db8::1", Port: "uplink", State: "incomplete", Source: "graph"},
	}}, f.fail
}

func (f *forwarder) ListDrops(context.Context, *dataplanev1.ListDropsRequest) (*dataplanev1.DropList, error) {
	if f.drops != nil {
		return f.drops, nil
	}
	return balanced(), f.fail
}

// balanced is an account in which 1010 come in or are made and as many go.
func balanced() *dataplanev1.DropList {
	return &dataplanev1.DropList{
		Drops: []*dataplanev1.DropList_Drop{{Reason: "ip-checksum"}, {Reason: "no-route", Packets: 90}, {Reason: "tx-full", Packets: 10}},
		Account: &dataplanev1.Account{
			Rx: 1000, Tx: 850, Punt: 40, Dropped: 100, Held: 2,
			Made: map[string]uint64{"icmp-error": 7, "arp": 3, "nd": 0}, Consumed: map[string]uint64{"echo": 18}, MadeRefused: 5,
		},
	}
}

func (f *forwarder) ListWorkers(context.Context, *dataplanev1.ListWorkersRequest) (*dataplanev1.WorkerList, error) {
	return &dataplanev1.WorkerList{Workers: []*dataplanev1.WorkerList_Worker{
		{Id: 0, Cpu: 3, Loops: 2_000_000, BusyLoops: 500_000, Load: 0.4321, Sleeps: 1_200, Packets: 9_876_543},
		{Id: 1, Cpu: -1, Error: "pin to CPU 9: invalid argument: the machine has 4"},
	}}, f.fail
}

func (f *forwarder) Diagnose(context.Context, *dataplanev1.DiagnoseRequest) (*dataplanev1.Diagnosis, error) {
	return f.diagnosis, f.fail
}

// rolling is a forwarder whose ports have moved on at every second reading:
// pod-a counts anew, new is made anew, and uplink moves 2 s' worth of packets.
type rolling struct {
	forwarder
	readings atomic.Uint64
}

func (f *rolling) ListPorts(ctx context.Context, r *dataplanev1.ListPortsRequest) (*dataplanev1.PortList, error) {
	l, err := f.forwarder.ListPorts(ctx, r)
	n := (f.readings.Add(1) - 1) % 2
	up, pod := l.Ports[0], l.Ports[1]
	up.RxPackets += 2_000_000 * n
	up.RxBytes += 2_000_000 * 1500 * n
	up.TxPackets += 3 * n
	up.TxBytes += 180 * n
	up.TxDrops += n
	pod.RxPackets = 100 - n
	came := &dataplanev1.PortList_PortState{Name: "new", Index: uint32(3 + n), Kind: "tun", Device: "eth0", State: "up", Queues: 1, Mtu: 1500, RxPackets: n}
	l.Ports = append(l.Ports, came)
	return l, err
}

// fresh is a forwarder that nobody has told anything yet.
type fresh struct{ forwarder }

func (*fresh) GetStatus(context.Context, *dataplanev1.StatusRequest) (*dataplanev1.Status, error) {
	return &dataplanev1.Status{Version: "v0.1.0", Contract: 1, BootId: "5e2f"}, nil
}

func (*fresh) ListPorts(context.Context, *dataplanev1.ListPortsRequest) (*dataplanev1.PortList, error) {
	return &dataplanev1.PortList{}, nil
}

func (*fresh) ListRoutes(*dataplanev1.ListRoutesRequest, dataplanev1.Inspect_ListRoutesServer) error {
	return nil
}

func (*fresh) ListNeighbors(context.Context, *dataplanev1.ListNeighborsRequest) (*dataplanev1.NeighborList, error) {
	return &dataplanev1.NeighborList{}, nil
}

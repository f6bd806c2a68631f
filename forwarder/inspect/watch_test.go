package inspect

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/tap"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// served is the service over a dataplane with the ports a and b in memory, and a
// client of it.
func served(t *testing.T) (*Server, *planetest.Bench, pb.InspectClient) {
	t.Helper()
	b := planetest.New(t, plane.Config{Workers: 2})
	b.Snapshot(&pb.Chunk{
		Ports: []*pb.Port{{Name: "a", Device: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}, {Name: "b", Device: "b", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
		Endpoints: []*pb.Endpoint{
			{Id: "a", Port: "a", Addresses: []string{"10.1.0.2", "fd00::2"}, Policy: pb.Endpoint_POLICY_OFF},
			{Id: "b", Port: "b", Addresses: []string{"10.1.0.3", "fd00::3"}, Policy: pb.Endpoint_POLICY_OFF},
		},
	})
	s := NewServer(b.Plane, Facts{})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer()
	pb.RegisterInspectServer(rpc, s)
	ended := make(chan error, 1)
	go func() { ended <- rpc.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		rpc.Stop()
		<-ended
		if n := s.taps.Watchers(); n != 0 {
			t.Errorf("%d watch after the service has ended", n)
		}
	})
	return s, b, pb.NewInspectClient(conn)
}

func TestWhatCannotBeWatchedIsRefused(t *testing.T) {
	s, _, client := served(t)
	rx := []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX}
	traces := map[string]struct {
		in   *pb.TraceRequest
		says string
	}{
		"no packet":             {&pb.TraceRequest{TimeoutMs: 1}, "count is 0, want 1 to 1000"},
		"too many packets":      {&pb.TraceRequest{Count: 1001, TimeoutMs: 1}, "count is 1001"},
		"no time":               {&pb.TraceRequest{Count: 1}, "timeout_ms is 0, want 1 to 600000"},
		"too much time":         {&pb.TraceRequest{Count: 1, TimeoutMs: 1 << 31}, "timeout_ms is 2147483648"},
		"a filter that is none": {&pb.TraceRequest{Count: 1, TimeoutMs: 1, Filter: "host 10.0.0.1 or"}, "filter: "},
		"an unknown port":       {&pb.TraceRequest{Count: 1, TimeoutMs: 1, Filter: "on eth9"}, "eth9"},
		"a deep filter":         {&pb.TraceRequest{Count: 1, TimeoutMs: 1, Filter: strings.Repeat("(", 1000) + "ip"}, "filter: "},
		"a long filter":         {&pb.TraceRequest{Count: 1, TimeoutMs: 1, Filter: strings.Repeat("ip or ", 100_000) + "ip"}, "filter: "},
		"no text":               {&pb.TraceRequest{Count: 1, TimeoutMs: 1, Filter: "\x00\x01ip"}, "filter: "},
	}
	for name, tt := range traces {
		t.Run("trace of "+name, func(t *testing.T) {
			stream, err := client.Trace(t.Context(), tt.in)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("answer is %v, want %q", err, tt.says)
			}
		})
	}
	captures := map[string]struct {
		in   *pb.CaptureRequest
		says string
	}{
		"no stage":              {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1}, "no stage is named"},
		"an unknown stage":      {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: []pb.CaptureRequest_Stage{77}}, "stage is 77, want rx"},
		"no packet":             {&pb.CaptureRequest{Bytes: 1, TimeoutMs: 1, Stages: rx}, "count is 0"},
		"no bytes":              {&pb.CaptureRequest{Count: 1, TimeoutMs: 1, Stages: rx}, "bytes is 0"},
		"too many bytes":        {&pb.CaptureRequest{Count: 1, Bytes: 1 << 40, TimeoutMs: 1, Stages: rx}, "bytes is 1099511627776"},
		"no time":               {&pb.CaptureRequest{Count: 1, Bytes: 1, Stages: rx}, "timeout_ms is 0"},
		"absurd packets":        {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Snap: 1 << 20}, "snap is 1048576"},
		"a filter that is none": {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Filter: "port 70000"}, "filter: "},
		"an unknown port":       {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Filter: "to eth9"}, "eth9"},
		"a deep filter":         {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Filter: strings.Repeat("not ", 1000) + "ip6"}, "filter: "},
		"a long filter":         {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Filter: strings.Repeat("ip6 or ", 100_000) + "ip"}, "filter: "},
		"no text":               {&pb.CaptureRequest{Count: 1, Bytes: 1, TimeoutMs: 1, Stages: rx, Filter: "host fd00::1\x00"}, "filter: "},
	}
	for name, tt := range captures {
		t.Run("capture of "+name, func(t *testing.T) {
			stream, err := client.Capture(t.Context(), tt.in)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("answer is %v, want %q", err, tt.says)
			}
		})
	}
	if n := s.taps.Watchers(); n != 0 {
		t.Errorf("%d watch, though all were refused", n)
	}
}

func TestOnlySoManyMayWatchAtOnce(t *testing.T) {
	s, _, client := served(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begin := func() error {
		stream, err := client.Trace(ctx, &pb.TraceRequest{Count: 1, TimeoutMs: 60_000})
		if err != nil {
			return err
		}
		if begun, _ := stream.Header(); begun == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for range tap.Most {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more is answered by %v", err)
	}
	cancel()
	hostnettest.Eventually(t, "those who went make room", func() bool { return s.taps.Watchers() == 0 })
}

// The end of a trace that saw nothing, and of a capture that has enough, are told.
func TestWatchesEnd(t *testing.T) {
	_, b, client := served(t)
	for name, tt := range map[string]struct {
		count uint32
		bytes uint64
		why   pb.CaptureChunk_End_Why
		kept  int
	}{
		"with the time":  {1000, 1 << 20, pb.CaptureChunk_End_WHY_TIME, 3},
		"with the count": {2, 1 << 20, pb.CaptureChunk_End_WHY_COUNT, 2},
		"with the bytes": {1000, 300, pb.CaptureChunk_End_WHY_BYTES, 2},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := client.Capture(t.Context(), &pb.CaptureRequest{
				Stages: []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX}, Count: tt.count, Bytes: tt.bytes, TimeoutMs: 1500, Filter: "on a",
			})
			if err != nil {
				t.Fatal(err)
			}
			if begun, err := stream.Header(); begun == nil {
				t.Fatal(err)
			}
			for _, ipv6 := range []bool{false, true, false} {
				src, dst := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
				if ipv6 {
					src, dst = netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3")
				}
				b.Port("a").Inject(0, graphtest.UDP(src, dst, 92)) // 120 or 140 bytes
			}
			kept := 0
			for {
				chunk, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				kept += len(chunk.Packets)
				if chunk.End != nil {
					if chunk.End.Why != tt.why || chunk.End.Lost != 0 || kept != tt.kept {
						t.Errorf("it ends %v with %d packets, want %v with %d", chunk.End, kept, tt.why, tt.kept)
					}
					return
				}
			}
		})
	}
}

func TestARouteThatChangedMeanwhileIsTold(t *testing.T) {
	s, _, _ := served(t)
	for dst, src := range map[string]string{"10.1.0.3": "10.1.0.2", "fd00::3": "fd00::2"} {
		addr, flags := netip.MustParseAddr(dst), graph.Flags(0)
		if addr.Is6() {
			flags = graph.IPv6
		}
		data := graphtest.UDP(netip.MustParseAddr(src), addr, 10)
		tr := &tracer{server: s, names: portNames{server: s}}
		r, hops, ok := s.plane.Covering(addr)
		if !ok {
			t.Fatalf("no route to %s", dst)
		}
		now := hops[r.Hop].Ways[0].ID
		for adj, changed := range map[uint32]bool{now: false, now + 1000: true} {
			step := tr.route(&pb.TracedPacket_Step{Stop: "route"}, &graph.Meta{Flags: flags, Adjacency: adj}, data)
			if step.GetPrefix() != r.Prefix.String() || step.Changed != changed || (step.Chosen == nil) != changed || step.Adjacency != adj {
				t.Errorf("a packet to %s that took adjacency %d is told %v, want changed %v", dst, adj, step, changed)
			}
		}
	}
}

package inspect

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
)

// Each question gets an answer or a code that says whose fault it is.
func TestExplainAnswersWithACode(t *testing.T) {
	b := planetest.New(t, plane.Config{Workers: 1})
	b.Snapshot(&pb.Chunk{
		Ports:     []*pb.Port{{Name: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
		Endpoints: []*pb.Endpoint{{Id: "pod/a", Port: "a", Addresses: []string{"10.1.0.2", "fd00::2"}, Policy: pb.Endpoint_POLICY_ENFORCED}},
	})
	s := NewServer(b.Plane, Facts{})
	tests := map[string]struct {
		ask  *pb.ExplainRequest
		code codes.Code
		n    int
	}{
		"both families":    {&pb.ExplainRequest{Source: "a", Destination: "pod/a", Echo: true}, codes.OK, 2},
		"nobody's address": {&pb.ExplainRequest{Source: "a", Destination: "fd09::9", Protocol: 6, DestinationPort: 80}, codes.OK, 1},
		"garbage":          {&pb.ExplainRequest{Source: "a", Destination: "10.1.0.2.3", Echo: true}, codes.NotFound, 0},
		"nobody":           {&pb.ExplainRequest{Source: "zoe", Destination: "a", Echo: true}, codes.NotFound, 0},
		"mixed families":   {&pb.ExplainRequest{Source: "10.1.0.2", Destination: "fd00::2", Echo: true}, codes.InvalidArgument, 0},
		"a port too high":  {&pb.ExplainRequest{Source: "a", Destination: "a", Protocol: 17, DestinationPort: 1 << 16}, codes.InvalidArgument, 0},
		"nothing":          {nil, codes.InvalidArgument, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := s.Explain(t.Context(), tt.ask)
			if status.Code(err) != tt.code || len(got.GetExplanations()) != tt.n {
				t.Errorf("answered with %v and %v, want %v and %d explanations", got, err, tt.code, tt.n)
			}
		})
	}
}

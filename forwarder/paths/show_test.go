package paths

import (
	"maps"
	"net/netip"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/desired"
)

// Each neighbour is in one state, and states that none is in are counted too.
func TestNeighbourStates(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "10.0.0.2", "IPv6": "fd00::2"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			want := map[string]int{"reachable": 0, "incomplete": 0, "failed": 0, "static": 0}
			is := func(state string) {
				t.Helper()
				expect := maps.Clone(want)
				if state != "" {
					expect[state] = 1
				}
				if got := b.NeighbourStates(); !maps.Equal(got, expect) {
					t.Errorf("states are %v, want %v", got, expect)
				}
			}
			is("")
			b.apply(endpoint("x", "e1", nil, addr))
			is("incomplete")
			b.Reached("e1", netip.MustParseAddr(addr), desired.MAC{2, 8}, FromGraph)
			is("reachable")
			b.Lost("e1", netip.MustParseAddr(addr))
			is("failed")
			b.apply(&pb.Chunk{RemovedEndpoints: []string{"x"}})
			is("")
			b.apply(&pb.Chunk{
				NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: "e1", Gateway: addr, Mac: []byte{2, 0, 0, 0, 0, 9}}}}},
				Routes:   route(1, netip.PrefixFrom(netip.MustParseAddr(addr), 8).Masked().String()),
			})
			is("static")
		})
	}
}

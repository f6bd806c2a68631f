package forwarder_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// withLinks is the lab's snapshot with up0 shared with the kernel and up1 all
// ours; what is on their links is attached.
func (l *lab) withLinks() *pb.Chunk {
	s := l.snapshot()
	s.Ports = append(s.Ports,
		&pb.Port{Name: "up0", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{}}},
		&pb.Port{Name: "up1", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}})
	s.Addresses = []*pb.Address{{Port: "up1", Prefix: "10.3.0.1/24"}, {Port: "up1", Prefix: "fd03::1/64"}}
	s.NextHops = []*pb.NextHop{
		{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: "up0"}}},
		{Id: 2, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: "up1"}}},
	}
	on := func(addr string) []byte { return netip.MustParseAddr(addr).AsSlice() }
	s.Routes = &pb.RouteColumns{
		Addresses4: append(on("10.2.0.0"), on("10.3.0.0")...), Lengths4: []byte{24, 24}, NextHops4: []uint32{1, 2},
		Addresses6: append(on("fd02::"), on("fd03::")...), Lengths6: []byte{64, 64}, NextHops6: []uint32{1, 2},
	}
	s.Steering = &pb.Steering{Prefixes: []string{"10.1.0.0/24", "fd00::/64"}}
	return s
}

// The kernels of pods and stations hear from us that nobody has the address
// that they ping, once for each ping, as they would from a router of Linux.
func TestPingsOfDeadNeighboursAreAnswered(t *testing.T) {
	l := newLab(t)
	router := l.uplinks()
	l.start()
	l.connect().must(true, l.withLinks())
	for _, to := range []string{"10.2.0.9", "fd02::9", "10.3.0.9", "fd03::9"} {
		l.reaches("a", to)
	}
	Run(t, router, "ip", "route", "add", "10.2.0.77/32", "via", "10.3.0.1")
	Run(t, router, "ip", "route", "add", "fd02::77/128", "via", "fd03::1")

	told := map[bool]string{false: "Destination Host Unreachable", true: "Address unreachable"}
	tests := map[string]struct {
		from   *hostnet.Namespace
		v4, v6 string
	}{
		"a pod on TUN, by a link that the kernel shares":  {l.pods["a"], "10.2.0.77", "fd02::77"},
		"a pod on TUN, by a link that is ours":            {l.pods["a"], "10.3.0.77", "fd03::77"},
		"a pod on veth, by a link that the kernel shares": {l.pods["c"], "10.2.0.78", "fd02::78"},
		"a pod on veth, by a link that is ours":           {l.pods["c"], "10.3.0.78", "fd03::78"},
		"a station outside":                               {router, "10.2.0.77", "fd02::77"},
	}
	var all sync.WaitGroup // each takes the three seconds of a neighbour
	for name, tt := range tests {
		for _, to := range []string{tt.v4, tt.v6} {
			all.Go(func() {
				out, err := TryRun(tt.from, "ping", "-c", "3", "-i", "0.2", "-W", "8", to)
				if err == nil || strings.Count(out, told[strings.Contains(to, ":")]) != 3 {
					t.Errorf("%s: three pings of %s ended with %v, want the news of each\n%s", name, to, err, out)
				}
			})
		}
	}
	all.Wait()
	l.balanced()
}

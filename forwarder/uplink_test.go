package forwarder_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// uplinks joins the node by two veths, which the kernel shares with us, to a
// router that has 10.9.9.9 and fd09::9:
//
//	pods ── forwarder ─┬ up0 10.2.0.1 ── 10.2.0.9 ┬ router 10.9.9.9
//	                   └ up1 10.3.0.1 ── 10.3.0.9 ┘
func (l *lab) uplinks() (router *hostnet.Namespace) {
	router = Namespace(l.t)
	Run(l.t, router, "ip", "link", "set", "lo", "up")
	Run(l.t, router, "ip", "addr", "add", "10.9.9.9/32", "dev", "lo")
	Run(l.t, router, "ip", "addr", "add", "fd09::9/128", "dev", "lo", "nodad")
	for i, name := range []string{"up0", "up1"} {
		Run(l.t, l.node, "ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", Name(router))
		for end, ns := range map[string]*hostnet.Namespace{"1": l.node, "9": router} {
			Run(l.t, ns, "ethtool", "-K", name, "tx", "off")
			Run(l.t, ns, "ip", "addr", "add", fmt.Sprintf("10.%d.0.%s/24", i+2, end), "dev", name)
			Run(l.t, ns, "ip", "addr", "add", fmt.Sprintf("fd0%d::%s/64", i+2, end), "dev", name, "nodad")
			Run(l.t, ns, "ip", "link", "set", name, "up")
		}
	}
	Run(l.t, router, "ip", "route", "add", "10.1.0.0/24", "nexthop", "via", "10.2.0.1", "nexthop", "via", "10.3.0.1")
	Run(l.t, router, "ip", "route", "add", "fd00::/64", "nexthop", "via", "fd02::1", "nexthop", "via", "fd03::1")
	Run(l.t, router, "sysctl", "-w", "net.ipv4.conf.all.rp_filter=0")
	return router
}

// withUplinks is the lab's snapshot with default routes over both uplinks.
func (l *lab) withUplinks() *pb.Chunk {
	s := l.snapshot()
	for _, name := range []string{"up0", "up1"} {
		s.Ports = append(s.Ports, &pb.Port{Name: name, Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{}}})
	}
	s.NextHops = []*pb.NextHop{
		{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{
			{Port: "up0", Gateway: "10.2.0.9"}, {Port: "up1", Gateway: "10.3.0.9"},
		}},
		{Id: 2, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{
			{Port: "up0", Gateway: "fd02::9"}, {Port: "up1", Gateway: "fd03::9"},
		}},
	}
	s.Routes = &pb.RouteColumns{
		Addresses4: make([]byte, 4), Lengths4: []byte{0}, NextHops4: []uint32{1},
		Addresses6: make([]byte, 16), Lengths6: []byte{0}, NextHops6: []uint32{2},
	}
	s.Steering = &pb.Steering{Prefixes: []string{"10.1.0.0/24", "fd00::/64"}}
	return s
}

func (l *lab) members(addr string) (up int) {
	l.t.Helper()
	s, err := l.inspect().ListRoutes(context.Background(), &pb.ListRoutesRequest{Covering: addr})
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, a := range m.Routes[0].Adjacencies {
		if !a.Down && a.Kind == "rewrite" {
			up++
		}
	}
	return up
}

func TestUplinksSharedWithTheKernel(t *testing.T) {
	l := newLab(t)
	router := l.uplinks()
	l.start()
	c := l.connect()
	c.must(true, l.withUplinks())
	for _, to := range []string{"10.9.9.9", "fd09::9"} {
		l.reaches("a", to)
		l.reaches("c", to)
	}
	if out, err := l.tryPing(l.node, "10.2.0.9"); err != nil {
		t.Errorf("the kernel lost its own traffic on a shared port: %v\n%s", err, out)
	}
	Eventually(t, "both members are resolved", func() bool { return l.members("10.9.9.9") == 2 && l.members("fd09::9") == 2 })

	t.Run("the gateway's MAC changes while no client is connected", func(t *testing.T) {
		c.cancel()
		l.readdress(router)
	})
	t.Run("a member without carrier leaves at once", func(t *testing.T) {
		Run(t, router, "ip", "link", "set", "up1", "down")
		Eventually(t, "one member is left", func() bool { return l.members("10.9.9.9") == 1 && l.members("fd09::9") == 1 })
		for _, pod := range []string{"a", "b", "c"} {
			l.ping(pod, "10.9.9.9")
		}
		Run(t, router, "ip", "link", "set", "up1", "up")
		Run(t, router, "ip", "addr", "replace", "fd03::9/64", "dev", "up1", "nodad")
		Eventually(t, "it comes back", func() bool { return l.members("10.9.9.9") == 2 })
	})
	t.Run("a neighbour that fails leaves", func(t *testing.T) {
		Run(t, router, "ip", "addr", "del", "10.3.0.9/24", "dev", "up1")
		Run(t, l.node, "ip", "neigh", "flush", "dev", "up1")
		Eventually(t, "one member is left", func() bool { return l.members("10.9.9.9") == 1 })
		l.ping("a", "10.9.9.9")
		Run(t, router, "ip", "addr", "add", "10.3.0.9/24", "dev", "up1")
		Eventually(t, "it comes back", func() bool { return l.members("10.9.9.9") == 2 })
	})
	l.balanced()
}

// A neighbour that the kernel has known for long, of which it therefore tells
// nothing, is known to a port that comes later, and to a route that does.
func TestNeighboursThatTheKernelKnowsAlready(t *testing.T) {
	l := newLab(t)
	l.uplinks()
	for i, name := range []string{"up0", "up1"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			Run(t, l.node, "sysctl", "-w", "net."+family+".neigh."+name+".base_reachable_time_ms=600000")
		}
		for _, gateway := range []string{"10.%d.0.9", "fd0%d::9"} {
			Run(t, l.node, "ip", "neigh", "replace", fmt.Sprintf(gateway, i+2), "dev", name, "lladdr", "02:00:00:00:99:01", "nud", "reachable")
		}
	}
	l.start()
	c := l.connect()
	all := l.withUplinks()
	first := proto.CloneOf(all)
	first.NextHops, first.Routes = nil, nil
	first.Ports = slices.DeleteFunc(first.Ports, func(p *pb.Port) bool { return p.Name == "up1" })
	c.must(true, first) // its namespace is watched from here on
	c.must(true, all)
	Eventually(t, "both members are resolved", func() bool { return l.members("10.9.9.9") == 2 && l.members("fd09::9") == 2 })
}

// readdress gives the gateways new MACs, and wants traffic and tables to follow.
func (l *lab) readdress(router *hostnet.Namespace) {
	t := l.t
	t.Helper()
	for _, name := range []string{"up0", "up1"} {
		Run(t, router, "ip", "link", "set", name, "address", "02:00:00:00:99:0"+name[2:])
	}
	// The new owner tells its neighbours, as a real one does.
	Run(t, router, "ping", "-c", "1", "10.2.0.1")
	Run(t, router, "ping", "-c", "1", "10.3.0.1")
	Run(t, router, "ping", "-c", "1", "fd02::1")
	Run(t, router, "ping", "-c", "1", "fd03::1")
	for _, to := range []string{"10.9.9.9", "fd09::9"} {
		l.reaches("a", to)
	}
	Eventually(t, "both members have the new address", func() bool {
		n, err := l.inspect().ListNeighbors(context.Background(), &pb.ListNeighborsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		fresh := 0
		for _, x := range n.Neighbors {
			if strings.HasPrefix(x.Mac, "02:00:00:00:99") {
				fresh++
			}
		}
		return fresh == 4
	})
}

func TestMillionRoutes(t *testing.T) {
	l := newLab(t)
	l.start()
	c := l.connect()
	const n = 1_000_000
	chunks := []*pb.Chunk{l.snapshot(), {NextHops: []*pb.NextHop{{Id: 5, Kind: pb.NextHop_KIND_BLACKHOLE}}}}
	for i := 0; i < n; {
		r := &pb.RouteColumns{}
		for range min(100_000, n-i) {
			r.Addresses4 = append(r.Addresses4, byte(20+i>>16), byte(i>>8), byte(i), 0)
			r.Lengths4, r.NextHops4 = append(r.Lengths4, 24), append(r.NextHops4, 5)
			i++
		}
		chunks = append(chunks, &pb.Chunk{Routes: r})
	}
	begun := time.Now()
	c.must(true, chunks...)
	all := time.Since(begun)
	t.Logf("%d routes acknowledged and on disk in %v (GOARCH %s)", n, all, runtime.GOARCH)
	one := all
	for _, id := range []string{"a", "b", "c"} { // one of them has the CPU when it wants it
		begun = time.Now()
		c.must(false, &pb.Chunk{RemovedEndpoints: []string{id}})
		one = min(one, time.Since(begun))
	}
	t.Logf("one delta beside them in %v", one)
	if one > all/10 {
		t.Errorf("a delta of one object took %v beside a million routes, which took %v", one, all)
	}
	begun = time.Now()
	c.must(true, chunks...)
	t.Logf("the same again in %v", time.Since(begun))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") {
			t.Log(strings.TrimSpace(line))
		}
	}
	l.pings()
}

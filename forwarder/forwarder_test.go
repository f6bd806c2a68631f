package forwarder_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

func (l *lab) account() *pb.Account {
	l.t.Helper()
	d, err := l.inspect().ListDrops(context.Background(), &pb.ListDropsRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	return d.Account
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// balanced wants every packet accounted for.
func (l *lab) balanced() {
	l.t.Helper()
	Eventually(l.t, "every packet is accounted for", func() bool {
		a := l.account()
		return a.Rx+total(a.Made) == a.Tx+a.Punt+a.Dropped+total(a.Consumed)+a.Held
	})
}

func (l *lab) nodePackets(name string) uint64 {
	l.t.Helper()
	nodes, err := l.inspect().ListNodes(context.Background(), &pb.ListNodesRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, n := range nodes.Nodes {
		if n.Name == name {
			return n.Packets
		}
	}
	l.t.Fatalf("no node is called %s", name)
	return 0
}

func (l *lab) port(name string) *pb.PortList_PortState {
	l.t.Helper()
	ports, err := l.inspect().ListPorts(context.Background(), &pb.ListPortsRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range ports.Ports {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func TestForwardsBetweenPodsAndNode(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(map[int]string{1: "with one worker", 2: "with two workers"}[workers], func(t *testing.T) {
			l := newLab(t)
			l.workers = workers
			l.start()
			l.connect().must(true, l.snapshot())
			l.pings()
			if out := Run(t, l.node, "sysctl", "-n", "net.ipv4.ip_forward"); strings.TrimSpace(out) != "0" {
				t.Errorf("ip_forward is %s, so the kernel may have taken part", out)
			}
			l.balanced()
			before := l.nodePackets("rewrite")
			l.ping("a", "10.1.0.3")
			Eventually(t, "rewrite counts 3 requests and 3 replies", func() bool { return l.nodePackets("rewrite") == before+6 })
			if err := l.kill(syscall.SIGTERM); err != nil {
				t.Fatalf("SIGTERM: %v", err)
			}
			if out, err := l.tryPing(l.pods["a"], "10.1.0.3"); err == nil {
				t.Errorf("pods reach each other without the forwarder:\n%s", out)
			}
			if out, err := l.tryPing(l.node, "10.1.0.3"); err == nil {
				t.Errorf("the node reaches a pod without the forwarder:\n%s", out)
			}
		})
	}
}

func TestDeltas(t *testing.T) {
	l := newLab(t)
	l.start()
	c := l.connect()
	all := l.snapshot()
	c.must(true, all)
	l.ping("a", "10.1.0.3")

	c.must(false, &pb.Chunk{RemovedEndpoints: []string{"b"}})
	if _, err := l.tryPing(l.pods["a"], "10.1.0.3"); err == nil {
		t.Error("an endpoint that was removed still answers")
	}
	b := all.Endpoints[1]
	c.must(false, &pb.Chunk{Endpoints: []*pb.Endpoint{{Id: b.Id, Port: b.Port, Addresses: b.Addresses}}})
	if _, err := l.tryPing(l.pods["a"], "10.1.0.3"); err == nil {
		t.Error("an endpoint without policy state answers")
	}
	c.must(false, &pb.Chunk{Endpoints: []*pb.Endpoint{b}})
	l.pings()

	faults := strings.Join(c.send(false, &pb.Chunk{
		Endpoints:    []*pb.Endpoint{{Id: "d", Port: "nowhere", Addresses: []string{"10.1.0.2", "10.1.0.9/8"}, Mac: []byte{1}}},
		RemovedPorts: []string{"a"},
		Routes:       &pb.RouteColumns{Addresses4: []byte{10, 0, 0, 0}, Lengths4: []byte{8}, NextHops4: []uint32{7, 8}},
	}), "\n")
	for _, want := range []string{`endpoint/d: mac length is 1`, `addresses is 10.1.0.9/8`, `routes.4: columns hold`} {
		if !strings.Contains(faults, want) {
			t.Errorf("%q is not among the faults:\n%s", want, faults)
		}
	}
	l.pings() // nothing of it was applied

	c.must(true, &pb.Chunk{})
	for _, ns := range []string{"a", "b"} {
		if out, err := TryRun(l.pods[ns], "ip", "link", "show", "eth0"); err == nil {
			t.Errorf("a snapshot without the port left its device:\n%s", out)
		}
	}
	if out, _ := TryRun(l.node, "ip", "route", "show", "table", "main"); strings.Contains(out, "10.1.0.0") {
		t.Errorf("a snapshot without a host port left its routes:\n%s", out)
	}
	if _, err := TryRun(l.node, "ip", "link", "show", "margay0"); err == nil {
		t.Error("a snapshot without a host port left its device")
	}
	c.must(true, all)
	l.pings()
	l.balanced()
}

// flood pings without pause in the background; wait wants every reply.
func (l *lab) flood(pod, to string, count string) (wait func()) {
	l.t.Helper()
	done := make(chan struct{})
	var out string
	var err error
	go func() {
		defer close(done)
		out, err = TryRun(l.pods[pod], "ping", "-q", "-i", "0.002", "-c", count, "-W", "2", to)
	}()
	return func() {
		l.t.Helper()
		<-done
		if err != nil || !strings.Contains(out, " 0% packet loss") {
			l.t.Errorf("ping from %s to %s under change: %v\n%s", pod, to, err, out)
		}
	}
}

func TestNoPacketIsLostWhenTheClientDiesAndReturns(t *testing.T) {
	l := newLab(t)
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	l.pings()
	waits := []func(){l.flood("a", "10.1.0.3", "1500"), l.flood("b", "fd00::4", "1500"), l.flood("c", "10.1.0.2", "1500")}
	time.Sleep(500 * time.Millisecond)
	c.cancel()
	time.Sleep(500 * time.Millisecond)
	again := l.connect()
	again.must(true, l.snapshot()) // marked and swept: nothing differs
	again.must(false, &pb.Chunk{NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_BLACKHOLE}}})
	for _, wait := range waits {
		wait()
	}
	l.balanced()
}

func TestWhatAClientMayNotDo(t *testing.T) {
	l := newLab(t)
	l.start()
	first := l.connect()
	first.must(true, l.snapshot())

	tests := map[string]struct {
		hello *pb.Hello
		send  *pb.ClientMessage
		want  string
	}{
		"speak a version to come":  {&pb.Hello{Version: 9, MinVersion: 8}, nil, "upgrade the older"},
		"speak no version":         {&pb.Hello{}, nil, "upgrade the older"},
		"say hello twice":          {&pb.Hello{Version: 1, MinVersion: 1}, &pb.ClientMessage{Message: &pb.ClientMessage_Hello{Hello: &pb.Hello{}}}, "second hello"},
		"send an empty message":    {&pb.Hello{Version: 1, MinVersion: 1}, &pb.ClientMessage{}, "of a kind that is not known"},
		"send a message too large": {&pb.Hello{Version: 1, MinVersion: 1}, chunkOf(3 << 20), "larger than max"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := l.dial(tt.hello)
			if err == nil {
				if err = c.rpc.Send(tt.send); err == nil {
					err = <-c.failed
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it says %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("begin with a delta", func(t *testing.T) {
		c := l.connect()
		if faults := strings.Join(c.send(false, &pb.Chunk{}), ""); !strings.Contains(faults, "begin with a snapshot") {
			t.Errorf("faults are %q", faults)
		}
		if faults := strings.Join(c.send(true, chunkOf(1<<20+1).GetChunk()), ""); !strings.Contains(faults, "chunk 1: size") {
			t.Errorf("faults are %q", faults)
		}
		c.must(true, l.snapshot())
		c.gen -= 2
		if faults := strings.Join(c.send(false, &pb.Chunk{}), ""); !strings.Contains(faults, "generation is") {
			t.Errorf("faults are %q", faults)
		}
	})
	t.Run("die in the middle of a snapshot", func(t *testing.T) {
		c := l.connect()
		for range 3 {
			if err := c.rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Chunk{Chunk: &pb.Chunk{RemovedPorts: []string{"a"}}}}); err != nil {
				t.Fatal(err)
			}
		}
		c.cancel()
	})
	t.Run("go on when another has taken over", func(t *testing.T) {
		old, _ := l.connect(), l.connect()
		if err := <-old.failed; !strings.Contains(err.Error(), "taken over") {
			t.Errorf("the older stream ends with %v", err)
		}
	})
	l.pings() // all of it left the state as it was
}

func chunkOf(bytes int) *pb.ClientMessage {
	return &pb.ClientMessage{Message: &pb.ClientMessage_Chunk{Chunk: &pb.Chunk{RemovedEndpoints: []string{strings.Repeat("x", bytes)}}}}
}

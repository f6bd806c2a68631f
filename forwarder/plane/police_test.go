package plane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/label"
)

// image allows sources that are in set 1.
func image(t *testing.T) []byte {
	t.Helper()
	c, err := classifier.Compile([]classifier.Rule{
		{ID: 1, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{1}}},
	}, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

// policed is pod i, which may send everything, and be sent what program 1 allows.
func policed(i int) (*pb.Port, *pb.Endpoint) {
	p, e := pod(i)
	e.Policy = pb.Endpoint_POLICY_ENFORCED
	e.Ingress = []*pb.Stage{{Program4: 1, Program6: 1, Name: "default"}}
	return p, e
}

func member(addrs ...int) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, i := range addrs {
		four, six := addr4(i).As4(), addr6(i).As16()
		c.Addresses4, c.Lengths4 = append(c.Addresses4, four[:]...), append(c.Lengths4, 32)
		c.Addresses6, c.Lengths6 = append(c.Addresses6, six[:]...), append(c.Lengths6, 128)
	}
	return c
}

// drops waits until so many packets were dropped for a reason since it was 0.
func (b *bench) drops(r graph.Reason, n uint64) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); b.Engine().Total().Drops[r] != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%d packets dropped for %v, want %d", b.Engine().Total().Drops[r], r, n)
		}
	}
}

func TestPolicyIsEnforced(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			b := newBench(t, workers)
			one, e1 := pod(1)
			two, e2 := policed(2)
			part := &pb.ProgramPart{Id: 1, Size: uint32(len(image(t))), Image: image(t)}
			b.apply(true, &pb.Chunk{
				Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2},
				Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}}, Programs: []*pb.ProgramPart{part},
			})
			send := func() { b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2))) }
			send()
			b.collect("p2", 2)
			b.apply(false, &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Left: member(1), Joined: member(3)}}})
			send() // of flows that are known, and may not go on
			b.drops(graph.IngressDenied, 2)
			b.apply(false, &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}}})
			send()
			b.collect("p2", 2)
			e2.Ingress = nil
			b.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{e2}, RemovedPrograms: []uint32{1}})
			send() // no stages: nothing is allowed
			b.drops(graph.IngressDenied, 4)
			b.apply(false, &pb.Chunk{RemovedEndpoints: []string{"p2"}, RemovedPorts: []string{"p2"}})
			if n := b.connections.Table.Held(1) + b.connections.Table.Held(2); n > 2 {
				t.Errorf("%d flows are charged, of 2", n)
			}
		})
	}
}

// A state whose sets the table has no room for leaves its endpoints closed, says
// so, and opens them when there is room.
func TestPolicyThatCannotBeHeldFailsClosed(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1)
	two, e2 := policed(2)
	full := &pb.Chunk{
		Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}, Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}},
		Programs: []*pb.ProgramPart{{Id: 1, Size: uint32(len(image(t))), Image: image(t)}},
	}
	for id := range uint32(label.MaxSets) {
		full.Sets = append(full.Sets, &pb.SetMembers{Set: 2 + id, Joined: member(1)})
	}
	b.apply(true, full)
	if c := b.Conditions(); !told(c, "policy", "narrow the widest prefixes") {
		t.Errorf("conditions are %v", c)
	}
	b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2)))
	b.drops(graph.NoPolicy, 2)
	b.apply(false, &pb.Chunk{RemovedSets: []uint32{2, 3, 4}})
	if c := b.Conditions(); told(c, "policy", "") {
		t.Errorf("conditions are %v", c)
	}
	b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2)))
	b.collect("p2", 2)
}

// routesTo leads the addresses of pod i to a next hop.
func routesTo(i int, hop uint32) *pb.RouteColumns {
	m := member(i)
	return &pb.RouteColumns{Addresses4: m.Addresses4, Lengths4: m.Lengths4, NextHops4: []uint32{hop}, Addresses6: m.Addresses6, Lengths6: m.Lengths6, NextHops6: []uint32{hop}}
}

// The endpoint of the node itself judges what is forwarded through its port, and fails
// closed for that alone.
func TestHostEndpointJudgesItsPort(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1) // stands for all the world behind its port
	two, e2 := pod(2)
	host := &pb.Endpoint{Id: "host/up", Port: e1.Port, Host: true, Policy: pb.Endpoint_POLICY_ENFORCED, Ingress: []*pb.Stage{{Program4: 1, Program6: 1, Name: "default"}}}
	hop := &pb.NextHop{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: e1.Port}}}
	b.apply(true, &pb.Chunk{
		Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{host, e2}, NextHops: []*pb.NextHop{hop}, Routes: routesTo(1, 1),
		Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}}, Programs: []*pb.ProgramPart{{Id: 1, Size: uint32(len(image(t))), Image: image(t)}},
	})
	from := func(i int) {
		b.opener.get("p1").Inject(0, packet(addr4(i), addr4(2)), packet(addr6(i), addr6(2)))
	}
	from(1)
	b.collect("p2", 2)
	b.opener.get("p2").Inject(0, packet(addr4(2), addr4(1)), packet(addr6(2), addr6(1)))
	b.collect("p1", 2) // answers, and egress has no stage
	b.apply(false, &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Left: member(1)}}})
	from(1)
	b.drops(graph.EgressDenied, 2)
	host.Policy, host.Ingress = pb.Endpoint_POLICY_OFF, nil
	b.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{host}, RemovedPrograms: []uint32{1}})
	from(1)
	b.collect("p2", 2)
	host.Policy = pb.Endpoint_POLICY_NONE
	b.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{host}})
	from(1)
	b.drops(graph.EgressDenied, 4)
}

func told(list []Condition, object, message string) bool {
	for _, c := range list {
		if c.Object == object && c.Reason == ReasonTables && strings.Contains(c.Message, message) {
			return true
		}
	}
	return false
}

// Members leave also when the change that had them leave could not be put in force,
// and another one mended it.
func TestMembersLeaveAfterAChangeThatDidNotFit(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1)
	two, e2 := policed(2)
	b.apply(true, &pb.Chunk{
		Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}, Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}},
		Programs: []*pb.ProgramPart{{Id: 1, Size: uint32(len(image(t))), Image: image(t)}},
	})
	send := func() { b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2))) }
	send()
	b.collect("p2", 2)
	many, mend := &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Left: member(1)}}}, &pb.Chunk{}
	for id := range uint32(label.MaxSets + 1) {
		many.Sets = append(many.Sets, &pb.SetMembers{Set: 2 + id, Joined: member(9)})
		mend.RemovedSets = append(mend.RemovedSets, 2+id)
	}
	b.apply(false, many)
	if b.conditions.now["policy"].Reason == "" {
		t.Fatal("one address is in more sets than it can be in, and no condition says so")
	}
	send()
	b.drops(graph.NoPolicy, 2) // nobody's policy can be told
	b.apply(false, mend)
	send()
	b.drops(graph.IngressDenied, 2)
}

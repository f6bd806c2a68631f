package plane

import (
	"context"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/desired"
)

// Known flows are looked at after changes that may concern them, and after no others:
// a pass that finds all as it should be costs them nothing.
func TestFlowsAreLookedAtOnlyAfterChanges(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1)
	two, e2 := policed(2)
	part := &pb.ProgramPart{Id: 1, Size: uint32(len(image(t))), Image: image(t)}
	b.apply(true, &pb.Chunk{
		Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2},
		Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}}, Programs: []*pb.ProgramPart{part},
		NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_BLACKHOLE}},
	})
	steps := []struct {
		name string
		do   func()
		most uint64 // generations that may begin; at least one, unless that is 0
	}{
		{"nothing", func() { b.apply(false, &pb.Chunk{}) }, 0},
		{"a pass that looks at everything", func() { b.pass(context.Background()) }, 0},
		{"all of it again", func() {
			if err := b.convergeAll(); err != nil {
				t.Error(err)
			}
		}, 0},
		{"a beat", func() { b.beat(1) }, 0},
		{"the same endpoint", func() { b.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{e2}}) }, 0},
		{"a member joins", func() { b.apply(false, &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Joined: member(3)}}}) }, 1},
		{"one leaves", func() { b.apply(false, &pb.Chunk{Sets: []*pb.SetMembers{{Set: 1, Left: member(3)}}}) }, 1},
		{"a route", func() {
			b.apply(false, &pb.Chunk{Routes: &pb.RouteColumns{Addresses4: []byte{10, 9, 0, 0}, Lengths4: []byte{16}, NextHops4: []uint32{1}}})
		}, 1},
		{"another policy", func() {
			e2.Ingress = nil
			b.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{e2}})
		}, 1},
	}
	for _, s := range steps {
		was := b.Court().Generation()
		s.do()
		if n := b.Court().Generation() - was; n > s.most || n == 0 && s.most > 0 {
			t.Errorf("%s: %d generations began, want %d at most", s.name, n, s.most)
		}
	}
}

// convergeAll is a pass that believes nothing of the tables.
func (b *bench) convergeAll() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all *desired.Change
	return b.converge(context.Background(), all)
}

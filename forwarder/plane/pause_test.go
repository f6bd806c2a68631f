package plane

import (
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/desired"
)

// manyRoutes is n routes of each family to a next hop.
func manyRoutes(n int, hop uint32) (chunks []*pb.Chunk) {
	for i := 0; i < n; {
		r := &pb.RouteColumns{}
		for range min(20_000, n-i) {
			at := []byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}
			r.Addresses4, r.Lengths4, r.NextHops4 = append(r.Addresses4, at...), append(r.Lengths4, 24), append(r.NextHops4, hop)
			r.Addresses6 = append(append(append(r.Addresses6, 0xfd, 1), at[:3]...), make([]byte, 11)...)
			r.Lengths6, r.NextHops6 = append(r.Lengths6, 64), append(r.NextHops6, hop)
			i++
		}
		chunks = append(chunks, &pb.Chunk{Routes: r})
	}
	return chunks
}

// longestWait is how long Apply took for a snapshot, and the longest that somebody
// who looked at the plane again and again waited meanwhile.
func (b *bench) longestWait(c *desired.Change) (took, longest time.Duration) {
	b.t.Helper()
	stop, waited := make(chan struct{}), make(chan time.Duration)
	go func() {
		longest := time.Duration(0)
		for {
			select {
			case <-stop:
				waited <- longest
				return
			case <-time.After(time.Millisecond):
			}
			begun := time.Now()
			b.Alive()
			longest = max(longest, time.Since(begun))
		}
	}()
	begun := time.Now()
	b.gen++
	faults, err := b.Apply(b.t.Context(), b.gen, c, true)
	took = time.Since(begun)
	close(stop)
	longest = <-waited
	if faults != nil || err != nil {
		b.t.Fatal(faults, err)
	}
	return took, longest
}

// Whoever looks at the plane waits for a part of a large snapshot, not for all of it.
// A machine that does much else keeps whoever looks from it for as long, but not
// each time.
func TestLargeSnapshotsLetOthersIn(t *testing.T) {
	one, e1 := pod(1)
	small := &pb.Chunk{Ports: []*pb.Port{one}, Endpoints: []*pb.Endpoint{e1}, NextHops: []*pb.NextHop{
		{Id: 5, Kind: pb.NextHop_KIND_BLACKHOLE}, {Id: 6, Kind: pb.NextHop_KIND_PROHIBIT},
	}}
	steps := []struct {
		name   string
		chunks []*pb.Chunk
	}{{"new routes", manyRoutes(150_000, 5)}, {"other next hops", manyRoutes(150_000, 6)}, {"none", nil}}
	b := newBench(t, 1)
	short := map[string]bool{}
	for round := 0; round < 5 && len(short) < len(steps); round++ {
		for _, step := range steps {
			c := changeOf(small)
			for _, m := range step.chunks {
				c.Add(m)
			}
			took, longest := b.longestWait(c)
			t.Logf("%s: a snapshot that took %v let others wait for %v", step.name, took, longest)
			if longest <= took/2 {
				short[step.name] = true
			}
		}
	}
	for _, step := range steps {
		if !short[step.name] {
			t.Errorf("%s: others waited each time for more than half of what the snapshot took", step.name)
		}
	}
}

package plane

import (
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
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

// Whoever looks at the plane waits for a part of a large snapshot, not for all of it.
func TestLargeSnapshotsLetOthersIn(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1)
	small := &pb.Chunk{Ports: []*pb.Port{one}, Endpoints: []*pb.Endpoint{e1}, NextHops: []*pb.NextHop{
		{Id: 5, Kind: pb.NextHop_KIND_BLACKHOLE}, {Id: 6, Kind: pb.NextHop_KIND_PROHIBIT},
	}}
	for _, step := range []struct {
		name   string
		chunks []*pb.Chunk
	}{{"new routes", manyRoutes(150_000, 5)}, {"other next hops", manyRoutes(150_000, 6)}, {"none", nil}} {
		t.Run(step.name, func(t *testing.T) {
			c := changeOf(small)
			for _, m := range step.chunks {
				c.Add(m)
			}
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
			faults, err := b.Apply(t.Context(), b.gen, c, true)
			took := time.Since(begun)
			close(stop)
			longest := <-waited
			if faults != nil || err != nil {
				t.Fatal(faults, err)
			}
			t.Logf("a snapshot that took %v let others wait for %v", took, longest)
			if longest > took/2 {
				t.Errorf("a snapshot that took %v let others wait for %v", took, longest)
			}
		})
	}
}

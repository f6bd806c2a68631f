package policy

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/policy"
)

const (
	memberCase = "control/member"

	labelBudget   = 10 // ms
	fewestChanges = 20 // that are timed, however long they take
	mostChanges   = 2000
)

func millisPerChange() harness.Metric { return harness.Metric{Name: "ms_per_change", Unit: "ms"} }
func microsPerChange() harness.Metric { return harness.Metric{Name: "us_per_change", Unit: "us"} }
func bytesPerChange() harness.Metric  { return harness.Metric{Name: "bytes_per_change", Unit: "B"} }

// timed makes changes until time is up, and tells how long each took, in ms.
func timed(ctx context.Context, d time.Duration, change func(i int) (time.Duration, error)) (millis []float64, err error) {
	end := time.Now().Add(d)
	for i := 0; i < mostChanges && ctx.Err() == nil && (i < fewestChanges || time.Now().Before(end)); i++ {
		took, err := change(i)
		if err != nil {
			return nil, fmt.Errorf("make change %d: %w", i, err)
		}
		millis = append(millis, took.Seconds()*1000)
	}
	return millis, nil
}

// flushed is what an object changes, and how long it took from the object to the
// delta for the dataplane.
func flushed(g *guard.Guard, o metav1.Object) (*guard.Update, time.Duration, error) {
	start := time.Now()
	if err := g.Upsert(o); err != nil {
		return nil, 0, err
	}
	u := g.Flush()
	took := time.Since(start)
	g.Settled(u.Generation)
	return u, took, nil
}

// relabel is one label of one pod that changes in a cluster, for the guard of a node
// that has the pod; of all nodes at once, where it is empty.
type relabel struct{ node string }

func (l relabel) String() string {
	name := "control/endpoints=10k/policies=1k/label"
	if l.node != "" {
		name += "/node"
	}
	return name
}

// change is the i-th: a pod, by its number, and its app from then on. Each pod has
// its turn before one has its next.
func (l relabel) change(i int) (number, app int) {
	there := clusterPods
	if l.node != "" {
		there = clusterPods / nodes
	}
	number = i * 7 % there
	return number, (number/namespaces + 1 + i/there) % apps
}

// measure times it, from the object to what the dataplane is sent.
func (l relabel) measure(ctx context.Context, s *harness.Session, d time.Duration) error {
	g, err := newCluster(l.node, clusterPods)
	if err != nil {
		return err
	}
	millis, err := timed(ctx, d, func(i int) (time.Duration, error) {
		number, app := l.change(i)
		u, took, err := flushed(g, pod(number, app))
		if err != nil {
			return 0, err
		}
		key := policy.Key{Kind: "WorkloadEndpoint", Namespace: fmt.Sprint("n", number%namespaces), Name: fmt.Sprint("pod", number)}
		if u.Stages[key] == nil {
			return 0, fmt.Errorf("%v is another app's now, and is judged as before", key)
		}
		return took, nil
	})
	rest(g)
	if err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	if len(millis) == 0 {
		skip(s, l.String(), millisPerChange(), "", labelBudget)
		return nil
	}
	r := harness.New(l.String(), millisPerChange(), harness.Summary(millis), "", nil, labelBudget, "")
	r.Extra = map[string]float64{"p99": harness.Percentile(millis, 99).Median}
	s.Say("%-30s %.2f ms, p99 %.2f", l, *r.Ours, r.Extra["p99"])
	s.Report(r)
	return nil
}

// measureMember times one pod more elsewhere in the cluster, for the guard of a
// node whose pods let it in, and tells how much that node's dataplane is sent.
func measureMember(ctx context.Context, s *harness.Session, d time.Duration) error {
	g, err := newCluster(nodeName(0), clusterPods)
	if err != nil {
		return err
	}
	var bytes []float64
	millis, err := timed(ctx, d, func(i int) (time.Duration, error) {
		number := clusterPods + namespaces + i // on another node
		u, took, err := flushed(g, pod(number, 1))
		if err == nil {
			n := 0
			n, err = sizeOf(&u.Delta)
			bytes = append(bytes, float64(n))
		}
		return took, err
	})
	rest(g)
	if err != nil {
		return fmt.Errorf("%s: %w", memberCase, err)
	}
	if len(millis) == 0 {
		skip(s, memberCase, microsPerChange(), "", 0)
		return nil
	}
	for i := range millis {
		millis[i] *= 1000
	}
	s.Say("%-30s %.0f us, %.0f B", memberCase, harness.Summary(millis).Median, harness.Summary(bytes).Median)
	s.Report(harness.New(memberCase, microsPerChange(), harness.Summary(millis), "", nil, 0, ""))
	s.Report(harness.New(memberCase, bytesPerChange(), harness.Summary(bytes), "", nil, 0, ""))
	return nil
}

// sizeOf is the bytes of a delta in which one pod's two addresses have joined sets,
// as the dataplane is sent it.
func sizeOf(d *dataplane.Delta) (int, error) {
	c := &pb.Chunk{}
	for _, set := range d.Set.Sets {
		if len(set.Members) != 2 {
			return 0, fmt.Errorf("%d addresses join set %d, want the two of one pod", len(set.Members), set.ID)
		}
		c.Sets = append(c.Sets, &pb.SetMembers{Set: set.ID, Joined: columns(set.Members[0].Addr(), set.Members[1].Addr())})
	}
	if len(c.Sets) == 0 || len(d.Set.Programs)+len(d.Left)+len(d.RemovedSets)+len(d.RemovedPrograms) != 0 {
		return 0, fmt.Errorf("%d sets and %d programs change, want sets alone", len(c.Sets), len(d.Set.Programs))
	}
	return proto.Size(c), nil
}

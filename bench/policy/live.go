package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	pb "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/session"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/policy"
)

const (
	liveCase   = "control/rules=12500"
	editCase   = "control/rules=12500/edit"
	liveRules  = 12_500
	liveBudget = 1000 // ms
	liveTimes  = 9
	perPolicy  = 1024 // rules
)

// live is a forwarder's dataplane on ports of memory, behind the socket by which a
// client feeds it, and what calculates for it. It has one pod.
type live struct {
	plane  *plane.Plane
	dir    string
	server *grpc.Server
	stream *dataplane.Stream
	guard  *guard.Guard
}

// Open makes a port in memory.
func (*live) Open(want *desired.Port, _ *hostnet.Host, workers int, _ plane.SteeringSource) (*plane.Device, error) {
	m, err := port.NewMemory(port.MemoryConfig{Name: want.Name, Queues: workers, MTU: 1500, Offload: true})
	if err != nil {
		return nil, err
	}
	return &plane.Device{Port: m, GSO: true, Mode: "memory", Carrier: true}, nil
}

// Commit puts a commit in force.
func (l *live) Commit(ctx context.Context, c session.Commit) (faults []string, err error) {
	return l.plane.Apply(ctx, c.Generation, c.Change, c.Snapshot)
}

// Acknowledged has nothing more to do.
func (*live) Acknowledged() {}

// Generation is that of the state in force.
func (l *live) Generation() uint64 { return l.plane.Generation() }

// Listen tells of conditions.
func (l *live) Listen(hear func(plane.Condition)) (stop func()) { return l.plane.Listen(hear) }

func startLive(ctx context.Context) (_ *live, err error) {
	l := &live{guard: guard.New(nodeName(0))}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	if l.plane, err = plane.New(plane.Config{Workers: 1, Frames: 1024, Supers: 16, Spin: time.Millisecond, Log: quiet, Opener: l}); err != nil {
		return l, err
	}
	if l.dir, err = os.MkdirTemp("", "margay-bench-policy-"); err != nil {
		return l, err
	}
	socket := filepath.Join(l.dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return l, err
	}
	l.server = grpc.NewServer(grpc.MaxRecvMsgSize(session.MaxMessage))
	pb.RegisterDataplaneServer(l.server, session.NewServer(l, l.plane, "bench", quiet))
	go func() { _ = l.server.Serve(listener) }() // it ends with close; before, whoever waits for it says so
	if l.stream, err = dataplane.Dial(ctx, socket, dataplane.Options{Client: "margay-bench"}); err != nil {
		return l, err
	}
	_, err = l.stream.Apply(ctx, dataplane.State{Ports: []*pb.Port{{Name: podName, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}}})
	if err == nil {
		err = l.guard.Upsert(namespaceProfile(0))
	}
	if err == nil {
		err = l.guard.Upsert(pod(0, 0))
	}
	if err == nil {
		err = l.bring(ctx)
	}
	return l, err
}

const podName = "pod0"

func (l *live) close() error {
	if l.stream != nil {
		l.stream.Close()
	}
	if l.server != nil {
		l.server.Stop()
	}
	var err error
	if l.plane != nil {
		err = l.plane.Close()
	}
	if l.dir != "" {
		err = errors.Join(err, os.RemoveAll(l.dir))
	}
	return err
}

// bring has the dataplane judge by what the guard has heard of, and returns when it
// does.
func (l *live) bring(ctx context.Context) error {
	u := l.guard.Flush()
	for _, c := range u.Conditions {
		if len(c.Faults) > 0 {
			return fmt.Errorf("%v: %s", c.Object, c.Faults[0])
		}
	}
	for _, stages := range u.Stages { // of the one pod
		e := &pb.Endpoint{Id: podName, Port: podName, Addresses: []string{"10.0.0.0", "fd00::"}}
		stages.Judge(e)
		u.Delta.Set.Endpoints = append(u.Delta.Set.Endpoints, e)
	}
	sent, err := l.stream.SendDelta(ctx, u.Delta)
	if err == nil {
		err = sent.Wait(ctx)
	}
	l.guard.Settled(u.Generation)
	return err
}

// rules is how many rules the dataplane has names of.
func (l *live) rules() (n int) {
	l.plane.Export(func(s *desired.State, _ uint64) { n = len(s.Rules) })
	return n
}

// widePolicies are as many policies for the pod as it takes for so many rules.
func widePolicies(rules int) (all []*v3.GlobalNetworkPolicy) {
	for i := range rules {
		if i%perPolicy == 0 {
			p := &v3.GlobalNetworkPolicy{ObjectMeta: named(fmt.Sprintf("wide%02d", len(all)))}
			p.Spec.Selector, p.Spec.Types = "app == 'a0'", []v3.PolicyType{v3.PolicyTypeIngress}
			all = append(all, p)
		}
		r := v3.Rule{Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP)),
			Source:      v3.EntityRule{Nets: []string{fmt.Sprintf("172.%d.%d.0/24", 16+i/256%16, i%256)}},
			Destination: v3.EntityRule{Ports: []v3.Port{v3.SinglePort(uint16(1000 + i/4096))}}}
		last := all[len(all)-1]
		last.Spec.Ingress = append(last.Spec.Ingress, r)
	}
	return all
}

// settle brings also what is compiled in the background, until that is all.
func (l *live) settle(ctx context.Context) error {
	for l.guard.Folding() != nil {
		<-l.guard.Folding()
		if err := l.bring(ctx); err != nil {
			return err
		}
	}
	return nil
}

// put times objects from the guard to what the dataplane has acknowledged.
func (l *live) put(ctx context.Context, policies ...*v3.GlobalNetworkPolicy) (time.Duration, error) {
	start := time.Now()
	for _, p := range policies {
		if err := l.guard.Upsert(p.DeepCopy()); err != nil {
			return 0, err
		}
	}
	err := l.bring(ctx)
	return time.Since(start), err
}

// once times policies, and then one rule of them that changes, and takes them away
// again.
func (l *live) once(ctx context.Context, policies []*v3.GlobalNetworkPolicy) (all, edit time.Duration, err error) {
	before := l.rules()
	if all, err = l.put(ctx, policies...); err != nil {
		return 0, 0, err
	}
	if n := l.rules(); n != before+liveRules {
		return 0, 0, fmt.Errorf("the dataplane has %d rules more, want %d", n-before, liveRules)
	}
	changed := policies[len(policies)/2].DeepCopy()
	changed.Spec.Ingress[perPolicy/2].Source.Nets = []string{"198.18.0.0/15"}
	if edit, err = l.put(ctx, changed); err != nil {
		return 0, 0, err
	}
	if c := l.plane.Conditions(); len(c) > 0 {
		return 0, 0, fmt.Errorf("%s: %s", c[0].Object, c[0].Message)
	}
	for _, p := range policies {
		l.guard.Delete(policy.Key{Kind: "GlobalNetworkPolicy", Name: p.Name})
	}
	if err = l.bring(ctx); err == nil {
		err = l.settle(ctx)
	}
	return all, edit, err
}

// measureLive times 12,500 rules from objects to a dataplane that judges by them,
// and one of them that changes.
func measureLive(ctx context.Context, s *harness.Session, d time.Duration) error {
	m := harness.Metric{Name: "ms_to_live", Unit: "ms"}
	if os.Geteuid() != 0 {
		s.Report(harness.New(liveCase, m, nil, "", nil, liveBudget, "a dataplane needs root (CAP_SYS_ADMIN), to enter the namespaces of its pods"))
		return nil
	}
	l, err := startLive(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", liveCase, err)
	}
	defer func() { _ = l.close() }() // nobody asks for it any more
	var alls, edits []float64
	policies, end := widePolicies(liveRules), time.Now().Add(d)
	for len(alls) < liveTimes && ctx.Err() == nil && (len(alls) == 0 || time.Now().Before(end)) {
		all, edit, err := l.once(ctx, policies)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", liveCase, err)
		}
		alls, edits = append(alls, all.Seconds()*1000), append(edits, edit.Seconds()*1000)
	}
	if ctx.Err() != nil {
		skip(s, liveCase, m, "", liveBudget)
		return nil
	}
	s.Say("%-30s %.0f ms; %.1f ms for one of them", liveCase, harness.Summary(alls).Median, harness.Summary(edits).Median)
	if s.Wants(liveCase) {
		s.Report(harness.New(liveCase, m, harness.Summary(alls), "", nil, liveBudget, ""))
	}
	s.Report(harness.New(editCase, m, harness.Summary(edits), "", nil, 0, ""))
	return nil
}

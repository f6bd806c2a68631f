package control

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/lab"
)

// bed is the node and its store.
type bed struct {
	lab    *lab.Lab
	store  datastore.Store
	ctl    string // program of margayctl
	filled size
	letIn  map[int]bool // workloads by number
}

func ctlBeside(forwarder string) string { return filepath.Join(filepath.Dir(forwarder), "margayctl") }

func (b *bed) close() {
	if b.store != nil {
		_ = b.store.Close() // what was written is there
	}
	_ = b.lab.Down() // a later run clears what is left
}

// settle waits until the agent is at what the store holds.
func (b *bed) settle(ctx context.Context) error {
	holds, err := b.store.List(ctx, datastore.Scope{Kind: v3.KindTier})
	if err != nil {
		return err
	}
	_, err = await(ctx, b.lab, func(_ uint64, revision string) bool { return revision == string(holds.Revision) })
	return err
}

// after makes a change and tells how long it took until a later generation was in
// force.
func (b *bed) after(ctx context.Context, change func() error) (time.Duration, error) {
	st, err := b.lab.AgentStatus(ctx, node)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := change(); err != nil {
		return 0, err
	}
	done, err := await(ctx, b.lab, func(generation uint64, _ string) bool { return generation > st.GetGeneration() })
	return done.Sub(began), err
}

// change times one policy of the node's pods, which has another port each time: written
// to the store, and by a margayctl that begins and ends.
func (b *bed) change(ctx context.Context, s *harness.Session, name string, rounds int) error {
	p := policyOf(0, 0)
	p.Name = "probe"
	if err := b.create(ctx, []v3.Object{p}); err != nil {
		return err
	}
	next := func(i int) *v3.NetworkPolicy {
		q := p.DeepCopy()
		q.APIVersion, q.Kind = v3.GroupVersion().String(), v3.KindNetworkPolicy
		q.Spec.Ingress[0].Destination.Ports = []v3.Port{v3.SinglePort(uint16(1000 + i))}
		return q
	}
	ways := map[string]func(*v3.NetworkPolicy) error{
		"store":     func(q *v3.NetworkPolicy) error { _, err := b.store.Update(ctx, q); return err },
		"margayctl": func(q *v3.NetworkPolicy) error { return b.apply(ctx, q) },
	}
	i := 0
	for _, way := range []string{"store", "margayctl"} {
		var took []float64
		for range rounds {
			if err := b.settle(ctx); err != nil {
				return err
			}
			i++
			d, err := b.after(ctx, func() error { return ways[way](next(i)) })
			if err != nil {
				return fmt.Errorf("change a policy by %s: %w", way, err)
			}
			took = append(took, d.Seconds()*1000)
		}
		p99 := harness.Percentile(took, 99)
		s.Say("a policy by %-9s %.1f ms in the median, %.1f at p99", way, harness.Summary(took).Median, p99.Median)
		r := harness.New(name, millis("ms_p99_by_"+way), p99, "", nil, changeBudget, "")
		r.Extra = map[string]float64{"median": harness.Summary(took).Median}
		s.Report(r)
	}
	return nil
}

// apply has margayctl apply an object.
func (b *bed) apply(ctx context.Context, o v3.Object) error {
	text, err := yaml.Marshal(o)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.ctl, "apply", "--etcd-endpoints", b.lab.StoreEndpoint(), "-f", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() { // the program says what it could not read
		_, _ = in.Write(text)
		_ = in.Close()
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("margayctl apply: %w: %s", err, out)
	}
	return nil
}

// letIn is the app that the policy of pod a lets in.
const letIn = 1

// labelCase is how labels are called in the names of cases, and on the command line.
const labelCase = "label"

// relabelled is what one label took, after the other.
type relabelled struct{ took, nanos, octets []float64 }

// label times labels in the small and in the large cluster by turns, so that what else
// the machine does slows both.
func (b beds) label(ctx context.Context, s *harness.Session, rounds int) error {
	var small, large relabelled
	for i := range rounds {
		if err := errors.Join(b.small.relabel(ctx, i, &small), b.large.relabel(ctx, i, &large)); err != nil {
			return err
		}
	}
	report := func(z, peer size, ours, theirs *relabelled) {
		s.Say("one label of %d workloads: %.0f ns, %.0f B", z.endpoints, harness.Summary(ours.nanos).Median, harness.Summary(ours.octets).Median)
		for _, m := range []struct {
			harness.Metric
			of func(*relabelled) []float64
		}{
			{millis("ms_per_change"), func(r *relabelled) []float64 { return r.took }},
			{harness.Metric{Name: "ns_computed", Unit: "ns"}, func(r *relabelled) []float64 { return r.nanos }},
			{harness.Metric{Name: "bytes_to_forwarder", Unit: "B"}, func(r *relabelled) []float64 { return r.octets }},
		} {
			name, us := labelCase+"/"+z.String(), harness.Summary(m.of(ours))
			if theirs == nil {
				s.Report(harness.New(name, m.Metric, us, "", nil, 0, ""))
				continue
			}
			r := harness.New(name, m.Metric, us, peer.String(), harness.Summary(m.of(theirs)), 0, "")
			if m.Name != "ms_per_change" { // which the store's answer is part of
				r.WantRatio(1 / flatBudget)
			}
			s.Report(r)
		}
	}
	report(b.small.filled, size{}, &small, nil)
	report(b.large.filled, b.small.filled, &large, &small)
	return nil
}

// relabel times one label of a workload of another node, which comes into the set that
// pod a's policy lets in, or leaves it.
func (b *bed) relabel(ctx context.Context, i int, into *relabelled) error {
	if err := b.settle(ctx); err != nil {
		return err
	}
	number, app := i*namespaces%b.filled.endpoints, letIn // of namespace n0, as pod a
	if b.letIn[number] {
		app++
	}
	b.letIn[number] = !b.letIn[number]
	w := workload(number, app)
	before, err := b.lab.AgentStatus(ctx, node)
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := b.store.Update(ctx, w); err != nil {
		return fmt.Errorf("label a workload: %w", err)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	into.took = append(into.took, time.Since(began).Seconds()*1000)
	now, err := b.lab.AgentStatus(ctx, node)
	if err != nil {
		return err
	}
	into.nanos = append(into.nanos, float64(now.GetCalculatedNanoseconds()-before.GetCalculatedNanoseconds()))
	into.octets = append(into.octets, float64(now.GetSentBytes()-before.GetSentBytes()))
	return nil
}

// rules times 12,500 rules for one pod, in policies as long as they may be.
func (b *bed) rules(ctx context.Context, s *harness.Session, name string) error {
	const rules, each = 12_500, 1000
	var all []v3.Object
	for at := 0; at < rules; at += each {
		p := &v3.GlobalNetworkPolicy{}
		p.Name = fmt.Sprint("many", at/each)
		p.Spec.Selector, p.Spec.Types = "app == 'a0' && pod == 'a'", []v3.PolicyType{v3.PolicyTypeIngress}
		for i := at; i < min(at+each, rules); i++ {
			p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{
				Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP)),
				Source:      v3.EntityRule{Nets: []string{fmt.Sprintf("192.%d.%d.0/24", i>>8&255, i&255)}},
				Destination: v3.EntityRule{Ports: []v3.Port{v3.SinglePort(uint16(1 + i%60_000))}},
			})
		}
		all = append(all, p)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	began := time.Now()
	err := b.create(ctx, all)
	if err == nil {
		err = b.settle(ctx)
	}
	took := time.Since(began)
	for _, o := range all {
		err = errors.Join(err, b.store.Delete(ctx, datastore.KeyOf(o), datastore.Precondition{}))
	}
	if err == nil {
		err = b.settle(ctx)
	}
	if err != nil {
		return err
	}
	s.Report(harness.New(name, millis("ms"), harness.Exactly(took.Seconds()*1000), "", nil, rulesBudget, ""))
	return nil
}

// cold times an agent that begins beside a store with all that there is.
func (b *bed) cold(ctx context.Context, s *harness.Session, name string) error {
	if err := errors.Join(b.settle(ctx), b.lab.StopAgent(node, false)); err != nil {
		return err
	}
	holds, err := b.store.List(ctx, datastore.Scope{Kind: v3.KindTier})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.lab.LaunchAgent(node); err != nil {
		return err
	}
	done, err := await(ctx, b.lab, func(_ uint64, revision string) bool { return revision == string(holds.Revision) })
	if err != nil {
		return err
	}
	took := done.Sub(began)
	m, err := stage.MemoryOf(b.lab.AgentPID(node))
	if err != nil {
		return err
	}
	s.Say("in sync after %v, with %d MiB", took.Round(time.Millisecond), m.Total>>20)
	s.Report(harness.New(name, millis("ms_to_in_sync"), harness.Exactly(took.Seconds()*1000), "", nil, coldBudget, ""))
	s.Report(harness.New(name, harness.Metric{Name: "rss", Unit: "MiB"}, harness.Exactly(float64(m.Total)/(1<<20)), "", nil, memoryBudget, ""))
	return nil
}

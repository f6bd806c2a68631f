package control

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/fabric"
)

const (
	namespaces = 100
	nodes      = 100
	apps       = 20 // of a namespace
	writers    = 32 // to the store, side by side
)

// size is how much of the cluster there is.
type size struct{ endpoints, policies int }

// String is the size in the name of a case.
func (z size) String() string { return "endpoints=" + count(z.endpoints) }

func count(n int) string {
	if n%1000 == 0 {
		return fmt.Sprint(n/1000, "k")
	}
	return fmt.Sprint(n)
}

// fill adds to the store what is not there yet, and waits until that is in force.
func (z size) fill(ctx context.Context, b *bed) error {
	var objects []v3.Object
	if b.filled.endpoints == 0 {
		for i := range nodes {
			objects = append(objects, otherNode(i))
		}
		for i := 2; i < namespaces; i++ { // those of the pods are there
			objects = append(objects, profile(i))
		}
	}
	for i := b.filled.policies; i < z.policies; i++ {
		objects = append(objects, policyOf(i%namespaces, i/namespaces))
	}
	for i := b.filled.endpoints; i < z.endpoints; i++ {
		app := i / namespaces % apps
		b.letIn[i] = app == letIn
		objects = append(objects, workload(i, app))
	}
	b.filled = z
	if err := b.create(ctx, objects); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	return b.settle(ctx)
}

// create writes objects side by side.
func (b *bed) create(ctx context.Context, objects []v3.Object) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan v3.Object)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for o := range work {
				if _, err := b.store.Create(ctx, o); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, o := range objects {
		work <- o
	}
	close(work)
	all.Wait()
	return context.Cause(ctx)
}

func otherNode(i int) *v3.Node {
	n := &v3.Node{}
	n.Name = fmt.Sprint("node", i)
	n.Spec.BGP = &fabric.NodeBGPSpec{
		IPv4Address: fmt.Sprintf("172.31.1.%d/16", i+1), IPv6Address: fmt.Sprintf("fd31:76::1:%x/64", i+1),
	}
	return n
}

func profile(n int) *v3.Profile {
	p := &v3.Profile{}
	p.Name = fmt.Sprint(v3.ProfileNamespacePrefix, "n", n)
	p.Spec.Ingress, p.Spec.Egress = []v3.Rule{{Action: v3.Allow}}, []v3.Rule{{Action: v3.Allow}}
	p.Spec.LabelsToApply = map[string]string{"pcns.projectcalico.org/name": fmt.Sprint("n", n)}
	return p
}

// policyOf lets the next app of a namespace in to an app by one port.
func policyOf(n, app int) *v3.NetworkPolicy {
	p := &v3.NetworkPolicy{}
	p.Namespace, p.Name = fmt.Sprint("n", n), fmt.Sprint("app", app)
	p.Spec.Selector = fmt.Sprintf("app == 'a%d'", app)
	p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress}
	p.Spec.Ingress = []v3.Rule{{
		Action: v3.Allow, Protocol: new(v3.ProtocolNamed(v3.TCP)), Source: v3.EntityRule{Selector: fmt.Sprintf("app == 'a%d'", (app+1)%apps)},
		Destination: v3.EntityRule{Ports: []v3.Port{v3.SinglePort(80)}},
	}}
	return p
}

// workload is the i-th, of an app of its namespace, on another node.
func workload(i, app int) *v3.WorkloadEndpoint {
	on := fmt.Sprint("node", i/namespaces%nodes)
	w := &v3.WorkloadEndpoint{}
	w.Namespace = fmt.Sprint("n", i%namespaces)
	w.Name = fmt.Sprintf("%s-k8s-pod%d-eth0", on, i)
	w.Labels = map[string]string{"app": fmt.Sprint("a", app), "projectcalico.org/namespace": w.Namespace, "projectcalico.org/orchestrator": "k8s"}
	w.Spec.Node, w.Spec.Orchestrator, w.Spec.Pod, w.Spec.Endpoint = on, "k8s", fmt.Sprint("pod", i), "eth0"
	w.Spec.InterfaceName = fmt.Sprintf("cali%d", i)
	w.Spec.Profiles = []string{v3.ProfileNamespacePrefix + w.Namespace}
	four := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	six := netip.AddrFrom16([16]byte{0xfd, 0x76, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
	w.Spec.IPNetworks = []string{netip.PrefixFrom(four, 32).String(), netip.PrefixFrom(six, 128).String()}
	return w
}

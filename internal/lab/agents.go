package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"

	agentv1 "margay.dev/margay/api/agent/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/agent"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/internal/lab/process"
)

// store is the name of the lab's etcd among its processes, agentOf that of a node's agent:
// names of nodes and links have no slash.
const store = "store/etcd"

func agentOf(node string) string { return "agent/" + node }

// HasAgents tells whether agents keep the forwarders at what a store says. Else this
// package does, with objects that it keeps itself.
func (l *Lab) HasAgents() bool { return l.record.Agent != "" }

// AgentSocket is where a node's agent listens.
func (l *Lab) AgentSocket(node string) string { return filepath.Join(l.NodeDir(node), "agent.sock") }

// AgentLog is where a node's agent logs.
func (l *Lab) AgentLog(node string) string { return filepath.Join(l.NodeDir(node), "agent.log") }

// StoreLog is where the lab's etcd logs.
func (l *Lab) StoreLog() string { return filepath.Join(l.dir, "etcd.log") }

// StoreEndpoint is where the lab's etcd answers, as margayctl takes it.
func (l *Lab) StoreEndpoint() string { return "unix://" + filepath.Join(l.dir, "etcd.sock") }

// OpenStore opens the lab's store.
func (l *Lab) OpenStore() (datastore.Store, error) {
	return connect.Open(connect.Config{Etcd: &etcd.Config{Endpoints: []string{l.StoreEndpoint()}}})
}

// StartStore starts the lab's etcd and returns when it answers. It has what it had.
func (l *Lab) StartStore(ctx context.Context) error {
	if l.processOf(store).Alive() {
		return errors.New("the lab's etcd runs already")
	}
	ns, err := l.Namespace(l.Topology().Nodes[0].Name) // in any, so that Down finds it there, whatever is written down
	if err != nil {
		return err
	}
	p, err := process.Start(ns, l.StoreLog(), l.record.Agent, "etcd", "--data-dir", filepath.Join(l.dir, "etcd"), "--listen", l.StoreEndpoint())
	if err != nil {
		return err
	}
	l.mu.Lock()
	err = l.note(store, p)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	s, err := l.OpenStore()
	if err != nil {
		return err
	}
	_, err = until(ctx, p.Alive, func() (*datastore.Listing, error) { return s.List(ctx, datastore.Scope{Kind: v3.KindTier}) })
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("wait for the lab's etcd: %w\n\tits log:\n\t%s", err, process.Tail(l.StoreLog()))
	}
	return nil
}

// StopStore ends the lab's etcd, by asking, or at once as kill -9 does.
func (l *Lab) StopStore(atOnce bool) error { return l.stop(store, atOnce) }

// StartAgent starts the agent of a node, and returns when its forwarder is at what the
// store says.
func (l *Lab) StartAgent(ctx context.Context, node string) error {
	if err := l.LaunchAgent(node); err != nil {
		return err
	}
	return l.settle(ctx, node)
}

// LaunchAgent starts the process of a node's agent.
func (l *Lab) LaunchAgent(node string) error {
	if l.processOf(agentOf(node)).Alive() {
		return fmt.Errorf("the agent of node %s runs already", node)
	}
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	file, err := l.configureAgent(node)
	if err != nil {
		return err
	}
	p, err := process.Start(ns, l.AgentLog(node), l.record.Agent, "run", "--config", file)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.note(agentOf(node), p)
}

// StopAgent ends a node's agent, by asking, or at once as kill -9 does.
func (l *Lab) StopAgent(node string, atOnce bool) error { return l.stop(agentOf(node), atOnce) }

// AgentPID is the process id of a node's agent, 0 if it does not run.
func (l *Lab) AgentPID(node string) int {
	if p := l.processOf(agentOf(node)); p.Alive() {
		return p.PID
	}
	return 0
}

// stop ends a process other than a forwarder.
func (l *Lab) stop(who string, atOnce bool) error {
	p := l.processOf(who)
	if !p.Alive() {
		return fmt.Errorf("%s does not run", who)
	}
	if atOnce {
		p.Signal(9)
	}
	if err := p.Stop(patience); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.note(who, nil)
}

// configureAgent writes the configuration file of a node's agent.
func (l *Lab) configureAgent(node string) (path string, err error) {
	n := l.Topology().Node(node)
	if n == nil {
		return "", fmt.Errorf("lab %s has no node %q", l.Topology().Name, node)
	}
	c := agent.DefaultConfig()
	c.Node, c.Forwarder, c.Socket, c.Metrics = node, l.Socket(node), l.AgentSocket(node), ""
	c.StateDir = filepath.Join(l.NodeDir(node), "agent")
	c.Store.Etcd = &etcd.Config{Endpoints: []string{l.StoreEndpoint()}}
	c.HostPort.Device = hostDevice
	for _, a := range n.Addresses {
		c.HostPort.Addresses = append(c.HostPort.Addresses, a.String())
	}
	l.Topology().uplinks(node, &c)
	b, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	path = filepath.Join(l.NodeDir(node), "agent.yaml")
	if err := errors.Join(c.Validate(), os.MkdirAll(l.NodeDir(node), 0o700)); err != nil {
		return "", fmt.Errorf("configure the agent of %s: %w", node, err)
	}
	return path, os.WriteFile(path, b, 0o600)
}

// uplinks are a node's ends of links, by the first of which others reach it.
func (t *Topology) uplinks(node string, c *agent.Config) {
	c.Address.IPv4, c.Address.IPv6 = "none", "none"
	for i := range t.Links {
		k := &t.Links[i]
		for _, e := range k.Ends {
			if e.Node != node {
				continue
			}
			c.Uplinks = append(c.Uplinks, agent.Uplink{Device: e.Device, Port: k.PortName(), MTU: k.MTU, Queues: k.Queues})
			for _, a := range e.Addresses {
				switch {
				case a.Addr().Is4() && c.Address.IPv4 == "none":
					c.Address.IPv4 = a.String()
				case a.Addr().Is6() && c.Address.IPv6 == "none":
					c.Address.IPv6 = a.String()
				}
			}
		}
	}
}

// raiseAgents starts etcd, forwarders and agents, and attaches the pods.
func (l *Lab) raiseAgents(ctx context.Context) error {
	l.options.step("store: an etcd, and in it the pods as workload endpoints")
	if err := l.StartStore(ctx); err != nil {
		return err
	}
	if err := l.fillStore(ctx); err != nil {
		return err
	}
	l.options.step("forwarders and agents: %s and %s in each node", filepath.Base(l.options.Forwarder), filepath.Base(l.record.Agent))
	nodes := l.Topology().Nodes
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if errs[i] = l.Launch(n.Name); errs[i] == nil {
				errs[i] = l.LaunchAgent(n.Name)
			}
			if errs[i] == nil {
				errs[i] = l.attach(ctx, n.Name)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return l.Settle(ctx)
}

// pods are the lab's, as policy knows them.
func (t *Topology) pods() (pods []policies.Pod) {
	for i := range t.Pods {
		p := &t.Pods[i]
		one := policies.Pod{Endpoint: p.EndpointID(), Node: p.Node, Namespace: p.Namespace, Name: p.Name, Labels: p.Labels}
		for _, a := range p.Addresses {
			one.Addresses = append(one.Addresses, a.Addr)
		}
		pods = append(pods, one)
	}
	return pods
}

// fillStore creates what there is at the beginning: the pools, the pods and what
// stands around them, and the policies of the topology.
func (l *Lab) fillStore(ctx context.Context) error {
	t := l.Topology()
	s, err := l.OpenStore()
	if err != nil {
		return err
	}
	defer s.Close() // what was created is there
	objects, err := policies.Objects(t.pods())
	if err != nil {
		return err
	}
	own, err := t.manifests()
	if err != nil {
		return err
	}
	for _, m := range own {
		objects = append(objects, m.Object)
	}
	for i, p := range t.Pools {
		objects = append(objects, t.pool(i, p.String()))
	}
	for _, o := range objects {
		object, ok := o.(v3.Object)
		if !ok {
			return fmt.Errorf("%T %s has no place in a store", o, o.GetName())
		}
		if _, err := s.Create(ctx, object); err != nil {
			return fmt.Errorf("fill the lab's store: %w", err)
		}
	}
	return nil
}

// pool is the i-th of the lab's pools.
func (t *Topology) pool(i int, cidr string) *v3.IPPool {
	p := &v3.IPPool{}
	p.Name, p.Spec.CIDR = fmt.Sprintf("pool-%d", i), cidr
	return p
}

// attach has a node's agent connect the node's pods.
func (l *Lab) attach(ctx context.Context, node string) error {
	conn, err := l.dialAgent(node)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	macs, err := l.podMACs(node)
	if err != nil {
		return err
	}
	t := l.Topology()
	for i := range t.Pods {
		p := &t.Pods[i]
		if p.Node != node {
			continue
		}
		key, err := p.workload(t)
		if err != nil {
			return err
		}
		a := &agentv1.Attachment{Workload: key, Mtu: uint32(p.MTU), Queues: uint32(p.Queues), Port: p.PortName()}
		if p.Port == XSK {
			a.Kind, a.Device, a.Mac = agentv1.Attachment_KIND_XSK, p.nodeDevice(), macs[p.Name]
		} else {
			a.Kind, a.Device = agentv1.Attachment_KIND_TUN, podDevice
			if a.Netns, err = hostnet.NamespacePath(t.NamespaceName(p.Name)); err != nil {
				return err
			}
		}
		_, err = agentv1.NewWorkloadsClient(conn).Attach(ctx, &agentv1.AttachRequest{Attachment: a}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("attach pod %s: %w\n\tlog of %s's agent:\n\t%s", p.Name, err, node, process.Tail(l.AgentLog(node)))
		}
	}
	return nil
}

// workload is the workload endpoint of a pod.
func (p *Pod) workload(t *Topology) (*agentv1.Workload, error) {
	for _, one := range t.pods() {
		if one.Name == p.Name {
			key, err := one.Workload()
			return &agentv1.Workload{Namespace: key.Namespace, Name: key.Name}, err
		}
	}
	return nil, fmt.Errorf("there is no pod %s", p.Name)
}

// AgentStatus asks a node's agent how far it is.
func (l *Lab) AgentStatus(ctx context.Context, node string) (*agentv1.StatusReply, error) {
	conn, err := l.dialAgent(node)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return agentv1.NewAgentClient(conn).GetStatus(ctx, &agentv1.StatusRequest{}, grpc.WaitForReady(true))
}

func (l *Lab) dialAgent(node string) (*grpc.ClientConn, error) {
	return dataplane.Connect(l.AgentSocket(node))
}

// Settle returns when every node is at what the store holds.
func (l *Lab) Settle(ctx context.Context) error {
	for _, n := range l.Topology().Nodes {
		if err := l.settle(ctx, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// settle returns when a node's forwarder is at what the store holds, and its ports
// are in force.
func (l *Lab) settle(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	s, err := l.OpenStore()
	if err != nil {
		return err
	}
	defer s.Close()
	conn, err := l.dialAgent(node)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = until(ctx, l.processOf(agentOf(node)).Alive, func() (none struct{}, err error) {
		holds, err := s.List(ctx, datastore.Scope{Kind: v3.KindTier}) // for its revision, which is the whole store's
		if err != nil {
			return none, err
		}
		told, err := agentv1.NewAgentClient(conn).GetStatus(ctx, &agentv1.StatusRequest{}, grpc.WaitForReady(true))
		if err == nil && (!told.GetInForce() || told.GetRevision() != string(holds.Revision)) {
			err = fmt.Errorf("its agent is at revision %s of the store, which is at %s", told.GetRevision(), holds.Revision)
		}
		return none, err
	})
	if err != nil {
		return fmt.Errorf("wait until node %s is at what the store says: %w\n\tlog of its agent:\n\t%s", node, err, process.Tail(l.AgentLog(node)))
	}
	return l.AwaitPorts(ctx, node)
}

// until tries until there is no error, the context ends, or a process that it needs.
func until[T any](ctx context.Context, needs func() bool, try func() (T, error)) (T, error) {
	for {
		out, err := try()
		switch {
		case err == nil:
			return out, nil
		case !needs():
			return out, errors.Join(err, process.ErrEnded)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return out, errors.Join(err, context.Cause(ctx))
		}
	}
}

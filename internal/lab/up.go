package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/process"
)

// Up raises a topology: namespaces, links, pods, forwarders, and their desired
// states, acknowledged. On error nothing is left, but the logs are told in it.
func Up(ctx context.Context, t Topology, o Options) (*Lab, error) {
	if err := errors.Join(needRoot(), t.Validate()); err != nil {
		return nil, err
	}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	l := &Lab{base: o.Dir, dir: filepath.Join(o.Dir, t.Name), options: o}
	l.prepare()
	if err := l.reserve(t); err != nil {
		return nil, err
	}
	if err := l.raise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("raise lab %s: %w", t.Name, err), l.Down())
	}
	return l, nil
}

// reserve writes down what will be made.
func (l *Lab) reserve(t Topology) error {
	unlock, err := lock(l.base)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = read(l.dir)
	switch {
	case err == nil && !l.options.Replace:
		return fmt.Errorf("lab %s is up already: take it down with margay-lab down, or replace it", t.Name)
	case err == nil:
		if err := down(l.dir); err != nil {
			return err
		}
	case !errors.Is(err, ErrNotUp):
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	l.record = &record{
		Version: stateVersion, Topology: t, Namespaces: t.namespaces(), Forwarder: l.options.Forwarder, Agent: l.options.Agent, Processes: map[string]*process.Process{},
	}
	m, err := t.manifests()
	if err == nil {
		_, err = l.write(m)
	}
	return errors.Join(err, l.record.save(l.dir))
}

func (l *Lab) raise(ctx context.Context) error {
	t := l.Topology()
	l.options.step("namespaces: %d nodes, %d pods", len(t.Nodes), len(t.Pods))
	if err := l.makeSpaces(); err != nil {
		return err
	}
	l.options.step("links: %d between nodes, veth pairs for AF_XDP pods", len(t.Links))
	if err := l.makeLinks(ctx); err != nil {
		return err
	}
	feed := l.startAll
	if l.HasAgents() {
		feed = l.raiseAgents
	}
	if err := feed(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record.Raised = true
	return l.record.save(l.dir)
}

// startAll starts the forwarders side by side.
func (l *Lab) startAll(ctx context.Context) error {
	l.options.step("forwarders: %s in each node", filepath.Base(l.options.Forwarder))
	t := l.Topology()
	errs := make([]error, len(t.Nodes))
	var wg sync.WaitGroup
	for i, n := range t.Nodes {
		wg.Go(func() { errs[i] = l.StartForwarder(ctx, n.Name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// quiet are settings of every namespace: the kernel forwards nothing, has no
// doubts about addresses, and talks only when somebody asks it to.
var quiet = [...][2]string{
	{"net.ipv4.ip_forward", "0"},
	{"net.ipv6.conf.all.forwarding", "0"},
	{"net.ipv6.conf.all.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.default.router_solicitations", "0"},
	{"net.ipv4.ping_group_range", "0 2147483647"},
}

// makeSpaces makes every namespace and settles it.
func (l *Lab) makeSpaces() error {
	t := l.Topology()
	var names []string
	for _, n := range t.Nodes {
		names = append(names, n.Name)
	}
	for _, p := range t.Pods {
		names = append(names, p.Name)
	}
	for _, k := range t.Links {
		if k.Impairment != nil {
			names = append(names, k.Name)
		}
	}
	for _, name := range names {
		ns, err := hostnet.CreateNamespace(t.NamespaceName(name))
		if err != nil {
			return err
		}
		l.spaces[name] = ns
		for _, kv := range quiet {
			if err := ns.SetSysctl(kv[0], kv[1]); err != nil {
				return err
			}
		}
		if err := with(ns, func(h *hostnet.Host) error { return h.SetUp("lo") }); err != nil {
			return err
		}
	}
	return nil
}

// with opens a Host for the time of f.
func with(ns *hostnet.Namespace, f func(*hostnet.Host) error) error {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

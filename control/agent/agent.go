// Package agent is the process that decides for a node: it follows a store, keeps
// the attachments of the node's workloads, says in the store what the node is, and
// keeps the forwarder at what comes of all that.
//
//	Config ─► Agent ─┬─ cluster    the store: followed, and written, if it is the one that is known
//	                 ├─ attach     the socket for CNI plugins and the lab
//	                 ├─ nodes      interfaces and addresses of the machine
//	                 ├─ domains    addresses of names, from what endpoints are told
//	                 ├─ converge   one desired state, sent to the forwarder and the kernel
//	                 ├─ pending    changes that nobody confirms, undone
//	                 └─ HTTP       metrics, liveness and readiness, on loopback
//
// Every part may be away: the store, the forwarder, an interface. What was told of it
// stays in force, the log says what is missing, and readiness says it, too.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	agentv1 "margay.dev/margay/api/agent/v1"
	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/cluster"
	"margay.dev/margay/control/converge"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/control/felix"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/control/network"
	"margay.dev/margay/control/nodes"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/forwarder/socket"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/version"
)

// Agent is one agent. New makes it, Run is its life.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	lock  *lock
	store *cluster.Trust
	book  *attach.Book
	core  *converge.Core

	sockets   net.Listener
	metrics   net.Listener // nil for none
	self      nodes.Self
	seen      chan []nodes.Interface // holds the latest
	statusing *writer
	kernel    *kernel
	names     *domains.Keeper
	journal   *domains.Journal
	stream    atomic.Pointer[dataplane.Stream] // nil until connect has it
	errors    *atomic.Uint64                   // lines of the log of level error
}

// New opens everything that is the agent's own. It fails where another agent has the
// state folder, or where attachments cannot be read; the store and the forwarder may
// be away.
func New(cfg Config, log *slog.Logger) (a *Agent, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	log, lines := counted(log)
	a = &Agent{cfg: cfg, log: log, self: cfg.self(), seen: make(chan []nodes.Interface, 1), errors: lines}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.lock, err = lockFolder(cfg.StateDir); err != nil {
		return a, err
	}
	if a.book, err = attach.Open(filepath.Join(cfg.StateDir, "attachments")); err != nil {
		return a, err
	}
	store, err := connect.Open(cfg.Store)
	if err != nil {
		return a, err
	}
	a.store = cluster.New(store, cfg.Trust(log))
	listener, err := socket.Listen("unix", cfg.Socket)
	if err != nil {
		return a, err
	}
	a.sockets = socket.Guard(listener, log)
	if cfg.Metrics != "" {
		if a.metrics, err = net.Listen("tcp", cfg.Metrics); err != nil {
			return a, fmt.Errorf("listen for metrics: %w", err)
		}
	}
	a.statusing = newWriter(cfg.Node, a.store.Writer(), log)
	a.kernel = &kernel{log: log, words: &hosts.Words{}}
	a.openNames()
	a.core = converge.New(converge.Options{
		Node: cfg.Node, Book: a.book, Log: log, Kernel: a.kernel, Words: a.kernel.words, Store: storeDoors(cfg.Store), Felix: a.settings(), Names: a.names, Report: a.statusing.report,
	})
	return a, nil
}

// Trust says by what the agent knows its store from others.
func (c Config) Trust(log *slog.Logger) cluster.Options {
	return cluster.Options{
		Path: filepath.Join(c.StateDir, "store.json"), Where: c.Store.Where(), Replaced: c.Store.Folder != nil,
		Version: version.Version(), Log: log,
	}
}

// settings are those that are said on the node itself. What cannot be used is told,
// and has its built-in value, as in Felix.
func (a *Agent) settings() felix.Local {
	local, faults := felix.OnNode(os.Environ(), a.cfg.Felix)
	for _, f := range faults {
		a.log.Error("a setting of the environment cannot be used", "variable", f.Variable, "error", f.Err)
	}
	return local
}

// self is what the node says of itself.
func (c Config) self() nodes.Self {
	four, _ := nodes.ParseMethod(c.Address.IPv4Method) // Validate has seen both
	six, _ := nodes.ParseMethod(c.Address.IPv6Method)
	return nodes.Self{
		Name: c.Node, IPv4: c.Address.IPv4, IPv6: c.Address.IPv6, IPv4Method: four, IPv6Method: six,
		ASNumber: c.Address.ASNumber, Route: nodes.Route,
	}
}

// Run serves until ctx ends, which is no error, or a part of it fails for good. The
// forwarder goes on with what it has.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rpc := grpc.NewServer()
	agentv1.RegisterWorkloadsServer(rpc, attach.NewServer(a.book))
	agentv1.RegisterAgentServer(rpc, &teller{ask: a.core.Stats, node: a.cfg.Node, names: a.names})
	web := a.web()
	var parts sync.WaitGroup
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("follow the store", a.follow)
	part("know the cluster", a.store.Run)
	part("keep the forwarder", a.core.Run)
	part("connect to the forwarder", a.connect)
	part("watch the interfaces", a.watch)
	part("register the node", a.register)
	part("write conditions", a.statusing.run)
	part("save addresses of names", a.saveNames)
	part("undo what nobody confirms", (&pending.Keeper{Store: a.store.Writer(), Log: a.log}).Run)
	part("serve attachments", func(context.Context) error { return rpc.Serve(a.sockets) })
	if a.metrics != nil {
		part("serve metrics", func(context.Context) error { return web.Serve(a.metrics) })
	}
	stop := a.notify(ctx)
	<-ctx.Done()
	rpc.Stop()
	err := errors.Join(web.Close())
	parts.Wait()
	stop()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return errors.Join(err, a.close())
}

// close gives back what New has opened.
func (a *Agent) close() error {
	var errs []error
	for _, l := range []net.Listener{a.sockets, a.metrics} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if a.kernel != nil {
		a.kernel.close()
	}
	if a.names != nil {
		a.names.Stop()
		errs = append(errs, a.journal.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.lock != nil {
		errs = append(errs, a.lock.release())
	}
	return errors.Join(errs...)
}

// follow tells the core what the store holds.
func (a *Agent) follow(ctx context.Context) error {
	f := datastore.Follower{Store: a.store, Deliver: func(events []datastore.Event) { a.core.Deliver(ctx, events) }}
	return f.Run(ctx)
}

// connect keeps connected to the forwarder.
func (a *Agent) connect(ctx context.Context) error {
	known := make(chan struct{}) // the stream, by which what is heard goes on
	s, err := dataplane.Dial(ctx, a.cfg.Forwarder, dataplane.Options{
		Client: version.Line("margay-agent"), OnCondition: a.core.Heard, OnSession: a.core.Session,
		OnOverheard: func(o *dataplanev1.Overheard) { <-known; a.names.Hear(o) },
	})
	if err != nil {
		return err
	}
	defer s.Close()
	a.stream.Store(s)
	close(known)
	a.core.Connect(s)
	select {
	case <-ctx.Done():
		return nil
	case <-s.Ended(): // it would not have us again
		return s.Err()
	}
}

// watch tells the core, and who registers the node, of the machine's interfaces.
func (a *Agent) watch(ctx context.Context) error {
	ns, err := hostnet.OpenNamespace("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }() // it was only read
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return nodes.Watch(ctx, h, func(all []nodes.Interface) {
		a.core.SetLocal(a.cfg.local(all), links(all))
		select {
		case <-a.seen:
		default:
		}
		a.seen <- all
	})
}

// links are interfaces as who judges the host knows them.
func links(all []nodes.Interface) (out []hosts.Interface) {
	for _, i := range all {
		link := hosts.Interface{Name: i.Name}
		for _, p := range i.Addresses {
			link.Addresses = append(link.Addresses, p.Addr())
		}
		out = append(out, link)
	}
	return out
}

// local is the node as the network is told of it.
func (c Config) local(all []nodes.Interface) network.Local {
	l := network.Local{HostDevice: c.HostPort.Device, HostMTU: c.HostPort.MTU}
	for _, text := range c.HostPort.Addresses {
		addr, _ := netip.ParseAddr(text) // Validate has seen it
		l.HostAddresses = append(l.HostAddresses, addr)
	}
	for _, u := range c.Uplinks {
		up := network.Uplink{Port: u.port(), Device: u.Device, MTU: u.MTU, Queues: u.Queues}
		for _, i := range all {
			if i.Name != u.Device {
				continue
			}
			for _, p := range i.Addresses {
				if p.Addr().IsGlobalUnicast() {
					up.Addresses = append(up.Addresses, p)
				}
			}
		}
		l.Uplinks = append(l.Uplinks, up)
	}
	return l
}

// register says in the store what the node is, and again when that has changed, or
// could not be said.
func (a *Agent) register(ctx context.Context) error {
	var all []nodes.Interface
	var again <-chan time.Time
	for {
		select {
		case all = <-a.seen:
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := a.store.Wait(ctx); err != nil {
			return err
		}
		self := a.self
		l := a.cfg.local(all)
		self.Own = append(self.Own, l.HostAddresses...)
		for _, u := range l.Uplinks {
			for _, p := range u.Addresses {
				self.Own = append(self.Own, p.Addr())
			}
		}
		again = nil
		if err := self.Register(ctx, a.store.Writer(), all); err != nil && ctx.Err() == nil {
			a.log.Warn("the node is not registered as it is", "again in", startTime, "error", err)
			again = time.After(startTime)
		}
	}
}

// Package graphtest puts packets through the whole packet path in process: an
// arena, the nodes' tables, the graph over them, and an engine whose passes a
// test drives one by one. Ports are Queues, into which a test injects frames
// and from which it collects them.
//
//	l := graphtest.Standard(t, 1)
//	l.Inject(graphtest.Up, frame)
//	l.Run()
//	out := l.Collect(graphtest.Pod)
//
// At the end of every test the account must be even: each packet that came in
// or was made is told of, and each buffer is free again.
package graphtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/umem"
)

// Config sizes a Lab. The zero Config is one worker and memory for 2,048 frames.
type Config struct {
	Workers int // default 1
	Frames  int // default 2,048
	Supers  int // default 16
	Burst   int // packets per queue and pass; default graph.VectorMax
	// Single are ports with one queue however many workers there are: the
	// others hand over to its owner.
	Single []uint16
	// Wires are queues of the test's own in place of a port's: Inject and
	// Collect are not for those ports.
	Wires   map[uint16]graph.Queue
	Running bool // the workers run by themselves; Run and Advance are not to be used
	// Labels are judged by; default is an empty table.
	Labels *label.Table

	arena *umem.Arena // of a Lab before this one
}

// Lab is a packet path with the means to configure and to watch it. It is for
// one goroutine.
type Lab struct {
	TB     testing.TB
	Arena  *umem.Arena
	Tables *node.Tables
	Engine *graph.Engine

	cfg    Config
	state  node.State
	queues map[uint16][]*Queue
	adjs   fib.AdjacencyID
	hops   fib.NextHopID
	mark   graph.Counters
	closed bool
}

// New makes a Lab without ports. It ends, and its account is checked, with tb.
func New(tb testing.TB, cfg Config) *Lab {
	tb.Helper()
	cfg.fill()
	var err error
	next := cfg.arena != nil
	if !next {
		cfg.arena, err = umem.New(umem.Config{Frames: cfg.Frames, Supers: cfg.Supers, Caches: cfg.Workers + 1})
	}
	if err != nil {
		tb.Fatal(err)
	}
	l := &Lab{TB: tb, Arena: cfg.arena, Tables: node.NewTablesOver(cfg.Labels), cfg: cfg, queues: map[uint16][]*Queue{}}
	l.state = node.State{HostPort: graph.NoPort, Answers: map[node.Answer]struct{}{},
		SubPorts: map[node.SubPort]uint16{}, Sources: map[node.Source]netip.Addr{}}
	flows, err := flow.New(make([]byte, flow.MinBytes), flow.Config{
		Workers: cfg.Workers, Endpoints: int(Ports), Timeouts: flow.DefaultTimeouts()})
	if err != nil {
		tb.Fatal(err)
	}
	l.Tables.Court.Keep(flows, 0)
	g, err := graph.Build(node.Specs(l.Tables)...)
	if err != nil {
		tb.Fatal(err)
	}
	l.Engine, err = graph.NewEngine(g, l.Arena, graph.Config{
		Workers: cfg.Workers, Burst: cfg.Burst, Spin: 100 * time.Microsecond, ByHand: !cfg.Running,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if cfg.Running && !next {
		l.Engine.Start()
	}
	tb.Cleanup(l.Close)
	return l
}

func (c *Config) fill() {
	c.Workers = max(c.Workers, 1)
	if c.Frames == 0 {
		c.Frames = 2048
	}
	if c.Supers == 0 {
		c.Supers = 16
	}
	if c.Burst == 0 {
		c.Burst = graph.VectorMax
	}
	if c.Labels == nil {
		c.Labels = label.New(nil)
	}
}

// Close checks the account and takes the Lab down. Only its first call counts.
func (l *Lab) Close() {
	if l.closed {
		return
	}
	l.closed = true
	if !l.cfg.Running {
		l.Account(l.TB)
	}
	l.Engine.Stop()
	if l.cfg.Running {
		l.check(l.TB)
	}
	if err := l.Arena.Close(); err != nil {
		l.TB.Error(err)
	}
}

// HandOver ends the Lab without a look at its account, and makes another one over
// its memory, as build makes it of the Config: its engine adopts what this one's
// carries, encoded and decoded. What waits in this Lab's queues is lost.
func (l *Lab) HandOver(build func(testing.TB, Config) *Lab) *Lab {
	l.TB.Helper()
	if err := l.Engine.Halt(context.Background()); err != nil {
		l.TB.Fatal(err)
	}
	carried, err := l.Engine.Carry()
	if err != nil {
		l.TB.Fatal(err)
	}
	bytes, err := json.Marshal(carried)
	if err != nil {
		l.TB.Fatal(err)
	}
	carried = graph.Carried{}
	if err := json.Unmarshal(bytes, &carried); err != nil {
		l.TB.Fatal(err)
	}
	l.closed = true
	l.Engine.Stop()
	cfg := l.cfg
	cfg.arena = l.Arena
	next := build(l.TB, cfg)
	if err := next.Engine.Adopt(carried); err != nil {
		l.TB.Fatal(err)
	}
	if cfg.Running {
		next.Engine.Start()
	}
	return next
}

// Port is a port to be: what the nodes are told of it, and its queues.
type Port struct {
	Index  uint16
	Flags  node.PortFlags
	MTU    uint16
	VLAN   uint16 // of a sub-port of Main
	Main   uint16
	MAC    node.MAC
	Peer   node.MAC
	Queues int // default one for each worker
	// Sources are our addresses on it; the nodes answer for them and speak
	// from them, and the FIB has them as local.
	Sources []netip.Addr
}

// AddPort adds a port and publishes it.
func (l *Lab) AddPort(p Port) {
	l.TB.Helper()
	if p.VLAN == 0 {
		p.Main = p.Index
		l.wire(p)
	} else {
		l.state.SubPorts[node.SubPort{Main: p.Main, VLAN: p.VLAN}] = p.Index
	}
	for len(l.state.Ports) <= int(p.Index) {
		l.state.Ports = append(l.state.Ports, node.Port{})
	}
	l.state.Ports[p.Index] = node.Port{Flags: p.Flags, MTU: p.MTU, VLAN: p.VLAN, Main: p.Main, MAC: p.MAC, Peer: p.Peer}
	if p.Flags&node.HostPort != 0 {
		l.state.HostPort = p.Index
	}
	for _, a := range p.Sources {
		l.state.Sources[node.Source{Port: p.Index, IPv6: a.Is6()}] = a
		l.state.Answers[node.Answer{Port: p.Index, Addr: a}] = struct{}{}
		l.Route(netip.PrefixFrom(a, a.BitLen()), l.Adjacency(fib.Adjacency{Kind: fib.Local}))
	}
	l.Publish(nil)
}

// wire gives a port queues and the queues to the engine.
func (l *Lab) wire(p Port) {
	l.TB.Helper()
	entry := node.EntryL3
	if p.Flags&node.L2 != 0 {
		entry = node.EntryL2
	}
	if p.Queues == 0 {
		p.Queues = l.cfg.Workers
	}
	if slices.Contains(l.cfg.Single, p.Index) {
		p.Queues = 1
	}
	var qs []graph.Queue
	if q := l.cfg.Wires[p.Index]; q != nil {
		qs, p.Queues = append(qs, q), 0
	}
	for range p.Queues {
		q := NewQueue()
		l.queues[p.Index] = append(l.queues[p.Index], q)
		qs = append(qs, q)
	}
	err := l.Engine.AddPort(context.Background(), graph.Port{Index: p.Index, Name: fmt.Sprint("port", p.Index), Entry: entry,
		Queues: qs, Host: p.Flags&node.HostPort != 0})
	if err != nil {
		l.TB.Fatal(err)
	}
}

// Publish lets change, which may be nil, alter the nodes' state, and puts a copy
// of it in force.
func (l *Lab) Publish(change func(*node.State)) {
	if change != nil {
		change(&l.state)
	}
	l.Tables.Publish(&node.State{
		Ports: slices.Clone(l.state.Ports), HostPort: l.state.HostPort, Answers: maps.Clone(l.state.Answers),
		SubPorts: maps.Clone(l.state.SubPorts), Sources: maps.Clone(l.state.Sources), Policy: slices.Clone(l.state.Policy),
	})
}

// Police puts policy in force for the endpoint behind a port; nil for none.
func (l *Lab) Police(port uint16, e *judge.Endpoint) {
	l.Publish(func(s *node.State) {
		for len(s.Policy) <= int(port) {
			s.Policy = append(s.Policy, nil)
		}
		s.Policy[port] = e
	})
}

func (l *Lab) port(i uint16) *node.Port { return &l.state.Ports[i] }

// Queue is queue i of a port.
func (l *Lab) Queue(port uint16, i int) *Queue { return l.queues[port][i] }

// Queues are the queues of a port; a sub-port has none.
func (l *Lab) Queues(port uint16) []*Queue { return l.queues[port] }

// Inject lets frames come in by a port, in turn by each of its queues.
func (l *Lab) Inject(port uint16, frames ...[]byte) {
	for i, f := range frames {
		l.Queue(port, i%len(l.queues[port])).Inject(Packet{Bytes: f})
	}
}

// InjectPackets is Inject for packets of which something is known.
func (l *Lab) InjectPackets(port uint16, packets ...Packet) {
	for i, p := range packets {
		l.Queue(port, i%len(l.queues[port])).Inject(p)
	}
}

// Collect takes what a port has transmitted, by all its queues.
func (l *Lab) Collect(port uint16) (out []Packet) {
	for _, q := range l.queues[port] {
		out = append(out, q.Collect()...)
	}
	return out
}

// CollectAll takes what all ports have transmitted.
func (l *Lab) CollectAll() map[uint16][]Packet {
	all := map[uint16][]Packet{}
	for port := range l.queues {
		if out := l.Collect(port); len(out) > 0 {
			all[port] = out
		}
	}
	return all
}

// Run makes passes until nothing moves any more.
func (l *Lab) Run() {
	for idle := 0; idle < 2; idle++ {
		if l.Engine.Step() {
			idle = -1
		}
	}
}

// Advance lets d pass on the workers' clocks and runs.
func (l *Lab) Advance(d time.Duration) {
	l.Engine.Advance(d)
	l.Run()
}

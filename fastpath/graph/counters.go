package graph

import (
	"slices"
	"sync"
)

// Counters is the account of one worker or of all. Packets are wire segments:
// a superpacket counts as often as it stands for segments. At rest
//
//	Rx + ΣMade = Tx + Punt + ΣDrops + ΣConsumed + Held
type Counters struct {
	Rx       uint64
	Tx       uint64
	Punt     uint64
	Held     uint64 // now waiting, not a running total
	Made     [Origins]uint64
	Consumed [Uses]uint64
	Drops    [Reasons]uint64
	// MadeRefused counts packets we would have made but for their rate, or for
	// want of a buffer or of an address to send them from.
	MadeRefused uint64
}

// Add adds o to c.
func (c *Counters) Add(o *Counters) {
	c.Rx += o.Rx
	c.Tx += o.Tx
	c.Punt += o.Punt
	c.Held += o.Held
	c.MadeRefused += o.MadeRefused
	for i, n := range o.Made {
		c.Made[i] += n
	}
	for i, n := range o.Consumed {
		c.Consumed[i] += n
	}
	for i, n := range o.Drops {
		c.Drops[i] += n
	}
}

// In is how many packets came in or were made.
func (c *Counters) In() uint64 { return c.Rx + sum(c.Made[:]) }

// Out is how many packets left, ended with us, or are held.
func (c *Counters) Out() uint64 {
	return c.Tx + c.Punt + sum(c.Drops[:]) + sum(c.Consumed[:]) + c.Held
}

// Dropped is how many packets were dropped for any reason.
func (c *Counters) Dropped() uint64 { return sum(c.Drops[:]) }

func sum(ns []uint64) (total uint64) {
	for _, n := range ns {
		total += n
	}
	return total
}

// NodeCounters is what one node did.
type NodeCounters struct {
	Calls   uint64 // vectors it was given
	Packets uint64 // wire packets are in Counters; these are packets as nodes see them
	// SampledPackets and SampledNanos are of the passes whose nodes were
	// timed (one in sampleEvery): their quotient is the cost of a packet.
	SampledPackets uint64
	SampledNanos   uint64
}

// Add adds o to c.
func (c *NodeCounters) Add(o *NodeCounters) {
	c.Calls += o.Calls
	c.Packets += o.Packets
	c.SampledPackets += o.SampledPackets
	c.SampledNanos += o.SampledNanos
}

// PortCounters is what went through one port.
type PortCounters struct {
	RxPackets, RxBytes, TxPackets, TxBytes, TxDrops uint64
}

// Add adds o to c.
func (c *PortCounters) Add(o *PortCounters) {
	c.RxPackets += o.RxPackets
	c.RxBytes += o.RxBytes
	c.TxPackets += o.TxPackets
	c.TxBytes += o.TxBytes
	c.TxDrops += o.TxDrops
}

// Load tells how a worker spends its time, in nanoseconds since its start.
type Load struct {
	Loops, BusyLoops   uint64
	BusyNanos, Elapsed uint64 // time in passes that moved packets; all time
	Sleeps             uint64
}

// Stats is all that one worker counted.
type Stats struct {
	Counters Counters
	Nodes    []NodeCounters // in the order of Graph.Nodes
	Ports    []PortCounters // by port index
	Load     Load
}

func newStats(nodes, ports int) Stats {
	return Stats{Nodes: make([]NodeCounters, nodes), Ports: make([]PortCounters, ports)}
}

// published is a worker's Stats as others may read them. The worker copies
// them when it goes idle and every publishEvery; it never waits for a
// reader, who holds the lock for one copy.
type published struct {
	mu    sync.Mutex
	stats Stats
}

func (p *published) store(s *Stats) {
	if !p.mu.TryLock() {
		return // a reader copies just now; the next turn will do
	}
	p.stats.Counters, p.stats.Load = s.Counters, s.Load
	p.stats.growPorts(len(s.Ports))
	copy(p.stats.Nodes, s.Nodes)
	copy(p.stats.Ports, s.Ports)
	p.mu.Unlock()
}

func (p *published) load() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Nodes, s.Ports = slices.Clone(s.Nodes), slices.Clone(s.Ports)
	return s
}

func (s *Stats) growPorts(n int) {
	for len(s.Ports) < n {
		s.Ports = append(s.Ports, PortCounters{})
	}
}

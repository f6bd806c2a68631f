package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/version"
)

// anyCPU is the CPU of a worker that the kernel puts where it likes.
const anyCPU = -1

// Describe tells that the set of metrics is known only when they are read.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads all counters. It takes no lock that a worker waits for.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	m := sink{out}
	engine := c.plane.Engine()
	stats := engine.Stats() // once, so that sums agree with their parts
	var total graph.Counters
	for i := range stats {
		total.Add(&stats[i].Counters)
		c.worker(m, i, stats[i])
	}
	c.account(m, total)
	c.flows(m)
	c.nodes(m, engine.Graph().Nodes(), inspect.Nodes(stats))
	c.places(m, len(stats), c.plane.CPUs(), engine.PinErrors())
	c.ports(m, c.plane.Ports())
	c.ends(m, c.plane.Ledger().Ends())
	c.logStats(m, c.plane.Ledger().Log().Stats())
	c.overheard(m, c.plane.Court().Post.Stats())
	c.memories(m)
	c.state(m)
}

func (c *collector) account(m sink, t graph.Counters) {
	m.counter(c.rx, t.Rx)
	m.counter(c.tx, t.Tx)
	m.counter(c.punt, t.Punt)
	m.gauge(c.held, float64(t.Held))
	m.gauge(c.imbalance, float64(int64(t.In()-t.Out()))) // either may be ahead
	m.counter(c.madeRefused, t.MadeRefused)
	for i, n := range t.Made {
		m.counter(c.made, n, graph.Origin(i).String())
	}
	for i, n := range t.Consumed {
		m.counter(c.consumed, n, graph.Use(i).String())
	}
	for i, n := range t.Drops {
		m.counter(c.drops, n, graph.Reason(i).String())
	}
}

// flows tells of connections, unless the dataplane has ended, and their table with it.
func (c *collector) flows(m sink) {
	court := c.plane.Court()
	m.counter(c.flowsRenewed, court.Renewed())
	m.counter(c.flowsRejudged, court.Rejudged())
	var stats flow.Stats
	if !c.plane.Look(func(l plane.Live) { stats = l.Tables.Court.Flows.Stats() }) {
		return
	}
	for state := flow.Free + 1; int(state) < flow.States; state++ {
		m.gauge(c.flowsNow, float64(stats.ByState[state]), state.String())
	}
	m.gauge(c.flowsLimit, float64(stats.Limit))
	m.counter(c.flowsMade, stats.Inserted)
	m.counter(c.flowsEnd, stats.Expired, "expired")
	m.counter(c.flowsEnd, stats.Retired, "retired")
}

// nodes takes the counters of nodes in the order of their names.
func (c *collector) nodes(m sink, names []string, sums []graph.NodeCounters) {
	for i, n := range sums {
		m.counter(c.nodePackets, n.Packets, names[i])
		m.counter(c.nodeCalls, n.Calls, names[i])
		m.counter(c.nodeSampledPackets, n.SampledPackets, names[i])
		m.seconds(c.nodeSampledSeconds, n.SampledNanos, names[i])
		if n.SampledPackets > 0 {
			m.gauge(c.nodeCost, float64(n.SampledNanos)/float64(n.SampledPackets)/1e9, names[i])
		}
	}
}

func (c *collector) worker(m sink, id int, s graph.Stats) {
	worker := strconv.Itoa(id)
	m.gauge(c.busy, inspect.Ratio(s.Load), worker)
	m.seconds(c.busySeconds, s.Load.BusyNanos, worker)
	m.seconds(c.seconds, s.Load.Elapsed, worker)
	m.counter(c.sleeps, s.Load.Sleeps, worker)
	m.counter(c.loops, s.Load.Loops, worker)
	m.counter(c.busyLoops, s.Load.BusyLoops, worker)
	m.counter(c.workerPackets, s.Counters.In(), worker)
}

// places tells where workers run.
func (c *collector) places(m sink, workers int, cpus []int, pinErrors []error) {
	for i := range workers {
		cpu := anyCPU
		if i < len(cpus) {
			cpu = cpus[i]
		}
		m.gauge(c.workerCPU, float64(cpu), strconv.Itoa(i))
		m.gauge(c.offCPU, truth(pinErrors[i] != nil), strconv.Itoa(i))
	}
}

func (c *collector) ports(m sink, states []plane.PortState) {
	for _, p := range states {
		m.counter(c.portRx, p.Counters.RxPackets, p.Name, p.Kind)
		m.counter(c.portRxBytes, p.Counters.RxBytes, p.Name, p.Kind)
		m.counter(c.portTx, p.Counters.TxPackets, p.Name, p.Kind)
		m.counter(c.portTxBytes, p.Counters.TxBytes, p.Name, p.Kind)
		m.counter(c.portDrops, p.Counters.TxDrops, p.Name, p.Kind)
		m.gauge(c.portMTU, float64(p.MTU), p.Name, p.Kind)
		m.gauge(c.portQueues, float64(p.Queues), p.Name, p.Kind)
		m.gauge(c.portFallbacks, float64(len(p.Fallbacks)), p.Name, p.Kind)
		m.gauge(c.portUp, truth(p.State == "up"), p.Name, p.Kind)
		for name, n := range p.Driver {
			m.counter(c.portDriver, n, p.Name, p.Kind, name)
		}
	}
}

func (c *collector) memories(m sink) {
	frames, free := c.plane.Frames()
	m.gauge(c.frames, float64(frames))
	m.gauge(c.framesFree, float64(free))
	supers, free := c.plane.Supers()
	m.gauge(c.supers, float64(supers))
	m.gauge(c.supersFree, float64(free))
	m.gauge(c.memory, float64(c.plane.MemorySize()))
	m.gauge(c.fallbacks, float64(len(c.plane.Fallbacks())))
}

// state tells what is in force, and by whose word.
func (c *collector) state(m sink) {
	var routes int
	var neighbours map[string]int
	c.plane.Look(func(l plane.Live) { routes, neighbours = l.Paths.Len(), l.Paths.NeighbourStates() })
	m.gauge(c.routes, float64(routes))
	for state, n := range neighbours {
		m.gauge(c.neighbours, float64(n), state)
	}
	m.gauge(c.generation, float64(c.plane.Generation()))
	if at := c.plane.GenerationTime(); !at.IsZero() {
		m.gauge(c.generationTime, unixSeconds(at))
	}
	for _, x := range c.plane.Conditions() {
		m.gauge(c.condition, 1, x.Object, x.Reason)
	}
	now, ever := c.facts.Connected()
	m.gauge(c.client, truth(now))
	m.gauge(c.restored, truth(c.facts.Restored && !ever))
	m.gauge(c.contract, pb.Version)
	m.gauge(c.started, unixSeconds(c.facts.Started))
	m.gauge(c.info, 1, version.Version(), version.Commit(), c.host)
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

type sink struct{ out chan<- prometheus.Metric }

func (s sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (s sink) seconds(d *prometheus.Desc, nanos uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(nanos)/1e9, labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

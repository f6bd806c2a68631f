// Package metrics shows the forwarder to Prometheus, to probes and to pprof, by
// HTTP on a loopback address. Counters are read when they are asked for.
package metrics

import (
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/version"
)

// Handler serves /metrics, /healthz, /readyz and /debug/pprof. healthy and
// ready tell what is amiss, nil for nothing.
func Handler(p *plane.Plane, node string, healthy, ready func() error) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(p, node),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", probe(healthy))
	mux.HandleFunc("/readyz", probe(ready))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // a prober that is gone needs no answer
	}
}

// collector reads the plane's counters at each scrape.
type collector struct {
	plane *plane.Plane
	host  string // name of the node; label "node" is a stop of the graph

	rx, tx, punt, made, consumed, held, drops    *prometheus.Desc
	nodePackets, nodeCalls, nodeCost             *prometheus.Desc
	portRx, portRxBytes, portTx, portTxBytes     *prometheus.Desc
	portDrops, portUp, portMTU, portDriver       *prometheus.Desc
	busy, sleeps, loops, busyLoops, madeRefused  *prometheus.Desc
	frames, framesFree, routes, generation, info *prometheus.Desc
	condition, fallbacks                         *prometheus.Desc
}

func newCollector(p *plane.Plane, host string) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("margay_"+name, help, labels, nil)
	}
	return &collector{
		plane:       p,
		host:        host,
		rx:          d("rx_packets_total", "Wire packets received by all ports."),
		tx:          d("tx_packets_total", "Wire packets transmitted by all ports but the host port."),
		punt:        d("punt_packets_total", "Wire packets handed to the node's own stack."),
		made:        d("made_packets_total", "Packets made by the forwarder itself.", "kind"),
		madeRefused: d("made_refused_packets_total", "Packets that the forwarder would have made but for their rate, or for want of a buffer or an address."),
		consumed:    d("consumed_packets_total", "Packets that ended with the forwarder.", "use"),
		held:        d("held_packets", "Packets that wait now, for a neighbour."),
		drops:       d("drops_total", "Wire packets dropped, each counted once.", "reason"),
		nodePackets: d("node_packets_total", "Packets that a node of the graph processed.", "node"),
		nodeCalls:   d("node_vectors_total", "Vectors that a node of the graph was given.", "node"),
		nodeCost:    d("node_packet_seconds", "Cost of a packet in a node, sampled.", "node"),
		portRx:      d("port_rx_packets_total", "Wire packets received.", "port", "kind"),
		portRxBytes: d("port_rx_bytes_total", "Bytes received.", "port", "kind"),
		portTx:      d("port_tx_packets_total", "Wire packets transmitted.", "port", "kind"),
		portTxBytes: d("port_tx_bytes_total", "Bytes transmitted.", "port", "kind"),
		portDrops:   d("port_tx_drops_total", "Wire packets that the port refused to transmit.", "port", "kind"),
		portUp:      d("port_up", "1 if the workers drive the port and it has a carrier.", "port", "kind"),
		portMTU:     d("port_mtu_bytes", "Largest packet from the IP header on.", "port", "kind"),
		portDriver:  d("port_driver_total", "Counters of sockets, steering and GRO.", "port", "kind", "counter"),
		busy:        d("worker_busy_ratio", "Share of a worker's time spent in passes that moved packets.", "worker"),
		sleeps:      d("worker_sleeps_total", "Times a worker went to sleep.", "worker"),
		loops:       d("worker_loops_total", "Passes of a worker.", "worker"),
		busyLoops:   d("worker_busy_loops_total", "Passes of a worker that moved packets.", "worker"),
		frames:      d("frames", "Packet buffers of 4 KiB."),
		framesFree:  d("frames_free", "Packet buffers in no hand."),
		routes:      d("routes", "Routes in force."),
		generation:  d("generation", "Number of the state in force."),
		condition:   d("condition", "1 for each object that is accepted but not in force.", "object", "reason"),
		fallbacks:   d("memory_fallbacks", "Things asked for of packet memory and not had, at the cost of speed."),
		info:        d("build_info", "1, by build and name of the host.", "version", "commit", "host"),
	}
}

// Describe tells that the set of metrics is known only when they are read.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads all counters.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	m := sink{out}
	c.account(m, c.plane.Engine().Total())
	c.nodes(m, c.plane.Engine().Graph().Nodes(), inspect.Nodes(c.plane.Engine()))
	c.ports(m, c.plane.Ports())
	for i, w := range c.plane.Engine().Stats() {
		c.worker(m, i, w.Load)
	}
	frames, free := c.plane.Frames()
	m.gauge(c.frames, float64(frames))
	m.gauge(c.framesFree, float64(free))
	m.gauge(c.fallbacks, float64(len(c.plane.Fallbacks())))
	m.gauge(c.routes, float64(c.plane.RouteCount()))
	m.gauge(c.generation, float64(c.plane.Generation()))
	m.gauge(c.info, 1, version.Version(), version.Commit(), c.host)
	for _, x := range c.plane.Conditions() {
		m.gauge(c.condition, 1, x.Object, x.Reason)
	}
}

func (c *collector) account(m sink, t graph.Counters) {
	m.counter(c.rx, t.Rx)
	m.counter(c.tx, t.Tx)
	m.counter(c.punt, t.Punt)
	m.gauge(c.held, float64(t.Held))
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

// nodes takes the counters of nodes in the order of their names.
func (c *collector) nodes(m sink, names []string, sums []graph.NodeCounters) {
	for i, n := range sums {
		m.counter(c.nodePackets, n.Packets, names[i])
		m.counter(c.nodeCalls, n.Calls, names[i])
		if n.SampledPackets > 0 {
			m.gauge(c.nodeCost, float64(n.SampledNanos)/float64(n.SampledPackets)/1e9, names[i])
		}
	}
}

func (c *collector) worker(m sink, id int, l graph.Load) {
	worker := strconv.Itoa(id)
	m.gauge(c.busy, inspect.Ratio(l), worker)
	m.counter(c.sleeps, l.Sleeps, worker)
	m.counter(c.loops, l.Loops, worker)
	m.counter(c.busyLoops, l.BusyLoops, worker)
}

func (c *collector) ports(m sink, states []plane.PortState) {
	for _, p := range states {
		m.counter(c.portRx, p.Counters.RxPackets, p.Name, p.Kind)
		m.counter(c.portRxBytes, p.Counters.RxBytes, p.Name, p.Kind)
		m.counter(c.portTx, p.Counters.TxPackets, p.Name, p.Kind)
		m.counter(c.portTxBytes, p.Counters.TxBytes, p.Name, p.Kind)
		m.counter(c.portDrops, p.Counters.TxDrops, p.Name, p.Kind)
		m.gauge(c.portMTU, float64(p.MTU), p.Name, p.Kind)
		up := 0.0
		if p.State == "up" {
			up = 1
		}
		m.gauge(c.portUp, up, p.Name, p.Kind)
		for name, n := range p.Driver {
			m.counter(c.portDriver, n, p.Name, p.Kind, name)
		}
	}
}

type sink struct{ out chan<- prometheus.Metric }

func (s sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

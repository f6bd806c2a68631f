package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/plane"
)

// definition is what a metric is called and means.
type definition struct {
	name, help string
	labels     []string
}

// collector reads the plane's counters at each scrape.
type collector struct {
	plane   *plane.Plane
	facts   inspect.Facts
	host    string // name of the node; label "node" is a stop of the graph
	catalog []definition

	rx, tx, punt, made, consumed, held, drops *prometheus.Desc
	madeRefused, imbalance                    *prometheus.Desc
	flowsRenewed, flowsRejudged               *prometheus.Desc
	flowsNow, flowsLimit, flowsMade, flowsEnd *prometheus.Desc

	nodePackets, nodeCalls, nodeCost       *prometheus.Desc
	nodeSampledPackets, nodeSampledSeconds *prometheus.Desc

	portRx, portRxBytes, portTx, portTxBytes           *prometheus.Desc
	portDrops, portUp, portMTU, portQueues, portDriver *prometheus.Desc
	portFallbacks                                      *prometheus.Desc

	busy, busySeconds, seconds, sleeps, loops, busyLoops *prometheus.Desc
	workerPackets, workerCPU, offCPU                     *prometheus.Desc

	frames, framesFree, supers, supersFree, memory, fallbacks *prometheus.Desc

	routes, neighbours, generation, generationTime, condition *prometheus.Desc
	client, restored, contract, started, info                 *prometheus.Desc

	policy policyMetrics
}

func newCollector(p *plane.Plane, facts inspect.Facts, host string) *collector {
	c := &collector{plane: p, facts: facts, host: host}
	c.defineTraffic()
	c.definePorts()
	c.defineWorkers()
	c.definePolicy()
	c.defineState()
	return c
}

// define makes a metric and puts it in the catalog.
func (c *collector) define(name, help string, labels ...string) *prometheus.Desc {
	name = "margay_" + name
	c.catalog = append(c.catalog, definition{name, help, labels})
	return prometheus.NewDesc(name, help, labels, nil)
}

func (c *collector) defineTraffic() {
	c.rx = c.define("rx_packets_total", "Wire packets received by all ports.")
	c.tx = c.define("tx_packets_total", "Wire packets transmitted by all ports but the host port.")
	c.punt = c.define("punt_packets_total", "Wire packets handed to the node's own stack.")
	c.made = c.define("made_packets_total", "Packets made by the forwarder itself.", "kind")
	c.madeRefused = c.define("made_refused_packets_total", "Packets that the forwarder would have made but for their rate, or for want of a buffer or an address.")
	c.consumed = c.define("consumed_packets_total", "Packets that ended with the forwarder.", "use")
	c.held = c.define("held_packets", "Packets that wait now, for a neighbour, or until an answer of a server of names is read.")
	c.drops = c.define("drops_total", "Wire packets dropped, each counted once.", "reason")
	c.imbalance = c.define("account_imbalance_packets", "Packets that came in or were made, less those that left, ended or wait: 0 at rest; under load workers are read at moments up to 50 ms apart.")
	c.flowsNow = c.define("flows", "Connections that are known now, by how far they have come.", "state")
	c.flowsLimit = c.define("flows_limit", "Connections that there is room for.")
	c.flowsMade = c.define("flow_begins_total", "Connections that began.")
	c.flowsEnd = c.define("flow_ends_total", "Connections that ended: expired, idle for too long; retired, taken out or opened again.", "how")
	c.flowsRenewed = c.define("flow_renewals_total", "Times that a known flow went on unjudged after tables had changed, since what it was decided from had not.")
	c.flowsRejudged = c.define("flow_rejudged_packets_total", "Packets of known flows that policy judged anew, since something changed that their flow was decided from.")
	c.nodePackets = c.define("node_packets_total", "Packets that a node of the graph processed.", "node")
	c.nodeCalls = c.define("node_vectors_total", "Vectors that a node of the graph was given.", "node")
	c.nodeCost = c.define("node_packet_seconds", "Cost of a packet in a node since the start, sampled.", "node")
	c.nodeSampledPackets = c.define("node_sampled_packets_total", "Packets of a node's vectors that were timed.", "node")
	c.nodeSampledSeconds = c.define("node_sampled_seconds_total", "Time of a node's vectors that were timed; by node_sampled_packets_total it is the cost of a packet.", "node")
}

func (c *collector) definePorts() {
	c.portRx = c.define("port_rx_packets_total", "Wire packets received.", "port", "kind")
	c.portRxBytes = c.define("port_rx_bytes_total", "Bytes received.", "port", "kind")
	c.portTx = c.define("port_tx_packets_total", "Wire packets transmitted.", "port", "kind")
	c.portTxBytes = c.define("port_tx_bytes_total", "Bytes transmitted.", "port", "kind")
	c.portDrops = c.define("port_tx_drops_total", "Wire packets that the port refused to transmit.", "port", "kind")
	c.portUp = c.define("port_up", "1 if the workers drive the port and it has a carrier.", "port", "kind")
	c.portMTU = c.define("port_mtu_bytes", "Largest packet from the IP header on.", "port", "kind")
	c.portQueues = c.define("port_queues", "Queues of the port, 0 while its device is missing.", "port", "kind")
	c.portFallbacks = c.define("port_fallbacks", "Things that the port asked its device for and does without, at the cost of speed.", "port", "kind")
	c.portDriver = c.define("port_driver_total", "Counters of sockets, steering and GRO.", "port", "kind", "counter")
}

func (c *collector) defineWorkers() {
	c.busy = c.define("worker_busy_ratio", "Share of a worker's time since its start that it spent in passes that moved packets.", "worker")
	c.busySeconds = c.define("worker_busy_seconds_total", "Time in passes that moved packets.", "worker")
	c.seconds = c.define("worker_seconds_total", "Time since the start of the worker, when it counted last.", "worker")
	c.sleeps = c.define("worker_sleeps_total", "Times a worker went to sleep.", "worker")
	c.loops = c.define("worker_loops_total", "Passes of a worker.", "worker")
	c.busyLoops = c.define("worker_busy_loops_total", "Passes of a worker that moved packets.", "worker")
	c.workerPackets = c.define("worker_packets_total", "Wire packets that a worker received or made.", "worker")
	c.workerCPU = c.define("worker_cpu", "Number of the CPU that the worker was given, -1 for whichever the kernel chooses.", "worker")
	c.offCPU = c.define("worker_off_cpu", "1 if the worker could not be put on the CPU that it was given.", "worker")
}

func (c *collector) defineState() {
	c.frames = c.define("frames", "Packet buffers of 4 KiB.")
	c.framesFree = c.define("frames_free", "Packet buffers in no hand.")
	c.supers = c.define("superpacket_buffers", "Superpacket buffers of 68 KiB.")
	c.supersFree = c.define("superpacket_buffers_free", "Superpacket buffers in no hand.")
	c.memory = c.define("packet_memory_bytes", "Size of packet memory, with its account of who holds what.")
	c.fallbacks = c.define("memory_fallbacks", "Things asked for of packet memory and not had, at the cost of speed.")
	c.routes = c.define("routes", "Routes in force.")
	c.neighbours = c.define("neighbors", "Stations that routes lead to, by what is known of them.", "state")
	c.generation = c.define("generation", "Number of the state in force.")
	c.generationTime = c.define("generation_timestamp_seconds", "When this process took up the state in force, since 1970; not there before the first state.")
	c.condition = c.define("condition", "1 for each object that is accepted but not in force.", "object", "reason")
	c.client = c.define("client_connected", "1 while a client is connected.")
	c.restored = c.define("restored", "1 while the state in force came from disk and no client has sent any.")
	c.contract = c.define("contract_version", "Version of the contract that the forwarder speaks.")
	c.started = c.define("start_time_seconds", "When the forwarder started, since 1970.")
	c.info = c.define("build_info", "1, by build and name of the host.", "version", "commit", "host")
}

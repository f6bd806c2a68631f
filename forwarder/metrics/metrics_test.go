package metrics

import (
	"bufio"
	"fmt"
	"math"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// page is what a scrape says: values by name and labels, types by name.
type page struct {
	values map[string]float64
	types  map[string]string
}

func scrape(t *testing.T, c prometheus.Collector) page {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	r := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	if r.Code != 200 {
		t.Fatalf("scrape: %d %s", r.Code, r.Body)
	}
	p := page{map[string]float64{}, map[string]string{}}
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		line := lines.Text()
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, of, _ := strings.Cut(kind, " ")
			p.types[name] = of
		}
		if cut := strings.LastIndexByte(line, ' '); line[0] != '#' {
			v, err := strconv.ParseFloat(line[cut+1:], 64)
			if err != nil {
				t.Fatalf("scrape: %q: %v", line, err)
			}
			p.values[line[:cut]] = v
		}
	}
	return p
}

// facts are those of a forwarder with a client.
func facts() inspect.Facts {
	return inspect.Facts{Started: time.Unix(1e9, 0), Connected: func() (now, ever bool) { return true, true }}
}

// fed collects what it is given, as the collector does what the engine counted.
type fed struct {
	*collector
	stats graph.Stats
}

func (f fed) Collect(out chan<- prometheus.Metric) {
	m := sink{out}
	f.account(m, f.stats.Counters)
	f.nodes(m, []string{"route"}, f.stats.Nodes)
	f.ports(m, []plane.PortState{{Name: "a", Kind: "tun", Counters: f.stats.Ports[0]}})
	f.worker(m, 3, f.stats)
}

// exposed is the metric of each counter, by its path in graph.Stats.
func exposed() map[string]string {
	out := map[string]string{
		"Counters.Rx": "margay_rx_packets_total", "Counters.Tx": "margay_tx_packets_total", "Counters.Punt": "margay_punt_packets_total",
		"Counters.Held": "margay_held_packets", "Counters.MadeRefused": "margay_made_refused_packets_total",
		"Nodes[0].Calls": `margay_node_vectors_total{node="route"}`, "Nodes[0].Packets": `margay_node_packets_total{node="route"}`,
		"Nodes[0].SampledNanos": `margay_node_sampled_seconds_total{node="route"}`, "Nodes[0].SampledPackets": `margay_node_sampled_packets_total{node="route"}`,
		"Ports[0].RxPackets": `margay_port_rx_packets_total{kind="tun",port="a"}`, "Ports[0].RxBytes": `margay_port_rx_bytes_total{kind="tun",port="a"}`,
		"Ports[0].TxPackets": `margay_port_tx_packets_total{kind="tun",port="a"}`, "Ports[0].TxBytes": `margay_port_tx_bytes_total{kind="tun",port="a"}`,
		"Ports[0].TxDrops": `margay_port_tx_drops_total{kind="tun",port="a"}`,
		"Load.Loops":       `margay_worker_loops_total{worker="3"}`, "Load.BusyLoops": `margay_worker_busy_loops_total{worker="3"}`,
		"Load.Sleeps": `margay_worker_sleeps_total{worker="3"}`, "Load.BusyNanos": `margay_worker_busy_seconds_total{worker="3"}`, "Load.Elapsed": `margay_worker_seconds_total{worker="3"}`,
	}
	for o := range graph.Origins {
		out[fmt.Sprintf("Counters.Made[%d]", o)] = fmt.Sprintf("margay_made_packets_total{kind=%q}", graph.Origin(o))
	}
	for u := range graph.Uses {
		out[fmt.Sprintf("Counters.Consumed[%d]", u)] = fmt.Sprintf("margay_consumed_packets_total{use=%q}", graph.Use(u))
	}
	for r := range graph.Reasons {
		out[fmt.Sprintf("Counters.Drops[%d]", r)] = fmt.Sprintf("margay_drops_total{reason=%q}", graph.Reason(r))
	}
	return out
}

// TestEveryCounterIsExposed gives each counter of the engine a number of its own
// and looks for it in a scrape. One that the engine gains and no metric has fails.
func TestEveryCounterIsExposed(t *testing.T) {
	s := graph.Stats{Nodes: make([]graph.NodeCounters, 1), Ports: make([]graph.PortCounters, 1)}
	counted, names := graphtest.Number(&s), exposed()
	got := scrape(t, fed{newCollector(nil, facts(), "host"), s})
	for path, n := range counted {
		name := names[path]
		want := float64(n)
		if strings.Contains(name, "_seconds_") { // the engine counts nanoseconds
			want /= 1e9
		}
		switch v, ok := got.values[name]; {
		case name == "":
			t.Errorf("the engine counts %s, which no metric has", path)
		case !ok:
			t.Errorf("%s is %d, and a scrape has no %s", path, n, name)
		case math.Abs(v-want) > want*1e-9:
			t.Errorf("%s is %d, and %s is %v, want %v", path, n, name, v, want)
		}
	}
	for path := range names {
		if _, ok := counted[path]; !ok {
			t.Errorf("%s is looked for, and the engine counts no such thing", path)
		}
	}
	for name, want := range map[string]float64{
		`margay_node_packet_seconds{node="route"}`: float64(s.Nodes[0].SampledNanos) / float64(s.Nodes[0].SampledPackets) / 1e9,
		`margay_worker_busy_ratio{worker="3"}`:     float64(s.Load.BusyNanos) / float64(s.Load.Elapsed),
		`margay_worker_packets_total{worker="3"}`:  float64(s.Counters.In()),
		`margay_account_imbalance_packets`:         float64(s.Counters.In()) - float64(s.Counters.Out()),
	} {
		if v, ok := got.values[name]; !ok || math.Abs(v-want) > math.Abs(want)*1e-9 {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
}

// TestUnitsAreInTheNames holds names to what Prometheus users go by: a running
// total ends with _total and is a counter, nothing else does or is.
func TestUnitsAreInTheNames(t *testing.T) {
	b := planetest.New(t, plane.Config{Workers: 1})
	got := scrape(t, newCollector(b.Plane, facts(), "host"))
	if len(got.types) < 15 {
		t.Fatalf("only %d metrics: %v", len(got.types), got.types)
	}
	for name, kind := range got.types {
		if strings.HasSuffix(name, "_total") != (kind == "counter") {
			t.Errorf("%s is a %s", name, kind)
		}
	}
}

// TestTrafficIsToldAlike sends packets through an engine of two workers and wants
// inspection and metrics to say what went where.
func TestTrafficIsToldAlike(t *testing.T) {
	for family, at := range map[string]struct{ one, two, nowhere string }{
		"IPv4": {"10.1.0.1", "10.1.0.2", "10.9.9.9"},
		"IPv6": {"fd00::1", "fd00::2", "fd09::9"},
	} {
		t.Run(family, func(t *testing.T) {
			b := planetest.New(t, plane.Config{Workers: 2})
			pod := func(name, addr string) (*pb.Port, *pb.Endpoint) {
				return &pb.Port{Name: name, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}},
					&pb.Endpoint{Id: name, Port: name, Addresses: []string{addr}, Policy: pb.Endpoint_POLICY_OFF}
			}
			p1, e1 := pod("p1", at.one)
			p2, e2 := pod("p2", at.two)
			b.Snapshot(&pb.Chunk{Ports: []*pb.Port{p1, p2}, Endpoints: []*pb.Endpoint{e1, e2}})
			one := netip.MustParseAddr(at.one)
			good := graphtest.UDP(one, netip.MustParseAddr(at.two), 100)
			lost := graphtest.UDP(one, netip.MustParseAddr(at.nowhere), 100)
			b.Port("p1").Inject(0, good, good, lost)
			b.Port("p1").Inject(1, good, lost)
			hostnettest.Eventually(t, "five packets are accounted for", func() bool {
				c := b.Engine().Total()
				return c.Rx == 5 && c.Tx == 3 && c.In() == c.Out() && c.MadeRefused == 2
			})
			size := float64(len(good))
			alike(t, b, map[string]float64{
				"margay_rx_packets_total": 5, "margay_tx_packets_total": 3, `margay_drops_total{reason="no-route"}`: 2,
				"margay_made_refused_packets_total":                  2, // errors, which nobody has an address to send from
				`margay_node_packets_total{node="route"}`:            5,
				`margay_port_rx_packets_total{kind="tun",port="p1"}`: 5, `margay_port_rx_bytes_total{kind="tun",port="p1"}`: 5 * size,
				`margay_port_tx_packets_total{kind="tun",port="p2"}`: 3, `margay_port_tx_bytes_total{kind="tun",port="p2"}`: 3 * size,
				`margay_port_rx_packets_total{kind="tun",port="p2"}`: 0, `margay_port_tx_packets_total{kind="tun",port="p1"}`: 0,
			})
		})
	}
}

// alike wants metrics and inspection of a dataplane at rest to say the same.
func alike(t *testing.T, b *planetest.Bench, want map[string]float64) {
	t.Helper()
	scraped, inspected := scrape(t, newCollector(b.Plane, facts(), "host")).values, inspected(t, b.Plane)
	for name, n := range want {
		if v, ok := scraped[name]; !ok || v != n {
			t.Errorf("metrics: %s is %v (there: %v), want %v", name, v, ok, n)
		}
		if v := inspected[name]; v != n {
			t.Errorf("inspection: %s is %v, want %v", name, v, n)
		}
	}
}

// inspected is what inspection says, by the names of metrics.
func inspected(t *testing.T, p *plane.Plane) map[string]float64 {
	t.Helper()
	s := inspect.NewServer(p, inspect.Facts{})
	d, err := s.ListDrops(t.Context(), &pb.ListDropsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{
		"margay_rx_packets_total": float64(d.Account.Rx), "margay_tx_packets_total": float64(d.Account.Tx),
		"margay_made_refused_packets_total": float64(d.Account.MadeRefused),
	}
	for _, one := range d.Drops {
		out[fmt.Sprintf("margay_drops_total{reason=%q}", one.Reason)] = float64(one.Packets)
	}
	nodes, err := s.ListNodes(t.Context(), &pb.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Nodes {
		out[fmt.Sprintf("margay_node_packets_total{node=%q}", n.Name)] = float64(n.Packets)
	}
	ports, err := s.ListPorts(t.Context(), &pb.ListPortsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports.Ports {
		for what, n := range map[string]uint64{"rx_packets": p.RxPackets, "rx_bytes": p.RxBytes, "tx_packets": p.TxPackets, "tx_bytes": p.TxBytes} {
			out[fmt.Sprintf("margay_port_%s_total{kind=%q,port=%q}", what, p.Kind, p.Name)] = float64(n)
		}
	}
	return out
}

// TestStateIsTold wants what is in force, since when and by whose word.
func TestStateIsTold(t *testing.T) {
	clock := time.Unix(2e9, 5e8)
	b := planetest.New(t, plane.Config{Workers: 1, CPUs: []int{100_000}, Now: func() time.Time { return clock }})
	c := newCollector(b.Plane, facts(), "host")
	before := scrape(t, c).values
	if at, ok := before["margay_generation_timestamp_seconds"]; ok {
		t.Errorf("a state is said to be in force since %v, and there is none", at)
	}
	xsk := &pb.Port{Name: "p", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}}
	b.Snapshot(&pb.Chunk{Ports: []*pb.Port{xsk}, Endpoints: []*pb.Endpoint{{
		Id: "e", Port: "p", Addresses: []string{"10.1.0.1", "fd00::1"}, Policy: pb.Endpoint_POLICY_OFF,
	}}})
	b.Note("port/x", plane.ReasonDeviceMissing, "there is no x")
	var got map[string]float64
	hostnettest.Eventually(t, "the worker is told to be off its CPU", func() bool {
		got = scrape(t, c).values
		return got[`margay_worker_off_cpu{worker="0"}`] == 1
	})
	for name, want := range map[string]float64{
		"margay_generation": 1, "margay_generation_timestamp_seconds": 2000000000.5, "margay_start_time_seconds": 1e9, "margay_routes": 2,
		`margay_neighbors{state="incomplete"}`: 2, `margay_neighbors{state="failed"}`: 0, "margay_client_connected": 1, "margay_restored": 0,
		"margay_contract_version": pb.Version, `margay_worker_cpu{worker="0"}`: 100_000, `margay_port_queues{kind="xsk",port="p"}`: 1,
		"margay_frames": 1024, "margay_superpacket_buffers": 16, "margay_superpacket_buffers_free": 16,
		`margay_condition{object="port/x",reason="device-missing"}`: 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
	if got["margay_packet_memory_bytes"] < 1024*4096+16*65536 {
		t.Errorf("packet memory is %v bytes, less than its buffers", got["margay_packet_memory_bytes"])
	}
}

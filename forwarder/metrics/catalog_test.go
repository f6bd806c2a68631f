package metrics

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
)

var update = flag.Bool("update", false, "write docs/METRICS.md anew")

// catalog is every metric that there can be, by its name.
func catalog() map[string]definition {
	out := map[string]definition{}
	for _, d := range newCollector(nil, facts(), "host").catalog {
		out[d.name] = d
	}
	return out
}

// TestCatalogIsWhatIsScraped wants each metric of the catalog, with its labels, from
// a dataplane that has one of everything.
func TestCatalogIsWhatIsScraped(t *testing.T) {
	b := planetest.New(t, plane.Config{Workers: 1})
	b.Snapshot(&pb.Chunk{Ports: []*pb.Port{{Name: "p", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}}})
	b.Note("port/x", plane.ReasonDeviceMissing, "there is no x")
	got := scrape(t, newCollector(b.Plane, facts(), "host"))
	for _, name := range []string{"margay_node_packet_seconds", "margay_port_driver_total"} { // of a dataplane that moved packets on real devices
		got.types[name] = "shown by TestEveryCounterIsExposed"
	}
	for _, name := range []string{"margay_policy_end_denied_packets_total", "margay_policy_staged_turned_packets_total"} { // of one with policy
		got.types[name] = "shown by TestPolicyIsTold"
	}
	for name := range catalog() {
		if got.types[name] == "" {
			t.Errorf("%s is in the catalog, and a scrape does not have it", name)
		}
	}
	for name := range got.types {
		if _, ok := catalog()[name]; !ok {
			t.Errorf("a scrape has %s, and the catalog does not", name)
		}
	}
}

// TestMetricsAreDocumented holds docs/METRICS.md to the catalog.
func TestMetricsAreDocumented(t *testing.T) {
	const file = "../../docs/METRICS.md"
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = "<!-- metrics: go test ./forwarder/metrics -update -->\n", "<!-- end of metrics -->\n"
	head, rest, ok := strings.Cut(string(have), from)
	_, tail, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks between which the table stands", file)
	}
	want := head + from + table() + "\n" + values() + to + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(have) != want {
		t.Errorf("%s is not what the exporter has; go test ./forwarder/metrics -update writes it anew", file)
	}
}

func table() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n")
	for _, d := range newCollector(nil, facts(), "host").catalog {
		kind := "gauge"
		if strings.HasSuffix(d.name, "_total") {
			kind = "counter"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.name, kind, strings.Join(d.labels, ", "), d.help)
	}
	return b.String()
}

// values is what labels of closed lists can say, so that a rule can name it.
func values() string {
	var b strings.Builder
	b.WriteString("| label | of | what it can say |\n| --- | --- | --- |\n")
	row := func(label, metric string, n int, name func(int) string) {
		fmt.Fprintf(&b, "| %s | `%s` |", label, metric)
		for i := range n {
			fmt.Fprintf(&b, " `%s`", name(i))
		}
		b.WriteString(" |\n")
	}
	row("reason", "margay_drops_total", graph.Reasons, func(i int) string { return graph.Reason(i).String() })
	row("kind", "margay_made_packets_total", graph.Origins, func(i int) string { return graph.Origin(i).String() })
	row("use", "margay_consumed_packets_total", graph.Uses, func(i int) string { return graph.Use(i).String() })
	words := func(label, metric string, of ...string) {
		row(label, metric, len(of), func(i int) string { return of[i] })
	}
	words("direction", "margay_policy_*", "egress", "ingress")
	words("would", "margay_policy_staged_turned_packets_total", "allow", "deny")
	words("outcome", "margay_policy_log_packets_total", "logged", "suppressed", "lost")
	words("outcome", "margay_overheard_packets_total", "shown", "lost", "unreadable")
	words("outcome", "margay_answers_held_total", "read", "overdue")
	return b.String()
}

// numbers says where each number that inspection tells is among the metrics. An
// empty name is for what is no quantity.
var numbers = map[string]string{
	"Status.contract": "margay_contract_version", "Status.generation": "margay_generation", "Status.uptime_seconds": "margay_start_time_seconds",
	"Status.client_connected": "margay_client_connected", "Status.restored": "margay_restored",
	"Status.frames": "margay_frames", "Status.frames_free": "margay_frames_free",
	"Condition.ok": "margay_condition",
	"Node.calls":   "margay_node_vectors_total", "Node.packets": "margay_node_packets_total",
	"Node.vectors_per_call": "margay_node_packets_total", "Node.ns_per_packet": "margay_node_packet_seconds",
	"Node.sampled_packets": "margay_node_sampled_packets_total", "Node.sampled_nanos": "margay_node_sampled_seconds_total",
	"PortState.index": "", "PortState.queues": "margay_port_queues", "PortState.mtu": "margay_port_mtu_bytes",
	"PortState.rx_packets": "margay_port_rx_packets_total", "PortState.rx_bytes": "margay_port_rx_bytes_total",
	"PortState.tx_packets": "margay_port_tx_packets_total", "PortState.tx_bytes": "margay_port_tx_bytes_total",
	"PortState.tx_drops": "margay_port_tx_drops_total", "PortState.driver": "margay_port_driver_total",
	"Drop.packets": "margay_drops_total", "Account.rx": "margay_rx_packets_total", "Account.tx": "margay_tx_packets_total",
	"Account.punt": "margay_punt_packets_total", "Account.dropped": "margay_drops_total", "Account.held": "margay_held_packets",
	"Account.made": "margay_made_packets_total", "Account.consumed": "margay_consumed_packets_total", "Account.made_refused": "margay_made_refused_packets_total",
	"Worker.id": "", "Worker.cpu": "margay_worker_cpu", "Worker.loops": "margay_worker_loops_total", "Worker.busy_loops": "margay_worker_busy_loops_total",
	"Worker.load": "margay_worker_busy_ratio", "Worker.sleeps": "margay_worker_sleeps_total", "Worker.packets": "margay_worker_packets_total",
	"Worker.busy_nanos": "margay_worker_busy_seconds_total", "Worker.elapsed_nanos": "margay_worker_seconds_total",
}

// TestEveryNumberShownHasAMetric walks the answers that margayctl show prints. Of
// routes and neighbors, which are lists, it is their number that has a metric.
func TestEveryNumberShownHasAMetric(t *testing.T) {
	all, told := catalog(), map[string]bool{}
	for _, m := range []protoreflect.ProtoMessage{&pb.Status{}, &pb.NodeList{}, &pb.PortList{}, &pb.DropList{}, &pb.WorkerList{}} {
		for _, field := range numbersOf(m.ProtoReflect().Descriptor()) {
			name, ok := numbers[field]
			told[field] = true
			if !ok {
				t.Errorf("%s is told by inspection: say in numbers which metric has it", field)
			}
			if _, there := all[name]; name != "" && !there {
				t.Errorf("%s is said to be %s, which does not exist", field, name)
			}
		}
	}
	for field := range numbers {
		if !told[field] {
			t.Errorf("%s is in numbers, and inspection tells no such thing", field)
		}
	}
	for _, name := range []string{"margay_routes", "margay_neighbors"} {
		if _, ok := all[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
}

// numbersOf lists the fields of a message, and of those in it, that are no text.
func numbersOf(m protoreflect.MessageDescriptor) (out []string) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		switch {
		case f.IsMap():
			out = append(out, fmt.Sprintf("%s.%s", m.Name(), f.Name()))
		case f.Kind() == protoreflect.MessageKind:
			out = append(out, numbersOf(f.Message())...)
		case !slices.Contains([]protoreflect.Kind{protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind}, f.Kind()):
			out = append(out, fmt.Sprintf("%s.%s", m.Name(), f.Name()))
		}
	}
	return out
}

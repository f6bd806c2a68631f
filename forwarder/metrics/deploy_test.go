package metrics

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"sigs.k8s.io/yaml"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/forwarder/metrics/metricstest"
)

const root = "../.."

var (
	// metricName is a name before a selector, or one of ours wherever it stands.
	metricName = regexp.MustCompile(`margay_[a-z0-9_]+|\b[a-z_][a-z0-9_]*[{]`)
	labelName  = regexp.MustCompile(`[{,]\s*([a-z_]+)\s*(?:=~|!~|!=|=)`)
	byLabels   = regexp.MustCompile(`\b(?:by|on)\s*\(([^)]*)\)`)
	reasonOf   = regexp.MustCompile(`reason=~?"([^"]*)"`)
)

// known is every metric that a scrape may have, by name, with its labels.
func known(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{"up": nil}
	for name, d := range catalog() {
		out[name] = d.labels
	}
	others := prometheus.NewRegistry()
	others.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := others.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		out[f.GetName()] = nil
	}
	return out
}

// TestDashboardAndAlertsNameWhatThereIs fails when a metric, a label or a drop
// reason is renamed and deploy/ is not.
func TestDashboardAndAlertsNameWhatThereIs(t *testing.T) {
	metrics, named := known(t), 0
	for _, q := range metricstest.Queries(t, root, "1m") {
		labels := []string{"instance", "job"}
		for _, name := range metricName.FindAllString(q.Expr, -1) {
			name = strings.TrimSuffix(name, "{")
			of, ok := metrics[name]
			if !ok {
				t.Errorf("%s asks for %s, which the forwarder does not have: %s", q.Where, name, q.Expr)
			}
			labels = append(labels, of...)
			named++
		}
		for _, label := range labelsIn(q.Expr) {
			if !slices.Contains(labels, label) {
				t.Errorf("%s asks for the label %s, which none of its metrics has: %s", q.Where, label, q.Expr)
			}
		}
		for _, reason := range reasonsIn(q.Expr) {
			if !slices.Contains(reasons(), reason) {
				t.Errorf("%s asks for drops of the reason %s, which does not exist: %s", q.Where, reason, q.Expr)
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d names were found in all of deploy/: the test reads it no more", named)
	}
}

func labelsIn(expr string) (out []string) {
	for _, m := range labelName.FindAllStringSubmatch(expr, -1) {
		out = append(out, m[1])
	}
	for _, m := range byLabels.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			out = append(out, strings.TrimSpace(label))
		}
	}
	return out
}

func reasonsIn(expr string) (out []string) {
	for _, m := range reasonOf.FindAllStringSubmatch(expr, -1) {
		out = append(out, strings.Split(m[1], "|")...)
	}
	return out
}

func reasons() (out []string) {
	for r := range graph.Reasons {
		out = append(out, graph.Reason(r).String())
	}
	return out
}

// TestEveryMetricIsDrawnOrWatched wants the dashboard to leave nothing out.
func TestEveryMetricIsDrawnOrWatched(t *testing.T) {
	var all strings.Builder
	for _, q := range metricstest.Queries(t, root, "1m") {
		all.WriteString(q.Expr + "\n")
	}
	// What another panel says better, or what never changes.
	elsewhere := []string{
		"margay_made_refused_packets_total", "margay_consumed_packets_total", "margay_node_packet_seconds", "margay_worker_busy_ratio",
		"margay_worker_seconds_total", "margay_worker_cpu", "margay_port_mtu_bytes", "margay_port_queues", "margay_port_fallbacks",
		"margay_memory_fallbacks", "margay_generation", "margay_restored", "margay_contract_version",
	}
	for name := range catalog() {
		drawn := regexp.MustCompile(`\b` + name + `\b`).MatchString(all.String())
		if other := slices.Contains(elsewhere, name); drawn == other {
			t.Errorf("%s is drawn or watched: %v; said to be left out: %v", name, drawn, other)
		}
	}
}

// TestDashboardIsWhole wants panels that Grafana takes as they are.
func TestDashboardIsWhole(t *testing.T) {
	ids, cells := map[int]string{}, map[[2]int]string{}
	for _, p := range metricstest.Dashboard(t, root) {
		if other, taken := ids[p.ID]; taken {
			t.Errorf("%s and %s have one id", p.Title, other)
		}
		ids[p.ID] = p.Title
		if g := p.GridPos; g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s is %dx%d at %d, want it within 24 columns", p.Title, g.W, g.H, g.X)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := cells[at]; taken {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				cells[at] = p.Title
			}
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s is a %s with %d expressions", p.Title, p.Type, len(p.Targets))
		}
	}
	if len(ids) < 20 {
		t.Errorf("only %d panels", len(ids))
	}
}

// TestEveryAlertIsTriedBothWays wants series for which each fires and for which it does not.
func TestEveryAlertIsTriedBothWays(t *testing.T) {
	b, err := os.ReadFile(root + "/deploy/prometheus/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range f.Tests {
		for _, a := range test.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.AlertName] = true
			} else {
				quiet[a.AlertName] = true
			}
		}
	}
	all := map[string]bool{}
	for _, r := range metricstest.Rules(t, root) {
		all[r.Alert] = true
	}
	if !maps.Equal(fires, all) || !maps.Equal(quiet, all) {
		t.Errorf("alerts are %v; tried to fire: %v; tried not to: %v", all, fires, quiet)
	}
}

// TestAlertsFireWhenTheyShould lets Prometheus's own tool judge the alerts.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool := metricstest.NeedPrometheus(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = root + "/deploy/prometheus"
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Package metricstest reads what deploy/ asks of the forwarder's metrics, for
// tests: the dashboard's expressions and the alerts'.
package metricstest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Query is one expression, and where it stands.
type Query struct {
	Where, Expr string
	Alert       bool // of a rule, which in good times has no series
}

// Panel is what tests look at of a panel of the dashboard.
type Panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ Expr, RefID string }
}

// Rule is an alert.
type Rule struct{ Alert, Expr string }

// Dashboard reads the panels of deploy/grafana/margay.json below root.
func Dashboard(t testing.TB, root string) []Panel {
	t.Helper()
	var d struct{ Panels []Panel }
	read(t, filepath.Join(root, "deploy/grafana/margay.json"), json.Unmarshal, &d)
	return d.Panels
}

// Rules reads the alerts of deploy/prometheus/alerts.yaml below root.
func Rules(t testing.TB, root string) (all []Rule) {
	t.Helper()
	var f struct{ Groups []struct{ Rules []Rule } }
	read(t, filepath.Join(root, "deploy/prometheus/alerts.yaml"), unmarshalYAML, &f)
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Queries is every expression of both. Those of the dashboard are as Grafana sends
// them for all forwarders, over a window such as "1m".
func Queries(t testing.TB, root, window string) (all []Query) {
	t.Helper()
	variables := strings.NewReplacer("$__rate_interval", window, "$instance", ".*")
	for _, p := range Dashboard(t, root) {
		for _, target := range p.Targets {
			all = append(all, Query{Where: p.Title + "/" + target.RefID, Expr: variables.Replace(target.Expr)})
		}
	}
	for _, r := range Rules(t, root) {
		all = append(all, Query{Where: r.Alert, Expr: r.Expr, Alert: true})
	}
	return all
}

// NeedPrometheus finds prometheus or promtool, or skips the test.
func NeedPrometheus(t testing.TB, program string) (path string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		t.Skipf("needs %s: apt-get install prometheus (316 MiB, too much for hack/deps.sh), "+
			"or the program alone (96 MiB): apt-get download prometheus && dpkg -x prometheus_*.deb DIR, with DIR/usr/bin on PATH", program)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, file string, parse func([]byte, any) error, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = parse(b, into)
	}
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
}

func unmarshalYAML(b []byte, into any) error { return yaml.Unmarshal(b, into) }

package forwarder_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/metrics/metricstest"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

const (
	metricsAt    = "127.0.0.1:9479"
	prometheusAt = "127.0.0.1:9490"
)

// prometheus is one that scrapes the lab's forwarder twice a second.
type prometheus struct {
	t   *testing.T
	web *http.Client
}

// prometheus starts one in the node's namespace, with the alerts of deploy/.
func (l *lab) prometheus() *prometheus {
	l.t.Helper()
	program := metricstest.NeedPrometheus(l.t, "prometheus")
	rules, err := filepath.Abs("../deploy/prometheus/alerts.yaml")
	if err != nil {
		l.t.Fatal(err)
	}
	file := filepath.Join(l.dir, "prometheus.yml")
	text := fmt.Sprintf(`global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
- job_name: margay-forwarder
  static_configs: [{targets: [%q]}]
`, rules, metricsAt)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--config.file", file, "--storage.tsdb.path", filepath.Join(l.dir, "tsdb"), "--web.listen-address", prometheusAt)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := l.node.Do(cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if l.t.Failed() {
			l.t.Logf("Prometheus says:\n%s", &log)
		}
	})
	p := &prometheus{l.t, l.web()}
	Eventually(l.t, "Prometheus is ready", func() bool {
		code, _, err := fetch(p.web, prometheusAt, "/-/ready")
		return err == nil && code == 200
	})
	return p
}

// answer is what its API says, below "data".
func (p *prometheus) answer(path string, data any) error {
	code, body, err := fetch(p.web, prometheusAt, path)
	if err != nil {
		return err
	}
	envelope := struct {
		Error string
		Data  any
	}{Data: data}
	if err := json.Unmarshal([]byte(body), &envelope); err != nil || code != 200 {
		return fmt.Errorf("status %d: %s %w", code, envelope.Error, err)
	}
	return nil
}

// series is how many an expression has now.
func (p *prometheus) series(expr string) (int, error) {
	var data struct{ Result []any }
	err := p.answer("/api/v1/query?query="+url.QueryEscape(expr), &data)
	return len(data.Result), err
}

// TestPrometheusUnderstandsDashboardAndAlerts evaluates every expression that we
// ship, in a real Prometheus that scrapes a real forwarder with traffic, drops, and
// a port whose device is missing.
func TestPrometheusUnderstandsDashboardAndAlerts(t *testing.T) {
	metricstest.NeedPrometheus(t, "prometheus")
	l := newLab(t)
	l.start("--metrics", metricsAt)
	state := l.snapshot()
	state.Ports = append(state.Ports, &pb.Port{Name: "lost", Device: "nowhere", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}})
	l.connect().must(true, state)
	for _, to := range []string{"10.1.0.4", "fd00::4", "10.9.9.9", "fd09::9"} { // two of them lead nowhere
		l.pinging("a", to)
	}
	p := l.prometheus()
	for _, q := range metricstest.Queries(t, "..", "5s") {
		var n int
		var err error
		seen := func() bool { n, err = p.series(q.Expr); return err != nil || n > 0 || q.Alert }
		for end := time.Now().Add(20 * time.Second); !seen() && time.Now().Before(end); {
			time.Sleep(200 * time.Millisecond)
		}
		if err != nil || n == 0 && !q.Alert {
			t.Errorf("%s has %d series, %v: %s", q.Where, n, err, q.Expr)
		}
	}
	p.wantRules()
	l.balanced()
}

// wantRules wants every rule evaluated without an error, and those that the missing
// device concerns on their way to fire.
func (p *prometheus) wantRules() {
	p.t.Helper()
	type rule struct{ Name, State, Health, LastError string }
	var all []rule
	find := func(name string) (found rule) {
		for _, r := range all {
			if r.Name == name {
				found = r
			}
		}
		return found
	}
	Eventually(p.t, "all rules were evaluated, and two are pending", func() bool {
		var data struct{ Groups []struct{ Rules []rule } }
		if err := p.answer("/api/v1/rules", &data); err != nil {
			p.t.Fatal(err)
		}
		all = data.Groups[0].Rules
		return all[len(all)-1].Health != "unknown" && find("MargayPortNotUp").State == "pending" && find("MargayNotInForce").State == "pending"
	})
	for _, r := range all {
		if r.Health != "ok" || r.LastError != "" {
			p.t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
		if r.State != "inactive" && r.Name != "MargayPortNotUp" && r.Name != "MargayNotInForce" {
			p.t.Errorf("%s is %s in a lab that has no such trouble", r.Name, r.State)
		}
	}
}

// TestScrapesDoNoHarm scrapes 100 times a second for 5 s, whether or not the one
// before has been answered, while pods talk: no packet is lost, and all is accounted for.
func TestScrapesDoNoHarm(t *testing.T) {
	const scrapes = 500
	l := newLab(t)
	l.workers = 2
	l.start("--metrics", metricsAt)
	l.connect().must(true, l.snapshot())
	l.pings()
	l.get(metricsAt, "/metrics") // it listens
	before := l.account().Rx
	var talk sync.WaitGroup
	for _, to := range []string{"10.1.0.3", "fd00::3"} {
		talk.Go(func() {
			out, err := TryRun(l.pods["a"], "ping", "-q", "-c", fmt.Sprint(scrapes), "-i", "0.01", "-W", "5", to)
			if err != nil || !strings.Contains(out, " 0% packet loss") {
				t.Errorf("ping %s: %v\n%s", to, err, out)
			}
		})
	}
	web, began := l.web(), time.Now()
	var answers sync.WaitGroup
	for tick := time.NewTicker(10 * time.Millisecond); time.Since(began) < 5*time.Second; {
		<-tick.C
		answers.Go(func() {
			if code, body, err := fetch(web, metricsAt, "/metrics"); err != nil || code != 200 {
				t.Errorf("scrape: %d %v\n%s", code, err, body)
			}
		})
	}
	answers.Wait()
	t.Logf("answered %v after the last scrape was due", time.Since(began)-5*time.Second)
	talk.Wait()
	if n := l.account().Rx - before; n < 4*scrapes {
		t.Errorf("%d packets came in, want the requests and replies of two pings of %d each", n, scrapes)
	}
	l.balanced()
	_, body := l.get(metricsAt, "/metrics")
	if !regexp.MustCompile(`(?m)^margay_account_imbalance_packets 0$`).MatchString(body) {
		t.Error("the metrics say that the account does not balance")
	}
}

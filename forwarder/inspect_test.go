package forwarder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// web is a client in the daemon's own namespace.
func (l *lab) web() *http.Client {
	dial := func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = l.node.Do(func() (err error) { c, err = (&net.Dialer{}).DialContext(ctx, network, addr); return err })
		return c, err
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 10}
	l.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// fetch gets a page.
func fetch(web *http.Client, address, path string) (status int, body string, err error) {
	r, err := web.Get("http://" + address + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// get fetches a page, as soon as there is a server.
func (l *lab) get(address, path string) (status int, body string) {
	l.t.Helper()
	web := l.web()
	Eventually(l.t, address+" answers", func() (ok bool) {
		var err error
		status, body, err = fetch(web, address, path)
		return err == nil
	})
	return status, body
}

func TestHealthReadinessAndMetrics(t *testing.T) {
	const at = "127.0.0.1:9479"
	l := newLab(t)
	l.start("--metrics", at)
	if code, body := l.get(at, "/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	if code, body := l.get(at, "/readyz"); code != 503 || !strings.Contains(body, "no state") {
		t.Errorf("/readyz without a state: %d %s", code, body)
	}
	l.connect().must(true, l.snapshot())
	l.pings()
	if code, body := l.get(at, "/readyz"); code != 200 {
		t.Errorf("/readyz with a state: %d %s", code, body)
	}
	l.balanced()
	code, body := l.get(at, "/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d %s", code, body)
	}
	for _, want := range []string{
		"margay_rx_packets_total ", `margay_drops_total{reason="no-route"}`, `margay_port_rx_bytes_total{kind="tun",port="a"}`,
		`margay_node_packets_total{node="rewrite"}`, `margay_worker_busy_ratio{worker="0"}`, `margay_port_up{kind="xsk",port="c"} 1`,
		`margay_port_up{kind="host",port="margay0"} 1`, "margay_routes 8", "margay_generation 1", "go_goroutines",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not among the metrics", want)
		}
	}
	if code, _ := l.get(at, "/debug/pprof/goroutine?debug=1"); code != 200 {
		t.Errorf("pprof: %d", code)
	}
}

func TestInspect(t *testing.T) {
	l := newLab(t)
	l.uplinks()
	l.start()
	c := l.connect()
	c.must(true, l.withUplinks())
	l.reaches("a", "10.9.9.9")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	l.inspectRoutes(ctx)
	n, err := l.inspect().ListNeighbors(ctx, &pb.ListNeighborsRequest{})
	if err != nil || len(n.Neighbors) != 6 { // four gateways, two addresses of pod c
		t.Errorf("neighbours are %v, %v, want 6", n, err)
	}
	w, err := l.inspect().ListWorkers(ctx, &pb.ListWorkersRequest{})
	if err != nil || len(w.Workers) != 1 || w.Workers[0].Packets == 0 || w.Workers[0].Cpu != -1 {
		t.Errorf("workers are %v, %v", w, err)
	}
	d, err := l.inspect().Diagnose(ctx, &pb.DiagnoseRequest{})
	if err != nil || len(d.GetFindings()) < 10 {
		t.Errorf("diagnosis is %v, %v", d, err)
	}
	redirected := uint64(0)
	for _, name := range []string{"up0", "up1"} {
		p := l.port(name)
		redirected += p.Driver["steering-redirected"]
		if p.State != "up" || p.Kind != "xsk" || p.Mac == "" {
			t.Errorf("%s is %v", name, p)
		}
	}
	if redirected == 0 {
		t.Error("no uplink's program has redirected anything, though replies came")
	}
	if st := l.status(); !st.ClientConnected || st.Restored || st.Frames != 16384 || st.FramesFree == 0 || len(st.Conditions) != 0 {
		t.Errorf("status is %v", st)
	}
}

// inspectRoutes wants the whole FIB of the lab with uplinks told.
func (l *lab) inspectRoutes(ctx context.Context) {
	t := l.t
	t.Helper()
	routes := map[string]*pb.RouteList_Route{}
	s, err := l.inspect().ListRoutes(ctx, &pb.ListRoutesRequest{})
	for err == nil {
		var m *pb.RouteList
		if m, err = s.Recv(); err == nil {
			for _, r := range m.Routes {
				routes[r.Prefix] = r
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for prefix, want := range map[string]string{
		"0.0.0.0/0": "up0", "::/0": "up0", "10.1.0.2/32": "a", "fd00::3/128": "b", "10.1.0.4/32": "c", "10.1.0.1/32": "",
	} {
		r := routes[prefix]
		if r == nil || r.Adjacencies[0].Port != want {
			t.Errorf("route of %s is %v, want one by port %q", prefix, r, want)
		}
	}
	if r := routes["0.0.0.0/0"]; r.NextHop != 1 || len(r.Adjacencies) != 2 || r.Adjacencies[0].Gateway != "10.2.0.9" {
		t.Errorf("the default route is %v, want the client's next hop 1 of two members", r)
	}
	if _, err := l.inspect().ListRoutes(ctx, &pb.ListRoutesRequest{Covering: "x"}); err == nil {
		s, _ := l.inspect().ListRoutes(ctx, &pb.ListRoutesRequest{Covering: "x"})
		if _, err := s.Recv(); err == nil || !strings.Contains(err.Error(), "want an address") {
			t.Errorf("covering x says %v", err)
		}
	}
}

// dialAs is what this binary does when TestOnlyOurUserMayConnect runs it as
// somebody else: it tells whether the socket at path lets it in.
func dialAs(path string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return fmt.Errorf("turned away: %w", err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("turned away: %w", err)
	}
	return nil
}

func TestOnlyOurUserMayConnect(t *testing.T) {
	l := newLab(t)
	l.start()
	// Even where a careless operator has opened the folder and the socket.
	for dir := filepath.Dir(l.socket()); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(l.socket(), 0o777); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(filepath.Dir(l.socket()), "test")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dial := func(uid uint32) (string, error) {
		cmd := exec.Command(self)
		cmd.Dir, cmd.Env = "/", append(os.Environ(), dialEnv+"="+l.socket())
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := dial(0); err != nil {
		t.Errorf("root is not let in: %v\n%s", err, out)
	}
	if out, err := dial(65534); err == nil || !strings.Contains(out, "turned away") {
		t.Errorf("nobody is let in: %v\n%s", err, out)
	}
}

// cpu is the time the daemon has used, in clock ticks of 10 ms.
func (l *lab) cpu() int {
	l.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}

func TestIdleForwarderSleeps(t *testing.T) {
	l := newLab(t)
	l.workers = 2
	l.uplinks()
	l.start()
	l.connect().must(true, l.withUplinks())
	l.pings()
	const seconds = 5
	before := l.cpu()
	time.Sleep(seconds * time.Second)
	used := l.cpu() - before
	t.Logf("an idle forwarder of two workers and six ports uses %.2f %% of a core", float64(used)/seconds)
	if used > 3*seconds { // percent: ticks are hundredths of a second
		t.Errorf("it used %d ms of CPU in %d s, want under 3 %%", used*10, seconds)
	}
}

func TestNotifiesSystemd(t *testing.T) {
	l := newLab(t)
	at := filepath.Join(l.dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", at)
	t.Setenv("WATCHDOG_USEC", "400000")
	said := func() string {
		b := make([]byte, 200)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	l.start()
	for _, want := range []string{fmt.Sprintf("MAINPID=%d\nREADY=1", l.cmd.Process.Pid), "WATCHDOG=1", "WATCHDOG=1"} {
		if got := said(); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	go func() { time.Sleep(100 * time.Millisecond); _ = l.cmd.Process.Signal(syscall.SIGTERM) }()
	for got := ""; got != "STOPPING=1"; {
		got = said()
	}
}

func TestUninstallLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.start()
	l.connect().must(true, l.snapshot())
	_ = l.kill(syscall.SIGKILL)
	path, _ := binary()
	Run(t, l.node, path, "uninstall", "--state-dir", filepath.Join(l.dir, "state"))
	if out, err := TryRun(l.node, "ip", "link", "show", "margay0"); err == nil {
		t.Errorf("the host port is still there:\n%s", out)
	}
	if out := Run(t, l.node, "ip", "route", "show", "proto", "77"); strings.TrimSpace(out) != "" {
		t.Errorf("routes are left:\n%s", out)
	}
}

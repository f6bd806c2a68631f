//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

var bins string // folder of the built programs; set once by TestMain

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if bins, err = os.MkdirTemp("", "margay-lab-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(bins)
	for _, name := range []string{"margay-lab", "margay-forwarder", "margay-agent", "margayctl"} { // by paths of our own: processes that are left are known by them
		path, err := built.Program(name)
		if err == nil {
			err = install(path, filepath.Join(bins, name))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
	code = m.Run()
}

// install copies a program.
func install(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// labs runs margay-lab as a process, with a folder of its own.
type labs struct {
	t   *testing.T
	dir string
}

func newLabs(t *testing.T) *labs {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab makes network namespaces and devices")
	}
	hostnettest.OfProcesses(t)
	l := &labs{t, t.TempDir()}
	t.Cleanup(func() {
		if out, status := l.run("down", "--all"); status != 0 {
			t.Errorf("down: status %d\n%s", status, out)
		}
	})
	return l
}

func (l *labs) command(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(bins, "margay-lab"), append([]string{"--dir", l.dir}, args...)...)
}

// run gives what was printed to both outputs, and the exit status.
func (l *labs) run(args ...string) (string, int) {
	l.t.Helper()
	cmd := l.command(args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (l *labs) ok(args ...string) string {
	l.t.Helper()
	out, status := l.run(args...)
	if status != 0 {
		l.t.Fatalf("margay-lab %v: status %d\n%s", args, status, out)
	}
	return out
}

// left lists namespaces and processes of labs of this name.
func left(t *testing.T, name string) (out []string) {
	t.Helper()
	names, err := hostnet.NamedNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "mlab-"+name+"-") {
			out = append(out, "namespace "+n)
		}
	}
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		if b, err := os.ReadFile(path); err == nil && bytes.HasPrefix(b, []byte(bins)) {
			out = append(out, path+" "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return out
}

const small = `
name: %s
pools: [10.4.0.0/16, "fd04::/48"]
nodes: [{name: w}, {name: e}]
links:
  - name: wire
    impairment: {}
    ends: [{node: w, addresses: [172.31.4.1/24, "fd31:4::1/64"]}, {node: e, addresses: [172.31.4.2/24, "fd31:4::2/64"]}]
pods:
  - {name: a, node: w, addresses: [10.4.1.1, "fd04::1:1"]}
  - {name: b, node: e, addresses: [10.4.2.1, "fd04::2:1"], port: xsk}
`

// topology writes the file of a lab of this process.
func topology(t *testing.T) (path, name string) {
	name = fmt.Sprintf("c%d", os.Getpid())
	path = filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, small, name), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, name
}

func TestALabFromUpToDown(t *testing.T) {
	l := newLabs(t)
	path, name := topology(t)
	if out := l.ok("up", path); !strings.Contains(out, "lab "+name+" is up") {
		t.Errorf("up says:\n%s", out)
	}
	var s state
	if err := json.Unmarshal([]byte(l.ok("status", "-o", "json")), &s); err != nil || len(s.Nodes) != 2 || s.Nodes[0].PID == 0 || s.Nodes[0].Generation == 0 ||
		len(s.Nodes[0].Faults) != 0 || s.Pods[1].Port.State != "up" || s.Links[0].Impaired == nil {
		t.Errorf("status is %+v, %v", s, err)
	}
	l.ok("ping")
	l.ok("ping", "a", "b", "-6", "-c", "2")
	l.policy()
	if out := l.ok("exec", "a", "--", "ip", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(out, "10.4.1.1/32") {
		t.Errorf("inside pod a eth0 has:\n%s", out)
	}
	if _, status := l.run("exec", "b", "--", "sh", "-c", "exit 7"); status != 7 {
		t.Errorf("exec ended with %d, want the command's 7", status)
	}
	var p perfOut
	out := l.ok("perf", "a", "b", "--udp", "--rate", "5mbit", "--size", "500", "--seconds", "0.5", "-o", "json")
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Sent < 50 || p.Size != 500 || p.Proto != "udp4" {
		t.Errorf("perf measured %+v, %v", p, err)
	}
	if out := l.ok("perf", "b", "a", "-6", "--seconds", "0.3", "-o", "yaml"); !strings.Contains(out, "proto: tcp6") {
		t.Errorf("perf printed:\n%s", out)
	}
	if out := l.ok("impair", "wire", "--partition"); !strings.Contains(out, "partition") {
		t.Errorf("impair printed:\n%s", out)
	}
	if out, status := l.run("ping", "a", "b", "--timeout", "100ms"); status != 1 || !strings.Contains(out, "not every request was answered") {
		t.Errorf("over a cut wire ping says (%d):\n%s", status, out)
	}
	l.ok("impair", "wire", "--clear")
	l.ok("stop", "w", "--kill")
	if out := l.ok("status"); !strings.Contains(out, "stopped") || !strings.Contains(out, "cut off") {
		t.Errorf("without a forwarder status says:\n%s", out)
	}
	l.ok("start", "w")
	before := l.ok("status")
	l.ok("upgrade", "w")
	if after := l.ok("status"); after == before || strings.Contains(after, "stopped") {
		t.Errorf("after an upgrade status says:\n%s\nand before:\n%s", after, before)
	}
	l.ok("ping", "a", "b")
	l.ok("down")
	if rest := left(t, name); len(rest) != 0 {
		t.Errorf("left behind: %v", rest)
	}
	if out := l.ok("down"); !strings.Contains(out, "no lab is up") {
		t.Errorf("down again says:\n%s", out)
	}
}

func TestDownLeavesNothingWhereverUpWasKilled(t *testing.T) {
	l := newLabs(t)
	path, name := topology(t)
	for _, after := range []time.Duration{5, 20, 60, 120, 200, 300, 450} {
		cmd := l.command("up", path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		l.ok("down")
		if rest := left(t, name); len(rest) != 0 {
			t.Fatalf("killed after %d ms, left behind: %v", after, rest)
		}
	}
	l.ok("up", path) // nothing of them is in the way
	l.ok("ping")
}

// The demo does not believe a trace that leaves a stop out.
func TestTheDemoWantsAWholeWay(t *testing.T) {
	const whole = "received by pod-ann\n ip-input ► flow\n flow ► route\n route ► policy-out\n policy-out ► policy-in\n policy-in ► rewrite\n rewrite ► tx\n offered to link-uplink"
	for told, ok := range map[string]bool{
		whole: true,
		"no packet that the filter picks came in within 30s":                             false,
		strings.Replace(whole, "rewrite ► tx", "", 1):                                    true, // it is the way out of route, too
		strings.ReplaceAll(whole, "policy", "other"):                                     false,
		strings.ReplaceAll(whole, "rewrite", "resolve"):                                  false,
		strings.Replace(whole, "offered to link-uplink", "dropped", 1):                   false,
		"offered to link-uplink\n" + strings.TrimSuffix(whole, "offered to link-uplink"): false,
	} {
		if err := wholeWay(told); (err == nil) != ok {
			t.Errorf("of\n%s\nthe demo says %v", told, err)
		}
	}
}

func TestMistakesAreExplained(t *testing.T) {
	l := newLabs(t)
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("name: w\nnodes: [{name: b}]\npods: [{name: p, node: x}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"no lab is up: raise one":             {"status"},
		"no such lab is up":                   {"status", "--lab", "atlantis"},
		"read topology":                       {"up", "/nonexistent.yaml"},
		`pods[0].node is "x"`:                 {"up", wrong},
		"build it with make build":            {"up", "--forwarder", "/nonexistent"},
		"margay-lab exec ann -- ping":         {"exec", "ann"},
		"want two pods, or none":              {"ping", "ann"},
		"accepts 2 arg(s), received 1":        {"perf", "ann"},
		`"200%" is no share`:                  {"impair", "x", "--loss", "200%"},
		`direction is "up", want there, back`: {"impair", "x", "--direction", "up"},
		"xml":                                 {"status", "-o", "xml"},
		"unknown command":                     {"fly"},
		"find the agent":                      {"up", "--agent", "/nonexistent"},
		"0 nodes are named, want one":         {"stop"},
		"--store stands alone":                {"start", "w", "--store"},
	} {
		if out, status := l.run(args...); status != 1 || !strings.Contains(out, want) {
			t.Errorf("margay-lab %v ended with %d and says %q, want %q", args, status, out, want)
		}
	}
	if out := l.ok("--version"); !strings.HasPrefix(out, "margay-lab v") || !strings.Contains(out, "contract") {
		t.Errorf("version is %q", out)
	}
	if out := l.ok("topology"); !strings.Contains(out, "name: demo") {
		t.Errorf("topology is %q", out)
	}
}

//go:build linux

// Package hostnettest gives tests namespaces of their own and the output of
// ip, ethtool and their like in them, as a witness that is not ours.
package hostnettest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
)

// patience is how long Eventually waits; tests on a busy machine need it, others end sooner.
const patience = 20 * time.Second

// NeedRoot skips the test where namespaces cannot be made.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN)")
	}
}

// OfProcesses skips, in the race detector's run, a test of other processes: it does
// not see into them, and the plain run tests the same.
func OfProcesses(t testing.TB) {
	t.Helper()
	if raceDetector {
		t.Skip("tests other processes, into which the race detector does not see")
	}
}

// Namespace makes a namespace that goes with the test.
func Namespace(t testing.TB) *hostnet.Namespace {
	t.Helper()
	NeedRoot(t)
	name := fmt.Sprintf("hn-%d-%08x", os.Getpid(), rand.Uint32())
	ns, err := hostnet.CreateNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.Close()
		if err := hostnet.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// Host makes a namespace and opens a Host in it.
func Host(t testing.TB) *hostnet.Host {
	t.Helper()
	h, err := hostnet.NewHost(Namespace(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Pair makes two namespaces joined by veth links called left and right, both up.
func Pair(t testing.TB) (left, right *hostnet.Host) {
	t.Helper()
	left, right = Host(t), Host(t)
	err := left.AddVeth(hostnet.VethConfig{Name: "left", Peer: "right", PeerNS: right.Namespace()})
	if err != nil {
		t.Fatal(err)
	}
	for h, name := range map[*hostnet.Host]string{left: "left", right: "right"} {
		if err := h.SetUp(name); err != nil {
			t.Fatal(err)
		}
	}
	return left, right
}

// Run is the output of a command in the namespace; its failure is the test's.
func Run(t testing.TB, ns *hostnet.Namespace, command ...string) string {
	t.Helper()
	out, err := TryRun(ns, command...)
	if err != nil {
		t.Fatalf("%v in %s: %v\n%s", command, ns, err, out)
	}
	return out
}

// TryRun is Run for commands that may fail. What they print as errors is told
// with the error: ip complains there of namespaces that come and go beside it.
func TryRun(ns *hostnet.Namespace, command ...string) (string, error) {
	if ns.Path() != "" { // nsenter and not ip netns exec, which hides cgroups and bpffs
		command = append([]string{"nsenter", "--net=" + ns.Path(), "--"}, command...)
	}
	out, err := exec.Command(command[0], command[1:]...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// JSON is the output of a command that speaks JSON, decoded.
func JSON[T any](t testing.TB, ns *hostnet.Namespace, command ...string) (v T) {
	t.Helper()
	out := Run(t, ns, command...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return v
}

// Name is what ip netns calls the namespace.
func Name(ns *hostnet.Namespace) string { return filepath.Base(ns.Path()) }

// Eventually waits until it holds, and fails the test if it never does.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never came true: %s", what)
}

// Descriptors counts the open descriptors of this process.
func Descriptors(t testing.TB) int { return count(t, "/proc/self/fd") }

// Threads counts the threads of this process.
func Threads(t testing.TB) int { return count(t, "/proc/self/task") }

func count(t testing.TB, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

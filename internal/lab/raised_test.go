package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/impair"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/process"
)

// bad is two nodes and a wire that can be made worse.
const bad = `
name: bad
pools: [10.6.0.0/16, "fd06::/48"]
nodes: [{name: w}, {name: e}]
links:
  - name: wire
    impairment: {}
    ends: [{node: w, addresses: [172.31.6.1/24, "fd31:6::1/64"]}, {node: e, addresses: [172.31.6.2/24, "fd31:6::2/64"]}]
pods:
  - {name: a, node: w, addresses: [10.6.1.1, "fd06::1:1"]}
  - {name: b, node: e, addresses: [10.6.2.1, "fd06::2:1"], port: xsk}
`

func TestImpairedLinkHurtsWhatCrossesIt(t *testing.T) {
	l := raise(t, bad)
	everybody(t, l)
	set := func(i impair.Impairment) {
		t.Helper()
		if _, err := l.Impair(t.Context(), "wire", &i, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, six := range []bool{false, true} {
		ping := func(p load.Ping) load.Pinged {
			t.Helper()
			got, err := l.Ping(t.Context(), "a", "b", six, p)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		set(impair.Impairment{Delay: impair.Duration(40 * time.Millisecond)})
		if got := ping(load.Ping{Count: 3}); !got.OK() || got.Min < 40*time.Millisecond {
			t.Errorf("IPv6 %v: over 40 ms of wire: %+v", six, got)
		}
		set(impair.Impairment{Partition: true})
		if got := ping(load.Ping{Count: 2, Timeout: 200 * time.Millisecond}); got.Received != 0 {
			t.Errorf("IPv6 %v: over a cut wire: %+v", six, got)
		}
		set(impair.Impairment{Loss: 0.5})
		if got := ping(load.Ping{Count: 60, Timeout: 50 * time.Millisecond}); got.Received < 10 || got.Received > 50 {
			t.Errorf("IPv6 %v: over a wire that loses half, %d of 60 came back", six, got.Received)
		}
		set(impair.Impairment{})
		if got := ping(load.Ping{Count: 3}); !got.OK() {
			t.Errorf("IPv6 %v: over the mended wire: %+v", six, got)
		}
	}
	if s, err := l.Impair(t.Context(), "wire", nil, nil); err != nil || s.CountAB.Cut == 0 || s.CountAB.Lost == 0 || s.CountBA.Lost != 0 {
		t.Errorf("status is %+v, %v", s, err)
	}
	if _, err := l.Impair(t.Context(), "nowhere", nil, nil); err == nil {
		t.Error("a link that is not there was impaired")
	}
}

func TestTransitNodeForwards(t *testing.T) {
	l := raise(t, chain)
	everybody(t, l)
	c, err := l.Counters(t.Context(), "m")
	if err != nil || c.Nodes["rewrite"] != 24 { // 3 pings and answers, two directions, two families
		t.Errorf("the node between counted %d, %v; want 24", c.Nodes["rewrite"], err)
	}
	cmd, err := l.Command(t.Context(), "a", "ping", "-c1", "-W2", "10.5.2.1") // a node's own address, by its host port
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Errorf("a pod does not reach the node between: %v\n%s", err, &out)
	}
}

func TestForwarderComesBackWithoutItsClient(t *testing.T) {
	l := raise(t, DemoText())
	everybody(t, l)
	for _, atOnce := range []bool{false, true} {
		if err := l.StopForwarder("north", atOnce); err != nil {
			t.Fatal(err)
		}
		for _, six := range []bool{false, true} {
			got, err := l.Ping(t.Context(), "ann", "cleo", six, load.Ping{Timeout: 200 * time.Millisecond})
			if err == nil && got.Received != 0 {
				t.Errorf("killed %v, IPv6 %v: ann reaches cleo without a forwarder", atOnce, six)
			}
		}
		if err := errors.Join(l.KernelForwardsNothing("north"), l.Launch("north"), l.AwaitPorts(t.Context(), "north")); err != nil {
			t.Fatal(err)
		}
		everybody(t, l)
	}
	if err := l.Launch("north"); err == nil {
		t.Error("a second forwarder was started beside the first")
	}
}

func TestPerfThroughTheForwarders(t *testing.T) {
	l := raise(t, DemoText())
	for _, way := range [][2]string{{"ann", "bob"}, {"ann", "cleo"}, {"bob", "dave"}} {
		for _, six := range []bool{false, true} {
			for _, udp := range []bool{false, true} {
				p := load.Perf{UDP: udp, Duration: 300 * time.Millisecond, Streams: 2}
				if udp {
					p.Rate = 10e6
				}
				got, err := l.Perf(t.Context(), way[0], way[1], six, p)
				if err != nil {
					t.Fatalf("%v IPv6 %v: %v", way, six, err)
				}
				if got.Bytes == 0 || got.RTT.Received == 0 {
					t.Errorf("%v: %+v", way, got)
				}
			}
		}
	}
	for _, n := range l.Topology().Nodes { // traffic comes to rest, and every packet is somewhere
		var err error
		for range 20 {
			var c Counters
			if c, err = l.Counters(t.Context(), n.Name); err == nil {
				err = c.Balance()
			}
			if err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("node %s: %v", n.Name, err)
		}
	}
}

func TestUnknownNamesAreToldWithTheKnownOnes(t *testing.T) {
	l := raise(t, DemoText())
	_, err := l.Ping(t.Context(), "ann", "eve", false, load.Ping{})
	if err == nil || !strings.Contains(err.Error(), "dave") {
		t.Errorf("got %v, want it to name the pods there are", err)
	}
	if _, err := l.Command(t.Context(), "eve", "true"); err == nil {
		t.Error("a command was prepared in a pod that is not there")
	}
	if err := l.Launch("mars"); err == nil {
		t.Error("a forwarder was started on a node that is not there")
	}
	_, err = Up(t.Context(), *l.Topology(), Options{Dir: l.base, Forwarder: l.options.Forwarder})
	if err == nil || !strings.Contains(err.Error(), "is up already") {
		t.Errorf("raised twice: %v", err)
	}
	again, err := Open(l.base, l.Topology().Name) // and the first is whole
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	everybody(t, again)
}

func TestDownEndsWhateverRunsInside(t *testing.T) {
	l := raise(t, bad)
	cmd, err := l.Command(t.Context(), "a", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run() }()
	ns, err := l.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	if !process.Gone(5*time.Second, func() bool { pids, _ := process.Inside(ns); return len(pids) > 0 }) {
		t.Fatal("the command does not run inside the pod")
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the command outlives the lab")
	}
	nothingLeft(t, l)
	if err := Down(l.base, l.Topology().Name); !errors.Is(err, ErrNotUp) {
		t.Errorf("down again: %v, want ErrNotUp", err)
	}
}

func TestFailedUpLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab makes network namespaces and devices")
	}
	topo, err := Parse([]byte(bad))
	if err != nil {
		t.Fatal(err)
	}
	topo.Name = "failed"
	for name, program := range map[string]string{"a program that is not there": "/nonexistent/forwarder", "a program that ends at once": "/bin/false"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if l, err := Up(ctx, topo, Options{Dir: dir, Forwarder: program}); err == nil {
				t.Errorf("came up: %v", l.Down())
			} else if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("waited for a forwarder that had ended: %v", err)
			}
			nothingLeft(t, &Lab{dir: filepath.Join(dir, topo.Name), record: &record{Topology: topo}})
			if err := Down(dir, topo.Name); !errors.Is(err, ErrNotUp) {
				t.Errorf("down after a failed up: %v", err)
			}
		})
	}
}

func TestDownAfterACrashHalfWayUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a lab makes network namespaces and devices")
	}
	topo, err := Parse([]byte(chain))
	if err != nil {
		t.Fatal(err)
	}
	topo.Name = "half"
	for name, crash := range map[string]func(*Lab) error{
		"before anything was made": func(*Lab) error { return nil },
		"after some namespaces": func(l *Lab) error {
			ns, err := hostnet.CreateNamespace(topo.NamespaceName("w"))
			if err == nil {
				err = ns.Close()
			}
			return err
		},
		"after the links": func(l *Lab) error {
			return errors.Join(l.makeSpaces(), l.makeLinks(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := &Lab{base: dir, dir: filepath.Join(dir, topo.Name), options: Options{Dir: dir}}
			l.prepare()
			if err := errors.Join(l.reserve(topo), crash(l)); err != nil {
				t.Fatal(err)
			}
			l.Close() // as the end of a process does
			if _, err := Open(dir, topo.Name); err == nil || !strings.Contains(err.Error(), "half up") {
				t.Errorf("opened half way up: %v", err)
			}
			if err := Down(dir, topo.Name); err != nil {
				t.Error(err)
			}
			nothingLeft(t, l)
		})
	}
}

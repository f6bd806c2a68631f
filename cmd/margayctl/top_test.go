//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

// flowing is a forwarder that goes on by 2 s from one reading to the next. Readings
// are numbered from 0; at gone it does not answer, from anew on it is another run.
type flowing struct {
	forwarder
	gone, anew uint64
	turn       atomic.Uint64 // of the reading under way: ports are asked for last
}

// runs is how often 2 s of traffic have been counted by now, by this run.
func (f *flowing) runs() uint64 {
	n := f.turn.Load()
	if f.anew > 0 && n >= f.anew {
		return n - f.anew
	}
	return n
}

func (f *flowing) GetStatus(ctx context.Context, r *dataplanev1.StatusRequest) (*dataplanev1.Status, error) {
	s, err := f.forwarder.GetStatus(ctx, r)
	s.Conditions = []*dataplanev1.Condition{{Object: "port/pod-a", Reason: "device-missing"}}
	if f.anew > 0 && f.turn.Load() >= f.anew {
		s.BootId, s.UptimeSeconds, s.Conditions = "77aa", 2*f.runs(), nil
	}
	return s, err
}

func (f *flowing) ListNodes(context.Context, *dataplanev1.ListNodesRequest) (*dataplanev1.NodeList, error) {
	n := f.runs()
	if f.gone > 0 && f.turn.Load() == f.gone {
		f.turn.Add(1)
		return nil, status.Error(codes.Unavailable, "transport is closing")
	}
	node := func(name string, calls, packets, sampled, nanos uint64) *dataplanev1.NodeList_Node {
		return &dataplanev1.NodeList_Node{Name: name, Calls: n * calls, Packets: 100 + n*packets, SampledPackets: n * sampled, SampledNanos: n * nanos}
	}
	return &dataplanev1.NodeList{Nodes: []*dataplanev1.NodeList_Node{
		node("ip-input", 20_000, 2_000_000, 31_250, 218_750),
		node("route", 20_000, 2_000_000, 31_250, 250_000),
		node("icmp-error", 180, 180, 0, 0),
		node("resolve", 0, 0, 0, 0),
	}}, nil
}

func (f *flowing) ListWorkers(context.Context, *dataplanev1.ListWorkersRequest) (*dataplanev1.WorkerList, error) {
	n := f.runs()
	return &dataplanev1.WorkerList{Workers: []*dataplanev1.WorkerList_Worker{
		{Id: 0, Cpu: 3, BusyNanos: n * 500_000_000, Loops: n * 40_000, Sleeps: n * 10, Packets: n * 2_000_000},
		{Id: 1, Cpu: -1, BusyNanos: n * 2_040_000_000},
	}}, nil
}

func (f *flowing) ListDrops(context.Context, *dataplanev1.ListDropsRequest) (*dataplanev1.DropList, error) {
	n := f.runs()
	return &dataplanev1.DropList{
		Drops: []*dataplanev1.DropList_Drop{{Reason: "ip-checksum", Packets: 7}, {Reason: "no-route", Packets: n * 180}, {Reason: "hold-full", Packets: n * 20_000}},
		Account: &dataplanev1.Account{
			Rx: n * 2_000_000, Tx: n * 1_979_820, Punt: n * 180, Dropped: 7 + n*20_180, Made: map[string]uint64{"icmp-error": n * 180},
		},
	}, nil
}

func (f *flowing) ListPorts(context.Context, *dataplanev1.ListPortsRequest) (*dataplanev1.PortList, error) {
	n := f.runs()
	defer f.turn.Add(1)
	l := &dataplanev1.PortList{Ports: []*dataplanev1.PortList_PortState{
		{Name: "margay0", Index: 3, Kind: "host", State: "up", TxPackets: n * 180, TxBytes: n * 18_000},
		{Name: "uplink", Index: 1, Kind: "xsk", State: "up", RxPackets: n * 2_000_000, RxBytes: n * 3_000_000_000},
		{Name: "pod-with-a-name-of-28-letters", Index: 2, Kind: "tun", State: "up", TxPackets: n * 1_979_820, TxBytes: n * 2_969_730_000, TxDrops: n},
		{Name: "anew", Index: uint32(10 + n), Kind: "tun", State: "missing"},
	}}
	if f.many() {
		for i := range 40 {
			l.Ports = append(l.Ports, &dataplanev1.PortList_PortState{Name: fmt.Sprintf("p%02d", i), Index: uint32(1000 + i), Kind: "tun", State: "down"})
		}
	}
	return l, nil
}

// many says that the forwarder has more ports than a screen.
func (f *flowing) many() bool { return f.anew > 0 }

func TestTopOutput(t *testing.T) {
	for name, tt := range map[string]struct {
		forwarder func() dataplanev1.InspectServer
		n         int
	}{
		"top":         {func() dataplanev1.InspectServer { return &flowing{} }, 1},
		"top-quiet":   {func() dataplanev1.InspectServer { return &forwarder{} }, 1},
		"top-fresh":   {func() dataplanev1.InspectServer { return &fresh{} }, 1},
		"top-restart": {func() dataplanev1.InspectServer { return &flowing{gone: 1, anew: 2} }, 3},
	} {
		for _, format := range []string{"table", "json", "yaml"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				got := try(t, serve(t, tt.forwarder()), "top", "--interval", "1ms", "-n", fmt.Sprint(tt.n), "-o", format)
				if got.status != 0 || got.err != "" {
					t.Errorf("ended with %d: %s", got.status, got.err)
				}
				golden(t, name+"."+format, got.out)
				if n := documents(t, format, got.out); n != tt.n {
					t.Errorf("%d documents, want %d", n, tt.n)
				}
				for line := range strings.Lines(got.out) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); format == "table" && n > topWidth {
						t.Errorf("%d columns, want at most %d:\n%s", n, topWidth, line)
					}
				}
			})
		}
	}
}

// documents counts what a program would read one after another.
func documents(t *testing.T, format, out string) (n int) {
	t.Helper()
	switch format {
	case "json":
		for d := json.NewDecoder(strings.NewReader(out)); d.More(); n++ {
			var doc map[string]any
			if err := d.Decode(&doc); err != nil || len(doc) == 0 {
				t.Fatalf("document %d: %v", n, err)
			}
		}
	case "yaml":
		for doc := range strings.SplitSeq(strings.TrimPrefix(out, "---\n"), "---\n") {
			oneDocument(t, format, doc)
			n++
		}
	default:
		return strings.Count(out, " UTC")
	}
	return n
}

// On a terminal each reading takes the place of the one before it.
func TestTopClearsATerminal(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	c := &ctl{out: &out, errOut: &out, terminal: true,
		env: func(string) string { return "" }, now: func() time.Time { clock = clock.Add(time.Second); return clock }}
	if got := c.run(t.Context(), []string{"--socket", serve(t, &flowing{}), "top", "--interval", "1ms", "-n", "3"}); got != 0 {
		t.Fatalf("ended with %d: %s", got, out.String())
	}
	if n := strings.Count(out.String(), clearScreen); n != 3 || !strings.HasPrefix(out.String(), clearScreen) {
		t.Errorf("cleared %d times, want 3, and first:\n%q", n, out.String())
	}
}

func TestOnlyATerminalIsOne(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) || isTerminal(new(bytes.Buffer)) {
		t.Error("a file or a buffer is taken for a terminal")
	}
	if p, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err == nil {
		defer p.Close()
		if !isTerminal(p) {
			t.Error("a terminal is taken for none")
		}
	} else {
		t.Logf("no terminal to try: %v", err)
	}
}

// It ends by itself after N readings, and at an interrupt without a complaint.
func TestTopEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out, errOut bytes.Buffer
	c := &ctl{out: &out, errOut: &errOut, env: func(string) string { return "" }, now: time.Now}
	time.AfterFunc(200*time.Millisecond, cancel)
	if got := c.run(ctx, []string{"--socket", serve(t, &flowing{}), "top", "--interval", "10ms"}); got != 0 || errOut.Len() > 0 {
		t.Errorf("ended with %d: %s", got, &errOut)
	}
	if !strings.Contains(out.String(), "uplink") {
		t.Errorf("showed nothing before the interrupt:\n%s", &out)
	}
}

func TestTopRefuses(t *testing.T) {
	socket := serve(t, &flowing{})
	for args, want := range map[string]struct {
		status int
		says   string
	}{
		"top --interval 0s":                     {2, "interval is 0s, want more than 0"},
		"top --interval=-1s":                    {2, "interval is -1s, want more than 0"},
		"top -n -1":                             {2, "n is -1, want the number of readings"},
		"top uplink":                            {2, "uplink"},
		"top -n 1 --socket /nonexistent/f.sock": {3, "there is no socket"},
	} {
		if got := try(t, socket, strings.Fields(args)...); got.status != want.status || !strings.Contains(got.err, want.says) || got.out != "" {
			t.Errorf("%s: ended with %d and %q, want %d and %q", args, got.status, got.err, want.status, want.says)
		}
	}
}

// Counters that go back without another run's name are another run's all the same.
func TestCountersThatGoBackAreARestart(t *testing.T) {
	at := time.Unix(100, 0)
	of := func(at time.Time, a *dataplanev1.Account) reading {
		return reading{at: at, status: &dataplanev1.Status{BootId: "5e2f"}, drops: &dataplanev1.DropList{Account: a}}
	}
	for name, tt := range map[string]struct {
		before, now *dataplanev1.Account
		want        bool
	}{
		"on":           {&dataplanev1.Account{Rx: 5, Tx: 5}, &dataplanev1.Account{Rx: 6, Tx: 6}, false},
		"at rest":      {&dataplanev1.Account{Rx: 5, Tx: 5}, &dataplanev1.Account{Rx: 5, Tx: 5}, false},
		"rx back":      {&dataplanev1.Account{Rx: 5}, &dataplanev1.Account{Rx: 4}, true},
		"tx back":      {&dataplanev1.Account{Tx: 5}, &dataplanev1.Account{Rx: 9, Tx: 4}, true},
		"dropped back": {&dataplanev1.Account{Dropped: 5}, &dataplanev1.Account{Rx: 9, Dropped: 4}, true},
	} {
		if got := compare(of(at, tt.before), of(at.Add(time.Second), tt.now)).restarted; got != tt.want {
			t.Errorf("%s: a restart is %v, want %v", name, got, tt.want)
		}
	}
}

package veth

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/xdpgen"
)

// With two queues everyone forwards every load by both. What one Source sends comes
// in at its queue, and on AF_XDP is one worker's and leaves by the queue of that
// number; the kernel spreads it by conversation.
func TestEachQueueHasItsWorker(t *testing.T) {
	bin := forwarder(t)
	b, err := raise(t.Context(), bin, shared, everyLoad())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	for i, c := range contestants(b) {
		if i == 1 && !installed(testpmdProgram) {
			t.Logf("%s is not installed: left out", testpmdProgram)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			on, err := c.start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := on.stop(); err != nil {
					t.Error(err)
				}
				if got := steering(t, b); !slices.Equal(got, []string{"0", "0", "0"}) {
					t.Errorf("after it the kernel still spreads: %v", got)
				}
			}()
			if got := steering(t, b); on.pid == 0 && !slices.Equal(got, []string{"3", "2", "1"}) {
				t.Errorf("what comes in goes to CPUs %s, queues send from CPUs %v", got[0], got[1:])
			}
			if err := b.ready(t.Context(), everyLoad()[0], on.ended); err != nil {
				t.Fatal(err)
			}
			if on.drops != nil {
				accountsAgree(t, b, on)
			}
			for _, l := range everyLoad() {
				if err := b.check(t.Context(), l, c.hops); err != nil {
					t.Error(err)
				}
				for q := range shared.generators {
					keepsToItsQueue(t, b, l, q, on.pid != 0)
				}
			}
		})
	}
}

// steering is what the kernel is told of the CPUs, as sysfs has it: those that take
// what comes in, and those that send by either queue.
func steering(t *testing.T, b *bed) (masks []string) {
	t.Helper()
	for _, at := range [][2]string{{entry, "queues/rx-0/rps_cpus"}, {exit, "queues/tx-0/xps_cpus"}, {exit, "queues/tx-1/xps_cpus"}} {
		v, err := b.ns.Sysfs(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		masks = append(masks, cmp.Or(strings.TrimLeft(v, "0,"), "0")) // words as wide as the machine
	}
	return masks
}

// keepsToItsQueue sends by one Source alone, and reads, by ethtool, where it comes
// in, and where it leaves.
func keepsToItsQueue(t *testing.T, b *bed, l load, q int, out bool) {
	t.Helper()
	all := b.sources[l]
	b.sources[l] = all[q : q+1]
	defer func() { b.sources[l] = all }()
	before := received(t, b)
	got, err := b.offer(t.Context(), l, 20_000, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	after := received(t, b)
	if got.arrived.Queues[q] == 0 || (got.arrived.Queues[1-q] == 0) != out {
		t.Errorf("%v: %d frames of source %d left by queues as %v; by its own alone: want %v", l, got.sent.Frames, q, got.arrived.Queues, out)
	}
	if in, other := after[q]-before[q], after[1-q]-before[1-q]; in < got.arrived.Frames || other > 10 { // a few of the pod's kernel
		t.Errorf("%v: %d frames of source %d came in by queues as %d and, by the other, %d", l, got.sent.Frames, q, in, other)
	}
}

var receivedBy = regexp.MustCompile(`rx_queue_(\d+)_xdp_packets: (\d+)`)

// received is how many frames each of the entry's two queues took in.
func received(t *testing.T, b *bed) (n [2]uint64) {
	t.Helper()
	for _, m := range receivedBy.FindAllStringSubmatch(hostnettest.Run(t, b.ns, "ethtool", "-S", entry), -1) {
		q, _ := strconv.Atoi(m[1])
		n[q], _ = strconv.ParseUint(m[2], 10, 64)
	}
	return n
}

// A queue that nothing leaves by is an error, not a slow contestant.
func TestSpread(t *testing.T) {
	tests := map[string]struct {
		sent, arrived []uint64
		says          string
	}{
		"all of them":           {[]uint64{5, 5}, []uint64{4, 1}, ""},
		"one queue":             {[]uint64{5}, []uint64{5}, ""},
		"one is idle":           {[]uint64{5, 5}, []uint64{5, 0}, "none left by queue 1: [5 0]"},
		"nobody forwards":       {[]uint64{5, 5}, []uint64{0, 0}, "none of 10 frames arrived"},
		"one source had no CPU": {[]uint64{5, 0}, []uint64{5, 0}, "generator of queue 1 had no time"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := trial{arrived: xdpgen.Arrived{Queues: tt.arrived}}
			for _, n := range tt.sent {
				tr.each, tr.sent.Frames = append(tr.each, xdpgen.Sent{Frames: n}), tr.sent.Frames+n
			}
			for _, n := range tt.arrived {
				tr.arrived.Frames += n
			}
			if err := tr.spread(); (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %q", err, tt.says)
			}
		})
	}
}

func TestPlacement(t *testing.T) {
	upTo := func(n int) (cpus []int) {
		for cpu := range n {
			cpus = append(cpus, cpu)
		}
		return cpus
	}
	tests := map[string]struct {
		cpus    []int
		workers int
		want    placement
		says    string
	}{
		"two CPUs":                    {upTo(2), 1, placement{[]int{0}, []int{1}}, ""},
		"the first of many":           {upTo(16), 2, placement{[]int{0, 1}, []int{2, 3}}, ""},
		"all of them":                 {upTo(8), 4, placement{[]int{0, 1, 2, 3}, []int{4, 5, 6, 7}}, ""},
		"some of a machine's":         {[]int{5, 6, 7, 8}, 2, placement{[]int{6, 5}, []int{7, 8}}, ""},
		"even ones feed half as many": {[]int{0, 2, 4, 6}, 2, placement{}, "feed only 1"},
		"too few":                     {upTo(3), 2, placement{}, "needs 4 CPUs, for each worker one and one for its generator: here are 3"},
		"none":                        {nil, 1, placement{}, "here are 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := place(tt.cpus, tt.workers)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, %v; want an error with %q", got, err, tt.says)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
			for q, cpu := range got.generators {
				if xdpgen.Queue(cpu, tt.workers) != q {
					t.Errorf("CPU %d does not feed queue %d", cpu, q)
				}
			}
		})
	}
}

func TestWorkerCounts(t *testing.T) {
	for cpus, want := range map[int]string{1: "[1 2 4 8]", 2: "[1 2 4 8]", 16: "[1 2 4 8]", 32: "[1 2 4 8 16]", 500: "[1 2 4 8 16 32]"} {
		if got := fmt.Sprint(workerCounts(cpus)); got != want {
			t.Errorf("%d CPUs: %s workers, want %s", cpus, got, want)
		}
	}
}

func TestCPUMask(t *testing.T) {
	for want, cpus := range map[string][]int{
		"1": {0}, "20": {5}, "80000000": {31}, "1,00000000": {32}, "40,00000000,00000000": {70}, "3,80000100": {31, 8, 33, 32},
	} {
		if got := cpuMask(cpus...); got != want {
			t.Errorf("CPUs %v are %s, want %s", cpus, got, want)
		}
	}
}

// As many workers as the machine has CPUs for are measured, the others are named
// with what they lack.
func TestScalingReportsEveryNumberOfWorkers(t *testing.T) {
	bin := forwarder(t)
	var got []harness.Result
	o := harness.Options{Quick: true, Limit: 30 * time.Second, Filter: "/64B/workers=", Log: io.Discard, Forwarder: bin}
	o.Out = func(r harness.Result) error { got = append(got, r); return nil }
	if err := harness.Run(t.Context(), o, Scaling()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range got {
		seen[r.Case+" "+r.Metric]++
		n, err := strconv.Atoi(strings.TrimPrefix(r.Case, "64B/workers="))
		if err != nil {
			t.Fatalf("a case %s", r.Case)
		}
		switch {
		case 2*n > runtime.NumCPU():
			if r.Ours != nil || !strings.Contains(r.Why, fmt.Sprintf("needs %d CPUs", 2*n)) {
				t.Errorf("%s: %v, %q", r.Case, r.Ours, r.Why)
			}
		case r.Peer == "testpmd-af-xdp" && !installed(testpmdProgram):
			if !strings.Contains(r.Why, "apt-get install") {
				t.Errorf("%s says %q, want how to have it", r.Peer, r.Why)
			}
		case r.Ours == nil || r.PeerValue == nil || *r.Ours <= 0 || *r.PeerValue <= 0:
			t.Errorf("%s against %s: %v, %v; %s", r.Case, r.Peer, r.Ours, r.PeerValue, r.Why)
		}
	}
	for _, n := range workerCounts(runtime.NumCPU()) {
		name := fmt.Sprintf("64B/workers=%d", n)
		times := 2
		if n == 1 || 2*n > runtime.NumCPU() {
			times = 0
		}
		if seen[name+" pps"] != 2 || seen[name+" times_one_worker"] != times {
			t.Errorf("%s is told by %v", name, seen)
		}
	}
}

// Without a forwarder every case is there with the reason, and a filter picks some.
func TestScalingFilter(t *testing.T) {
	needBed(t)
	counts := len(workerCounts(runtime.NumCPU())) // 4 on machines below 32 CPUs
	for filter, want := range map[string]int{
		"": 4 * counts * 2, "workers=4": 4 * 2, "scaling/1500B/ipv6/": counts * 2, "scaling/64B/workers=8": 2, "B/workers=2": 2 * 2,
	} {
		n := 0
		o := harness.Options{Quick: true, Filter: filter, Log: io.Discard, Forwarder: filepath.Join(t.TempDir(), "none")}
		o.Out = func(r harness.Result) error {
			n++
			if r.Ours != nil || r.PeerValue != nil || r.Why == "" {
				t.Errorf("without a forwarder: %+v", r)
			}
			return nil
		}
		if err := harness.Run(t.Context(), o, Scaling()); err != nil {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("filter %q: %d results, want %d", filter, n, want)
		}
	}
}

// What scales is told by what each carries with one worker.
func TestTimesOneWorker(t *testing.T) {
	e := over(&harness.Estimate{Median: 300, Q1: 200, Q3: 400, Runs: 5}, &harness.Estimate{Median: 100, Q1: 1, Q3: 999})
	if e == nil || *e != (harness.Estimate{Median: 3, Q1: 2, Q3: 4, Runs: 5}) {
		t.Errorf("300 over 100 is %v", e)
	}
	one := &harness.Estimate{Median: 1}
	for _, pair := range [][2]*harness.Estimate{{nil, one}, {one, nil}, {one, {}}} {
		if e := over(pair[0], pair[1]); e != nil {
			t.Errorf("%v over %v is %v", pair[0], pair[1], e)
		}
	}
}

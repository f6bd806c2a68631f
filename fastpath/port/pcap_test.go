package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tape"
	"margay.dev/margay/internal/pcapng"
)

// openPcap opens a port and closes it with the test.
func openPcap(t testing.TB, cfg PcapConfig) *Pcap {
	t.Helper()
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	p, err := OpenPcap(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(nil) }) // whose error a test that closes the port itself has seen
	return p
}

// taped is a packet of a recording.
type taped struct {
	data []byte
	at   time.Time
	d    pcapng.Direction
}

// tapeOf reads a recording with other people's reader, which leaves the direction
// out: that is the last but one word of a packet's options.
func tapeOf(t testing.TB, file string) (all []taped) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(content), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for ; len(content) > 0; content = content[le.Uint32(content[4:]):] {
		if end := le.Uint32(content[4:]); le.Uint32(content) == 6 {
			data, ci, err := r.ReadPacketData()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, taped{data, ci.Timestamp, pcapng.Direction(le.Uint32(content[end-12:]))})
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last packet: %v", err)
	}
	return all
}

// captureOf writes packets to a capture file, a millisecond apart.
func captureOf(t testing.TB, link pcapng.LinkType, packets ...[]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in.pcapng")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pcapng.NewWriter(f, "test")
	if err == nil {
		_, err = w.AddInterface("eth0", link, 0)
	}
	for i, p := range packets {
		if err == nil {
			err = w.Write(&pcapng.Packet{Data: p, Time: time.Unix(1_700_000_000, int64(i)*1e6)})
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// numbered are n packets of size bytes.
func numbered(n, size int) (all [][]byte) {
	for i := range n {
		all = append(all, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2))
	}
	return all
}

// readAhead waits until the port has n packets more than it gave out.
func readAhead(t testing.TB, p *Pcap, n uint64) {
	t.Helper()
	eventually(t, "packets to be read", func() bool { return p.queue.player.Played.Packets.Load() >= n })
}

func TestPcapKeepsToItsPace(t *testing.T) {
	const ms = int64(1e6)
	tests := map[string]struct {
		pace tape.Pace
		want []int // packets at 0, 1, 5, 25 and 100 ms
	}{
		"as fast as possible": {tape.Pace{}, []int{40, 0, 0, 0, 0}},
		"2,000 a second":      {tape.Pace{Rate: 2000}, []int{1, 2, 8, 29, 0}},
		"as captured":         {tape.Pace{Timed: true}, []int{1, 1, 4, 21, 13}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			io := testIO(t, 256, 0)
			p := openPcap(t, PcapConfig{Name: "p", Replay: captureOf(t, pcapng.LinkRaw, numbered(20, 60)...), Pace: tt.pace, Times: 2})
			q := p.Queues()[0]
			readAhead(t, p, 40)
			io.Now = 77 * ms // a worker's clock is of any age
			for i, now := range []int64{0, 1, 5, 25, 100} {
				io.Now = (77 + now) * ms
				ms := make([]graph.Meta, graph.VectorMax)
				n := q.RxBurst(io, ms)
				if d := n - tt.want[i]; d < -1 || d > 1 {
					t.Errorf("after %d ms %d packets came in, want %d", now, n, tt.want[i])
				}
				for j := range ms[:n] {
					io.Free(&ms[j])
				}
			}
			if !p.Ended() || q.Poll(io) {
				t.Error("it has not ended")
			}
		})
	}
}

func TestPcapLetsTheWorkerSleepInLongPauses(t *testing.T) {
	io := testIO(t, 64, 0)
	p := openPcap(t, PcapConfig{Name: "p", Replay: captureOf(t, pcapng.LinkRaw, numbered(3, 60)...), Pace: tape.Pace{Rate: 1}})
	q := p.Queues()[0]
	readAhead(t, p, 3)
	ms := make([]graph.Meta, 8)
	if n := q.RxBurst(io, ms); n != 1 {
		t.Fatalf("%d packets at the start", n)
	}
	io.Free(&ms[0])
	for now, want := range map[int64]bool{5e8: false, 999e6: true, 2e9: true} {
		if io.Now = now; q.Poll(io) != want {
			t.Errorf("%d ms after the first: awake is %v, want %v", now/1e6, !want, want)
		}
	}
}

func TestPcapWaitsForBuffers(t *testing.T) {
	io := testIO(t, 64, 0)
	packets := numbered(100, 5000)
	p := openPcap(t, PcapConfig{Name: "p", MTU: 9000, Replay: captureOf(t, pcapng.LinkRaw, packets...)})
	readAhead(t, p, 100)
	q := p.Queues()[0]
	ms := make([]graph.Meta, 64)
	for next := 0; next < len(packets); {
		n := q.RxBurst(io, ms)
		if n == 0 || n > 32 {
			t.Fatalf("%d packets of two frames in 64 frames", n)
		}
		for i := range ms[:n] {
			if got := gather(io, &ms[i]); !bytes.Equal(got, packets[next]) || ms[i].Bufs != 2 || ms[i].Segments != 1 {
				t.Fatalf("packet %d is %+v, %x", next, ms[i], got)
			}
			next++
			io.Free(&ms[i])
		}
	}
	if c := io.Counters(); c.Rx != 0 {
		t.Errorf("%d packets were dropped", c.Rx)
	}
}

func TestPcapRecordsWhatGoesOverAWire(t *testing.T) {
	io := testIO(t, 512, 8)
	memory, _ := memoryPorts(t, MemoryConfig{Name: "memory", MTU: 9000})
	file := filepath.Join(t.TempDir(), "out.pcapng")
	p := openPcap(t, PcapConfig{Name: "pod-a", MTU: 9000, Record: file})
	for name, spec := range superpackets() { // IPv4 and IPv6
		b, k := spec.build()
		for _, to := range []Port{memory, p} {
			if n := to.Queues()[0].TxBurst(io, graph.NewVector(place(t, io, b, k, false))); n != 0 {
				t.Fatalf("%s: refused", name)
			}
		}
	}
	b, _ := packetSpec{payload: 9500, whole: true}.build()
	v := graph.NewVector(place(t, io, b, graph.Meta{}, true))
	if n := p.Queues()[0].TxBurst(io, v); n != 1 || v.Meta(0).Reason != graph.TxOversize {
		t.Errorf("a packet beyond the MTU: %d refused, for %v", n, v.Meta(0).Reason)
	}
	io.Free(v.Meta(0))
	if err := p.Close(nil); err != nil {
		t.Fatal(err)
	}
	want, got := memory.Collect(0), tapeOf(t, file)
	if len(got) != len(want) || len(got) < 20 {
		t.Fatalf("%d packets are recorded, %d were sent", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].data, want[i].Bytes) || got[i].d != pcapng.Out {
			t.Errorf("packet %d went %d and is %x, want %x", i, got[i].d, got[i].data, want[i].Bytes)
		}
	}
}

func TestPcapRecordsBothWaysAndWhen(t *testing.T) {
	for _, both := range []bool{false, true} {
		io := testIO(t, 64, 0)
		packets := numbered(4, 60)
		file := filepath.Join(t.TempDir(), "out.pcapng")
		p := openPcap(t, PcapConfig{Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Record: file, Delivered: both,
			Replay: captureOf(t, pcapng.LinkEthernet, packets...), Pace: tape.Pace{Rate: 1000}})
		readAhead(t, p, 4)
		q, ms := p.Queues()[0], make([]graph.Meta, 8)
		before := time.Now()
		for i := range packets {
			io.Now = int64(i) * 1e6
			if n := q.RxBurst(io, ms); n != 1 {
				t.Fatalf("%d packets came in", n)
			}
			q.TxBurst(io, graph.NewVector(ms[0]))
		}
		if err := errors.Join(p.Close(nil), p.Close(nil)); err != nil {
			t.Fatal(err)
		}
		want := ""
		for i := range packets {
			if both {
				want += fmt.Sprint(i, " in ", i, "ms, ")
			}
			want += fmt.Sprint(i, " out ", i, "ms, ")
		}
		got, all := "", tapeOf(t, file)
		for _, p := range all {
			got += fmt.Sprint(p.data[0], " ", []string{"", "in", "out"}[p.d], " ", p.at.Sub(all[0].at).Milliseconds(), "ms, ")
		}
		if got != want || all[0].at.Before(before.Add(-time.Second)) || all[0].at.After(time.Now()) {
			t.Errorf("recorded is %s from %v\nwant %s from %v", got, all[0].at, want, before)
		}
	}
}

// Workers run by themselves here, and sleep between packets where they are far apart.
func TestPcapPortsThroughWorkers(t *testing.T) {
	for name, tt := range map[string]struct {
		pace  tape.Pace
		times int
	}{
		"as fast as possible": {tape.Pace{}, 2000},
		"ten a second":        {tape.Pace{Rate: 10}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArena(t, 1024, 0)
			packets := numbered(4, 60)
			file := filepath.Join(t.TempDir(), "out.pcapng")
			in := openPcap(t, PcapConfig{Name: "in", Replay: captureOf(t, pcapng.LinkRaw, packets...), Pace: tt.pace, Times: tt.times})
			out := openPcap(t, PcapConfig{Name: "out", Record: file})
			e := crossEngine(t, a, 1, out, in) // what comes in before there is a way out is dropped
			eventually(t, "the replay to end", in.Ended)
			e.Stop()
			if err := errors.Join(in.Close(nil), out.Close(nil)); err != nil {
				t.Error(err)
			}
			got := tapeOf(t, file)
			if len(got) != tt.times*len(packets) {
				t.Fatalf("%d packets are recorded, want %d", len(got), tt.times*len(packets))
			}
			for i, p := range got {
				if !bytes.Equal(p.data, packets[i%4]) {
					t.Fatalf("packet %d is %x", i, p.data)
				}
			}
		})
	}
}

func TestPcapGoesOnWhenTheDiskIsFull(t *testing.T) {
	io := testIO(t, 64, 0)
	p := openPcap(t, PcapConfig{Name: "p", Record: "/dev/full", Replay: captureOf(t, pcapng.LinkRaw, numbered(1000, 600)...)})
	q, ms := p.Queues()[0], make([]graph.Meta, 32)
	carried := 0
	eventually(t, "all packets to pass", func() bool {
		for n := q.RxBurst(io, ms); n > 0; n = q.RxBurst(io, ms) {
			if refused := q.TxBurst(io, graph.NewVector(ms[:n]...)); refused > 0 {
				t.Fatalf("%d refused", refused)
			}
			carried += n
		}
		return p.Ended()
	})
	if err := p.Close(nil); carried != 1000 || err == nil || !strings.Contains(err.Error(), "/dev/full: no space left on device") {
		t.Errorf("%d packets passed, then %v", carried, err)
	}
	counts := map[string]uint64{}
	for _, s := range p.Statistics() {
		counts[s.Name] = s.Value
	}
	if counts["record-failed"] != 1000 || counts["record-packets"] != 0 || counts["replay-packets"] != 1000 || counts["replay-passes"] != 1 {
		t.Errorf("counted %v", counts)
	}
}

func TestPcapRefusesAtOpening(t *testing.T) {
	raw := captureOf(t, pcapng.LinkRaw, numbered(1, 60)...)
	for want, cfg := range map[string]PcapConfig{
		"MTU is 67":                         {MTU: 67},
		"MTU is 65536":                      {MTU: 65536},
		"the port takes Ethernet":           {MTU: 1500, Replay: raw, MAC: make(net.HardwareAddr, 6)},
		"open pcap port p: play: open ":     {MTU: 1500, Replay: raw + "x"},
		"open pcap port p: record: open /n": {MTU: 1500, Replay: raw, Record: "/nowhere/file"},
	} {
		cfg.Name = "p"
		if p, err := OpenPcap(cfg); err == nil {
			t.Errorf("taken: %v", p.Close(nil))
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
}

// pcapLoop is a port that replays n packets for ever and records both ways, and a
// turn that carries a burst through it.
func pcapLoop(t testing.TB, n int) (turn func()) {
	io := testIO(t, 4096, 0)
	p := openPcap(t, PcapConfig{Name: "p", Replay: captureOf(t, pcapng.LinkRaw, numbered(n, 64)...), Times: math.MaxInt,
		Record: filepath.Join(t.TempDir(), "out.pcapng"), Delivered: true})
	readAhead(t, p, uint64(min(n, 30_000)))
	q, ms := p.Queues()[0], make([]graph.Meta, 64)
	v := graph.NewVector(ms...)
	return func() {
		for got := 0; got < len(ms); {
			n := q.RxBurst(io, ms[got:])
			if got += n; n == 0 {
				runtime.Gosched() // the reader may share our core
			}
		}
		for i := range ms {
			*v.Meta(i) = ms[i]
		}
		q.TxBurst(io, v)
		q.Poll(io)
	}
}

func TestPcapAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, pcapLoop(t, 60_000)); n != 0 { // a new pass allocates, in its own goroutine
		t.Errorf("%v allocations per burst, want 0", n)
	}
}

// BenchmarkPcap replays and records both ways.
func BenchmarkPcap(b *testing.B) {
	turn := pcapLoop(b, 60_000)
	b.ReportAllocs()
	for b.Loop() {
		turn()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*64), "ns/pkt")
}

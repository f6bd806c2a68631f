package port

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/internal/pcapng"
)

// realCapture is what tcpdump saw between a station on port Up of the Standard
// lab and a pod, played by two namespaces; the MACs and the addresses are theirs:
//
//	station 10.0.0.2 ── eth0 ═ up0 ── 10.1.0.2 the pod, 10.0.0.1 ourselves
func realCapture(t *testing.T) string {
	t.Helper()
	station, pod := newNetns(t), newNetns(t)
	pod.ip("link add up0 type veth peer name eth0 netns " + station.name)
	pod.ip("link set up0 address " + macOf(gt.MAC(gt.Up)))
	station.ip("link set eth0 address " + macOf(gt.StationMAC(gt.NetUp, gt.Station)))
	for dev, ns := range map[string]netns{"up0": pod, "eth0": station} {
		ns.exec("ethtool", "-K", dev, "tso", "off", "gso", "off", "gro", "off", "tx", "off")
	}
	pod.up("up0", "10.1.0.2/8", "10.0.0.1/8", "2001:db8:1::2/32", "2001:db8::1/32")
	station.up("eth0", "10.0.0.2/8", "2001:db8::2/32")

	file := filepath.Join(t.TempDir(), "real.pcap")
	dump := pod.command("tcpdump", "-i", "up0", "-U", "--immediate-mode", "--time-stamp-precision=nano", "-Z", "root", "-w", file)
	said, err := dump.StderrPipe()
	if err == nil {
		err = dump.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(said); !strings.Contains(lines.Text(), "listening on up0"); {
		if !lines.Scan() {
			t.Fatalf("tcpdump ended with %q: %v", lines.Text(), dump.Wait())
		}
	}
	for _, addr := range []string{"10.1.0.2", "10.0.0.1", "2001:db8:1::2", "2001:db8::1"} {
		station.exec("ping", "-c", "3", "-i", "0.05", "-W", "2", addr)
	}
	for _, addr := range []string{"10.1.0.2", "2001:db8:1::2"} {
		iperf(t, station, pod, addr, "-n", "100K")
	}
	if err := dump.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := dump.Wait(); err != nil {
		t.Fatal(err)
	}
	return file
}

func macOf(m [6]byte) string {
	var s []string
	for _, b := range m {
		s = append(s, string("0123456789abcdef"[b>>4])+string("0123456789abcdef"[b&15]))
	}
	return strings.Join(s, ":")
}

// framesOf reads a capture of the older format with other people's reader.
func framesOf(t *testing.T, file string) (all [][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, _, err := r.ReadPacketData()
		if err != nil {
			return all
		}
		all = append(all, data)
	}
}

// onward is what becomes of those of frames that go to the pod: found by addresses
// alone, and one hop older.
func onward(frames [][]byte) (all [][]byte) {
	for _, f := range frames {
		p := bytes.Clone(f[14:])
		kind := binary.BigEndian.Uint16(f[12:])
		switch {
		case [6]byte(f) != gt.MAC(gt.Up):
		case kind == 0x0800 && [4]byte(p[16:]) == [4]byte{10, 1, 0, 2}:
			p[8]--
			p[10], p[11] = 0, 0
			binary.BigEndian.PutUint16(p[10:], ^plainFold(plainWords(p[:20])))
			all = append(all, p[:binary.BigEndian.Uint16(p[2:])])
		case kind == 0x86dd && [16]byte(p[24:]) == gt.Addr(true, gt.NetPods, gt.PodHost).As16() && p[24] != 0xff:
			p[7]--
			all = append(all, p[:40+int(binary.BigEndian.Uint16(p[4:]))])
		}
	}
	return all
}

// sameSet fails t unless both have the same packets, in any order: a vector that
// parts company is put together anew.
func sameSet(t *testing.T, what string, got, want [][]byte) {
	t.Helper()
	got, want = slices.SortedFunc(slices.Values(got), bytes.Compare), slices.SortedFunc(slices.Values(want), bytes.Compare)
	if !slices.EqualFunc(got, want, bytes.Equal) || len(want) == 0 {
		t.Errorf("%s: %d packets, want %d, and the same ones", what, len(got), len(want))
	}
}

func bytesOf(ps []gt.Packet) (all [][]byte) {
	for _, p := range ps {
		all = append(all, p.Bytes)
	}
	return all
}

// went are the packets of a recording that went one way.
func went(all []taped, d pcapng.Direction) (out [][]byte) {
	for _, p := range all {
		if p.d == d {
			out = append(out, p.data)
		}
	}
	return out
}

// injected is what the lab makes of frames that are injected by a port.
func injected(t *testing.T, port uint16, frames [][]byte) (map[uint16][]gt.Packet, graph.Counters) {
	l := gt.StandardConfig(t, gt.Config{Frames: 4096})
	defer l.Close()
	l.Inject(port, frames...)
	l.Run()
	return l.CollectAll(), l.Change()
}

func TestRealCapturesThroughTheRealGraph(t *testing.T) {
	file := realCapture(t)
	frames := framesOf(t, file)
	direct, counted := injected(t, gt.Up, frames)

	dir := t.TempDir()
	upTape, podTape := filepath.Join(dir, "up.pcapng"), filepath.Join(dir, "pod.pcapng")
	mac := gt.MAC(gt.Up)
	up := openPcap(t, PcapConfig{Name: "up0", MTU: 1500, MAC: mac[:], Replay: file, Record: upTape, Delivered: true})
	pod := openPcap(t, PcapConfig{Name: "pod", MTU: 9000, Record: podTape})
	l := gt.StandardConfig(t, gt.Config{Frames: 4096, Wires: map[uint16]graph.Queue{gt.Up: up.Queues()[0], gt.Pod: pod.Queues()[0]}})
	l.Run()
	if c := l.Change(); c != counted {
		t.Errorf("replayed: %+v\ninjected: %+v", c, counted)
	}
	l.Close()
	for _, p := range []*Pcap{up, pod} {
		if err := p.Close(nil); err != nil {
			t.Error(err)
		}
	}
	atUp, atPod := tapeOf(t, upTape), tapeOf(t, podTape)
	sameSet(t, "replayed", went(atUp, pcapng.In), frames)
	sameSet(t, "sent to the station", went(atUp, pcapng.Out), bytesOf(direct[gt.Up]))
	sameSet(t, "sent to the pod", went(atPod, pcapng.Out), bytesOf(direct[gt.Pod]))
	sameSet(t, "due to the pod", went(atPod, pcapng.Out), onward(frames))
	kinds := map[gopacket.LayerType]int{}
	for _, p := range atPod {
		for _, l := range gopacket.NewPacket(p.data, firstLayer(p.data), gopacket.Default).Layers() {
			kinds[l.LayerType()]++
		}
	}
	if kinds[layers.LayerTypeICMPv4] != 3 || kinds[layers.LayerTypeICMPv6Echo] != 3 || kinds[layers.LayerTypeTCP] < 50 {
		t.Errorf("of %d frames the pod got %v, want 3 pings and TCP of each family", len(frames), kinds)
	}
	for _, tape := range []string{upTape, podTape} {
		if lines := strings.Count(run(t, "tcpdump", "-nn", "-r", tape), " IP"); lines < len(atPod) {
			t.Errorf("tcpdump finds %d IP packets in %s, want at least %d", lines, tape, len(atPod))
		}
	}
	replayRaw(t, podTape, went(atPod, pcapng.Out))
}

// replayRaw replays a recording of raw IP by the host port: it goes to the pod again.
func replayRaw(t *testing.T, file string, packets [][]byte) {
	direct, counted := injected(t, gt.Host, packets)
	host := openPcap(t, PcapConfig{Name: "host", MTU: 9000, Replay: file})
	l := gt.StandardConfig(t, gt.Config{Frames: 4096, Wires: map[uint16]graph.Queue{gt.Host: host.Queues()[0]}})
	l.Run()
	if c := l.Change(); c != counted {
		t.Errorf("raw IP replayed: %+v\ninjected: %+v", c, counted)
	}
	sameSet(t, "raw IP sent to the pod", bytesOf(l.Collect(gt.Pod)), bytesOf(direct[gt.Pod]))
	l.Close()
	if err := host.Close(nil); err != nil {
		t.Error(err)
	}
}

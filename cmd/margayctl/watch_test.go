//go:build linux

package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph/graphtest"
)

const (
	kindIn     = dataplanev1.TracedPacket_KIND_RECEIVED
	kindMade   = dataplanev1.TracedPacket_KIND_MADE
	kindAt     = dataplanev1.TracedPacket_KIND_VISITED
	kindOut    = dataplanev1.TracedPacket_KIND_TRANSMITTED
	kindDrop   = dataplanev1.TracedPacket_KIND_DROPPED
	microTime  = uint64(1000)
	traceBegan = uint64(1_700_000_000_000_000_000)
)

// tell puts times and the packet's bytes to steps, a microsecond apart.
func tell(n uint32, end dataplanev1.TracedPacket_End, data []byte, steps ...*step) *dataplanev1.TracedPacket {
	for i, s := range steps {
		s.TimeNs, s.Data = traceBegan+uint64(i*i)*microTime, data
		if s.Length == 0 {
			s.Length, s.Segments = uint32(len(data)), 1
		}
	}
	return &dataplanev1.TracedPacket{Packet: n, End: end, Steps: steps}
}

// traced is one packet of each end, in both families.
func traced() []*dataplanev1.TracedPacket {
	v4 := graphtest.UDP(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.9"), 60)
	v6 := graphtest.TCP(netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd99::9"), 60)
	echo := graphtest.Echo(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 60)
	way := &dataplanev1.TracedPacket_Route{Destination: "10.2.0.9", Prefix: "10.2.0.0/16", NextHop: 3, Adjacency: 9,
		Chosen: &dataplanev1.RouteList_Adjacency{Id: 9, Kind: "rewrite", Port: "uplink", Gateway: "198.51.100.1", Mac: "02:00:00:00:00:fe", Mtu: 1500}}
	changed := &dataplanev1.TracedPacket_Route{Destination: "10.2.0.9", Prefix: "10.2.0.0/24", NextHop: 4, Adjacency: 9, Changed: true}
	held := tell(19, dataplanev1.TracedPacket_END_UNDER_WAY, v4,
		&step{Kind: kindIn, InPort: "pod-a", Vector: 3},
		&step{Kind: kindAt, Stop: "route", Edge: "resolve", InPort: "pod-a", NsPerPacket: 70, Vector: 3, Route: changed},
		&step{Kind: kindAt, Stop: "resolve", Edge: "held", InPort: "pod-a", NsPerPacket: 1200, Vector: 1})
	held.Lost = 2
	return []*dataplanev1.TracedPacket{
		tell(17, dataplanev1.TracedPacket_END_SENT, v4,
			&step{Kind: kindIn, InPort: "pod-a", Vector: 12, Length: 6028, Segments: 4, GsoSize: 1500},
			&step{Kind: kindAt, Stop: "ip-input", Edge: "route", InPort: "pod-a", NsPerPacket: 31.5, Vector: 12, Length: 6028, Segments: 4, Facts: []string{"dont-fragment"}},
			&step{Kind: kindAt, Stop: "route", Edge: "rewrite", InPort: "pod-a", NsPerPacket: 48, Vector: 12, Length: 6028, Segments: 4, Facts: []string{"dont-fragment"}, Route: way},
			&step{Kind: kindAt, Stop: "rewrite", Edge: "tx", InPort: "pod-a", NsPerPacket: 20, Vector: 12, Length: 6042, Segments: 4, Facts: []string{"dont-fragment"}},
			&step{Kind: kindOut, OutPort: "uplink", InPort: "pod-a", Vector: 1, Worker: 1, Length: 6042, Segments: 4, Facts: []string{"dont-fragment"}}),
		tell(18, dataplanev1.TracedPacket_END_DROPPED, v6,
			&step{Kind: kindIn, InPort: "pod-a", Vector: 1},
			&step{Kind: kindAt, Stop: "route", Edge: "icmp-error", Reason: "no-route", InPort: "pod-a", NsPerPacket: 70, Vector: 1,
				Route: &dataplanev1.TracedPacket_Route{Destination: "fd99::9"}},
			&step{Kind: kindDrop, Reason: "no-route", InPort: "pod-a", Vector: 1}),
		held,
		tell(20, dataplanev1.TracedPacket_END_CONSUMED, echo,
			&step{Kind: kindMade, Stop: "icmp-error", Edge: "nd", Vector: 1},
			&step{Kind: kindAt, Stop: "nd", Edge: "consumed", NsPerPacket: 99, Vector: 1}),
	}
}

func (f *forwarder) Trace(_ *dataplanev1.TraceRequest, s dataplanev1.Inspect_TraceServer) error {
	if f.fail != nil {
		return f.fail
	}
	for _, p := range traced() {
		if err := s.Send(p); err != nil {
			return err
		}
	}
	return nil
}

// Capture sends one packet of each stage, the first a superpacket or a segment of
// one. A capture of two packets is not ended.
func (f *forwarder) Capture(in *dataplanev1.CaptureRequest, s dataplanev1.Inspect_CaptureServer) error {
	if err := s.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	v4 := graphtest.UDP(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.9"), 60)
	v6 := graphtest.UDP(netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd99::9"), 60)
	frame := graphtest.Framed(graphtest.Up, v6)
	segment := uint32(0)
	if in.GetSegmented() {
		segment = 2
	}
	err := s.Send(&dataplanev1.CaptureChunk{Packets: []*dataplanev1.CaptureChunk_Packet{
		{Stage: dataplanev1.CaptureRequest_STAGE_RX, TimeNs: traceBegan, InPort: "pod-a", Length: 6000, Segments: 4, GsoSize: 1460, Segment: segment, Data: v4},
		{Stage: dataplanev1.CaptureRequest_STAGE_PRE_TX, TimeNs: traceBegan, InPort: "pod-a", OutPort: "uplink", Ethernet: true, Length: uint32(len(frame)), Segments: 1, Data: frame},
		{Stage: dataplanev1.CaptureRequest_STAGE_DROP, TimeNs: traceBegan, Reason: "no-route", Length: uint32(len(v6)), Segments: 1, Data: v6},
	}})
	if err != nil || in.GetCount() == 2 {
		<-s.Context().Done()
		return err
	}
	return s.Send(&dataplanev1.CaptureChunk{End: &dataplanev1.CaptureChunk_End{Lost: 7}})
}

func TestCaptureWritesWhatItIsSent(t *testing.T) {
	socket := serve(t, &forwarder{})
	file := filepath.Join(t.TempDir(), "c.pcapng")
	got := try(t, socket, "capture", "-w", file, "-f", "udp")
	if got.status != 0 || got.out != "" || !strings.Contains(got.err, file+": 3 packets, 318 B; the time was over; 7 more were lost") {
		t.Errorf("ended with %d and says\n%s%s", got.status, got.out, got.err)
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"stage=rx port=pod-a ethernet=none segments=4 of=1460", "stage=pre-tx port=uplink", "stage=drop port=forwarder reason=no-route ethernet=none",
		strings.Repeat("\x00", 12) + "\x08\x00\x45", strings.Repeat("\x00", 12) + "\x86\xdd\x60",
	} {
		if !bytes.Contains(kept, []byte(want)) {
			t.Errorf("the file does not hold %q", want)
		}
	}
	if bytes.Contains(kept, []byte("uplink ethernet=none")) {
		t.Error("a frame is said to have had no Ethernet header")
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v, want 0600: traffic is nobody else's", st.Mode(), err)
	}
	if got := try(t, socket, "capture", "-w", "-", "-f", "udp"); got.out != string(kept) {
		t.Errorf("standard output has %d bytes, the file %d", len(got.out), len(kept))
	}
	if got := try(t, socket, "capture", "-w", "-", "--segments"); !strings.Contains(got.out, "stage=rx port=pod-a ethernet=none segment=2/4 of=1460") {
		t.Errorf("of segments standard output has\n%q", got.out)
	}
}

// What came before an interrupt is kept.
func TestAnInterruptedCaptureIsWhole(t *testing.T) {
	socket := serve(t, &forwarder{})
	whole, cut := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "cut")
	try(t, socket, "capture", "-w", whole)
	want, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errOut bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--socket", socket, "capture", "-n", "2", "-w", cut}, os.Getenv, &out, &errOut)
	}()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if st, err := os.Stat(cut); err == nil && st.Size() == int64(len(want)) {
			break
		}
	}
	cancel()
	if status := <-ended; status != 0 || !strings.Contains(errOut.String(), "3 packets, 318 B; interrupted") {
		t.Errorf("ended with %d and says\n%s", status, &errOut)
	}
	if got, err := os.ReadFile(cut); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// A refused capture leaves the file of an earlier one alone.
func TestARefusedCaptureTouchesNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := try(t, serve(t, &dataplanev1.UnimplementedInspectServer{}), "capture", "-w", file)
	if b, err := os.ReadFile(file); got.status != 3 || err != nil || string(b) != "old" {
		t.Errorf("ended with %d, the file holds %q, %v", got.status, b, err)
	}
}

package inspect

import (
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/tap"
)

const (
	mostCaptured   = 10_000_000
	mostBytes      = 1 << 32
	mostSnap       = 256 << 10
	longestCapture = time.Hour

	captureRing  = 4 << 20 // bytes that wait with each worker
	captureRoom  = 8192    // packets that do
	captureChunk = 256 << 10
)

// Capture sends packets as they are at some stages.
func (s *Server) Capture(in *pb.CaptureRequest, out grpc.ServerStreamingServer[pb.CaptureChunk]) error {
	want, err := captureWant(in)
	if err != nil {
		return err
	}
	w, err := s.open(out.Context(), in.GetFilter(), want)
	if err != nil {
		return err
	}
	t := &capturer{watch: w, names: portNames{server: s}, count: int(in.GetCount()), bytes: in.GetBytes()}
	if in.GetSegmented() {
		t.segmented, t.snap = true, snap(in)
	}
	return watch(out, w, time.Duration(in.GetTimeoutMs())*time.Millisecond, t)
}

// captureWant checks what a client asks for.
func captureWant(in *pb.CaptureRequest) (want tap.Want, err error) {
	for _, limit := range []error{
		within("count", uint64(in.GetCount()), 1, mostCaptured),
		within("bytes", in.GetBytes(), 1, mostBytes),
		within("timeout_ms", uint64(in.GetTimeoutMs()), 1, uint64(longestCapture.Milliseconds())),
		within("snap", uint64(in.GetSnap()), 0, mostSnap),
	} {
		if limit != nil {
			return want, limit
		}
	}
	want = tap.Want{Count: int(in.GetCount()), Snap: snap(in), Events: captureRoom, Bytes: captureRing}
	if in.GetSegmented() {
		want.Snap = mostSnap // a packet must be there to be cut
	}
	for _, one := range in.GetStages() {
		switch one {
		case pb.CaptureRequest_STAGE_RX:
			want.Stages |= tap.RX
		case pb.CaptureRequest_STAGE_PRE_TX:
			want.Stages |= tap.PreTX
		case pb.CaptureRequest_STAGE_DROP:
			want.Stages |= tap.Drop
		default:
			return want, status.Errorf(codes.InvalidArgument, "stage is %v, want rx, pre-tx or drop", one)
		}
	}
	if want.Stages == 0 {
		return want, status.Error(codes.InvalidArgument, "no stage is named, want rx, pre-tx or drop")
	}
	return want, nil
}

// snap is how many bytes of each packet are wanted.
func snap(in *pb.CaptureRequest) int {
	if in.GetSnap() == 0 {
		return mostSnap
	}
	return int(in.GetSnap())
}

// capturer makes chunks of packets until it has enough of them.
type capturer struct {
	watch     *tap.Watch
	names     portNames
	segmented bool
	snap      int    // segmented: bytes to keep of each packet
	count     int    // packets that are still wanted
	bytes     uint64 // of them
	full      bool   // the next packet has more bytes than are wanted
	chunks    []*pb.CaptureChunk
	size      int // of the last one, about
}

// take keeps a packet, or its segments. What contradicts its own offload header is
// kept as it is, whole or not: that is what one wants to see of it.
func (t *capturer) take(e *tap.Event, data []byte) {
	if t.done() {
		return
	}
	if t.segmented {
		if parts, ok := port.Wire(data, e.Meta); ok && e.Meta.Reason != graph.RxOffload {
			t.takeParts(e, parts)
			return
		}
		data = data[:min(len(data), t.snap)]
	}
	t.keep(e, slices.Clone(data), e.Meta.Len, 0)
}

// takeParts keeps what a wire would carry of one packet.
func (t *capturer) takeParts(e *tap.Event, parts [][]byte) {
	for i, part := range parts {
		number := i + 1
		if len(parts) == 1 {
			number = 0
		}
		t.keep(e, part[:min(len(part), t.snap)], uint32(len(part)), uint32(number))
	}
}

// keep puts a packet of so many bytes, of which data are kept, into a chunk.
func (t *capturer) keep(e *tap.Event, data []byte, length, segment uint32) {
	if t.full = t.full || t.count > 0 && uint64(len(data)) > t.bytes; t.full || t.count == 0 {
		return
	}
	t.count--
	t.bytes -= uint64(len(data))
	m := &e.Meta
	p := &pb.CaptureChunk_Packet{
		TimeNs: uint64(e.Time), InPort: t.names.of(m.InPort), OutPort: t.names.of(e.Port), Ethernet: e.L2,
		Length: length, Segments: uint32(m.Segments), GsoSize: uint32(m.GSOSize), Segment: segment, Data: data,
	}
	switch e.Kind {
	case tap.Transmitted:
		p.Stage = pb.CaptureRequest_STAGE_PRE_TX
	case tap.Dropped:
		p.Stage, p.Reason = pb.CaptureRequest_STAGE_DROP, e.Reason.String()
	default:
		p.Stage = pb.CaptureRequest_STAGE_RX
	}
	if len(t.chunks) == 0 || t.size+len(data) > captureChunk {
		t.chunks, t.size = append(t.chunks, &pb.CaptureChunk{}), 0
	}
	last := t.chunks[len(t.chunks)-1]
	last.Packets = append(last.Packets, p)
	t.size += len(data) + 64
}

func (t *capturer) ready() []*pb.CaptureChunk {
	out := t.chunks
	t.chunks = nil
	return out
}

// rest says why the capture is over.
func (t *capturer) rest() []*pb.CaptureChunk {
	end := &pb.CaptureChunk_End{Lost: t.watch.Lost()}
	switch {
	case t.full || t.bytes == 0:
		end.Why = pb.CaptureChunk_End_WHY_BYTES
	case t.count == 0:
		end.Why = pb.CaptureChunk_End_WHY_COUNT
	}
	return []*pb.CaptureChunk{{End: end}}
}

func (t *capturer) done() bool { return t.full || t.bytes == 0 || t.count == 0 }

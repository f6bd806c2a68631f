package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/tap"
	"margay.dev/margay/internal/pkt"
)

// offered is a packet with n bytes of payload from a to b, as a pod's kernel offers
// it: its checksum is partial, and with a size it is a superpacket.
func offered(ipv6, udp bool, n, size int) port.Packet {
	src, dst, make, l4 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3"), graphtest.TCP, pkt.IPv4Size
	m := graph.Meta{Flags: graph.Partial, GSOSize: uint16(size), Segments: 1, CsumOffset: 16}
	proto, kind := uint8(pkt.ProtoTCP), graph.GSOTCP4
	if ipv6 {
		src, dst, l4, kind = netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3"), pkt.IPv6Size, graph.GSOTCP6
	}
	if udp {
		make, m.CsumOffset, proto, kind = graphtest.UDP, 6, pkt.ProtoUDP, graph.GSOUDP
	}
	if size > 0 {
		m.GSO, m.Segments = kind, uint16((n+size-1)/size)
	}
	m.CsumStart = uint16(l4)
	p := make(src, dst, n)
	binary.BigEndian.PutUint16(p[l4+int(m.CsumOffset):], pkt.Fold(pkt.PseudoSum(addresses(p), proto, len(p)-l4)))
	return port.Packet{Bytes: p, Meta: m}
}

// addresses of an IP packet, as a pseudo-header has them.
func addresses(p []byte) []byte {
	if p[0]>>4 == 6 {
		return p[8:pkt.IPv6Size]
	}
	return p[12:pkt.IPv4Size]
}

// correct says whether the checksums of an IP packet are.
func correct(p []byte) bool {
	l4, proto := pkt.IPv6Size, p[6]
	if p[0]>>4 == 4 {
		l4, proto = pkt.IPv4Size, p[9]
		if pkt.Fold(pkt.Sum(p[:l4])) != 0xffff {
			return false
		}
	}
	return pkt.Fold(pkt.PseudoSum(addresses(p), proto, len(p)-l4)+pkt.Sum(p[l4:])) == 0xffff
}

// captured injects packets by port a and gives all that a capture has of them.
func captured(t *testing.T, in *pb.CaptureRequest, packets ...port.Packet) (all []*pb.CaptureChunk_Packet, end *pb.CaptureChunk_End) {
	t.Helper()
	_, b, client := served(t)
	in.TimeoutMs = 30_000
	stream, err := client.Capture(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if begun, err := stream.Header(); begun == nil {
		t.Fatal(err)
	}
	b.Port("a").InjectPackets(0, packets...)
	for end == nil {
		chunk, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		all, end = append(all, chunk.Packets...), chunk.End
	}
	return all, end
}

func TestACaptureAsAWireHasIt(t *testing.T) {
	stages := []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX, pb.CaptureRequest_STAGE_PRE_TX}
	for _, ipv6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for name, tt := range map[string]struct{ n, size, snap, kept int }{
				"a superpacket":           {5000, 1400, 0, 4},
				"a superpacket cut short": {5000, 1400, 100, 4},
				"a packet":                {900, 0, 0, 1},
			} {
				t.Run(fmt.Sprintf("%s, IPv6 %v, UDP %v", name, ipv6, udp), func(t *testing.T) {
					in := &pb.CaptureRequest{Stages: stages, Count: uint32(2 * tt.kept), Bytes: 1 << 20, Segmented: true, Snap: uint32(tt.snap)}
					p := offered(ipv6, udp, tt.n, tt.size)
					all, _ := captured(t, in, p)
					if len(all) != 2*tt.kept {
						t.Fatalf("%d packets are kept, want %d at each stage", len(all), tt.kept)
					}
					head := len(p.Bytes) - tt.n
					for i, one := range all {
						number, payload := i%tt.kept+1, tt.n
						if tt.size == 0 {
							number = 0
						} else {
							payload = min(tt.size, tt.n-(number-1)*tt.size)
						}
						if one.Stage != stages[i/tt.kept] || int(one.Segment) != number || one.Segments != uint32(tt.kept) || int(one.Length) != head+payload {
							t.Errorf("packet %d is segment %d of %d at %v with %d bytes", i, one.Segment, one.Segments, one.Stage, one.Length)
						}
						if tt.snap > 0 && len(one.Data) != tt.snap {
							t.Errorf("packet %d has %d bytes, want the first %d", i, len(one.Data), tt.snap)
						}
						if tt.snap == 0 && (len(one.Data) != int(one.Length) || !correct(one.Data)) {
							t.Errorf("packet %d has wrong checksums or lengths: %x", i, one.Data)
						}
					}
				})
			}
		}
	}
}

// A capture that has enough ends in the middle of a superpacket, and what no port
// would cut is kept as it is, as all is where nobody asked for segments.
func TestWhatIsNotCutAndWhereCuttingEnds(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		lies, tiny := offered(ipv6, false, 5000, 1400), offered(ipv6, true, 5000, 1)
		lies.Meta.CsumOffset = 2
		tests := map[string]struct {
			p    port.Packet
			in   *pb.CaptureRequest
			kept []uint32 // numbers of the segments
			why  pb.CaptureChunk_End_Why
		}{
			"until the count":      {offered(ipv6, false, 60_000, 1400), &pb.CaptureRequest{Count: 3, Bytes: 1 << 20, Segmented: true}, []uint32{1, 2, 3}, pb.CaptureChunk_End_WHY_COUNT},
			"until the bytes":      {offered(ipv6, true, 60_000, 1400), &pb.CaptureRequest{Count: 99, Bytes: 3000, Segmented: true}, []uint32{1, 2}, pb.CaptureChunk_End_WHY_BYTES},
			"lies":                 {lies, &pb.CaptureRequest{Count: 1, Bytes: 1 << 20, Segmented: true}, []uint32{0}, pb.CaptureChunk_End_WHY_COUNT},
			"too many segments":    {tiny, &pb.CaptureRequest{Count: 1, Bytes: 1 << 20, Segmented: true}, []uint32{0}, pb.CaptureChunk_End_WHY_COUNT},
			"not asked to be":      {offered(ipv6, false, 5000, 1400), &pb.CaptureRequest{Count: 1, Bytes: 1 << 20}, []uint32{0}, pb.CaptureChunk_End_WHY_COUNT},
			"a packet, not asked":  {offered(ipv6, true, 900, 0), &pb.CaptureRequest{Count: 1, Bytes: 1 << 20}, []uint32{0}, pb.CaptureChunk_End_WHY_COUNT},
			"lies, and is cut off": {lies, &pb.CaptureRequest{Count: 1, Bytes: 1 << 20, Segmented: true, Snap: 77}, []uint32{0}, pb.CaptureChunk_End_WHY_COUNT},
		}
		for name, tt := range tests {
			t.Run(fmt.Sprintf("%s, IPv6 %v", name, ipv6), func(t *testing.T) {
				tt.in.Stages = []pb.CaptureRequest_Stage{pb.CaptureRequest_STAGE_RX}
				all, end := captured(t, tt.in, tt.p)
				var numbers []uint32
				for _, one := range all {
					numbers = append(numbers, one.Segment)
					want := tt.p.Bytes
					if tt.in.Snap > 0 {
						want = want[:tt.in.Snap]
					}
					if one.Segment == 0 && (!bytes.Equal(one.Data, want) || int(one.Length) != len(tt.p.Bytes)) {
						t.Errorf("what is kept is not what came: %d of %d bytes", len(one.Data), one.Length)
					}
				}
				if fmt.Sprint(numbers) != fmt.Sprint(tt.kept) || end.Why != tt.why {
					t.Errorf("segments %v are kept, the end is %v; want %v and %v", numbers, end, tt.kept, tt.why)
				}
			})
		}
	}
}

// Only what agrees with its own offload header is completed.
func TestWhatContradictsItsHeaderIsKeptAsItCame(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		p := offered(ipv6, true, 300, 0)
		for reason, mended := range map[graph.Reason]bool{graph.NoReason: true, graph.NoRoute: true, graph.RxOffload: false} {
			m := p.Meta
			m.Len, m.Reason = uint32(len(p.Bytes)), reason
			c := &capturer{segmented: true, snap: mostSnap, count: 1, bytes: mostBytes, names: portNames{known: map[uint16]string{0: "a"}}}
			c.take(&tap.Event{Kind: tap.Dropped, Port: graph.NoPort, Reason: reason, Meta: m}, p.Bytes)
			if got := c.chunks[0].Packets[0]; correct(got.Data) != mended || bytes.Equal(got.Data, p.Bytes) == mended || got.InPort != "a" {
				t.Errorf("IPv6 %v, dropped for %v: its checksum is right: %v", ipv6, reason, correct(got.Data))
			}
		}
	}
}

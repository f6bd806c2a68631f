//go:build !race

package judge

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/cpu"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// TestPlacesOfFields holds what the assembly takes for the places of fields against the fields.
func TestPlacesOfFields(t *testing.T) {
	var m graph.Meta
	var p flow.Packet
	for name, places := range map[string][2]uintptr{
		"Meta":            {unsafe.Sizeof(m), 64},
		"Meta.Off":        {unsafe.Offsetof(m.Off), metaOff},
		"Meta.Len":        {unsafe.Offsetof(m.Len), metaLen},
		"Meta.Head":       {unsafe.Offsetof(m.Head), metaHead},
		"Meta.L3":         {unsafe.Offsetof(m.L3), metaL3},
		"Meta.L4":         {unsafe.Offsetof(m.L4), metaL4},
		"Meta.Flags":      {unsafe.Offsetof(m.Flags), metaFlags},
		"Meta.Segments":   {unsafe.Offsetof(m.Segments), metaSegments},
		"Meta.Proto":      {unsafe.Offsetof(m.Proto), metaProto},
		"Packet":          {unsafe.Sizeof(p), packetSize},
		"Packet.SrcHi":    {unsafe.Offsetof(p.Key) + unsafe.Offsetof(p.Key.SrcHi), packetSrcHi},
		"Packet.SrcLo":    {unsafe.Offsetof(p.Key) + unsafe.Offsetof(p.Key.SrcLo), packetSrcHi + 8},
		"Packet.DstHi":    {unsafe.Offsetof(p.Key) + unsafe.Offsetof(p.Key.DstHi), packetDstHi},
		"Packet.DstLo":    {unsafe.Offsetof(p.Key) + unsafe.Offsetof(p.Key.DstLo), packetDstHi + 8},
		"Packet.Tail":     {unsafe.Offsetof(p.Key) + unsafe.Offsetof(p.Key.Tail), packetTail},
		"Packet.Seq":      {unsafe.Offsetof(p.Seq), packetTail + 8},
		"Packet.Ack":      {unsafe.Offsetof(p.Ack), packetTail + 12},
		"Packet.Length":   {unsafe.Offsetof(p.Length), packetLength},
		"Packet.Bytes":    {unsafe.Offsetof(p.Bytes), packetBytes},
		"Packet.Window":   {unsafe.Offsetof(p.Window), packetWindow},
		"Packet.Segments": {unsafe.Offsetof(p.Segments), packetWindow + 2},
		"Packet.Flags":    {unsafe.Offsetof(p.Flags), packetWindow + 4},
		"Packet.Scale":    {unsafe.Offsetof(p.Scale), packetWindow + 5},
		"Packet.Kind":     {unsafe.Offsetof(p.Kind), packetWindow + 6},
		"Packet.Why":      {unsafe.Offsetof(p.Why), packetWindow + 7},
	} {
		if places[0] != places[1] {
			t.Errorf("%s: %d, the assembly has %d", name, places[0], places[1])
		}
	}
}

// TestPlainBelievesNoMeta has the assembly read nothing of a packet that memory does not hold, where Go
// would panic.
func TestPlainBelievesNoMeta(t *testing.T) {
	if !cpu.X86.HasAVX {
		t.Skip("this CPU has no AVX")
	}
	const off, l3 = 256, 14
	mem := append(make([]byte, off+l3), someSegment(false, flow.ACK, 0)...)
	size := uint32(len(mem) - off)
	for beyond := range uint32(2) {
		m := graph.Meta{Off: off + beyond, L3: l3, L4: l3 + pkt.IPv4Size, Head: size, Len: size, Proto: pkt.ProtoUDP}
		if got := plainAVX(mem, &graph.Slots{m}, []uint16{0}, make([]flow.Packet, 1)); got != 1-int(beyond) {
			t.Errorf("%d bytes beyond memory: %d packets are taken", beyond, got)
		}
	}
}

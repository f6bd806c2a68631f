//go:build !race

package judge

import (
	"golang.org/x/sys/cpu"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// plain is plainPortable, in assembly where the CPU has what that takes.
//
//fastpath:hot
func plain(mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) int {
	if cpu.X86.HasAVX {
		return plainAVX(mem, metas, idx, packets)
	}
	return plainPortable(mem, metas, idx, packets)
}

// plainAVX is plainPortable in half the instructions. What a Packet of a datagram holds
// of TCP differs, which nobody looks at. A Meta that does not lie in mem is not taken.
//
//go:noescape
func plainAVX(mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) int

// What the assembly must know of other packages: a test holds the places of fields
// against the fields.
const (
	metaOff, metaLen, metaHead, metaL3, metaL4   = 0, 4, 8, 20, 22
	metaFlags, metaSegments, metaProto, slotMask = 24, 28, 31, graph.SlotMask

	metaIPv6, metaFromUs, metaJudged, metaOnTrial = graph.IPv6, graph.FromUs, graph.Judged, graph.OnTrial

	packetSrcHi, packetDstHi, packetTail                = 0, 16, 32
	packetLength, packetBytes, packetWindow, packetSize = 48, 52, 56, 64

	steadyKind = uint64(flow.Steady) << 48 // as it lies behind the window
	tailIPv4   = flow.TailIPv4
	tailIPv6   = flow.TailIPv6
	tailTCP    = pkt.ProtoTCP << 32
	tailUDP    = pkt.ProtoUDP << 32

	ipv4Size, ipv6Size, udpSize, tcpSize = pkt.IPv4Size, pkt.IPv6Size, 8, 20
	protoTCP, protoUDP                   = pkt.ProtoTCP, pkt.ProtoUDP
)

// The linter reads no assembly: there is all of this used.
const _ = uint64(metaIPv6|metaFromUs|metaJudged|metaOnTrial) | steadyKind | tailIPv4 | tailIPv6 | tailTCP | tailUDP |
	ipv4Size | ipv6Size | udpSize | tcpSize | protoTCP | protoUDP

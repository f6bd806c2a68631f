//go:build !race

package plain

import (
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// accept4 is portable4, and accept6 portable6, in two thirds of the instructions. A Meta that
// does not lie in mem is not taken.
//
//go:noescape
func accept4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int

//go:noescape
func accept6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int

// What the assembly must know of other packages: a test holds the places of fields
// against the fields.
const (
	metaOff, metaLen, metaHead, metaL3, metaL4 = 0, 4, 8, 20, 22
	metaFlags, metaProto, metaBufs, metaTo     = 24, 31, 38, 56
	slotMask, ipv6, dontFrag                   = graph.SlotMask, graph.IPv6, graph.DontFrag

	ipv4Size, ipv6Size, udpSize, tcpSize = pkt.IPv4Size, pkt.IPv6Size, 8, 20
	protoTCP, protoUDP                   = pkt.ProtoTCP, pkt.ProtoUDP

	// In the eight bytes from the flags on: flags, and GSO.
	refused4 = uint64(Unplain|graph.IPv6) | 0xff<<48
	refused6 = uint64(Unplain) | 0xff<<48
)

// The linter reads no assembly: there is all of this used.
const _ = refused4 | refused6 | ipv4Size | ipv6Size | udpSize | tcpSize | protoTCP | protoUDP

//go:build !race

package plain

import "margay.dev/margay/fastpath/graph"

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

	// In the eight bytes from the flags on: flags, and GSO.
	refused4 = uint64(Unplain|graph.IPv6) | 0xff<<48
	refused6 = uint64(Unplain) | 0xff<<48
)

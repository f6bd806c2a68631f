//go:build !amd64 || race

package plain

import "margay.dev/margay/fastpath/graph"

// accept4 is portable4.
//
//fastpath:hot
func accept4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	return portable4(mem, metas, idx, next, edge)
}

// accept6 is portable6.
//
//fastpath:hot
func accept6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	return portable6(mem, metas, idx, next, edge)
}

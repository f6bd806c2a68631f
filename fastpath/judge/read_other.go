//go:build !amd64 || race

package judge

import (
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
)

// plain is plainPortable.
//
//fastpath:hot
func plain(mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) int {
	return plainPortable(mem, metas, idx, packets)
}

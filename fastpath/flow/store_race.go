//go:build race

package flow

import "sync/atomic"

// put is the store that the race detector understands.
//
//fastpath:hot
func put(p *uint64, v uint64) { atomic.StoreUint64(p, v) }

// put32 is put for half a word.
//
//fastpath:hot
func put32(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

//go:build !race

package flow

// put stores a word that others may read meanwhile, and whose loss against
// another writer does no harm. On the machines that we build for an aligned word
// is stored whole; sync/atomic has only the store that also waits for all
// stores before it, which would be half the cost of a lookup.
//
//fastpath:hot
func put(p *uint64, v uint64) { *p = v }

// put32 is put for half a word.
//
//fastpath:hot
func put32(p *uint32, v uint32) { *p = v }

package judge

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"margay.dev/margay/fastpath/flow"
)

// plots remember in which generation something last changed for some addresses, so
// that a pod that comes or goes somewhere makes nobody look at the flows of others. 256
// addresses next to each other share a plot, and many such rows do.
type plots struct {
	all atomic.Uint64 // for every address
	of  [plotCount]atomic.Uint64
}

const (
	plotBits  = 12 // 32 KiB: they stay in the caches near a worker
	plotCount = 1 << plotBits
	rowBits   = 8 // addresses that differ in so many last bits share a plot
)

// plotOf is the plot of an address as flow.Key has it.
//
//fastpath:hot
func plotOf(hi, lo uint64) uint64 {
	return (hi*0x9e3779b97f4a7c15 ^ lo>>rowBits) * 0xd6e8feb86659fd93 >> (64 - plotBits)
}

// touch notes, for the generation that is coming, that something changes for the
// addresses of a prefix.
func (c *Court) touch(p netip.Prefix) {
	if p.Addr().BitLen()-p.Bits() > rowBits {
		c.plots.all.Store(c.Coming())
		return
	}
	b := p.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if p.Addr().Is4() {
		hi, lo = 0, lo&0xffffffff
	}
	c.plots.of[plotOf(hi, lo)].Store(c.Coming())
}

// Stands says that nothing has changed for both addresses of a flow, either way
// round, since it was decided in a generation. Which generation is in force must have
// been read before. What it does not say of may stand all the same: see Renewal.
//
//fastpath:hot
func (c *Court) Stands(generation uint64, k *flow.Key) bool {
	p := &c.plots
	return generation >= p.all.Load() &&
		generation >= p.of[plotOf(k.SrcHi, k.SrcLo)].Load() && generation >= p.of[plotOf(k.DstHi, k.DstLo)].Load()
}

package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// rewrite makes the packet what the next hop must see: one hop older, with the
// link-layer header of its adjacency.
//
// Uses: Off, Len, Head, L3, L4, Adjacency, Flags. Sets: Off, Len, Head, L3,
// L4, CsumStart stays relative to Off, OutPort. Drops: unresolved, when the
// adjacency has just lost its neighbour; no-policy, when the endpoint behind the
// port has no policy state yet.
const (
	rewriteDrop graph.Edge = iota
	rewriteTx
)

func rewriteSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "rewrite",
		Edges: []string{rewriteDrop: graph.DropName, rewriteTx: graph.TxName},
		New:   func(int) graph.Node { return &rewrite{t} },
	}
}

type rewrite struct{ *Tables }

// Process rewrites each packet for its adjacency.
//
//fastpath:hot
func (n *rewrite) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	view, st, mem := n.FIB.View(), n.state.Load(), w.Mem
	metas, idx := v.Metas(), v.Index()
	next = next[:len(idx)]
	last, a, out := uint32(0), view.Adjacency(0), &noPort // packets of a vector often share an adjacency
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.Adjacency != last {
			last, a = m.Adjacency, view.Adjacency(fib.AdjacencyID(m.Adjacency))
			out = st.port(a.Port)
		}
		if a.Kind != fib.Rewrite {
			next[i] = dropped(m, graph.Unresolved)
			continue
		}
		if out.Flags&NoPolicyState != 0 {
			next[i] = dropped(m, graph.NoPolicy)
			continue
		}
		at := int(m.Off + uint32(m.L3))
		if h := (*[pkt.IPv4Size]byte)(mem[at : at+pkt.IPv4Size]); m.Flags&(graph.IPv6|graph.FromUs) == 0 {
			h[8]-- // RFC 1812 section 5.3.1, and RFC 1624 for the checksum, which is never 0xffff
			sum := uint32(binary.LittleEndian.Uint16(h[10:12])) + 1
			binary.LittleEndian.PutUint16(h[10:12], uint16(sum+(sum+1)>>16))
		} else if m.Flags&graph.FromUs == 0 {
			h[7]-- // RFC 8200 section 3
		}
		m.OutPort = out.Main
		if a.HeaderLen == pkt.EthernetSize && m.L3 == pkt.EthernetSize {
			at = int(m.Off)
			*(*[pkt.EthernetSize]byte)(mem[at : at+pkt.EthernetSize]) = [pkt.EthernetSize]byte(a.Header[:])
		} else {
			relink(mem, m, a)
		}
		next[i] = rewriteTx
	}
}

// relink replaces the link-layer header by that of a, or strips it where a has
// none. The headroom of every buffer has room for the longest.
//
//fastpath:hot
func relink(mem []byte, m *graph.Meta, a *fib.Adjacency) {
	size := uint16(a.HeaderLen)
	by := uint32(size) - uint32(m.L3) // how much the packet grows, modulo 2^32
	m.Off -= by
	m.Len += by
	m.Head += by
	if m.Flags&graph.Partial != 0 {
		m.CsumStart += size - m.L3
	}
	if m.L4 != 0 {
		m.L4 += size - m.L3
	}
	m.L3 = size
	copy(mem[m.Off:m.Off+uint32(size)], a.Header[:])
}

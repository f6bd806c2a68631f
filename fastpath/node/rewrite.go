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
	view, st := n.FIB.View(), n.state.Load()
	metas, idx := v.Metas(), v.Index()
	for len(idx) > 0 {
		n := relabel(view, st, w.Mem, metas, idx, next)
		if n < len(idx) {
			next[n] = rebuild(&view, st, w.Mem, &metas[idx[n]&graph.SlotMask])
			n++
		}
		idx, next = idx[n:], next[n:]
	}
}

// relabel does what most packets need, from the front of idx: another Ethernet
// header in place of the one they have, and a hop less. It returns for how many;
// the next one is for rebuild. It calls nothing, so that all it needs stays in
// registers.
//
//fastpath:hot
func relabel(view fib.View, st *State, mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge) int {
	const window = pkt.EthernetSize + pkt.IPv4Size
	next = next[:len(idx)]
	last, a, out := uint32(0), (*fib.Adjacency)(nil), graph.NoPort // packets of a vector often share an adjacency
	_ = metas[0]                                                   // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.Adjacency != last || a == nil {
			last, a = m.Adjacency, view.Known(fib.AdjacencyID(m.Adjacency))
			if a == nil || a.Kind != fib.Rewrite || a.HeaderLen != pkt.EthernetSize {
				return i
			}
			port := st.port(a.Port)
			if port.Flags&NoPolicyState != 0 {
				return i
			}
			out = port.Main
		}
		if m.L3 != pkt.EthernetSize || m.Flags&graph.FromUs != 0 {
			return i
		}
		at := int(m.Off)
		h := (*[window]byte)(mem[at : at+window])
		*(*[pkt.EthernetSize]byte)(h[:pkt.EthernetSize]) = [pkt.EthernetSize]byte(a.Header[:pkt.EthernetSize])
		ageHop((*[pkt.IPv4Size]byte)(h[pkt.EthernetSize:]), m.Flags&graph.IPv6 != 0)
		m.OutPort = out
		next[i] = rewriteTx
	}
	return len(idx)
}

// rebuild rewrites a packet whatever its link-layer header, or says why it may
// not leave by its adjacency now.
//
//fastpath:hot
func rebuild(view *fib.View, st *State, mem []byte, m *graph.Meta) graph.Edge {
	a := view.Adjacency(fib.AdjacencyID(m.Adjacency))
	out := st.port(a.Port)
	switch {
	case a.Kind != fib.Rewrite:
		return dropped(m, graph.Unresolved)
	case out.Flags&NoPolicyState != 0:
		return dropped(m, graph.NoPolicy)
	}
	if m.Flags&graph.FromUs == 0 {
		at := int(m.Off + uint32(m.L3))
		ageHop((*[pkt.IPv4Size]byte)(mem[at:at+pkt.IPv4Size]), m.Flags&graph.IPv6 != 0)
	}
	m.OutPort = out.Main
	relink(mem, m, a)
	return rewriteTx
}

// ageHop takes one from the TTL or hop limit of the IP header that begins with h.
//
//fastpath:hot
func ageHop(h *[pkt.IPv4Size]byte, ipv6 bool) {
	if ipv6 {
		h[7]-- // RFC 8200 section 3
		return
	}
	h[8]-- // RFC 1812 section 5.3.1, and RFC 1624 for the checksum, which is never 0xffff
	sum := uint32(binary.LittleEndian.Uint16(h[10:12])) + 1
	binary.LittleEndian.PutUint16(h[10:12], uint16(sum+(sum+1)>>16))
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

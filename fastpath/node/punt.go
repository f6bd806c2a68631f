package node

import (
	"margay.dev/margay/fastpath/graph"
)

// punt hands packets for the node itself to its own stack, by the host port.
//
// Uses: Off, Len, Head, L3. Sets: Off, Len, Head, L3, L4, OutPort. Drops: no-host-port.
const (
	puntDrop graph.Edge = iota
	puntTx
)

func puntSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "punt",
		Edges: []string{puntDrop: graph.DropName, puntTx: graph.TxName},
		New:   func(int) graph.Node { return &punt{t} },
	}
}

type punt struct{ *Tables }

// Process strips the link layer and chooses the host port.
//
//fastpath:hot
func (n *punt) Process(_ *graph.Worker, v *graph.Vector, next []graph.Edge) {
	host := n.state.Load().HostPort
	for i := range next {
		m := v.Meta(i)
		if host == graph.NoPort || host == m.InPort {
			next[i] = dropped(m, graph.NoHostPort) // what the host sent must not come back to it
			continue
		}
		by := uint32(m.L3)
		m.Off += by
		m.Len -= by
		m.Head -= by
		if m.Flags&graph.Partial != 0 {
			m.CsumStart -= m.L3
		}
		if m.L4 != 0 {
			m.L4 -= m.L3
		}
		m.L3 = 0
		m.OutPort = host
		next[i] = puntTx
	}
}

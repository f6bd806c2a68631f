package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/internal/pkt"
)

// route asks the FIB where each packet goes and whether it may.
//
// Uses: Off, L3, L4, InPort, Proto, To, GSO, Flags. Sets: Adjacency, Hash, and for
// icmp-error Reason and Aux (the MTU). Drops: no-policy, spoofed-source,
// blackhole, loop; icmp-error drops the rest.
const (
	routeDrop graph.Edge = iota
	routeRewrite
	routeEcho
	routeError
	routeFragment
	routeResolve
	routePunt
	routePolicy
)

func routeSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "route",
		Edges: append(onward(), "policy-out"),
		New:   func(worker int) graph.Node { return &route{Tables: t, Desk: t.Court.Desk(worker)} },
	}
}

// onward is where packets go that may travel, and where they end that may not.
func onward() []string {
	return []string{routeDrop: graph.DropName, routeRewrite: "rewrite", routeEcho: "icmp-echo", routeError: "icmp-error",
		routeFragment: "fragment", routeResolve: "resolve", routePunt: "punt"}
}

// route begins all lookups of a vector in one loop, so that their memory accesses
// overlap, and then decides for each packet.
type route struct {
	*Tables
	*judge.Desk
	batch fib.Batch
}

// source is a source address and the port that it came by.
type source struct {
	ipv6      bool
	port      uint16
	high, low uint64
}

// sourceOf is m's.
//
//fastpath:hot
func sourceOf(mem []byte, m *graph.Meta) source {
	l3 := int(m.Off + uint32(m.L3))
	if m.Flags&graph.IPv6 == 0 {
		h := (*[4]byte)(mem[l3+12 : l3+16])
		return source{port: m.InPort, low: uint64(binary.BigEndian.Uint32(h[:]))}
	}
	h := (*[16]byte)(mem[l3+8 : l3+24])
	return source{true, m.InPort, binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:])}
}

// Process looks all destinations up, then decides for each packet.
//
//fastpath:hot
func (n *route) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	view, st, metas, idx := n.FIB.View(), n.state.Load(), v.Metas(), v.Index()
	n.lookUp(view, w.Mem, metas, idx)
	if len(st.Policy) > 0 {
		n.refer(&view, st, w.Mem, metas, idx, next)
		return
	}
	proven := 0 // packets before it are from a source that passed direct
	for i := 0; i < len(idx); i++ {
		i += n.forward(view, st, metas, idx[i:], next[i:], uint8(i), graph.NoPort)
		if i < proven {
			i += n.forward(view, st, metas, idx[i:proven], next[i:], uint8(i), metas[idx[i]&graph.SlotMask].InPort)
		}
		if i == len(idx) {
			return
		}
		next[i] = direct(&view, st, w.Mem, &metas[idx[i]&graph.SlotMask], n.batch.NextHop(uint8(i)))
		if next[i] == routeRewrite && i >= proven {
			proven = i + ofOneSource(w.Mem, metas, idx[i:])
		}
	}
}

// ofOneSource is how many packets from the front of idx have the source of the first.
//
//fastpath:hot
func ofOneSource(mem []byte, metas *graph.Slots, idx []uint16) int {
	first := sourceOf(mem, &metas[idx[0]&graph.SlotMask])
	for i, slot := range idx[1:] {
		if sourceOf(mem, &metas[slot&graph.SlotMask]) != first {
			return 1 + i
		}
	}
	return len(idx)
}

// lookUp finds the next hops of a vector, family by family in runs.
//
//fastpath:hot
func (n *route) lookUp(view fib.View, mem []byte, metas *graph.Slots, idx []uint16) {
	open4, open6 := 0, 0
	for i := 0; i < len(idx); {
		var begun int
		begun, open4 = n.begin4(view, metas, idx[i:], uint8(i), open4)
		if i += begun; i == len(idx) {
			break
		}
		begun, open6 = n.begin6(view, mem, metas, idx[i:], uint8(i), open6)
		i += begun
	}
	if open4 > 0 {
		n.batch.Finish4(view, open4)
	}
	if open6 > 0 {
		n.batch.Finish6(view, open6)
	}
}

// begin4 begins the lookups of IPv4 packets from the front of idx; place is that
// of the first in the batch. It returns how many, and how many lookups are open now.
//
//fastpath:hot
func (n *route) begin4(view fib.View, metas *graph.Slots, idx []uint16, place uint8, open int) (int, int) {
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.Flags&graph.IPv6 != 0 {
			return i, open
		}
		open = n.batch.Begin4(view, place+uint8(i), uint32(m.To>>32), open)
	}
	return len(idx), open
}

// begin6 is begin4 for IPv6 packets.
//
//fastpath:hot
func (n *route) begin6(view fib.View, mem []byte, metas *graph.Slots, idx []uint16, place uint8, open int) (int, int) {
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.Flags&graph.IPv6 == 0 {
			return i, open
		}
		at := int(m.Off+uint32(m.L3)) + 32
		h := (*[8]byte)(mem[at : at+8])
		open = n.batch.Begin6(view, place+uint8(i), m.To, binary.BigEndian.Uint64(h[:]), open)
	}
	return len(idx), open
}

// forward sends packets from the front of idx by their next hops, as long as that
// is all there is to say: their port is in, or one that asks for no checks, the next
// hop is one neighbour with a known address, and the packet may go there as it is.
// It returns how many; the next one is for direct. place is that of the first in the
// batch. It calls nothing, so that all it needs stays in registers.
//
//fastpath:hot
func (n *route) forward(view fib.View, st *State, metas *graph.Slots, idx []uint16, next []graph.Edge, place uint8, in uint16) int {
	next = next[:len(idx)]
	// Packets of a vector often share ports and next hops: what was asked is not asked again.
	last := fib.NoRoute
	var id fib.AdjacencyID
	var out uint16
	var limit uint32
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.InPort != in {
			if in = m.InPort; st.port(in).Flags&(Workload|NoPolicyState) != 0 {
				return i
			}
		}
		if hop := n.batch.NextHop(place + uint8(i)); hop != last {
			var single bool
			if id, single = view.Single(hop); !single {
				return i
			}
			a := view.Known(id)
			if a == nil || a.Kind != fib.Rewrite {
				return i
			}
			last, out, limit = hop, a.Port, a.MTU
		}
		if m.Len-uint32(m.L3) > limit || uint16(m.Flags&graph.Expiring)|uint16(m.GSO) != 0 || out == in {
			return i
		}
		m.Adjacency = uint32(id)
		next[i] = routeRewrite
	}
	return len(idx)
}

// direct says by which edge a packet leaves whose next hop is hop.
//
//fastpath:hot
func direct(view *fib.View, st *State, mem []byte, m *graph.Meta, hop fib.NextHopID) graph.Edge {
	in := st.port(m.InPort)
	if in.Flags&(Workload|NoPolicyState) != 0 {
		if r := refuseSource(view, in, mem, m); r != graph.NoReason {
			return dropped(m, r)
		}
	}
	id, single := view.Single(hop)
	if !single {
		m.Hash = flowHash(mem, m)
		id = view.Resolve(hop, m.Hash)
	}
	m.Adjacency = uint32(id)
	a := view.Adjacency(id)
	if a.Kind != fib.Rewrite || expired(m) || tooBig(mem, m, a.MTU) {
		return exception(st, mem, m, a)
	}
	if a.Port == m.InPort && in.Flags&Workload != 0 {
		return dropped(m, graph.Loop)
	}
	return routeRewrite
}

// refuseSource is the strict check of packets from an endpoint: it has policy,
// and its source address is routed to the very port it came by.
//
//fastpath:hot
func refuseSource(view *fib.View, in *Port, mem []byte, m *graph.Meta) graph.Reason {
	if in.Flags&NoPolicyState != 0 {
		return graph.NoPolicy
	}
	var nh fib.NextHopID
	l3 := int(m.Off + uint32(m.L3))
	if h := (*[pkt.IPv4Size]byte)(mem[l3 : l3+pkt.IPv4Size]); m.Flags&graph.IPv6 == 0 {
		nh = view.Lookup4(binary.BigEndian.Uint32(h[12:16]))
	} else {
		h := (*[pkt.IPv6Size]byte)(mem[l3 : l3+pkt.IPv6Size])
		nh = view.Lookup6(binary.BigEndian.Uint64(h[8:16]), binary.BigEndian.Uint64(h[16:24]))
	}
	a := view.Adjacency(view.Resolve(nh, 0))
	if a.Port != m.InPort || a.Kind != fib.Rewrite && a.Kind != fib.Incomplete {
		return graph.SpoofedSource
	}
	return graph.NoReason
}

// flowHash spreads flows over ECMP members: addresses and ports, the same for
// every packet of a flow; parts of a datagram go by addresses alone.
//
//fastpath:hot
func flowHash(mem []byte, m *graph.Meta) uint32 {
	l3 := m.Off + uint32(m.L3)
	var h uint64
	if m.Flags&graph.IPv6 == 0 {
		h = binary.LittleEndian.Uint64(mem[l3+12:])
	} else {
		h = binary.LittleEndian.Uint64(mem[l3+8:]) ^ binary.LittleEndian.Uint64(mem[l3+16:])*3 ^
			binary.LittleEndian.Uint64(mem[l3+24:])*5 ^ binary.LittleEndian.Uint64(mem[l3+32:])*7
	}
	if (m.Proto == pkt.ProtoTCP || m.Proto == pkt.ProtoUDP) && m.Flags&graph.Fragment == 0 && m.L4 != 0 {
		h ^= uint64(binary.LittleEndian.Uint32(mem[m.Off+uint32(m.L4):])) << 16
	}
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

// expired says whether the packet may not travel one hop further.
//
//fastpath:hot
func expired(m *graph.Meta) bool {
	return m.Flags&(graph.Expiring|graph.FromUs) == graph.Expiring
}

// tooBig says whether a wire packet of m exceeds mtu.
//
//fastpath:hot
func tooBig(mem []byte, m *graph.Meta, mtu uint32) bool {
	if m.GSO == graph.GSONone {
		return m.Len-uint32(m.L3) > mtu
	}
	return headerSize(mem, m)+uint32(m.GSOSize) > mtu
}

// headerSize is the bytes of IP and transport header of a superpacket.
//
//fastpath:hot
func headerSize(mem []byte, m *graph.Meta) uint32 {
	n := uint32(m.L4 - m.L3)
	if m.Proto == pkt.ProtoTCP {
		return n + uint32(mem[m.Off+uint32(m.L4)+12]>>4)*4
	}
	return n + 8
}

// exception decides for packets that do not simply go on.
func exception(st *State, mem []byte, m *graph.Meta, a *fib.Adjacency) graph.Edge {
	switch a.Kind {
	case fib.Local:
		if m.Flags&graph.FromUs == 0 && isEchoRequest(mem, m) && st.port(m.InPort).Flags&Owned != 0 {
			return routeEcho
		}
		return routePunt
	case fib.Punt:
		return routePunt
	case fib.Blackhole:
		return dropped(m, graph.Blackhole)
	case fib.Drop:
		return failed(m, graph.NoRoute)
	case fib.Prohibit:
		return failed(m, graph.Prohibited)
	}
	switch out := st.port(a.Port); {
	case out.Flags&NoPolicyState != 0:
		return dropped(m, graph.NoPolicy)
	case expired(m):
		return failed(m, graph.TTLSpent)
	case tooBig(mem, m, a.MTU):
		return oversize(mem, m, a.MTU)
	}
	return routeResolve // Attached or Incomplete
}

// failed sends a packet to its end at icmp-error, which drops it for r and
// tells its sender where that is due.
func failed(m *graph.Meta, r graph.Reason) graph.Edge {
	m.Reason = r
	return routeError
}

// oversize handles what exceeds the MTU of its way out: split where IPv4 allows
// it, else say what would fit. A TCP superpacket is cut to smaller segments by
// choosing their size anew.
func oversize(mem []byte, m *graph.Meta, mtu uint32) graph.Edge {
	if m.Flags&graph.DontFrag == 0 && mtu >= pkt.MinMTU4 {
		if m.GSO == graph.GSONone {
			m.Aux = mtu
			return routeFragment
		}
		if h := headerSize(mem, m); m.Proto == pkt.ProtoTCP && h+8 <= mtu {
			m.GSOSize = uint16(mtu - h)
			return routeRewrite
		}
	}
	m.Aux = mtu
	return failed(m, graph.TooBig)
}

func isEchoRequest(mem []byte, m *graph.Meta) bool {
	if m.L4 == 0 || m.Head <= uint32(m.L4) {
		return false
	}
	kind := mem[m.Off+uint32(m.L4)]
	return m.Proto == pkt.ProtoICMP && m.Flags&graph.IPv6 == 0 && kind == pkt.ICMPEcho ||
		m.Proto == pkt.ProtoICMPv6 && m.Flags&graph.IPv6 != 0 && kind == pkt.ICMP6Echo
}

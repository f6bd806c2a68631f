package node

import (
	"encoding/binary"
	"net/netip"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// resolve holds packets whose next hop has no known link-layer address, asks
// for it, and lets them go on at route when the FIB has learnt it. On ports
// that are all ours it asks by itself; elsewhere the kernel is asked for it.
// After holdFor they end at icmp-error, each on its own account (RFC 4861
// section 7.2.2).
//
// Uses: Adjacency, InPort, Off, L3. Sets: Reason, of what goes to icmp-error.
// Drops: hold-full, at once or to make place for another port. Emits ARP
// requests and neighbour solicitations.
const (
	resolveDrop graph.Edge = iota
	resolveTx
)

// Where held packets go on.
const (
	resolveRoute graph.Again = iota
	resolveError
)

func resolveSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:    "resolve",
		Edges:   []string{resolveDrop: graph.DropName, resolveTx: graph.TxName},
		Resumes: []string{resolveRoute: "flow", resolveError: "icmp-error"},
		New:     func(int) graph.Node { return &resolve{Tables: t} },
	}
}

const (
	maxNeighbours = 128             // that one worker waits for at once
	maxHeld       = 16              // packets per neighbour
	holdFor       = 3 * time.Second // RFC 4861 section 10: MAX_MULTICAST_SOLICIT × RETRANS_TIMER
	askEvery      = 1 * time.Second // RETRANS_TIMER
)

type resolve struct {
	*Tables
	wait [maxNeighbours]waiting
	n    int
	// places is how many of them each port has taken, by what came in by it.
	places [1 << 16]uint8
}

// waiting is one neighbour and the packets that need it.
type waiting struct {
	port       uint16 // where to ask
	addr       netip.Addr
	in         uint16 // whose packet came first: one of its places
	since, ask int64
	n          int
	held       [maxHeld]graph.Meta
}

// Process holds each packet and asks for its neighbour.
func (n *resolve) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	view := n.FIB.View()
	for i := range next {
		m := v.Meta(i)
		a := view.Adjacency(fib.AdjacencyID(m.Adjacency))
		e := n.entry(w, m.InPort, a.Port, gateway(w.Mem, m, a))
		if e == nil || e.n == maxHeld {
			next[i] = dropped(m, graph.HoldFull)
			continue
		}
		e.held[e.n] = *m
		e.n++
		w.Hold(m)
		next[i] = graph.Gone
		if e.ask <= w.Now {
			n.solicit(w, e)
		}
	}
}

// gateway is whose link-layer address m needs: its next hop, or where the
// prefix is on link its own destination.
func gateway(mem []byte, m *graph.Meta, a *fib.Adjacency) netip.Addr {
	if via := a.GatewayAddr(); via.IsValid() {
		return via
	}
	l3 := m.Off + uint32(m.L3)
	if m.Flags&graph.IPv6 == 0 {
		return netip.AddrFrom4([4]byte(mem[l3+16:]))
	}
	return netip.AddrFrom16([16]byte(mem[l3+24:]))
}

// entry finds or makes the place where packets for addr wait; nil when there is
// none for a packet from port in.
func (n *resolve) entry(w *graph.Worker, in, port uint16, addr netip.Addr) *waiting {
	for i := range n.wait[:n.n] {
		if e := &n.wait[i]; e.addr == addr && e.port == port {
			return e
		}
	}
	e := n.place(w, in)
	if e == nil {
		return nil
	}
	n.places[in]++
	e.port, e.addr, e.in, e.since, e.ask, e.n = port, addr, in, w.Now, w.Now, 0
	return e
}

// place is an empty place for port in. When all are taken, the port that has
// most gives up its oldest, if it still has as many as in then: who scans a net
// may take all that nobody else needs, and keeps nobody from an equal share.
func (n *resolve) place(w *graph.Worker, in uint16) *waiting {
	if n.n < maxNeighbours {
		n.n++
		return &n.wait[n.n-1]
	}
	e := &n.wait[0]
	for i := range n.wait {
		o := &n.wait[i]
		if has, most := n.places[o.in], n.places[e.in]; has > most || has == most && o.since < e.since {
			e = o
		}
	}
	if n.places[e.in] < n.places[in]+2 {
		return nil
	}
	n.places[e.in]--
	for i := range e.held[:e.n] {
		w.Abandon(&e.held[i], graph.HoldFull)
	}
	return e
}

// solicit asks for a neighbour: the kernel by way of the tables' writer, or the
// link itself where it is ours.
func (n *resolve) solicit(w *graph.Worker, e *waiting) {
	e.ask = w.Now + int64(askEvery)
	n.tell(NeighbourEvent{Kind: Needed, Port: e.port, Addr: e.addr})
	st := n.state.Load()
	port := st.port(e.port)
	if port.Flags&Owned == 0 || port.Flags&L2 == 0 {
		return
	}
	src, ok := st.source(e.port, e.addr.Is6())
	if port.Flags&Workload != 0 {
		src, ok = WorkloadGateways[0], true
		if e.addr.Is6() {
			src = WorkloadGateways[1]
		}
	}
	if !ok {
		return // no address of ours to ask from; the packets will time out
	}
	if e.addr.Is4() {
		askARP(w, port, src, e.addr)
	} else {
		askND(w, port, src, e.addr)
	}
}

// askARP emits a request for addr.
func askARP(w *graph.Worker, port *Port, src, addr netip.Addr) {
	slot, m, ok := w.Make(graph.MadeARP)
	if !ok {
		return
	}
	p := putEthernet(w, m, port, MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, pkt.EtherARP, pkt.ARPSize)
	clear(p)
	binary.BigEndian.PutUint64(p, arpFixed)
	binary.BigEndian.PutUint16(p[arpOp:], arpRequest)
	copy(p[arpSenderMAC:], port.MAC[:])
	copy(p[arpSenderIP:], src.AsSlice())
	copy(p[arpTargetIP:], addr.AsSlice())
	w.Emit(resolveTx, slot)
}

// askND emits a solicitation for addr to its solicited-node group (RFC 4291
// section 2.7.1).
func askND(w *graph.Worker, port *Port, src, addr netip.Addr) {
	slot, m, ok := w.Make(graph.MadeND)
	if !ok {
		return
	}
	t := addr.As16()
	group := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}
	mac := MAC{0x33, 0x33, 0xff, t[13], t[14], t[15]}
	p := putEthernet(w, m, port, mac, pkt.EtherIPv6, pkt.IPv6Size+ndMessageSize)
	putND(p, pkt.ICMP6NeighborSol, 0, src, netip.AddrFrom16(group), addr, port.MAC)
	w.Emit(resolveTx, slot)
}

// putEthernet starts a frame with payload bytes and returns their place.
func putEthernet(w *graph.Worker, m *graph.Meta, port *Port, dst MAC, etherType uint16, payload int) []byte {
	header := pkt.EthernetSize
	if port.VLAN != 0 {
		header += pkt.VLANSize
	}
	m.L3, m.OutPort = uint16(header), port.Main
	m.Len = uint32(header + payload)
	m.Head = m.Len
	p := w.Packet(m)
	copy(p[0:6], dst[:])
	copy(p[6:12], port.MAC[:])
	if port.VLAN != 0 {
		binary.BigEndian.PutUint16(p[12:], pkt.EtherVLAN)
		binary.BigEndian.PutUint16(p[14:], port.VLAN)
	}
	binary.BigEndian.PutUint16(p[header-2:], etherType)
	return p[header:]
}

// Resume lets packets go on whose neighbour is known now, asks again for the
// others, and gives up on those that waited too long.
func (n *resolve) Resume(w *graph.Worker) {
	for i := 0; i < n.n; {
		e := &n.wait[i]
		switch {
		case e.n > 0 && n.resolved(w, e):
			n.release(w, e, resolveRoute, graph.NoReason)
		case e.n > 0 && w.Now-e.since > int64(holdFor):
			n.release(w, e, resolveError, graph.Unresolved)
		case e.n > 0 && e.ask <= w.Now:
			n.solicit(w, e)
		}
		if e.n > 0 {
			i++
			continue
		}
		n.places[e.in]--
		n.n--
		n.wait[i] = n.wait[n.n]
	}
}

// resolved says whether the first packet that waits would be sent now, or
// dropped for another reason: either way it need not wait here.
func (n *resolve) resolved(w *graph.Worker, e *waiting) bool {
	kind := n.way(w.Mem, &e.held[0]).Kind
	return kind != fib.Incomplete && kind != fib.Attached
}

// Holding tells of every packet that waits: route decides anew about it, and it
// comes back here if its neighbour is still not known.
func (n *resolve) Holding(yield func(m *graph.Meta, at graph.Again)) {
	for i := range n.wait[:n.n] {
		e := &n.wait[i]
		for _, m := range e.held[:e.n] {
			m.Reason = graph.NoReason // release has told it one already where the pass was full
			yield(&m, resolveRoute)
		}
	}
}

// Forget lets nothing wait any more.
func (n *resolve) Forget() {
	n.n = 0
	clear(n.places[:])
}

// release lets packets go on at a place, which they are to know r at.
func (n *resolve) release(w *graph.Worker, e *waiting, at graph.Again, r graph.Reason) {
	for i := range e.held[:e.n] {
		e.held[i].Reason = r
		if !w.Release(&e.held[i], at) {
			e.n = copy(e.held[:], e.held[i:e.n]) // the pass is full: the rest goes next time
			return
		}
	}
	e.n = 0
}

package node

import (
	"encoding/binary"
	"net/netip"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// arp answers and learns on ports that are all ours (RFC 826, RFC 5227). On a
// workload port it answers for the workload gateway only, and believes an
// endpoint nothing but its own address.
//
// Uses: Off, Head, L3, InPort. Sets: OutPort, flag FromUs. Drops: arp-invalid.
const (
	arpDrop graph.Edge = iota
	arpTx
)

func arpSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "arp",
		Edges: []string{arpDrop: graph.DropName, arpTx: graph.TxName},
		New:   func(int) graph.Node { return &arp{t} },
	}
}

type arp struct{ *Tables }

// Operations and offsets of ARP for IPv4 over Ethernet.
const (
	arpRequest, arpReply             = 1, 2
	arpOp, arpSenderMAC              = 6, 8
	arpSenderIP, arpTargetMAC        = 14, 18
	arpTargetIP                      = 24
	arpFixed                  uint64 = 0x0001_0800_06_04 << 16 // hardware, protocol, their lengths
)

// Process takes note of each message and answers those for us.
func (n *arp) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		p := w.Packet(m)
		port := n.state.Load().port(m.InPort)
		if port.Flags&Owned == 0 || m.Bufs > 1 || !arpValid(p, int(m.L3)) || !n.believe(m, p[m.L3:]) {
			next[i] = dropped(m, graph.ARPInvalid)
			continue
		}
		a := p[m.L3:]
		n.learn(m.InPort, netip.AddrFrom4([4]byte(a[arpSenderIP:])), MAC(a[arpSenderMAC:]))
		if !n.answers(m, a) {
			w.Used(graph.UsedARP, m)
			next[i] = graph.Gone
			continue
		}
		w.Turn(graph.UsedARP, graph.MadeARP, m)
		turnARP(p, m, port)
		next[i] = arpTx
	}
}

// arpValid says whether p holds an ARP message for IPv4 over Ethernet whose
// sender is who sent the frame.
func arpValid(p []byte, l3 int) bool {
	if len(p) < l3+pkt.ARPSize {
		return false
	}
	a := p[l3:]
	op := binary.BigEndian.Uint16(a[arpOp:])
	mac := MAC(a[arpSenderMAC:])
	return binary.BigEndian.Uint64(a)&^0xffff == arpFixed && (op == arpRequest || op == arpReply) &&
		mac == MAC(p[6:]) && mac[0]&1 == 0 && mac != MAC{}
}

// believe says whether the sender may claim its address: the FIB must route it
// to this very port. A probe (RFC 5227) claims none.
func (n *arp) believe(m *graph.Meta, a []byte) bool {
	sender := netip.AddrFrom4([4]byte(a[arpSenderIP:]))
	return sender.IsUnspecified() || n.behind(sender, m.InPort)
}

// answers says whether a is a request for an address of ours.
func (n *arp) answers(m *graph.Meta, a []byte) bool {
	if binary.BigEndian.Uint16(a[arpOp:]) != arpRequest {
		return false
	}
	return n.state.Load().ours(m.InPort, netip.AddrFrom4([4]byte(a[arpTargetIP:])))
}

// ours says whether we answer for addr on port.
func (s *State) ours(port uint16, addr netip.Addr) bool {
	if s.port(port).Flags&Workload != 0 && (addr == WorkloadGateways[0] || addr == WorkloadGateways[1]) {
		return true
	}
	_, ok := s.Answers[Answer{port, addr}]
	return ok
}

// adjacency is where packets for addr go.
func (t *Tables) adjacency(addr netip.Addr) *fib.Adjacency {
	view := t.FIB.View()
	var nh fib.NextHopID
	if b := addr.As16(); addr.Is4() {
		nh = view.Lookup4(binary.BigEndian.Uint32(b[12:]))
	} else {
		nh = view.Lookup6(binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]))
	}
	return view.Adjacency(view.Resolve(nh, 0))
}

// behind says whether addr is routed to port without another router between.
func (t *Tables) behind(addr netip.Addr, port uint16) bool {
	a := t.adjacency(addr)
	if via := a.GatewayAddr(); via.IsValid() && via != addr {
		return false
	}
	return a.Port == port && (a.Kind == fib.Rewrite || a.Kind == fib.Incomplete || a.Kind == fib.Attached)
}

// learn reports the sender's MAC unless the FIB knows it already.
func (t *Tables) learn(port uint16, addr netip.Addr, mac MAC) {
	if addr.IsUnspecified() {
		return
	}
	a := t.adjacency(addr)
	via := a.GatewayAddr() // invalid where the destination itself is meant
	known := a.Kind == fib.Rewrite && a.Port == port && MAC(a.Header[:]) == mac && (!via.IsValid() || via == addr)
	if !known {
		t.tell(NeighbourEvent{Kind: Learned, Port: port, Addr: addr, MAC: mac})
	}
}

// turnARP makes the reply of the request in p.
func turnARP(p []byte, m *graph.Meta, port *Port) {
	a := p[m.L3:]
	asked := [4]byte(a[arpTargetIP:])
	copy(a[arpTargetMAC:], a[arpSenderMAC:arpSenderMAC+10]) // their MAC and address
	copy(a[arpSenderMAC:], port.MAC[:])
	copy(a[arpSenderIP:], asked[:])
	binary.BigEndian.PutUint16(a[arpOp:], arpReply)
	copy(p[0:6], p[6:12])
	copy(p[6:12], port.MAC[:])
	m.OutPort = port.Main
}

package node

import (
	"net/netip"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// nd answers and learns by IPv6 neighbour discovery on ports that are all ours
// (RFC 4861). Router solicitations, advertisements and redirects end here: we
// send none, and believe none from an endpoint.
//
// Uses: Off, Head, L3, L4, InPort. Sets: OutPort, flag FromUs. Drops:
// nd-invalid; ip-multicast on L3 ports, where there is no link to discover.
const (
	ndDrop graph.Edge = iota
	ndTx
)

func ndSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  "nd",
		Edges: []string{ndDrop: graph.DropName, ndTx: graph.TxName},
		New:   func(int) graph.Node { return &nd{t} },
	}
}

type nd struct{ *Tables }

// Offsets and options of neighbour discovery messages.
const (
	ndTarget                       = 8 // after the ICMPv6 header
	ndOptions                      = 24
	ndSourceMAC, ndTargetMAC       = 1, 2
	ndRouter                       = 0x80
	ndSolicited, ndOverride        = 0x40, 0x20
	ndMessageSize                  = ndOptions + 8 // with one link-layer address
	ndHopLimit               uint8 = 255
)

// Process takes note of each message and answers solicitations for us.
func (n *nd) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		port := n.state.Load().port(m.InPort)
		if port.Flags&L2 == 0 {
			next[i] = dropped(m, graph.IPMulticast)
			continue
		}
		msg, ok := parseND(w.Packet(m), m)
		if port.Flags&Owned == 0 || !ok || !n.believe(m, msg) {
			next[i] = dropped(m, graph.NDInvalid)
			continue
		}
		next[i] = n.handle(w, m, port, msg)
	}
}

// ndMessage is what we need of a neighbour solicitation or advertisement.
type ndMessage struct {
	kind        uint8
	src, target netip.Addr
	mac         MAC // link-layer address option, zero if there was none
}

// parseND checks a message as RFC 4861 sections 7.1.1 and 7.1.2 ask.
func parseND(p []byte, m *graph.Meta) (msg ndMessage, ok bool) {
	ip, body := p[m.L3:], p[m.L4:]
	if ip[7] != ndHopLimit || body[1] != 0 || m.Bufs > 1 ||
		pkt.Fold(pkt.Sum(body)+pkt.PseudoSum(ip[8:40], pkt.ProtoICMPv6, len(body))) != 0xffff {
		return msg, false
	}
	msg.kind, msg.src = body[0], netip.AddrFrom16([16]byte(ip[8:24]))
	if msg.kind != pkt.ICMP6NeighborSol && msg.kind != pkt.ICMP6NeighborAdv {
		return msg, true
	}
	if len(body) < ndOptions {
		return msg, false
	}
	msg.target = netip.AddrFrom16([16]byte(body[ndTarget:ndOptions]))
	want := uint8(ndSourceMAC)
	if msg.kind == pkt.ICMP6NeighborAdv {
		want = ndTargetMAC
		if ip[24] == 0xff && body[4]&ndSolicited != 0 {
			return msg, false // nobody solicits for a group
		}
	}
	if msg.mac, ok = linkOption(body[ndOptions:], want); !ok || msg.target.IsMulticast() {
		return msg, false
	}
	probe := msg.kind == pkt.ICMP6NeighborSol && msg.src.IsUnspecified()
	return msg, !probe || msg.mac == MAC{} && ip[24] == 0xff // DAD: RFC 4862 section 5.4.2
}

// linkOption finds the link-layer address option of a kind; false when the
// list of options is malformed.
func linkOption(o []byte, kind uint8) (mac MAC, ok bool) {
	for len(o) > 0 {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return mac, false
		}
		if o[0] == kind {
			copy(mac[:], o[2:8])
		}
		o = o[int(o[1])*8:]
	}
	return mac, mac[0]&1 == 0
}

// believe says whether the sender may say this: on a workload port no router's
// messages, and a claim only for an address that is routed to the port or is
// link-local, and never for one of ours.
func (n *nd) believe(m *graph.Meta, msg ndMessage) bool {
	claimed := msg.src
	switch msg.kind {
	case pkt.ICMP6RouterSol:
		return true
	case pkt.ICMP6NeighborAdv:
		claimed = msg.target
	case pkt.ICMP6NeighborSol:
	default:
		return n.state.Load().port(m.InPort).Flags&Workload == 0
	}
	if n.state.Load().ours(m.InPort, claimed) {
		return false
	}
	return claimed.IsUnspecified() || claimed.IsLinkLocalUnicast() || n.behind(claimed, m.InPort)
}

// handle learns from a valid message and answers it where it asks for us.
func (n *nd) handle(w *graph.Worker, m *graph.Meta, port *Port, msg ndMessage) graph.Edge {
	if msg.mac != (MAC{}) {
		who := msg.src
		if msg.kind == pkt.ICMP6NeighborAdv {
			who = msg.target
		}
		n.learn(m.InPort, who, msg.mac)
	}
	if msg.kind != pkt.ICMP6NeighborSol || !n.state.Load().ours(m.InPort, msg.target) {
		w.Used(graph.UsedND, m)
		return graph.Gone
	}
	w.Turn(graph.UsedND, graph.MadeND, m)
	turnND(w, m, port, msg)
	return ndTx
}

// turnND makes the advertisement that answers a solicitation, in its buffer.
// We are a router to whoever asks us. Who probes for a duplicate has no address
// yet: all nodes are told.
func turnND(w *graph.Worker, m *graph.Meta, port *Port, msg ndMessage) {
	dst, flags := msg.src, uint8(ndRouter|ndSolicited|ndOverride)
	m.Len = uint32(m.L3) + pkt.IPv6Size + ndMessageSize
	m.Head, m.L4 = m.Len, m.L3+pkt.IPv6Size
	p := w.Packet(m)
	copy(p[0:6], p[6:12])
	if dst.IsUnspecified() {
		dst, flags = netip.IPv6LinkLocalAllNodes(), ndRouter|ndOverride
		copy(p[0:6], []byte{0x33, 0x33, 0, 0, 0, 1})
	}
	copy(p[6:12], port.MAC[:])
	putND(p[m.L3:], pkt.ICMP6NeighborAdv, flags, msg.target, dst, msg.target, port.MAC)
	m.OutPort = port.Main
}

// putND writes an IPv6 packet with a neighbour discovery message at p, which
// has room for exactly that.
func putND(p []byte, kind, flags uint8, src, dst, target netip.Addr, mac MAC) {
	s, d, t := src.As16(), dst.As16(), target.As16()
	putIPv6(p, pkt.ProtoICMPv6, ndHopLimit, s[:], d[:], ndMessageSize)
	body := p[pkt.IPv6Size : pkt.IPv6Size+ndMessageSize]
	clear(body)
	body[0], body[4] = kind, flags
	copy(body[ndTarget:], t[:])
	body[ndOptions], body[ndOptions+1] = ndSourceMAC, 1
	if kind == pkt.ICMP6NeighborAdv {
		body[ndOptions] = ndTargetMAC
	}
	copy(body[ndOptions+2:], mac[:])
	finishICMP(body, p[8:40], true)
}

package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// eth-input strips the Ethernet header off frames from L2 ports.
//
// Uses: Off, Len, Head, InPort. Sets: L3, VLAN, InPort (to the sub-port of a
// VLAN), flags IPv6 and Broadcast. Drops: rx-runt, ethertype, vlan-unknown,
// vlan-stack, not-for-us, spoofed-mac.
const (
	ethDrop graph.Edge = iota
	ethARP
	ethIP
)

func ethInputSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  EntryL2,
		Edges: []string{ethDrop: graph.DropName, ethARP: "arp", ethIP: EntryL3},
		New:   func(int) graph.Node { return &ethInput{t} },
	}
}

type ethInput struct{ *Tables }

const macMask = 1<<48 - 1

// Process looks at the Ethernet header of each frame.
//
//fastpath:hot
func (n *ethInput) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	st, metas, idx := n.state.Load(), v.Metas(), v.Index()
	for len(idx) > 0 {
		n := addressed(st, w.Mem, metas, idx, next)
		if n < len(idx) {
			next[n] = classify(st, w.Mem, &metas[idx[n]&graph.SlotMask])
			n++
		}
		idx, next = idx[n:], next[n:]
	}
}

// addressed takes frames that carry IP without a tag to our MAC from the front of
// idx. It returns how many; the next one is for classify. It calls nothing, so that
// all it needs stays in registers.
//
//fastpath:hot
func addressed(st *State, mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge) int {
	next = next[:len(idx)]
	in, mac, peer := graph.NoPort, uint64(macMask), uint64(0) // packets of a vector often share a port
	_ = metas[0]                                              // not nil: asked once, not for each packet
	for i, slot := range idx {
		m := &metas[slot&graph.SlotMask]
		if m.InPort != in {
			p := st.port(m.InPort)
			in, mac, peer = m.InPort, p.mac, p.peer
		}
		if m.Head < pkt.EthernetSize {
			return i
		}
		at := int(m.Off)
		h := (*[pkt.EthernetSize]byte)(mem[at : at+pkt.EthernetSize])
		etherType := binary.LittleEndian.Uint16(h[12:14])
		if etherType != wireIPv4 && etherType != wireIPv6 || binary.LittleEndian.Uint64(h[0:8])&macMask != mac ||
			peer != 0 && binary.LittleEndian.Uint64(h[6:14])&macMask != peer {
			return i
		}
		if etherType == wireIPv6 {
			m.Flags |= graph.IPv6
		}
		m.L3 = pkt.EthernetSize
		next[i] = ethIP
	}
	return len(idx)
}

// classify says what becomes of a frame of any kind.
//
//fastpath:hot
func classify(st *State, mem []byte, m *graph.Meta) graph.Edge {
	if m.Head < pkt.EthernetSize {
		return dropped(m, graph.RxRunt)
	}
	at := int(m.Off)
	h := (*[pkt.EthernetSize]byte)(mem[at : at+pkt.EthernetSize])
	m.L3 = pkt.EthernetSize
	p, etherType := st.untag(mem, m, binary.LittleEndian.Uint16(h[12:14]))
	switch {
	case p == nil:
		return graph.Drop
	case binary.LittleEndian.Uint64(h[0:8])&macMask != p.mac && !groupAddress(m, h):
		return dropped(m, graph.NotForUs)
	case p.peer != 0 && binary.LittleEndian.Uint64(h[6:14])&macMask != p.peer:
		return dropped(m, graph.SpoofedMAC)
	}
	switch etherType {
	case wireIPv4:
		return ethIP
	case wireIPv6:
		m.Flags |= graph.IPv6
		return ethIP
	case wireARP:
		return ethARP
	}
	return dropped(m, graph.EthType)
}

// EtherTypes as a little-endian load of the wire's bytes sees them.
const (
	wireIPv4 = pkt.EtherIPv4>>8 | pkt.EtherIPv4&0xff<<8
	wireIPv6 = pkt.EtherIPv6>>8 | pkt.EtherIPv6&0xff<<8
	wireARP  = pkt.EtherARP>>8 | pkt.EtherARP&0xff<<8
	wireVLAN = pkt.EtherVLAN>>8 | pkt.EtherVLAN&0xff<<8
	wireQinQ = pkt.EtherQinQ>>8 | pkt.EtherQinQ&0xff<<8
)

// groupAddress says whether a frame is for a group, and notes it.
func groupAddress(m *graph.Meta, h *[pkt.EthernetSize]byte) bool {
	if h[0]&1 == 0 {
		return false
	}
	m.Flags |= graph.Broadcast
	return true
}

// untag finds the sub-port of a tagged frame and the EtherType behind the tag;
// an untagged frame of another type stays what it is.
// VLAN 0 is priority only (IEEE 802.1Q section 9.6): the frame is untagged.
func (s *State) untag(mem []byte, m *graph.Meta, etherType uint16) (*Port, uint16) {
	if etherType != wireVLAN && etherType != wireQinQ {
		return s.port(m.InPort), etherType
	}
	if m.Head < pkt.EthernetSize+pkt.VLANSize {
		m.Reason = graph.RxRunt
		return nil, 0
	}
	tag := mem[m.Off+pkt.EthernetSize : m.Off+pkt.EthernetSize+pkt.VLANSize]
	inner := binary.LittleEndian.Uint16(tag[2:])
	if inner == wireVLAN || inner == wireQinQ {
		m.Reason = graph.VLANStack
		return nil, 0
	}
	m.L3 += pkt.VLANSize
	m.VLAN = binary.BigEndian.Uint16(tag) & 0xfff
	if m.VLAN != 0 {
		sub, ok := s.SubPorts[SubPort{Main: m.InPort, VLAN: m.VLAN}]
		if !ok || etherType != wireVLAN { // a provider's VLAN (802.1ad) is not the customer's of that number
			m.Reason = graph.VLANUnknown
			return nil, 0
		}
		m.InPort = sub
	}
	return s.port(m.InPort), inner
}

// dropped notes why a packet is dropped and answers with the edge that does it.
//
//fastpath:hot
func dropped(m *graph.Meta, r graph.Reason) graph.Edge {
	m.Reason = r
	return graph.Drop
}
